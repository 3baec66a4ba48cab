//! Every refusal of Concord: a stable reason, what happened, and what to do next.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What kind of refusal a reason is; the wire crate maps it to a gRPC code, the binary to an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The request itself is wrong, whatever the state.
    Invalid,
    /// There is no such thing, or the caller is not entitled to know.
    Unknown,
    /// The caller may not do this.
    Denied,
    /// The state of things does not allow it now.
    Precondition,
    /// It exists already, with other content.
    Conflict,
    /// A limit is reached; later it may pass.
    Exhausted,
    /// Somebody needed is not there; later it may pass.
    Unavailable,
    /// A newer caller took the place.
    Superseded,
    /// What the peer knows and what stands here cannot both be true.
    DataLoss,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $class:ident, $help:literal;)*) => {
        /// The stable reason codes, with the class of each and what to do about it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// All reasons.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code, as it stands in `ErrorInfo.reason`.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// What kind of refusal it is.
            pub const fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class,)* }
            }

            /// What the caller can do next, in one sentence.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

reasons! {
    // Agreements.
    /// No such agreement, or the caller is not on it.
    AgreementUnknown = "AGREEMENT_UNKNOWN", Unknown, "list the agreements that you are on with `concord agreement list`";
    /// More than one agreement fits.
    AgreementAmbiguous = "AGREEMENT_AMBIGUOUS", Invalid, "name the agreement with --agreement";
    /// The named version, or its digest, is not one of this agreement.
    AgreementVersionMismatch = "AGREEMENT_VERSION_MISMATCH", Precondition, "submit again: the node takes the version that is in force";
    /// Not all on it have consented, or it was declined, or it has ended.
    AgreementNotInForce = "AGREEMENT_NOT_IN_FORCE", Precondition, "see how it stands, and who has yet to consent, with `concord agreement show`";
    /// The id is taken by a proposal that waits or an agreement in force.
    AgreementExists = "AGREEMENT_EXISTS", Conflict, "choose another name after the slash";
    /// The proposal is not well formed.
    AgreementMalformed = "AGREEMENT_MALFORMED", Invalid, "correct the proposal and make it again";
    /// The agreement does not wait for this participant's consent.
    AgreementNotPending = "AGREEMENT_NOT_PENDING", Precondition, "see what waits for you with `concord agreement pending`";
    /// An agreement is proposed only under the proposer's own code.
    AgreementNotOwn = "AGREEMENT_NOT_OWN", Denied, "begin the id with your own participant code";
    /// What it amends is not what is in force now.
    AgreementAmended = "AGREEMENT_AMENDED", Precondition, "look at the version in force with `concord agreement show` and say it again";
    /// The participant may not send under this agreement, by the role that it has there.
    RoleNotAllowed = "ROLE_NOT_ALLOWED", Precondition, "see the roles with `concord agreement show`; an amendment changes them";
    /// The terms of the agreement do not allow this media type.
    MediaTypeNotAllowed = "MEDIA_TYPE_NOT_ALLOWED", Precondition, "see the media types that it allows with `concord agreement show`";
    /// The terms of the agreement do not allow this handling code.
    HandlingNotAllowed = "HANDLING_NOT_ALLOWED", Precondition, "see the highest handling code with `concord agreement show`";
    /// The measure is not covered by the agreement.
    MeasureNotInAgreement = "MEASURE_NOT_IN_AGREEMENT", Precondition, "see its measures with `concord agreement show`";
    /// No such measure in the catalogue.
    MeasureUnknown = "MEASURE_UNKNOWN", Unknown, "use a code of the catalogue, such as challenges.3";
    /// More than one measure fits.
    MeasureAmbiguous = "MEASURE_AMBIGUOUS", Invalid, "name the measure with --measure";
    /// The agency may not send this measure, or not under this agreement.
    MeasureNotAllowed = "MEASURE_NOT_ALLOWED", Denied, "ask your state's officer what this agency may send: `concord agency list` tells";
    /// No such participant in the registry.
    ParticipantUnknown = "PARTICIPANT_UNKNOWN", Unknown, "list the participants with `concord participant list`";
    /// The participant has no enrolled keys yet.
    ParticipantNotEnrolled = "PARTICIPANT_NOT_ENROLLED", Precondition, "the secretariat enrols it first, with `concord participant enrol`";
    /// The participant is enrolled with other keys.
    ParticipantAlreadyEnrolled = "PARTICIPANT_ALREADY_ENROLLED", Conflict, "where its node's keys are lost and its state says so, enrol the new request with --replace and --reference";
    /// The anchor before the present one still counts.
    AnchorEnding = "ANCHOR_ENDING", Precondition, "certificates under it are made anew first, then its end is said with `concord anchor end`";
    /// No anchor of the participant's that counts beside its present one has this fingerprint.
    AnchorUnknown = "ANCHOR_UNKNOWN", Unknown, "see its anchors with `concord participant show`";
    /// The participant's node is held for a technical reason.
    ParticipantHeld = "PARTICIPANT_HELD", Unavailable, "mail waits, statements and the feed go on: ask whoever laid the hold, which `concord participant list` shows";
    /// This participant is held by the same side already.
    HoldExists = "HOLD_EXISTS", Conflict, "see the holds with `concord participant list`";
    /// No such hold, or another one laid it.
    HoldUnknown = "HOLD_UNKNOWN", Unknown, "whoever laid a hold lifts it: see `concord participant list`";
    /// What needs several officers' signatures waits for them already.
    ApprovalExists = "APPROVAL_EXISTS", Conflict, "another officer signs what waits, or ends it: `concord approval list` shows it, `concord approval approve` signs it, `concord approval reject` lets it be said anew";
    /// Nothing waits under this id: it was never said, took effect, was rejected or is over.
    ApprovalUnknown = "APPROVAL_UNKNOWN", Unknown, "see what waits with `concord approval list`; where it is over, say it anew";
    /// This officer signed it before.
    ApprovalRepeated = "APPROVAL_REPEATED", Precondition, "another officer of the secretariat signs it, with a profile of its own";
    /// The certificate of an officer who signed it was taken back while it waited.
    ApprovalSignerRevoked = "APPROVAL_SIGNER_REVOKED", Precondition, "reject it with `concord approval reject`, and have it said anew";
    /// There is a participant of this code, or there was.
    ParticipantExists = "PARTICIPANT_EXISTS", Conflict, "choose a code that nobody has: `concord participant list` shows all";
    /// There is a measure of this code.
    MeasureExists = "MEASURE_EXISTS", Conflict, "choose the next free code, and a short name that no measure has: `concord measure list` shows all";
    /// Another officer changed it meanwhile.
    RegistryChanged = "REGISTRY_CHANGED", Precondition, "look at it again, and say it anew where it is still to be changed";
    /// This participant has no such contact point.
    ContactUnknown = "CONTACT_UNKNOWN", Unknown, "see the contact points with `concord contact list`";
    /// The participant has this role already.
    RoleExists = "ROLE_EXISTS", Conflict, "see the roles with `concord role list`";
    /// The participant does not have this role.
    RoleUnknown = "ROLE_UNKNOWN", Unknown, "see the roles with `concord role list`";
    /// A fingerprint signed in the agreement differs from the registry's.
    FingerprintMismatch = "FINGERPRINT_MISMATCH", Precondition, "compare the fingerprints by telephone; where keys were replaced, a new agreement names the new ones";

    // Exchanges.
    /// The narrowing is empty, malformed or names somebody who is not on the named version.
    NarrowingInvalid = "NARROWING_INVALID", Invalid, "name only participants of the agreement, or leave --to out to mean all";
    /// Nobody is left to receive it.
    AudienceEmpty = "AUDIENCE_EMPTY", Precondition, "nobody but the origin would receive it; check the agreement and --to";
    /// A body is over the limit of its lane.
    BodyTooLarge = "BODY_TOO_LARGE", Invalid, "at most 4 MiB, on lane flash 64 KiB; split it or use another lane";
    /// A body has no bytes.
    BodyEmpty = "BODY_EMPTY", Invalid, "an exchange carries at least one byte";
    /// A body or description does not match its commitment, or its size, in the header.
    BlobMismatch = "BLOB_MISMATCH", Invalid, "submit it again from the original file";
    /// A title is empty, too long or has control characters.
    TitleInvalid = "TITLE_INVALID", Invalid, "one line of 1 to 1024 bytes of UTF-8";
    /// An argument is not well formed.
    ArgumentInvalid = "ARGUMENT_INVALID", Invalid, "correct the argument named in the message";
    /// The request id was used before with other content.
    RequestIdConflict = "REQUEST_ID_CONFLICT", Conflict, "use a new request id for new content";
    /// A field of the header is set whose meaning is not switched on for the forum.
    FeatureNotEnabled = "FEATURE_NOT_ENABLED", Invalid, "leave the field out";
    /// The header does not parse, or says something impossible.
    HeaderMalformed = "HEADER_MALFORMED", Invalid, "correct the program that made the header";
    /// The header parses, but encoding it again gives other bytes.
    HeaderNotCanonical = "HEADER_NOT_CANONICAL", Invalid, "serialise known fields once, in order, without unknown fields";
    /// The header names another origin, node or lane than the chain that carries it.
    HeaderChainMismatch = "HEADER_CHAIN_MISMATCH", Invalid, "an exchange goes in its own origin's chain of its own lane";
    /// No such exchange, or it is not the caller's.
    ExchangeUnknown = "EXCHANGE_UNKNOWN", Unknown, "give the id, or at least its first 8 digits: `concord track` knows what you submitted, `concord why` and `explain` also what you received, `concord set-aside` what was set aside";
    /// More than one exchange begins with this prefix.
    ExchangeAmbiguous = "EXCHANGE_AMBIGUOUS", Invalid, "give more digits of the id";
    /// The exchange was refused, or is a withdrawal: there is nothing to withdraw.
    ExchangeNotCurrent = "EXCHANGE_NOT_CURRENT", Precondition, "see what became of it with `concord track`";
    /// The exchange was withdrawn by its origin, before it was recorded or again.
    ExchangeWithdrawn = "EXCHANGE_WITHDRAWN", Precondition, "it is withdrawn already: see `concord track`";
    /// Its time was over when it was to be recorded.
    ExchangeExpired = "EXCHANGE_EXPIRED", Precondition, "submit it again with a later --expires";
    /// The exchange that stands in its place was refused.
    SupersedingRefused = "SUPERSEDING_REFUSED", Precondition, "submit the new exchange again with --supersedes";
    /// What takes the place of an exercise is one, and what does not is none.
    ExerciseMismatch = "EXERCISE_MISMATCH", Precondition, "submit it with --exercise exactly where what it supersedes was one";
    /// A cursor that this stream never gave out.
    CursorInvalid = "CURSOR_INVALID", Invalid, "acknowledge with the cursor that came with the exchange";

    /// A cursor of before the node's journal was put back or made anew.
    CursorOutdated = "CURSOR_OUTDATED", Precondition, "receive again without it: what is not acknowledged comes again, each with a cursor of now";

    // Consignments.
    /// The consignment is over its size.
    ConsignmentTooLarge = "CONSIGNMENT_TOO_LARGE", Invalid, "close consignments at 5 MiB";
    /// The consignment does not parse, or its counts do not agree.
    ConsignmentMalformed = "CONSIGNMENT_MALFORMED", Invalid, "correct the program that made the consignment";
    /// The chain is not this hub's, this node's or of this epoch.
    ChainMismatch = "CHAIN_MISMATCH", Denied, "a node consigns only in its own chains, to the hub that it joined";
    /// Not the next number of its chain.
    NumberOutOfOrder = "NUMBER_OUT_OF_ORDER", Precondition, "send the number that the hub's hello names";
    /// Does not follow the last consignment of its chain.
    PreviousMismatch = "PREVIOUS_MISMATCH", Precondition, "the node and the hub disagree about the past: compare both with `concord verify`, then let the officer open a new epoch with `concord node epoch open`";
    /// The tree's root is not that of the headers.
    RootMismatch = "ROOT_MISMATCH", Invalid, "correct the program that made the consignment";
    /// The signature does not hold under the key that it names.
    SignatureInvalid = "SIGNATURE_INVALID", Denied, "check that the node signs with its enrolled key";
    /// The named key is not enrolled for this position of the chain.
    SigningKeyUnknown = "SIGNING_KEY_UNKNOWN", Denied, "sign with the key that the registry names: where a node's signing/key.pem is an old one, put the file of its last rotation back and start it anew; what was signed by another key goes on after `concord node epoch open`";
    /// Recorded so long ago that its receipt is no longer repeated.
    AlreadyRecorded = "ALREADY_RECORDED", Conflict, "the node has its receipt: go on after it";
    /// Same number, other digest.
    Fork = "FORK", DataLoss, "a second copy of this node seems to run, or it was restored: stop the other one, then let the officer open a new epoch with `concord node epoch open`";
    /// The chain is of an epoch that the state's officer closed.
    EpochClosed = "EPOCH_CLOSED", Precondition, "the node goes on by itself in the epoch that its officer opened";
    /// Not the epoch after the present one.
    EpochOutOfOrder = "EPOCH_OUT_OF_ORDER", Precondition, "another epoch was opened meanwhile: see whether one more is needed, and run the command again";

    // Statements.
    /// The statement does not parse, is too large, or lacks its content.
    StatementMalformed = "STATEMENT_MALFORMED", Invalid, "make the statement with `concord agreement …` of this version";
    /// The statement's certificate or signature does not hold.
    StatementSignatureInvalid = "STATEMENT_SIGNATURE_INVALID", Denied, "sign with an officer's profile of this participant";
    /// Not the next number of its signer.
    StatementOutOfOrder = "STATEMENT_OUT_OF_ORDER", Precondition, "make the statement again: another one of this officer came first";
    /// Same signer and number, other content.
    StatementFork = "STATEMENT_FORK", Conflict, "two copies of this officer's profile are in use: stop one";

    // Callers and service.
    /// The method table does not let this caller in.
    CallerNotAllowed = "CALLER_NOT_ALLOWED", Denied, "use another profile: an agency's for exchanges, an officer's for what is signed or confirmed, an operator's for how a server is; --help of the command shows one";
    /// The certificate is good, but no such agency was added to this node, or it was ended.
    AgencyUnknown = "AGENCY_UNKNOWN", Denied, "see the agencies with `concord agency list`; add one with `concord agency add`";
    /// The node's journal was put back or made anew, and no officer has confirmed this agency since.
    AgencyUnconfirmed = "AGENCY_UNCONFIRMED", Unavailable, "what came waits: its state's officer confirms the agency with `concord agency confirm`, or ends it with `concord agency revoke NAME --all`";
    /// An agency of this name exists with other measures, or was ended.
    AgencyExists = "AGENCY_EXISTS", Conflict, "choose another name; what an agency that is there may have more, or less: `concord agency grant`, `concord agency revoke`";
    /// The node has not joined a hub yet.
    NotJoined = "NOT_JOINED", Precondition, "join the hub first with `concord node join`";
    /// A bounded queue is full.
    QueueFull = "QUEUE_FULL", Exhausted, "try again after the time in RetryInfo";
    /// A participant or an agency has brought more in a second than its quota is.
    QuotaExceeded = "QUOTA_EXCEEDED", Exhausted, "try again after the time in RetryInfo: nothing that was answered is undone; more than that is for the operator to allow, in [quotas]";
    /// The disk is full, or so nearly that only what is under way is taken.
    DiskFull = "DISK_FULL", Exhausted, "try again after the time in RetryInfo: it goes on by itself once its operator has made room";
    /// A newer stream of the same caller took over.
    StreamReplaced = "STREAM_REPLACED", Superseded, "only the newest stream of a caller is served: stop the other one";
    /// The caller's own statement changed what it may have: its mailbox begins again from where it was.
    MembershipChanged = "MEMBERSHIP_CHANGED", Unavailable, "connect again at once: the mailbox goes on under what holds now";
    /// The hub lost data, and the caller's node has not handed back yet what it knows, or not shown its feed.
    Healing = "HEALING", Unavailable, "connect again after a moment: the node follows its feed first, and hands back what the hub forgot";
    /// The two sides have no version of the protocol, or no signature suite, in common.
    ProtocolUnsupported = "PROTOCOL_UNSUPPORTED", Precondition, "use versions of concord that are at most one apart";
    /// The process is ending.
    ShuttingDown = "SHUTTING_DOWN", Unavailable, "connect again after a moment";
    /// What was asked for did not happen in the time allowed.
    WaitExpired = "WAIT_EXPIRED", Unavailable, "nothing is lost: ask again with `concord track` or `concord agreement show`";
    /// The peer's history is neither this one nor a past of it, or a position lies beyond what is known here.
    HistoryUnknown = "HISTORY_UNKNOWN", DataLoss, "one side was restored or lost data, and this does not heal by itself: keep both folders and call the secretariat";
    /// This node was restored and has not yet fetched back from the hub what it lost.
    Recovering = "RECOVERING", Unavailable, "wait until the node has reached the hub: see `concord status`";
    /// The journal of this node is older than what the hub knows of it, or another copy of it was in contact since.
    NodeRolledBack = "NODE_ROLLED_BACK", DataLoss, "an older or second copy of this node runs: stop the other one if there is one; where this one is to go on, stop it and run `concord node restore --here --dir DIR`, which declares it restored and fetches back what the hub has";
    /// Another copy of this node was restored since and took its place.
    NodeSuperseded = "NODE_SUPERSEDED", DataLoss, "another copy of this node took its place: stop this one. Where this one is to go on instead, restore in the folder of the other, or move this journal away and run `concord node rebuild`";
    /// Files of the journal changed while they were read for a backup.
    BackupConflict = "BACKUP_CONFLICT", Unavailable, "start the backup again";
    /// The machine's clock is not believed, and what was asked for goes by it.
    ClockSuspect = "CLOCK_SUSPECT", Unavailable, "put the machine's clock right, and wait until the alarm in `concord status` is gone";
    /// Something failed inside; details are in the log.
    Internal = "INTERNAL", Unavailable, "see the log of the process that answered";
}

impl Reason {
    /// The reason with this code, if there is one.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.code() == code)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

// By its code, which is stable, and not by its place in the list.
impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = Box::<str>::deserialize(deserializer)?;
        Self::from_code(&code).ok_or_else(|| de::Error::custom(format_args!("there is no reason {code}")))
    }
}

/// A refusal: the stable reason and what happened, in words for the party entitled to know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message} ({reason}): {help}", help = .reason.help())]
pub struct Refusal {
    /// The stable reason.
    pub reason: Reason,
    /// What happened and why. Never a title, a body or a hint about others.
    pub message: String,
}

impl Refusal {
    /// A refusal with its words.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// What a non-party and a party of an unknown agreement hear alike.
    pub fn agreement_unknown(id: &crate::name::AgreementId) -> Self {
        Self::new(Reason::AgreementUnknown, format!("there is no agreement {id} for you"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_codes_are_unique_and_read_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
            assert!(reason.code().bytes().all(|b| b.is_ascii_uppercase() || b == b'_'));
        }
    }
}
