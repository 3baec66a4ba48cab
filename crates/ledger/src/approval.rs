//! What needs the signatures of several officers of the secretariat: an enrolment, a replacement of keys, new keys of the hub's own, the
//! release of a hold of the secretariat's. One officer says it; it waits until others have signed it by statements of their own, then it takes effect.
//!
//! Invariant: nothing takes effect with fewer officers' signatures, each counted once by name, than the configuration asked for when it was
//! said; and nothing of what waits counts before. Nor does a node's hand bring in what has fewer: a hub that lost data takes what it is
//! handed back with as many as it asks for now, and not fewer than it knows to have been asked for, and lets the rest wait.
//!
//! One rejection ends it: who is asked and doubts is why others are asked at all, and saying it anew costs nothing. What nobody signs for
//! [`APPROVAL_LASTS`] is over by itself, so that an old request does not come into effect when nobody remembers what it was compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use concord_model::{Digest, Name, ParticipantCode, Reason, Refusal, Timestamp};
use serde::{Deserialize, Serialize};

use crate::registry::Registry;
use crate::statement::{Replacement, Statement, StatementContent};

/// How long a statement waits for signatures.
pub const APPROVAL_LASTS: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Statements that wait for signatures. Over it another one is refused with `QUEUE_FULL`.
pub const APPROVALS_WAITING_MAX: usize = 64;

/// How many officers of the secretariat must sign what needs more than one; a setting of the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quorum(NonZeroU32);

impl Quorum {
    /// The officer who says it is enough.
    pub const ONE: Self = Self(NonZeroU32::MIN);
    /// The most that may be asked for.
    pub const MAX: u32 = 8;

    /// From 1 to [`Self::MAX`].
    pub fn new(officers: u32) -> Option<Self> {
        NonZeroU32::new(officers).filter(|officers| officers.get() <= Self::MAX).map(Self)
    }

    /// The number of officers.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

/// The statements of the secretariat's officers that wait for signatures.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Approvals {
    /// By the statement's digest, which approvals name.
    waiting: BTreeMap<Digest, Waiting>,
    /// What was rejected, or was over before it had its signatures, with how many it needed.
    ended: BTreeMap<Digest, u32>,
}

/// One statement that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// What was said.
    pub statement: Statement,
    /// How many officers must sign it.
    pub needs: u32,
    /// When it was recorded.
    pub since: Timestamp,
    /// Who signed it, in order; its own officer first.
    pub signed: Vec<Signed>,
}

/// One officer's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The officer.
    pub officer: Name,
    /// When the hub recorded it.
    pub at: Timestamp,
    /// The entry where it stands.
    pub sequence: u64,
}

impl Waiting {
    /// When it is over.
    pub fn lapses_at(&self) -> Timestamp {
        let lasts = i64::try_from(APPROVAL_LASTS.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(self.since.as_micros().saturating_add(lasts))
    }

    /// How many signatures it lacks.
    pub fn missing(&self) -> u32 {
        self.needs.saturating_sub(u32::try_from(self.signed.len()).unwrap_or(u32::MAX))
    }

    /// Whether this officer signed it.
    pub fn is_signed_by(&self, officer: &Name) -> bool {
        self.signed.iter().any(|signed| signed.officer == *officer)
    }

    /// The entries where it and its approvals stand; what came with it when it was handed back stands in its own.
    pub(crate) fn entries(&self) -> (u64, Vec<u64>) {
        let own = self.signed.first().map_or(0, |signed| signed.sequence);
        (own, self.signed.iter().map(|signed| signed.sequence).filter(|sequence| *sequence != own).collect())
    }
}

impl Approvals {
    /// What waits, by the digest that approvals name.
    pub fn iter(&self) -> impl Iterator<Item = (&Digest, &Waiting)> {
        self.waiting.iter()
    }

    /// The statement with this digest, while it waits.
    pub fn get(&self, statement: &Digest) -> Option<&Waiting> {
        self.waiting.get(statement)
    }

    /// Whether the statement with this digest was said and has not taken effect.
    pub fn is_without_effect(&self, statement: &Digest) -> bool {
        self.waiting.contains_key(statement) || self.ended.contains_key(statement)
    }

    /// How many officers were asked for when the statement with this digest was said, where it has not taken effect.
    pub(crate) fn needed(&self, statement: &Digest) -> Option<u32> {
        self.waiting.get(statement).map(|waiting| waiting.needs).or_else(|| self.ended.get(statement).copied())
    }

    /// Whether one more statement may wait.
    ///
    /// Refuses with `APPROVAL_EXISTS` or `QUEUE_FULL`.
    pub(crate) fn check_room(&self, statement: &Statement, now: Timestamp) -> Result<(), Refusal> {
        let mut standing = self.waiting.iter().filter(|(_, waiting)| now < waiting.lapses_at());
        if let Some((digest, waiting)) = standing.clone().find(|(_, one)| one.statement.content == statement.content) {
            let what =
                format!("the same waits under {digest} for signatures of others: it lacks {}", waiting.missing());
            return Err(Refusal::new(Reason::ApprovalExists, what));
        }
        match standing.nth(APPROVALS_WAITING_MAX - 1) {
            Some(_) => Err(no_room()),
            None => Ok(()),
        }
    }

