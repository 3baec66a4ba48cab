//! Through an HTTP proxy, by CONNECT: it sees where a connection goes and nothing of what is in it. TLS begins behind it, with the
//! server, under the pinned anchor.
//!
//! *Invariant: of a proxy at most [`PROXY_ANSWER_SIZE_MAX_BYTES`] are read, and not one byte of them gets into the tunnel.*

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::sockets::Socket;

/// A proxy's answer to CONNECT, head and all. A longer one is none.
pub const PROXY_ANSWER_SIZE_MAX_BYTES: usize = 8 * 1024;
/// From CONNECT to its answer: the proxy connects to the server meanwhile.
pub const PROXY_ANSWER_TIMEOUT_SECONDS: u64 = 8;

const CREDENTIALS_SIZE_MAX_BYTES: usize = 512;
const REASON_SHOWN_MAX_CHARS: usize = 80;
const OTHERS_MAY_READ: u32 = 0o077;
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A proxy that takes CONNECT, and what it is told of who asks. Shows no credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    address: String,
    authorization: Option<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = if self.authorization.is_some() { ", with credentials" } else { "" };
        write!(f, "Proxy({}{with})", self.address)
    }
}

impl Proxy {
    /// Reads `http://host:port`. An error says what is wrong with it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let malformed = |why: &str| format!("proxy = \"{url}\" {why}; write http://host:port");
        let uri = url.parse::<Uri>().map_err(|error| malformed(&format!("is no address ({error})")))?;
        if uri.scheme_str() != Some("http") {
            return Err(malformed("does not begin with http://"));
        }
        let authority = uri.authority().ok_or_else(|| malformed("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(malformed("has credentials in it, which go into a file of their own (proxy_credentials)"));
        }
        if authority.host().is_empty() || authority.port_u16().is_none_or(|port| port == 0) {
            return Err(malformed("names no host and port"));
        }
        let has_path = uri.path_and_query().is_some_and(|path| path.as_str() != "/");
        if has_path {
            return Err(malformed("has something behind the port"));
        }
        Ok(Self { address: authority.as_str().to_owned(), authorization: None })
    }

    /// The same, with what a file of credentials says: one line, `user:password`.
    pub fn with_credentials(self, text: &str) -> Result<Self, String> {
        let line = text.trim_end_matches(['\r', '\n']);
        let is_one = !line.contains(char::is_control) && line.split_once(':').is_some_and(|(user, _)| !user.is_empty());
        if !is_one || line.len() > CREDENTIALS_SIZE_MAX_BYTES {
            return Err("it is not one line user:password".to_owned());
        }
        Ok(Self { authorization: Some(format!("Basic {}", STANDARD.encode(line))), ..self })
    }

    /// As settings name it: a URL, and the file of the credentials, if it asks for any. An error says what is wrong, and where.
    pub fn load(url: Option<&str>, credentials: Option<&Path>) -> Result<Option<Arc<Self>>, String> {
        let Some(url) = url else {
            return match credentials {
                None => Ok(None),
                Some(_) => Err("proxy_credentials is set, and no proxy is".to_owned()),
            };
        };
        let proxy = Self::parse(url)?;
        let Some(path) = credentials else { return Ok(Some(Arc::new(proxy))) };
        let unusable = |why: String| format!("the file of the proxy's credentials, {}: {why}", path.display());
        let found = fs::metadata(path).map_err(|error| unusable(error.to_string()))?;
        if found.permissions().mode() & OTHERS_MAY_READ != 0 {
            return Err(unusable("others may read it; run chmod 600 on it".to_owned()));
        }
        let text = concord_identity::read_text(path).map_err(|error| unusable(error.source.to_string()))?;
        proxy.with_credentials(&text).map(|proxy| Some(Arc::new(proxy))).map_err(unusable)
    }

    /// `host:port` of it.
    pub fn address(&self) -> &str {
        &self.address
    }

    fn request(&self, target: &str) -> String {
        let authorization = self.authorization.as_ref();
        let authorization = authorization.map(|word| format!("Proxy-Authorization: {word}\r\n")).unwrap_or_default();
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n")
    }
}

