//! An HTTP proxy of the tests' own that takes CONNECT, on real sockets: it lets through, refuses, asks who is calling, or is none.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

/// A TLS hello with a hybrid key share is larger than this, and one without is smaller.
const LARGE_HELLO_BYTES: usize = 1000;
/// The code point of X25519MLKEM768 among the groups that a hello offers.
const HYBRID_GROUP: [u8; 2] = [0x11, 0xEC];

/// What the proxy does with who comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manner {
    /// Connects it.
    Passes,
    /// Connects who shows these credentials, `user:password` in base64; others hear 407.
    Asks(String),
    /// Answers with this status line.
    Answers(String),
    /// Speaks another protocol.
    Strange,
    /// Connects it, and lets nothing through of a connection whose first message is large.
    DropsLargeHellos,
}

/// What one connection brought.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// `host:port` that was asked for.
    pub target: String,
    /// The first bytes that came for the tunnel.
    pub hello: Vec<u8>,
}

impl Seen {
    /// Whether the hybrid key exchange was offered.
    pub fn offers_hybrid(&self) -> bool {
        self.hello.windows(2).any(|pair| pair == HYBRID_GROUP) && self.hello.len() > LARGE_HELLO_BYTES
    }
}

/// A proxy that listens on a port of its own. Dropped, it takes no more.
pub struct ConnectProxy {
    address: SocketAddr,
    shared: Arc<Mutex<State>>,
}

struct State {
    manner: Manner,
    seen: Vec<Seen>,
    open: Vec<TcpStream>,
    ended: bool,
}

impl ConnectProxy {
    /// Begins to listen.
    pub fn new(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(State { manner, seen: Vec::new(), open: Vec::new(), ended: false }));
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if lock(&serving).ended {
                    return;
                }
                let serving = Arc::clone(&serving);
                // Whoever goes away in the middle has had what it wanted.
                thread::spawn(move || serve(client, &serving).ok());
            }
        });
        Self { address, shared }
    }

    /// As a setting names it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it does so; what stands is cut.
    pub fn behave(&self, manner: Manner) {
        let mut state = lock(&self.shared);
        state.manner = manner;
        for open in state.open.drain(..) {
            let _closed = open.shutdown(Shutdown::Both);
        }
    }

    /// What came until now through tunnels.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared).seen.clone()
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.behave(Manner::Strange);
        lock(&self.shared).ended = true;
        let _woken = TcpStream::connect(self.address);
    }
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap()
}

fn serve(mut client: TcpStream, shared: &Mutex<State>) -> io::Result<()> {
    let manner = lock(shared).manner.clone();
    if manner == Manner::Strange {
        return client.write_all(b"SSH-2.0-Other\r\n");
    }
    let head = read_head(&mut client)?;
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let knows = |word: &str| head.contains(&format!("Proxy-Authorization: Basic {word}\r\n"));
    match &manner {
        Manner::Answers(status) => return write!(client, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"),
        Manner::Asks(word) if !knows(word) => {
            return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
        }
        _ => {}
    }
    let Ok(mut server) = TcpStream::connect(&target) else {
        return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
    };
    client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 story\r\n\r\n")?;
    let mut hello = vec![0; 16 * 1024];
    // A first message may come in pieces: what its record says of its length is waited for.
    let mut count = 0;
    loop {
        let read = client.read(&mut hello[count..])?;
        count += read;
        let wanted = if count < 5 { 5 } else { 5 + usize::from(u16::from_be_bytes([hello[3], hello[4]])) };
        if read == 0 || count >= wanted.min(hello.len()) {
            break;
        }
    }
    hello.truncate(count);
    {
        let mut state = lock(shared);
        state.seen.push(Seen { target, hello: hello.clone() });
        state.open.extend([client.try_clone()?, server.try_clone()?]);
    }
    if manner == Manner::DropsLargeHellos && hello.len() > LARGE_HELLO_BYTES {
        return client.shutdown(Shutdown::Both);
    }
    server.write_all(&hello)?;
    let (mut back, mut to_client) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ended = io::copy(&mut back, &mut to_client);
        let _closed = to_client.shutdown(Shutdown::Both);
    });
    io::copy(&mut client, &mut server)?;
    server.shutdown(Shutdown::Both)
}

fn read_head(client: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 4096 {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
