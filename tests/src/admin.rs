//! The admin listener, asked as a monitoring tool does.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::command::DEADLINE;

/// An answer.
#[derive(Debug)]
pub struct Page {
    /// HTTP's.
    pub status: u16,
    /// Without the head.
    pub body: String,
}

/// Asks an admin listener for a page.
pub fn get(address: &str, path: &str) -> Page {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {path}: {text}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    Page { status, body: body.to_owned() }
}
