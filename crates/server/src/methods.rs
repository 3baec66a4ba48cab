//! The method table: method → who may call. What is not in it is denied, and denied alike.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use concord_identity::Caller;
use concord_model::{Identity, ParticipantCode, Reason, Refusal, Role};
use concord_wire::status::to_status;
use futures::future::{Either, Ready, ready};
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use crate::audit::{Actor, Audit, Event, Object};

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// `/package.Service/Method`, as it stands in the HTTP/2 path.
    pub method: &'static str,
    /// Who may call it; whoever matches one of these.
    pub allow: &'static [Allow],
}

/// Callers of a role, of certain participants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allow {
    /// The role in the caller's certificate.
    pub role: Role,
    /// Whose certificate it is.
    pub whose: Whose,
}

/// Of which participant a caller has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Of the participant that runs this server.
    OwnParticipant,
    /// Of the secretariat.
    Secretariat,
    /// Of any: whoever passed the handshake.
    AnyParticipant,
}

/// Everybody who passed a handshake. A hub calls nobody: no listener lets one in.
pub const EVERYBODY: &[Allow] = &[
    Allow { role: Role::Node, whose: Whose::AnyParticipant },
    Allow { role: Role::Agency, whose: Whose::AnyParticipant },
    Allow { role: Role::Officer, whose: Whose::AnyParticipant },
    Allow { role: Role::Operator, whose: Whose::AnyParticipant },
];

/// The rows of the services that every server has. They tell nothing about exchanges, agreements or others.
pub const HEALTH_AND_REFLECTION: &[Row] = &[
    Row { method: "/grpc.health.v1.Health/Check", allow: EVERYBODY },
    Row { method: "/grpc.health.v1.Health/Watch", allow: EVERYBODY },
    Row { method: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", allow: EVERYBODY },
];

/// All rows of one server. Health and reflection are always in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodTable {
    own: ParticipantCode,
    rows: BTreeMap<&'static str, &'static [Allow]>,
}

impl MethodTable {
    /// The table of the server that `own` runs. Of two rows for one method the later one counts.
    pub fn new(own: ParticipantCode, rows: &[Row]) -> Self {
        let rows = HEALTH_AND_REFLECTION.iter().chain(rows);
        Self { own, rows: rows.map(|row| (row.method, row.allow)).collect() }
    }

    /// Whether the table lets this caller call the method at this path.
    pub fn allows(&self, path: &str, caller: &Identity) -> bool {
        let allowed = self.rows.get(path).copied().unwrap_or_default();
        allowed.iter().any(|allow| allow.role == caller.role && self.is_of(caller, allow.whose))
    }

    fn is_of(&self, caller: &Identity, whose: Whose) -> bool {
        match whose {
            Whose::OwnParticipant => caller.participant == self.own,
            Whose::Secretariat => caller.participant == ParticipantCode::secretariat(),
            Whose::AnyParticipant => true,
        }
    }

    /// Who runs the server.
    pub(crate) fn own(&self) -> &ParticipantCode {
        &self.own
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = (&'static str, &'static [Allow])> + '_ {
        self.rows.iter().map(|(method, allow)| (*method, *allow))
    }

    pub(crate) fn row(&self, path: &str) -> Option<&'static [Allow]> {
        self.rows.get(path).copied()
    }
}

/// Asks the table before anything else does.
///
/// It stands outermost, right behind the connection that knows the caller: nothing of a denied call is read, decoded,
/// routed or timed, so that a method that does not exist and one that is not for the caller cannot be told apart.
#[derive(Clone)]
pub struct MethodLayer(Arc<MethodTable>, Audit);

impl MethodLayer {
    /// A layer that asks this table, and notes what it denies.
    pub fn new(table: Arc<MethodTable>, audit: Audit) -> Self {
        Self(table, audit)
    }
}

/// The method that was called, in the extensions of a request that the table let through.
#[derive(Debug, Clone, Copy)]
pub struct Called(pub &'static str);

impl<S> Layer<S> for MethodLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { table: Arc::clone(&self.0), audit: self.1.clone(), inner }
    }
}

