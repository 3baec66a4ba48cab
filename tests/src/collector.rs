//! A collector of traces, as OpenTelemetry's is one: it takes what is posted to it, and keeps it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use serde_json::Value;

use crate::command::DEADLINE;

/// What a process posted.
#[derive(Debug)]
pub struct Posted {
    /// The path, and the headers, one on each line.
    pub head: String,
    /// The whole text.
    pub body: String,
}

/// A listening collector.
pub struct Collector {
    address: String,
    posted: Receiver<Posted>,
    /// All that came so far.
    seen: Vec<Posted>,
}

impl Collector {
    /// At a port of its own.
    pub fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (sender, posted) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                thread::spawn(move || take(stream, &sender));
            }
        });
        Self { address, posted, seen: Vec::new() }
    }

    /// `http://127.0.0.1:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The first span with this name, once it came.
    #[track_caller]
    pub fn await_span(&mut self, name: &str) -> Value {
        loop {
            let came = self.seen.iter().flat_map(|posted| spans(&posted.body)).find(|span| span["name"] == name);
            if let Some(span) = came {
                return span;
            }
            let posted = self.posted.recv_timeout(DEADLINE);
            self.seen.push(posted.unwrap_or_else(|_| panic!("no span {name} came, only {:?}", self.seen)));
        }
    }

    /// Everything that came.
    pub fn all(&mut self) -> &[Posted] {
        self.seen.extend(self.posted.try_iter());
        &self.seen
    }
}

/// The spans of a batch.
pub fn spans(body: &str) -> Vec<Value> {
    let batch: Value = serde_json::from_str(body).unwrap();
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let scopes = list(&batch, "resourceSpans").into_iter().flat_map(|resource| list(&resource, "scopeSpans"));
    scopes.flat_map(|scope| list(&scope, "spans")).collect()
}

fn take(stream: TcpStream, sender: &Sender<Posted>) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let _ = reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
    let _ = sender.send(Posted { head, body: String::from_utf8(body).unwrap() });
}
