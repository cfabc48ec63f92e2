//! PostgreSQL's protocol, as far as a proxy has to understand it: where a message ends, which one carries a statement and
//! which one is a COMMIT.
//!
//! Owns: framing. Must never: change a byte.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

/// What a client's first messages ask for.
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// One message of the client.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) bytes: Bytes,
    pub(super) kind: Kind,
}

/// What it is, as far as faults care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Asks for encryption: the server answers with one byte.
    Encryption,
    /// Opens the session (or cancels another one's query).
    Startup,
    /// Runs a statement with this text.
    Statement(String),
    /// Ends the session; nobody answers.
    Terminate,
    /// Any other, or encrypted bytes.
    Other,
}

impl Message {
    pub(super) fn is_commit(&self) -> bool {
        let Kind::Statement(text) = &self.kind else { return false };
        let first = text.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        first.eq_ignore_ascii_case("commit") || first.eq_ignore_ascii_case("end")
    }
}

/// Reads a client's messages.
#[derive(Debug, Default)]
pub(super) struct FromClient {
    pub(super) buffer: BytesMut,
    started: bool,
    opaque: bool,
    statements: HashMap<Bytes, String>,
    portals: HashMap<Bytes, String>,
}

impl FromClient {
    /// From here on bytes are encrypted, and each read counts as a message.
    pub(super) fn go_opaque(&mut self) {
        self.opaque = true;
    }

    pub(super) fn is_opaque(&self) -> bool {
        self.opaque
    }

    /// The next whole message.
    pub(super) fn next(&mut self) -> Option<Message> {
        if self.opaque {
            return (!self.buffer.is_empty())
                .then(|| Message { bytes: self.buffer.split().freeze(), kind: Kind::Other });
        }
        let header = usize::from(self.started);
        let length = number(self.buffer.get(header..)?)? as usize + header;
        if self.buffer.len() < length.max(header + 4) {
            return None;
        }
        let bytes = self.buffer.split_to(length.max(header + 4)).freeze();
        let kind = if self.started { self.kind(&bytes) } else { self.first(&bytes) };
        Some(Message { bytes, kind })
    }

    fn first(&mut self, bytes: &Bytes) -> Kind {
        if matches!(bytes.get(4..).and_then(number), Some(TLS | GSS)) {
            return Kind::Encryption;
        }
        self.started = true;
        Kind::Startup
    }

    fn kind(&mut self, bytes: &Bytes) -> Kind {
        let body = bytes.slice(5..);
        match bytes.first() {
            Some(b'Q') => Kind::Statement(text(&word(&body).0)),
            Some(b'P') => {
                let (name, rest) = word(&body);
                self.statements.insert(name, text(&word(&rest).0));
                Kind::Other
            }
            Some(b'B') => {
                let (portal, rest) = word(&body);
                let statement = self.statements.get(&word(&rest).0).cloned().unwrap_or_default();
                self.portals.insert(portal, statement);
                Kind::Other
            }
            Some(b'E') => Kind::Statement(self.portals.get(&word(&body).0).cloned().unwrap_or_default()),
            Some(b'X') => Kind::Terminate,
            _ => Kind::Other,
        }
    }
}

/// Reads a server's messages.
#[derive(Debug, Default)]
pub(super) struct FromServer {
    pub(super) buffer: BytesMut,
}

impl FromServer {
    /// The next whole message, and, where it says that the server waits for a query, in which state of a transaction.
    pub(super) fn next(&mut self) -> Option<(Bytes, Option<u8>)> {
        let length = number(self.buffer.get(1..)?)? as usize + 1;
        if self.buffer.len() < length.max(5) {
            return None;
        }
        let bytes = self.buffer.split_to(length.max(5)).freeze();
        let ready = (bytes.first() == Some(&b'Z')).then(|| bytes.get(5).copied().unwrap_or(b'I'));
        Some((bytes, ready))
    }
}

/// What a server says before it closes the connection.
pub(super) fn refusal(code: &str, message: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', code), (b'M', message)] {
        body.push(field);
        body.extend(value.bytes().filter(|byte| *byte != 0));
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&b"E"[..], &length.to_be_bytes(), &body].concat()
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// A text that ends with a zero, and what comes after.
fn word(bytes: &Bytes) -> (Bytes, Bytes) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    (bytes.slice(..end), bytes.slice((end + 1).min(bytes.len())..))
}

/// Enough of a statement to recognise it.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..bytes.len().min(4_096)).unwrap_or_default()).into_owned()
}
