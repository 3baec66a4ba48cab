//! The tables: everybody who could call, every method, and every relation to what a call is about.

use Who::*;
use bytes::Bytes;

use super::Stage;
use super::messages::*;

/// Everybody who could call, by the certificate that is shown. KAZ's node is the one that is called; IRN is another state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// Without a certificate.
    Anonymous,
    Agency,
    /// Another one of the same node.
    OtherAgency,
    /// One that its state's anchor vouches for and that nobody let in.
    UnknownAgency,
    ForeignAgency,
    Node,
    /// One that its state's anchor vouches for and that is not enrolled.
    SpareNode,
    ForeignNode,
    /// Of a state that the secretariat holds.
    HeldNode,
    Officer,
    ForeignOfficer,
    Operator,
    ForeignOperator,
    SecretariatsAgency,
    SecretariatsNode,
    SecretariatsOfficer,
    SecretariatsOperator,
    /// The hub's own name, shown by a client.
    Hub,
}
/// The certificate of each, and whether the handshake of hub and node lets it in. A held participant's node is let in, and hears here
/// what any node does whose calls do not say which run they are of: what those hear that do is in [`OF_RUN`].
pub(super) const CALLERS: &[(Who, &str, bool, bool)] = &[
    (Anonymous, "", false, false),
    (Agency, "spiffe://kaz.concord/agency/agency", false, true),
    (OtherAgency, "spiffe://kaz.concord/agency/second", false, true),
    (UnknownAgency, "spiffe://kaz.concord/agency/nobody", false, true),
    (ForeignAgency, "spiffe://irn.concord/agency/agency", false, false),
    (Node, "spiffe://kaz.concord/node/main", true, false),
    (SpareNode, "spiffe://kaz.concord/node/spare", true, false),
    (ForeignNode, "spiffe://irn.concord/node/main", true, false),
    (HeldNode, "spiffe://tur.concord/node/main", true, false),
    (Officer, "spiffe://kaz.concord/officer/first", false, true),
    (ForeignOfficer, "spiffe://irn.concord/officer/first", false, false),
    (Operator, "spiffe://kaz.concord/operator/first", false, true),
    (ForeignOperator, "spiffe://irn.concord/operator/first", false, false),
    (SecretariatsAgency, "spiffe://sec.concord/agency/agency", false, false),
    (SecretariatsNode, "spiffe://sec.concord/node/main", true, false),
    (SecretariatsOfficer, "spiffe://sec.concord/officer/first", true, false),
    (SecretariatsOperator, "spiffe://sec.concord/operator/first", true, false),
    (Hub, "spiffe://sec.concord/hub/main", false, false),
];

/// A method, what it is called with, and what those hear whom the table lets in: `OK` or a stable reason. All others are denied.
pub(super) struct Row {
    pub(super) method: &'static str,
    pub(super) request: fn() -> Vec<u8>,
    pub(super) hub: &'static [(Who, &'static str)],
    pub(super) node: &'static [(Who, &'static str)],
}

pub(super) const fn row(
    method: &'static str,
    request: fn() -> Vec<u8>,
    hub: &'static [(Who, &'static str)],
    node: &'static [(Who, &'static str)],
) -> Row {
    Row { method, request, hub, node }
}

pub(super) const NOT_IT: &str = "CALLER_NOT_ALLOWED";
pub(super) const UNKNOWN: &str = "AGENCY_UNKNOWN";
pub(super) const INVALID: &str = "ARGUMENT_INVALID";
pub(super) const NOBODY: &[(Who, &str)] = &[];
/// Health and reflection, for everybody whom the handshake lets in.
pub(super) const ANY_AT_HUB: &[(Who, &str)] = &[
    (Node, "OK"),
    (SpareNode, "OK"),
    (ForeignNode, "OK"),
    (HeldNode, "OK"),
    (SecretariatsNode, "OK"),
    (SecretariatsOfficer, "OK"),
    (SecretariatsOperator, "OK"),
];
pub(super) const ANY_AT_NODE: &[(Who, &str)] =
    &[(Agency, "OK"), (OtherAgency, "OK"), (UnknownAgency, "OK"), (Officer, "OK"), (Operator, "OK")];
