//! HTTP/2 by hand over real TLS: frames that no library would send, to a server that runs.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use concord_identity::{
    Anchor, Anchors, Application, Credentials, ExpectedServer, Profile, client_config, read_text, server_name,
};
use concord_model::ParticipantCode;
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::command::DEADLINE;
use crate::forum::Forum;

/// What every client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD_BYTES: usize = 9;

/// The types of frames (RFC 9113, section 6).
#[allow(missing_docs, reason = "the names are the standard's")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
    /// None that anybody knows.
    pub const UNKNOWN: u8 = 0x42;
}

/// Flags of frames.
#[allow(missing_docs, reason = "the names are the standard's")]
pub mod flag {
    pub const NONE: u8 = 0;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
}

/// Error code of a GOAWAY: the peer misbehaves, and is told so.
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_HEAD_BYTES + payload.len());
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// One setting, as a SETTINGS frame has it.
pub fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// One header field that goes into no table (HPACK, literal, no Huffman).
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        prefixed(&mut bytes, 0, 7, text.len());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// One header field that goes into the peer's table, where it is number 62 then.
pub fn remembered_field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = field(name, value);
    bytes[0] = 0x40;
    bytes
}

/// An integer of HPACK behind so many bits that are taken.
fn prefixed(bytes: &mut Vec<u8>, first: u8, bits: u32, mut value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        bytes.push(first | value as u8);
        return;
    }
    bytes.push(first | most as u8);
    value -= most;
    while value >= 128 {
        bytes.push(0x80 | (value % 128) as u8);
        value /= 128;
    }
    bytes.push(value as u8);
}

/// The header fields of a gRPC call.
pub fn call_to(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// Somebody who attacks one server.
#[derive(Clone)]
pub struct Attacker {
    address: SocketAddr,
    from: IpAddr,
    tls: Arc<ClientConfig>,
}

/// Shows no certificate.
#[derive(Debug)]
struct Nobody;

impl ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

impl Attacker {
    /// Somebody with the certificate of a participant's node, at the hub.
    pub fn node_at_hub(forum: &Forum, code: &str) -> Self {
        let (dir, hub) = (forum.node_dir(code), forum.hub_dir());
        let credentials = Credentials::load(&dir.join("tls/certificate.pem"), &dir.join("tls/key.pem")).unwrap();
        let anchor = Anchor::from_pem(&read_text(&hub.join("anchor/certificate.pem")).unwrap()).unwrap();
        let anchors = Anchors::pinned(ParticipantCode::secretariat(), anchor);
        let tls = client_config(&credentials, &anchors, ExpectedServer::AnyHub, Application::Grpc).unwrap();
        Self::with(&forum.address(&hub, "listen"), tls)
    }

    /// Somebody with the profile of an agency, at its node.
    pub fn agency_at_node(forum: &Forum, code: &str, name: &str) -> Self {
        let profile = Profile::load(&forum.node_dir(code).join("agencies").join(name)).unwrap();
        Self::with(&profile.address().unwrap(), profile.client_config().unwrap())
    }

    fn with(address: &str, tls: Arc<ClientConfig>) -> Self {
        Self { address: address.parse().unwrap(), from: [127, 0, 0, 1].into(), tls }
    }

    /// The same without a certificate.
    #[must_use]
    pub fn without_certificate(mut self) -> Self {
        let tls = Arc::make_mut(&mut self.tls);
        tls.client_auth_cert_resolver = Arc::new(Nobody);
        self
    }

    /// The same from another address of the loopback.
    #[must_use]
    pub fn from_address(mut self, from: IpAddr) -> Self {
        self.from = from;
        self
    }

    /// A connection without TLS on it.
    pub async fn reach(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.from, 0))?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A connection past this side's handshake, on which nothing was said yet.
    pub async fn handshake(&self) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        connector.connect(server_name(&self.address.to_string()), self.reach().await?).await
    }

    /// A connection that has said the preface and these settings.
    pub async fn connect(&self, settings: &[u8]) -> io::Result<Wire> {
        let (read, mut write) = tokio::io::split(self.handshake().await?);
        write.write_all(&[PREFACE, &frame(kind::SETTINGS, 0, 0, settings)].concat()).await?;
        write.flush().await?;
        Ok(Wire { read, write })
    }
}