/// Why a proxy is no way to the server.
#[derive(Debug, thiserror::Error)]
pub enum ProxyRefusal {
    /// Its name leads nowhere.
    #[error("its name cannot be resolved: {0}; check the setting `proxy` and this machine's DNS")]
    NotResolved(io::Error),
    /// Nobody listens there.
    #[error("it does not take the connection: {0}; is it running, and are host and port in the setting `proxy` right?")]
    NotReached(io::Error),
    /// It asks who is calling.
    #[error("it asks for credentials (407); put user:password into a file and name it as `proxy_credentials`")]
    CredentialsMissing,
    /// It does not know who is calling.
    #[error("it does not take the credentials (407); correct the file that `proxy_credentials` names")]
    CredentialsRefused,
    /// It does not let anybody there.
    #[error(
        "it does not let connections to {target} through (403); ask who runs it to allow CONNECT to that host and port"
    )]
    Forbidden {
        /// To where.
        target: String,
    },
    /// It did not get there, or does not do CONNECT.
    #[error(
        "it answered {status} to CONNECT {target}; does it reach that address, and does it allow CONNECT to that port?"
    )]
    Refused {
        /// To where.
        target: String,
        /// Status and reason, made harmless.
        status: String,
    },
    /// What answered is no proxy.
    #[error("what answers there is no HTTP proxy: {0}; check the setting `proxy`")]
    NotAProxy(&'static str),
    /// It closed, or the connection broke.
    #[error("it ended the connection without an answer: {0}; does it serve this machine?")]
    Ended(io::Error),
    /// It says nothing.
    #[error("it did not answer within {PROXY_ANSWER_TIMEOUT_SECONDS} s; does it reach the address behind it?")]
    Silent,
}

impl ProxyRefusal {
    /// A stable word.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotResolved(_) | Self::NotReached(_) => "PROXY_UNREACHABLE",
            Self::CredentialsMissing | Self::CredentialsRefused => "PROXY_AUTHENTICATION",
            Self::Forbidden { .. } => "PROXY_FORBIDDEN",
            Self::Refused { .. } => "PROXY_REFUSED",
            Self::NotAProxy(_) | Self::Ended(_) | Self::Silent => "PROXY_ANSWER",
        }
    }
}

/// Asks for a tunnel to `target`, `host:port`. What comes on the socket after this is the server's.
pub(crate) async fn tunnel(socket: &mut impl Socket, proxy: &Proxy, target: &str) -> Result<(), ProxyRefusal> {
    socket.write_all(proxy.request(target).as_bytes()).await.map_err(ProxyRefusal::Ended)?;
    socket.flush().await.map_err(ProxyRefusal::Ended)?;
    let head = read_head(socket).await?;
    judge(&head, proxy, target)
}

/// Byte for byte up to the end of the head, so that nothing behind it is taken from the tunnel: a few hundred, once for a connection.
async fn read_head(socket: &mut impl Socket) -> Result<Vec<u8>, ProxyRefusal> {
    let mut head = Vec::new();
    while !head.ends_with(HEAD_END) {
        if head.len() >= PROXY_ANSWER_SIZE_MAX_BYTES {
            return Err(ProxyRefusal::NotAProxy("its answer has no end"));
        }
        match socket.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if head.is_empty() => return Err(ProxyRefusal::Ended(error)),
            Err(_) => return Err(ProxyRefusal::NotAProxy("its answer breaks off")),
        }
        // Something else, such as a TLS server, is found out by its first bytes: it may never send the end that is waited for.
        if !begins_like_http(&head) {
            return Err(ProxyRefusal::NotAProxy("it does not speak HTTP/1.1"));
        }
    }
    Ok(head)
}

fn begins_like_http(head: &[u8]) -> bool {
    const BEGINNING: &[u8] = b"HTTP/1.";
    head.iter().zip(BEGINNING).all(|(one, other)| one == other)
}