/// Calls that need the run of a node, of which these say none. The secretariat has no node that is enrolled: its certificate is let in and no more.
pub(super) const NODES: &[(Who, &str)] =
    &[(Node, INVALID), (ForeignNode, INVALID), (HeldNode, INVALID), (SpareNode, NOT_IT), (SecretariatsNode, NOT_IT)];
pub(super) const AGENCIES_AND_OFFICER: &[(Who, &str)] =
    &[(Agency, "OK"), (OtherAgency, "OK"), (UnknownAgency, UNKNOWN), (Officer, "OK")];
pub(super) const ALL_AT_NODE: &[(Who, &str)] =
    &[(Agency, "OK"), (OtherAgency, "OK"), (UnknownAgency, UNKNOWN), (Officer, "OK"), (Operator, "OK")];

/// One line for each method. A method of the protocol that has none fails the test.
pub(super) const ROWS: &[Row] = &[
    row("/grpc.health.v1.Health/Check", empty, ANY_AT_HUB, ANY_AT_NODE),
    row("/grpc.health.v1.Health/Watch", empty, ANY_AT_HUB, ANY_AT_NODE),
    row("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", list_services, ANY_AT_HUB, ANY_AT_NODE),
    row("/concord.exchange.v1.ExchangeService/Consign", consign, NODES, NOBODY),
    row("/concord.exchange.v1.ExchangeService/Receive", receive, NODES, NOBODY),
    row("/concord.exchange.v1.ExchangeService/FetchConsignments", fetch, NODES, NOBODY),
    row("/concord.feed.v1.FeedService/Follow", follow, NODES, NOBODY),
    row("/concord.feed.v1.FeedService/HandBack", hand_back, NODES, NOBODY),
    row("/concord.feed.v1.FeedService/Report", empty, NODES, NOBODY),
    row("/concord.agreement.v1.StatementService/Prepare", empty, &[(SecretariatsOfficer, "OK")], &[(Officer, "OK")]),
    row(
        "/concord.agreement.v1.StatementService/Submit",
        empty,
        &[
            (SecretariatsOfficer, "STATEMENT_MALFORMED"),
            (Node, INVALID),
            (ForeignNode, INVALID),
            (HeldNode, INVALID),
            (SpareNode, NOT_IT),
            (SecretariatsNode, NOT_IT),
        ],
        &[(Officer, "STATEMENT_MALFORMED")],
    ),
    row(
        "/concord.agreement.v1.AgreementService/ListAgreements",
        empty,
        &[(SecretariatsOfficer, "OK")],
        AGENCIES_AND_OFFICER,
    ),
    row(
        "/concord.agreement.v1.AgreementService/GetAgreement",
        the_agreement,
        &[(SecretariatsOfficer, "OK")],
        AGENCIES_AND_OFFICER,
    ),
    row("/concord.agreement.v1.AgreementService/PreviewAudience", a_preview, NOBODY, AGENCIES_AND_OFFICER),
    row("/concord.operations.v1.RegistryService/ListApprovals", empty, &[(SecretariatsOfficer, "OK")], NOBODY),
    row(
        "/concord.operations.v1.RegistryService/ListParticipants",
        empty,
        &[
            (SecretariatsOfficer, "OK"),
            (SecretariatsOperator, "OK"),
            (Node, "OK"),
            (ForeignNode, "OK"),
            (HeldNode, "OK"),
            (SpareNode, NOT_IT),
            (SecretariatsNode, NOT_IT),
        ],
        ALL_AT_NODE,
    ),
    row(
        "/concord.operations.v1.RegistryService/ListMeasures",
        empty,
        &[(SecretariatsOfficer, "OK"), (SecretariatsOperator, "OK")],
        ALL_AT_NODE,
    ),
    row(
        "/concord.operations.v1.RegistryService/ListContacts",
        empty,
        &[(SecretariatsOfficer, "OK"), (SecretariatsOperator, "OK")],
        ALL_AT_NODE,
    ),
    row(
        "/concord.operations.v1.RegistryService/ListRoles",
        empty,
        &[(SecretariatsOfficer, "OK"), (SecretariatsOperator, "OK")],
        ALL_AT_NODE,
    ),
    row("/concord.operations.v1.RegistryService/GetBundle", empty, &[(SecretariatsOfficer, INVALID)], NOBODY),
    row("/concord.operations.v1.RegistryService/ListPins", empty, NOBODY, &[(Officer, "OK"), (Operator, "OK")]),
    row("/concord.operations.v1.RegistryService/ConfirmPin", empty, NOBODY, &[(Officer, INVALID)]),
    row(
        "/concord.operations.v1.OperationsService/GetStatus",
        empty,
        &[(SecretariatsOfficer, "OK"), (SecretariatsOperator, "OK")],
        &[(Officer, "OK"), (Operator, "OK")],
    ),
    row("/concord.operations.v1.OperationsService/ExplainExchange", empty, &[(SecretariatsOfficer, INVALID)], NOBODY),
    row("/concord.operations.v1.OperationsService/AddAgency", empty, NOBODY, &[(Operator, INVALID)]),
    row("/concord.operations.v1.OperationsService/GrantAgency", empty, NOBODY, &[(Officer, INVALID)]),
    row("/concord.operations.v1.OperationsService/ConfirmAgency", empty, NOBODY, &[(Officer, INVALID)]),
    row(
        "/concord.operations.v1.OperationsService/RevokeAgency",
        empty,
        NOBODY,
        &[(Operator, INVALID), (Officer, INVALID)],
    ),
    row("/concord.operations.v1.OperationsService/ListAgencies", empty, NOBODY, &[(Operator, "OK"), (Officer, "OK")]),
    row("/concord.operations.v1.OperationsService/ProbeHub", empty, NOBODY, &[(Officer, "OK"), (Operator, "OK")]),
    row("/concord.operations.v1.OperationsService/ListSetAside", empty, NOBODY, &[(Officer, "OK"), (Operator, "OK")]),
    row(
        "/concord.operations.v1.OperationsService/RetrySetAside",
        empty,
        NOBODY,
        &[(Officer, "EXCHANGE_UNKNOWN"), (Operator, "EXCHANGE_UNKNOWN")],
    ),
    row("/concord.operations.v1.OperationsService/DiscardSetAside", empty, NOBODY, &[(Officer, INVALID)]),
    row(
        "/concord.operations.v1.OperationsService/ListAudit",
        empty,
        &[(SecretariatsOfficer, "OK"), (SecretariatsOperator, "OK")],
        &[(Officer, "OK"), (Operator, "OK")],
    ),
    row(
        "/concord.operations.v1.OperationsService/CreateBackup",
        empty,
        &[(SecretariatsOfficer, "OK")],
        &[(Officer, "OK")],
    ),
    row(
        "/concord.operations.v1.OperationsService/PreviewRetention",
        empty,
        &[(SecretariatsOfficer, INVALID), (SecretariatsOperator, INVALID)],
        &[(Officer, INVALID), (Operator, INVALID)],
    ),
    row(
        "/concord.operations.v1.OperationsService/RunRetention",
        empty,
        &[(SecretariatsOfficer, INVALID)],
        &[(Officer, INVALID)],
    ),
    row(
        "/concord.agency.v1.AgencyService/Submit",
        empty,
        NOBODY,
        &[(Agency, INVALID), (OtherAgency, INVALID), (UnknownAgency, UNKNOWN)],
    ),
    row(
        "/concord.agency.v1.AgencyService/Withdraw",
        empty,
        NOBODY,
        &[(Agency, "EXCHANGE_UNKNOWN"), (OtherAgency, "EXCHANGE_UNKNOWN"), (UnknownAgency, UNKNOWN)],
    ),
    row(
        "/concord.agency.v1.AgencyService/Receive",
        empty,
        NOBODY,
        &[(Agency, "OK"), (OtherAgency, "OK"), (UnknownAgency, UNKNOWN)],
    ),
    row(
        "/concord.agency.v1.AgencyService/Acknowledge",
        empty,
        NOBODY,
        &[(Agency, "CURSOR_INVALID"), (OtherAgency, "CURSOR_INVALID"), (UnknownAgency, UNKNOWN)],
    ),
    row(
        "/concord.agency.v1.AgencyService/Track",
        empty,
        NOBODY,
        &[(Agency, "EXCHANGE_UNKNOWN"), (OtherAgency, "EXCHANGE_UNKNOWN"), (UnknownAgency, UNKNOWN)],
    ),
    row(
        "/concord.agency.v1.AgencyService/Explain",
        empty,
        NOBODY,
        &[(Agency, "EXCHANGE_UNKNOWN"), (OtherAgency, "EXCHANGE_UNKNOWN"), (UnknownAgency, UNKNOWN)],
    ),
    row(
        "/concord.agency.v1.AgencyService/Why",
        empty,
        NOBODY,
        &[
            (Agency, "EXCHANGE_UNKNOWN"),
            (OtherAgency, "EXCHANGE_UNKNOWN"),
            (UnknownAgency, UNKNOWN),
            (Officer, "EXCHANGE_UNKNOWN"),
        ],
    ),
];

