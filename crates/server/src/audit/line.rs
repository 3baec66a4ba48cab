//! One line of the audit log: who, what, about what, and how it ended. There is no place in it for content.

use std::fmt;
use std::net::IpAddr;

use concord_model::{Class, ExchangeId, Identity, Lane, Name, ParticipantCode, Reason, Refusal, Right, Timestamp};
use concord_wire::convert::timestamp;
use concord_wire::proto::operations::v1::RetentionReport;
use serde::{Deserialize, Serialize};

/// What is kept of what a line is about. Names of the protocol are shorter.
const ABOUT_MAX_CHARS: usize = 256;

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// Who it is by its certificate, under an anchor that counts.
    Caller(Identity),
    /// Somebody there who did not show who it is.
    Address(IpAddr),
    /// Somebody who cannot be told.
    Unknown,
    /// This server by itself, or whoever has its machine.
    Server,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller(identity) => identity.fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Unknown => f.write_str("unknown"),
            Self::Server => f.write_str("server"),
        }
    }
}

/// What something is about: made of names and numbers of the protocol only, so that nothing that somebody wrote gets into it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Object(String);

impl Object {
    /// Nothing in particular, or what the caller did not name.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Words of this program, a number among them.
    pub fn words(words: &'static str) -> Self {
        Self(words.to_owned())
    }

    /// An agency of the own participant, and what of its rights, if it is about that.
    pub fn agency(name: &Name, right: Option<&Right>) -> Self {
        let right = right.map_or_else(String::new, |right| format!(": {right}"));
        Self::cut(&format!("agency {name}{right}"))
    }

    /// The keys of a participant.
    pub fn keys_of(whose: &ParticipantCode) -> Self {
        Self::cut(&format!("keys of {whose}"))
    }

    /// A statement of an officer, and what it says as the ledger puts it: in names only.
    pub fn statement(of: &ParticipantCode, officer: &Name, number: u64, in_names: &str) -> Self {
        Self::cut(&format!("statement {number} of {of} officer {officer}: {in_names}"))
    }

    /// A mailbox.
    pub fn mailbox(lane: Lane) -> Self {
        Self(format!("mailbox {lane}"))
    }

    /// An exchange, by its id.
    pub fn exchange(id: &ExchangeId) -> Self {
        Self(format!("exchange {id}"))
    }

    /// The same, and that it is an exercise where it is one.
    pub fn marked_exchange(id: &ExchangeId, is_exercise: bool) -> Self {
        Self(format!("exchange {id}{}", if is_exercise { ", EXERCISE" } else { "" }))
    }

    /// A consignment as far as it is named.
    pub fn consignment(of: &ParticipantCode, lane: Lane, number: Option<u64>) -> Self {
        let number = number.map_or_else(String::new, |number| format!(" {number}"));
        Self(format!("consignment{number} of {of} lane {lane}"))
    }

    /// A history of the own journal.
    pub fn history(history: impl fmt::Display) -> Self {
        Self::cut(&format!("history {history}"))
    }

    /// What a run of the retention took.
    pub fn retention(report: Option<&RetentionReport>) -> Self {
        let exchanges = report.map_or(0, |report| report.rows.iter().map(|row| row.exchanges).sum());
        Self::count(exchanges, "exchanges")
    }

    /// A number with what it counts.
    fn count(count: u64, of: &'static str) -> Self {
        Self(format!("{count} {of}"))
    }

    fn cut(text: &str) -> Self {
        Self(text.chars().take(ABOUT_MAX_CHARS).collect())
    }
}

/// What happened, before it is a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where: `grpc`, `admin`, or `local` for what was done on the machine itself.
    pub listener: &'static str,
    /// Who.
    pub by: Actor,
    /// What was called, a method of the protocol or a word of this program; never what a caller made up.
    pub method: &'static str,
    /// About what.
    pub about: Object,
    /// The stable reason where it was refused.
    pub refused: Option<&'static str>,
}

impl Event {
    /// Something that a caller of the gRPC listener did, or was refused.
    pub fn of_call(by: &Identity, method: &'static str, about: Object, outcome: Result<(), Reason>) -> Self {
        Self {
            listener: "grpc",
            by: Actor::Caller(by.clone()),
            method,
            about,
            refused: outcome.err().map(Reason::code),
        }
    }

    /// Something that was done on the machine, or by the server itself.
    pub fn local(method: &'static str, about: Object) -> Self {
        Self { listener: "local", by: Actor::Server, method, about, refused: None }
    }
}

/// The outcome of a call for a line.
pub fn outcome<T>(of: &Result<T, Refusal>) -> Result<(), Reason> {
    of.as_ref().map(drop).map_err(|refusal| refusal.reason)
}

/// Whether something was refused by a rule: what passes as it is a moment later is no line of its own.
pub const fn is_by_rule(reason: Reason) -> bool {
    !matches!(reason.class(), Class::Exhausted | Class::Unavailable | Class::Superseded)
}

/// One line as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// Numbers go up without regard to where a line stands; those of lines that were lost are missing.
    pub number: u64,
    /// RFC 3339.
    pub time: String,
    /// Where.
    pub listener: String,
    /// A URI name, an address, `server` or `unknown`.
    pub caller: String,
    /// What was called.
    pub method: String,
    /// About what.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// `ok`, or the stable reason.
    pub outcome: String,
    /// How many more like it, of the same caller, were not written since.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl AuditLine {
    pub(super) const OK: &'static str = "ok";

    pub(super) fn of(event: &Event, number: u64, at: Timestamp, more: u64) -> Self {
        Self {
            number,
            time: timestamp(at).to_string(),
            listener: event.listener.to_owned(),
            caller: event.by.to_string(),
            method: event.method.to_owned(),
            about: event.about.0.clone(),
            outcome: event.refused.unwrap_or(Self::OK).to_owned(),
            more,
        }
    }

    /// Whether something was refused.
    pub fn is_refused(&self) -> bool {
        self.outcome != Self::OK
    }
}