/// A connection that speaks HTTP/2 by hand.
pub struct Wire {
    read: ReadHalf<TlsStream<TcpStream>>,
    write: WriteHalf<TlsStream<TcpStream>>,
}

/// What became of an attack on one connection.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    /// Chunks that were written.
    pub written: u64,
    /// The error code and the words of the GOAWAY, if one came.
    pub told: Option<(u32, String)>,
    /// How many streams the server reset, by error code.
    pub resets: BTreeMap<u32, u64>,
    /// Whether the server closed the connection, or said that it will.
    pub dropped: bool,
}

impl Wire {
    /// Says one thing, as it is.
    pub async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write.write_all(bytes).await?;
        self.write.flush().await
    }

    /// Writes chunk after chunk, `most` at the most, until the server ends it or `stop` is set; where it reads, it reads all that
    /// comes meanwhile. Afterwards it waits for the server's end, where one is due.
    pub async fn flood(
        self,
        mut chunk: impl FnMut(u64) -> Vec<u8>,
        most: u64,
        reads: bool,
        awaits_end: bool,
        stop: &AtomicBool,
    ) -> Outcome {
        let Self { mut read, mut write } = self;
        let ended = Arc::new(AtomicBool::new(false));
        let seen_end = Arc::clone(&ended);
        let reading = async move {
            let mut outcome = Outcome::default();
            if reads {
                listen(&mut read, &mut outcome).await;
                seen_end.store(true, Ordering::Release);
            }
            (outcome, read)
        };
        let writing = async {
            let mut written = 0;
            while written < most && !stop.load(Ordering::Relaxed) && !ended.load(Ordering::Acquire) {
                let chunk = chunk(written);
                if chunk.is_empty() {
                    // All was said: what is left of the attack is that it stands.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
                // One that is not read any more may take nothing more either, for as long as it stands.
                match timeout(Duration::from_secs(1), write.write_all(&chunk)).await {
                    Ok(Ok(())) => written += 1,
                    Ok(Err(_)) => return (written, true),
                    Err(_) => break,
                }
            }
            let _ = timeout(Duration::from_secs(1), write.flush()).await;
            (written, ended.load(Ordering::Acquire))
        };
        let reading = tokio::spawn(reading);
        let (written, failed) = writing.await;
        if !reads {
            let (mut outcome, mut read) = reading.await.unwrap();
            if awaits_end {
                outcome.dropped = timeout(DEADLINE, listen(&mut read, &mut outcome)).await.is_ok();
            }
            return Outcome { written, dropped: outcome.dropped || failed, ..outcome };
        }
        let outcome = if awaits_end || failed {
            timeout(DEADLINE, reading).await.map_or_else(|_| Outcome::default(), |outcome| outcome.unwrap().0)
        } else {
            reading.abort();
            reading.await.map_or_else(|_| Outcome::default(), |(outcome, _)| outcome)
        };
        Outcome { written, ..outcome }
    }

    /// Listens until the server ends the connection.
    pub async fn until_end(mut self) -> Outcome {
        let mut outcome = Outcome::default();
        let _in_time = timeout(DEADLINE, listen(&mut self.read, &mut outcome)).await;
        outcome
    }
}

/// Reads frames until the connection ends.
async fn listen(read: &mut ReadHalf<TlsStream<TcpStream>>, outcome: &mut Outcome) {
    let mut head = [0; FRAME_HEAD_BYTES];
    loop {
        if read.read_exact(&mut head).await.is_err() {
            outcome.dropped = true;
            return;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if read.read_exact(&mut payload).await.is_err() {
            outcome.dropped = true;
            return;
        }
        let code = |at: usize| payload.get(at..at + 4).map(|code| u32::from_be_bytes(code.try_into().unwrap()));
        match head[3] {
            kind::RST_STREAM => *outcome.resets.entry(code(0).unwrap_or_default()).or_default() += 1,
            kind::GOAWAY => {
                let words = payload.get(8..).map(String::from_utf8_lossy).unwrap_or_default().into_owned();
                outcome.told = Some((code(4).unwrap_or_default(), words));
            }
            _ => {}
        }
    }
}