fn judge(head: &[u8], proxy: &Proxy, target: &str) -> Result<(), ProxyRefusal> {
    let text = String::from_utf8_lossy(head);
    let line = text.lines().next().unwrap_or_default();
    let status = line.split_once(' ').map(|(_, status)| status).unwrap_or_default();
    let code = status.get(..3).and_then(|code| code.parse::<u16>().ok());
    match code {
        Some(200..=299) => Ok(()),
        Some(407) if proxy.authorization.is_some() => Err(ProxyRefusal::CredentialsRefused),
        Some(407) => Err(ProxyRefusal::CredentialsMissing),
        Some(403) => Err(ProxyRefusal::Forbidden { target: target.to_owned() }),
        Some(_) => {
            let status = status.chars().filter(|c| !c.is_control()).take(REASON_SHOWN_MAX_CHARS).collect();
            Err(ProxyRefusal::Refused { target: target.to_owned(), status })
        }
        None => Err(ProxyRefusal::NotAProxy("its answer has no status")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const TARGET: &str = "hub.example.org:7443";

    fn proxy() -> Proxy {
        Proxy::parse("http://proxy.example.kz:3128").unwrap()
    }

    /// What comes of this answer; what was asked; and what is left for the tunnel.
    async fn answered(proxy: &Proxy, answer: &[u8]) -> (Result<(), ProxyRefusal>, String, Vec<u8>) {
        let (mut own, mut other) = duplex(64 * 1024);
        other.write_all(answer).await.unwrap();
        let outcome = tunnel(&mut own, proxy, TARGET).await;
        let (mut asked, mut left) = (vec![0; 1024], Vec::new());
        let count = other.read(&mut asked).await.unwrap();
        drop(other);
        own.read_to_end(&mut left).await.unwrap();
        (outcome, String::from_utf8_lossy(&asked[..count]).into_owned(), left)
    }

    #[tokio::test]
    async fn what_is_behind_the_answer_is_the_servers_whole() {
        let answer = b"HTTP/1.0 200 Connection established\r\nVia: x\r\n\r\n\x16\x03\x03rest";
        let (outcome, asked, left) = answered(&proxy(), answer).await;
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(asked, format!("CONNECT {TARGET} HTTP/1.1\r\nHost: {TARGET}\r\n\r\n"));
        assert_eq!(left, b"\x16\x03\x03rest");
    }

    #[tokio::test]
    async fn each_refusal_has_its_own_word() {
        let known = proxy().with_credentials("ann:it's: a word\n").unwrap();
        let (outcome, asked, _) = answered(&known, b"HTTP/1.1 407 No\r\n\r\n").await;
        assert!(matches!(outcome, Err(ProxyRefusal::CredentialsRefused)), "{outcome:?}");
        assert!(asked.contains("\r\nProxy-Authorization: Basic YW5uOml0J3M6IGEgd29yZA==\r\n"), "{asked}");
        assert!(!format!("{known:?}").contains("YW5u"));
        let endless = [b"HTTP/1.1 200 OK\r\n".as_slice(), &[b'x'; 2 * PROXY_ANSWER_SIZE_MAX_BYTES]].concat();
        for (answer, code) in [
            (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n".as_slice(), "PROXY_AUTHENTICATION"),
            (b"HTTP/1.1 403 Forbidden\r\n\r\n", "PROXY_FORBIDDEN"),
            (b"HTTP/1.1 502 Bad \x1b[31mGateway\r\n\r\n", "PROXY_REFUSED"),
            (b"HTTP/1.1 405\r\n\r\n", "PROXY_REFUSED"),
            (b"HTTP/1.1 \r\n\r\n", "PROXY_ANSWER"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "PROXY_ANSWER"),
            (b"\x15\x03\x03\x00\x02\x02\x16", "PROXY_ANSWER"),
            (&endless, "PROXY_ANSWER"),
        ] {
            let (outcome, ..) = answered(&proxy(), answer).await;
            let refusal = outcome.unwrap_err();
            assert_eq!(refusal.code(), code, "{refusal}");
            assert!(!refusal.to_string().contains('\u{1b}'), "{refusal}");
        }
    }

    #[test]
    fn a_setting_that_is_no_proxy_is_refused_by_name() {
        for (url, why) in [
            ("proxy.example.kz:3128", "http://"),
            ("https://proxy.example.kz:3128", "http://"),
            ("http://proxy.example.kz", "port"),
            ("http://proxy.example.kz:0", "port"),
            ("http://ann:word@proxy.example.kz:3128", "proxy_credentials"),
            ("http://proxy.example.kz:3128/path", "behind the port"),
            ("", "is no address"),
        ] {
            let error = Proxy::parse(url).unwrap_err();
            assert!(error.contains(why) && error.contains("write http://host:port"), "{url}: {error}");
        }
        assert_eq!(Proxy::parse("http://[::1]:3128/").map(|proxy| proxy.address), Ok("[::1]:3128".to_owned()));
        for text in ["", "ann", ":word", "ann:word\nbob:word", "ann:\u{7}"] {
            assert!(proxy().with_credentials(text).is_err(), "{text:?}");
        }
    }
}