    /// Whether one more may wait of those that are handed back. What is over makes room here, too; that the same waits already is no
    /// reason not to.
    ///
    /// Refuses with `QUEUE_FULL`.
    pub(crate) fn check_room_for_handed(&self, now: Timestamp) -> Result<(), Refusal> {
        let standing = self.waiting.values().filter(|waiting| now < waiting.lapses_at()).count();
        if standing >= APPROVALS_WAITING_MAX { Err(no_room()) } else { Ok(()) }
    }

    /// Whether this officer may sign what waits under this digest.
    ///
    /// Refuses with `APPROVAL_UNKNOWN` or `APPROVAL_REPEATED`.
    pub(crate) fn check_approve(
        &self,
        approval: &Statement,
        approved: &Digest,
        now: Timestamp,
    ) -> Result<&Waiting, Refusal> {
        let waiting = self.standing(approved, now)?;
        if waiting.is_signed_by(&approval.officer) {
            let what = format!("the officer {} signed it before: another one has to", approval.officer);
            return Err(Refusal::new(Reason::ApprovalRepeated, what));
        }
        Ok(waiting)
    }

    /// Whether what waits under this digest can be ended.
    ///
    /// Refuses with `APPROVAL_UNKNOWN`.
    pub(crate) fn check_reject(&self, rejected: &Digest, now: Timestamp) -> Result<(), Refusal> {
        self.standing(rejected, now).map(drop)
    }

    fn standing(&self, digest: &Digest, now: Timestamp) -> Result<&Waiting, Refusal> {
        let unknown = |what: String| Refusal::new(Reason::ApprovalUnknown, what);
        match self.waiting.get(digest) {
            Some(waiting) if now < waiting.lapses_at() => Ok(waiting),
            Some(_) => Err(unknown(format!("{digest} waited longer than 30 days for signatures, and is over"))),
            None if self.ended.contains_key(digest) => Err(unknown(format!("{digest} was rejected, or is over"))),
            None => Err(unknown(format!("{digest} does not wait for signatures"))),
        }
    }

    /// Takes in a statement that waits, with the approvals that it was handed back with. What is over goes.
    pub(crate) fn wait(
        &mut self,
        statement: &Statement,
        needs: u32,
        approvals: &[Statement],
        at: Timestamp,
        sequence: u64,
    ) {
        let over: Vec<_> =
            self.waiting.iter().filter(|(_, one)| one.lapses_at() <= at).map(|(digest, _)| *digest).collect();
        over.iter().for_each(|digest| self.end(digest));
        let signed = std::iter::once(statement).chain(approvals);
        let signed = signed.map(|one| Signed { officer: one.officer.clone(), at, sequence }).collect();
        self.waiting.insert(statement.digest, Waiting { statement: statement.clone(), needs, since: at, signed });
    }

    /// Takes in one more signature.
    pub(crate) fn sign(&mut self, approved: &Digest, officer: &Name, at: Timestamp, sequence: u64) {
        if let Some(waiting) = self.waiting.get_mut(approved) {
            waiting.signed.push(Signed { officer: officer.clone(), at, sequence });
        }
    }

    /// Takes in that a statement takes effect, and returns it where it waited.
    pub(crate) fn take(&mut self, statement: &Digest) -> Option<Waiting> {
        self.ended.remove(statement);
        self.waiting.remove(statement)
    }

    /// Takes in that a statement is never to take effect.
    pub(crate) fn end(&mut self, statement: &Digest) {
        if let Some(waiting) = self.waiting.remove(statement) {
            self.ended.insert(*statement, waiting.needs);
        }
    }
}

fn no_room() -> Refusal {
    let what = format!("{APPROVALS_WAITING_MAX} statements wait for signatures: approve or reject some first");
    Refusal::new(Reason::QueueFull, what)
}

/// Whether a statement takes effect only with the signatures of other officers, where the configuration asks for more than one. What only
/// says again what the registry has does not.
pub fn needs_others(registry: &Registry, statement: &Statement) -> bool {
    let is_secretariats = statement.participant == ParticipantCode::secretariat();
    is_secretariats
        && match &statement.content {
            StatementContent::Enrol(request) | StatementContent::Replace(Replacement { request, .. }) => {
                !registry.repeats(request)
            }
            // Of the hub's keys they are, which all others go by; a state's own are its own matter, for which its present keys vouch.
            StatementContent::RotateKey(rotation) => rotation.opening.is_none(),
            StatementContent::SucceedAnchor(_) | StatementContent::EndAnchor(_) => true,
            // Only whoever laid a hold lifts it: this is one of the secretariat's.
            StatementContent::Release(_) => true,
            _ => false,
        }
}

/// Of the approvals that come with a statement those that count: by other officers of its participant, each once.
pub fn that_count<'a>(statement: &Statement, approvals: &'a [Statement]) -> Vec<&'a Statement> {
    let mut officers = BTreeSet::from([&statement.officer]);
    let counts = |approval: &&'a Statement| {
        approval.participant == statement.participant
            && approval.hub == statement.hub
            && matches!(&approval.content, StatementContent::Approve(digest) if *digest == statement.digest)
    };
    let mut counted: Vec<&Statement> = approvals.iter().filter(counts).collect();
    counted.retain(|approval| officers.insert(&approval.officer));
    counted
}