pub(super) type OfRun = (&'static str, fn(Bytes) -> Vec<u8>, &'static str, &'static str);

/// Calls of the run that is served: a method, what it is called with, and what the node of a held participant and any other hears.
pub(super) const OF_RUN: &[OfRun] = &[
    ("/concord.exchange.v1.ExchangeService/Consign", consign_of, "PARTICIPANT_HELD", "OK"),
    ("/concord.exchange.v1.ExchangeService/Receive", receive_of, "PARTICIPANT_HELD", "OK"),
    ("/concord.exchange.v1.ExchangeService/FetchConsignments", fetch_of, "OK", "OK"),
    ("/concord.agreement.v1.StatementService/Submit", submit_of, "STATEMENT_MALFORMED", "STATEMENT_MALFORMED"),
];

/// A method about an object: what the four states hear, each by its relation to it: the origin, a recipient, a party that the origin's
/// narrowing left out, and who is not on the agreement. The last one is what everybody hears of an object that is none.
pub(super) struct ObjectRow {
    pub(super) what: &'static str,
    pub(super) method: &'static str,
    pub(super) by: By,
    pub(super) object: Object,
    pub(super) request: fn(&Stage, &str, &str) -> Vec<u8>,
    pub(super) hears: [&'static str; 4],
    pub(super) of_none: &'static str,
    /// Whether an answer names the object.
    pub(super) told: [bool; 4],
}

/// Not called, since it would change what stands.
pub(super) const NOT_CALLED: &str = "-";
/// By their relation to the agreement and the exchange.
pub(super) const STATES: [&str; 4] = ["KAZ", "IRN", "TUR", "KOR"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum By {
    Agency,
    OtherAgency,
    Officer,
    /// At the hub.
    Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Object {
    Agreement,
    Exchange,
    /// Of the recipient's, for what it was given; in hexadecimal digits.
    Cursor,
}

pub(super) const AGREEMENT: &str = "KAZ/matrix";
/// As long as the other one, so that all lengths are the same.
pub(super) const NO_AGREEMENT: &str = "KAZ/nothng";
pub(super) const NO_EXCHANGE: &str = "00000000000000000000000000000000000000000000000000000000000000ff";
pub(super) const NONE_KNOW: [&str; 4] = ["EXCHANGE_UNKNOWN"; 4];
pub(super) const PARTIES_KNOW: [&str; 4] = ["OK", "OK", "OK", "AGREEMENT_UNKNOWN"];

pub(super) const fn about(
    what: &'static str,
    method: &'static str,
    by: By,
    object: Object,
    request: fn(&Stage, &str, &str) -> Vec<u8>,
    hears: [&'static str; 4],
    of_none: &'static str,
) -> ObjectRow {
    ObjectRow { what, method, by, object, request, hears, of_none, told: [true, true, true, false] }
}

/// The same, where everybody gets an answer, and it names the object to these.
pub(super) const fn listing(mut row: ObjectRow, told: [bool; 4]) -> ObjectRow {
    row.told = told;
    row
}

pub(super) const GET: &str = "/concord.agreement.v1.AgreementService/GetAgreement";
pub(super) const PREVIEW: &str = "/concord.agreement.v1.AgreementService/PreviewAudience";
pub(super) const LIST: &str = "/concord.agreement.v1.AgreementService/ListAgreements";
pub(super) const SUBMIT: &str = "/concord.agency.v1.AgencyService/Submit";
pub(super) const RECEIVE: &str = "/concord.agency.v1.AgencyService/Receive";
pub(super) const ACKNOWLEDGE: &str = "/concord.agency.v1.AgencyService/Acknowledge";
pub(super) const TRACK: &str = "/concord.agency.v1.AgencyService/Track";
pub(super) const WITHDRAW: &str = "/concord.agency.v1.AgencyService/Withdraw";
pub(super) const EXPLAIN: &str = "/concord.agency.v1.AgencyService/Explain";
pub(super) const WHY: &str = "/concord.agency.v1.AgencyService/Why";
pub(super) const STATE: &str = "/concord.agreement.v1.StatementService/Submit";

pub(super) const OBJECT_ROWS: &[ObjectRow] = &[
    about("an agreement", GET, By::Agency, Object::Agreement, get, PARTIES_KNOW, "AGREEMENT_UNKNOWN"),
    about("an agreement", GET, By::Officer, Object::Agreement, get, PARTIES_KNOW, "AGREEMENT_UNKNOWN"),
    about(
        "the history of an agreement",
        GET,
        By::Officer,
        Object::Agreement,
        history,
        PARTIES_KNOW,
        "AGREEMENT_UNKNOWN",
    ),
    about("a preview", PREVIEW, By::Agency, Object::Agreement, preview, PARTIES_KNOW, "AGREEMENT_UNKNOWN"),
    about("a preview", PREVIEW, By::Officer, Object::Agreement, preview, PARTIES_KNOW, "AGREEMENT_UNKNOWN"),
    about("an agreement, waiting", GET, By::Officer, Object::Agreement, get_soon, PARTIES_KNOW, "AGREEMENT_UNKNOWN"),
    listing(
        about("agreements", LIST, By::Agency, Object::Agreement, nothing, ["OK"; 4], "OK"),
        [true, true, true, false],
    ),
    listing(
        about("agreements", LIST, By::Officer, Object::Agreement, nothing, ["OK"; 4], "OK"),
        [true, true, true, false],
    ),
    listing(
        about("what was sent", RECEIVE, By::Agency, Object::Exchange, nothing, ["OK"; 4], "OK"),
        [false, true, false, false],
    ),
    about(
        "an exchange",
        TRACK,
        By::Agency,
        Object::Exchange,
        track,
        ["OK", "EXCHANGE_UNKNOWN", "EXCHANGE_UNKNOWN", "EXCHANGE_UNKNOWN"],
        "EXCHANGE_UNKNOWN",
    ),
    about(
        "the audience of an exchange",
        EXPLAIN,
        By::Agency,
        Object::Exchange,
        explain,
        ["OK", "EXCHANGE_UNKNOWN", "EXCHANGE_UNKNOWN", "EXCHANGE_UNKNOWN"],
        "EXCHANGE_UNKNOWN",
    ),
    about(
        "what became of an exchange",
        EXPLAIN,
        By::Agency,
        Object::Exchange,
        explain_own,
        ["OK", "OK", "EXCHANGE_UNKNOWN", "EXCHANGE_UNKNOWN"],
        "EXCHANGE_UNKNOWN",
    ),
    about(
        "what became of an exchange",
        EXPLAIN,
        By::OtherAgency,
        Object::Exchange,
        explain_own,
        ["EXCHANGE_UNKNOWN", "OK", "EXCHANGE_UNKNOWN", "EXCHANGE_UNKNOWN"],
        "EXCHANGE_UNKNOWN",
    ),
    about(
        "where an exchange is",
        WHY,
        By::Agency,
        Object::Exchange,
        why,
        ["OK", "OK", "EXCHANGE_UNKNOWN", "EXCHANGE_UNKNOWN"],
        "EXCHANGE_UNKNOWN",
    ),
    about(
        "where an exchange is",
        WHY,
        By::OtherAgency,
        Object::Exchange,
        why,
        ["EXCHANGE_UNKNOWN", "OK", "EXCHANGE_UNKNOWN", "EXCHANGE_UNKNOWN"],
        "EXCHANGE_UNKNOWN",
    ),
    about(
        "an exchange to withdraw",
        WITHDRAW,
        By::Agency,
        Object::Exchange,
        withdraw,
        [NOT_CALLED, "EXCHANGE_UNKNOWN", "EXCHANGE_UNKNOWN", "EXCHANGE_UNKNOWN"],
        "EXCHANGE_UNKNOWN",
    ),
    about(
        "an exchange to withdraw",
        WITHDRAW,
        By::OtherAgency,
        Object::Exchange,
        withdraw,
        NONE_KNOW,
        "EXCHANGE_UNKNOWN",
    ),
    about("an exchange", TRACK, By::OtherAgency, Object::Exchange, track, NONE_KNOW, "EXCHANGE_UNKNOWN"),
    about(
        "the beginning of an exchange's id",
        TRACK,
        By::Agency,
        Object::Exchange,
        track_short,
        ["OK", "EXCHANGE_UNKNOWN", "EXCHANGE_UNKNOWN", "EXCHANGE_UNKNOWN"],
        "EXCHANGE_UNKNOWN",
    ),
    // Who consented may say so again.
    listing(
        about("a consent", STATE, By::Node, Object::Agreement, consent, PARTIES_KNOW, "AGREEMENT_UNKNOWN"),
        [false; 4],
    ),
    about(
        "a decline",
        STATE,
        By::Node,
        Object::Agreement,
        decline,
        ["AGREEMENT_NOT_PENDING", "AGREEMENT_NOT_PENDING", "AGREEMENT_NOT_PENDING", "AGREEMENT_UNKNOWN"],
        "AGREEMENT_UNKNOWN",
    ),
    about(
        "a leave",
        STATE,
        By::Node,
        Object::Agreement,
        leave,
        [NOT_CALLED, NOT_CALLED, NOT_CALLED, "AGREEMENT_UNKNOWN"],
        "AGREEMENT_UNKNOWN",
    ),
    // The last two change what stands: one takes something, one sends something.
    listing(
        about(
            "a cursor",
            ACKNOWLEDGE,
            By::Agency,
            Object::Cursor,
            acknowledge,
            ["CURSOR_INVALID", "OK", "CURSOR_INVALID", "CURSOR_INVALID"],
            "CURSOR_INVALID",
        ),
        [false; 4],
    ),
    listing(
        about("something to send", SUBMIT, By::Agency, Object::Agreement, submit, PARTIES_KNOW, "AGREEMENT_UNKNOWN"),
        [true, true, true, false],
    ),
];