/// A service behind the table.
#[derive(Clone)]
pub struct Guarded<S> {
    table: Arc<MethodTable>,
    audit: Audit,
    inner: S,
}

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Self::Response, Self::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        // The path of a denied call is the caller's invention: it becomes no label, and is logged only if it is a row.
        let method = self.table.rows.get_key_value(path).map_or("not in the table", |(method, _)| *method);
        // No caller means a listener that verifies nobody: denied like everything that is not in the table.
        let caller = request.extensions().get::<Caller>();
        let is_allowed = caller.is_some_and(|caller| self.table.allows(path, &caller.identity));
        if is_allowed || concord_faults::planted("let-anybody-call") {
            request.extensions_mut().insert(Called(method));
            return Either::Left(self.inner.call(request));
        }
        let by = caller.map_or(Actor::Unknown, |caller| Actor::Caller(caller.identity.clone()));
        tracing::info!(caller = %by, method, "a call was denied");
        let denied = denied(caller.map(|caller| &caller.identity));
        let (about, refused) = (Object::nothing(), Some(denied.reason.code()));
        self.audit.note(Event { listener: "grpc", by, method, about, refused });
        metrics::counter!("concord_calls_denied_total").increment(1);
        Either::Right(ready(Ok(to_status(&denied).into_http())))
    }
}

/// Says who the caller is taken for, since that is what people mistake, and nothing of the method.
pub fn denied(caller: Option<&Identity>) -> Refusal {
    let what = match caller {
        None => "this is not for a caller without a certificate".to_owned(),
        Some(Identity { participant, role, name }) => {
            format!("this is not for the {role} {name} of {participant}, whose certificate was shown")
        }
    };
    Refusal::new(Reason::CallerNotAllowed, what)
}

#[cfg(test)]
mod tests {
    use concord_identity::Admission;

    use super::*;

    const ROWS: &[Row] = &[
        Row { method: "/t.S/Own", allow: &[Allow { role: Role::Agency, whose: Whose::OwnParticipant }] },
        Row {
            method: "/t.S/Mixed",
            allow: &[
                Allow { role: Role::Node, whose: Whose::AnyParticipant },
                Allow { role: Role::Officer, whose: Whose::Secretariat },
            ],
        },
        Row { method: "/t.S/Nobody", allow: &[] },
    ];

    fn check(method: &str, expected: &[&str]) {
        let table = MethodTable::new(ParticipantCode::parse("KAZ").unwrap(), ROWS);
        let mut allowed = Vec::new();
        for code in ["kaz", "sec", "uzb"] {
            for role in Role::ALL {
                let identity = format!("spiffe://{code}.concord/{role}/x").parse::<Identity>();
                if identity.is_ok_and(|identity| table.allows(method, &identity)) {
                    allowed.push(format!("{code}/{role}"));
                }
            }
        }
        assert_eq!(allowed, expected, "{method}");
    }

    #[test]
    fn everybody_is_whoever_a_listener_lets_in_and_nobody_else() {
        let kaz = ParticipantCode::parse("KAZ").unwrap();
        let doors = [Admission::hub(), Admission::node(&kaz), Admission::operators(&kaz)];
        for role in Role::ALL {
            let of = |code| format!("spiffe://{code}.concord/{role}/x").parse::<Identity>();
            let is_let_in = ["kaz", "sec"].into_iter().flat_map(of).any(|it| doors.iter().any(|door| door.allows(&it)));
            assert_eq!(EVERYBODY.iter().any(|allow| allow.role == role), is_let_in, "{role}");
        }
    }

    #[test]
    fn each_row_lets_in_exactly_whom_it_names_and_no_row_means_nobody() {
        check("/t.S/Own", &["kaz/agency"]);
        check("/t.S/Mixed", &["kaz/node", "sec/node", "sec/officer", "uzb/node"]);
        for method in ["/t.S/Nobody", "/t.S/Other", "/t.S/Own/", "t.S/Own", "/t.s/own", "", "/"] {
            check(method, &[]);
        }
    }
}
