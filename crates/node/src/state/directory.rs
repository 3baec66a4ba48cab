//! The directory: what the hub's feed told of registry, keys and agreements, and what this participant's officers consented to.

use std::collections::BTreeSet;

use concord_journal::HistoryId;
use concord_ledger::fact::Founding;
use concord_ledger::{Agreement, Agreements, ClosedEpoch, Epochs, KeyRotation, Registry, Statement, StatementContent};
use concord_model::{
    AgreementId, AgreementRef, Digest, Fingerprint, Name, ParseError, ParticipantCode, PublicKey, Refusal, Timestamp,
};
use concord_wire::consignment::parse_closed_epoch;
use concord_wire::convert::optional_timestamp;
use concord_wire::header::parse_agreement_ref;
use concord_wire::proto::feed::v1::{FeedItem, feed_item::Content};
use concord_wire::proto::operations::v1::Bundle;
use concord_wire::{agreement, registry};
use serde::{Deserialize, Serialize};

/// How the hub is known: pinned when it was joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubKeys {
    /// Its name.
    pub name: Name,
    /// `host:port`, the best first.
    pub addresses: Vec<String>,
    /// The secretariat's trust anchor that the hub was founded with, DER.
    pub anchor: Vec<u8>,
    /// SHA-256 of it.
    pub anchor_fingerprint: Fingerprint,
    /// Signed receipts first; what followed it, the feed tells.
    pub signing_key: PublicKey,
    /// The anchors under which it was known when the bundle was made, DER, where they are others.
    pub present_anchors: Vec<Vec<u8>>,
    /// The history of the hub's journal when the bundle was made.
    pub history: HistoryId,
}

/// Something the hub said cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A name or key does not parse.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A statement does not parse.
    #[error("{}", .0.message)]
    Statement(Refusal),
    /// A field has the wrong length.
    #[error("the bundle's {0} does not have its length")]
    Length(&'static str),
    /// It opens an epoch and does not say where the one before ended, or says so and opens none.
    #[error("feed item {0} has the end of an epoch without the statement that closed it, or the other way round")]
    EpochEnd(u64),
    /// Nothing in it is known here.
    #[error("feed item {0} has content that this version does not know: use a newer version of concord")]
    UnknownContent(u64),
}

impl HubKeys {
    /// Reads a bundle. Whether it is for this participant is asked where it is joined.
    pub fn from_bundle(bundle: &Bundle) -> Result<Self, DirectoryError> {
        let key = <[u8; 32]>::try_from(&bundle.signing_key[..]);
        let history = <[u8; 16]>::try_from(&bundle.history[..]);
        Ok(Self {
            name: Name::parse(&bundle.hub)?,
            addresses: bundle.addresses.clone(),
            anchor: bundle.anchor.to_vec(),
            anchor_fingerprint: agreement::certificate_fingerprint(&bundle.anchor),
            signing_key: agreement::public_key(key.map_err(|_| DirectoryError::Length("signing key"))?),
            present_anchors: bundle.present_anchors.iter().map(|anchor| anchor.to_vec()).collect(),
            history: HistoryId(history.map_err(|_| DirectoryError::Length("history"))?),
        })
    }
}

/// What this node knows of the forum. A position is a feed number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Directory {
    /// Participants, catalogue and keys.
    pub registry: Registry,
    /// The agreements that this participant is on.
    pub agreements: Agreements,
    /// The epochs of this participant's own chains.
    pub epochs: Epochs,
    pins: BTreeSet<AgreementRef>,
    /// Signing keys that an officer of this participant confirmed.
    confirmed: BTreeSet<(ParticipantCode, Fingerprint)>,
    /// Digests of the statements that were taken in: a hub that lost data tells again what it was handed back.
    taken_in: BTreeSet<Digest>,
}

impl Directory {
    /// Takes in an item whose statement was verified, and returns the statement, if it is one.
    pub fn apply(
        &mut self,
        hub: &HubKeys,
        own: &ParticipantCode,
        item: &FeedItem,
    ) -> Result<Option<Statement>, DirectoryError> {
        let at = optional_timestamp(item.recorded_at.as_ref()).unwrap_or_default();
        match &item.content {
            Some(Content::Registry(message)) => {
                let founding = founding(hub, registry::parse(message)?);
                self.registry.found(&founding, at);
                Ok(None)
            }
            Some(Content::Statement(signed)) => {
                let statement = agreement::parse_statement(signed).map_err(DirectoryError::Statement)?;
                let closes = item.closes.as_ref().map(parse_closed_epoch).transpose()?;
                if closes.is_some() != statement.closes().is_some_and(|(whose, _)| whose == own) {
                    return Err(DirectoryError::EpochEnd(item.number));
                }
                if self.taken_in.insert(statement.digest) {
                    let approvals = item.approvals.iter().map(agreement::parse_statement);
                    let officers = approvals.map(|approval| approval.map(|approval| approval.officer));
                    let signed_by = std::iter::once(Ok(statement.officer.clone())).chain(officers);
                    let signed_by: Vec<Name> =
                        signed_by.collect::<Result<_, _>>().map_err(DirectoryError::Statement)?;
                    self.take_in(own, &statement, &signed_by, closes, item.number, at);
                }
                Ok(Some(statement))
            }
            Some(Content::Lapsed(reference)) => {
                let reference = parse_agreement_ref(reference)?;
                let agreement = self.agreements.version(&reference);
                // That its time is over, those on it agreed; that somebody says so, nobody did.
                if agreement.and_then(|agreement| agreement.text.valid_until).is_some_and(|until| until <= at) {
                    self.agreements.lapse(&reference, item.number, at);
                }
                Ok(None)
            }
            Some(Content::StatementRefused(_) | Content::Receipts(_)) => Ok(None),
            None => Err(DirectoryError::UnknownContent(item.number)),
        }
    }

    fn take_in(
        &mut self,
        own: &ParticipantCode,
        statement: &Statement,
        signed_by: &[Name],
        closes: Option<ClosedEpoch>,
        position: u64,
        at: Timestamp,
    ) {
        // To a hub that lost it a change of keys may have been said anew: this node's epoch is closed by it once.
        let is_known = match &statement.content {
            StatementContent::Replace(replacement) => self.registry.repeats(&replacement.request),
            StatementContent::RotateKey(KeyRotation { signing_key, .. }) => {
                self.registry.signing_key(own, &signing_key.fingerprint).is_some()
            }
            _ => false,
        };
        if let Some(closed) = closes.filter(|_| !is_known) {
            let key = self.registry.enrolment(own).map(|enrolment| enrolment.signing_key.fingerprint);
            let replaced = key.filter(|_| statement.changes_key());
            self.epochs.close(own, closed, replaced);
        }
        self.registry.apply(statement, signed_by, at);
        self.agreements.apply(statement, position, at);
        if statement.participant != *own {
            return;
        }
        if let StatementContent::Return(reference, _) = &statement.content {
            self.lapse_unheard(&reference.id, position, at);
        }
        match &statement.content {
            StatementContent::Propose { text, digest } => {
                self.pins.insert(AgreementRef { id: text.id.clone(), version: text.version, digest: *digest });
            }
            StatementContent::Consent(reference) => {
                self.pins.insert(reference.clone());
            }
            StatementContent::Decline(..)
            | StatementContent::Leave(_)
            | StatementContent::Return(..)
            | StatementContent::Enrol(_)
            | StatementContent::Replace(_)
            | StatementContent::OpenEpoch(_)
            | StatementContent::RotateKey(_)
            | StatementContent::SucceedAnchor(_)
            | StatementContent::EndAnchor(_)
            | StatementContent::End(_)
            | StatementContent::Hold { .. }
            | StatementContent::Release(_)
            | StatementContent::Approve(_)
            | StatementContent::Reject(_)
            | StatementContent::Decided(_)
            | StatementContent::SetContact(_)
            | StatementContent::Role(_) => {}
        }
    }

    /// Whoever is out is not told that an amendment lapses on which it was: else that would wait for ever here.
    fn lapse_unheard(&mut self, id: &AgreementId, position: u64, at: Timestamp) {
        let due = self.agreements.due_to_lapse(at).filter(|version| version.text.id == *id);
        let lapsed: Vec<AgreementRef> = due.map(Agreement::reference).collect();
        lapsed.iter().for_each(|reference| self.agreements.lapse(reference, position, at));
    }

    /// Whether this statement was taken in before.
    pub fn has_taken_in(&self, statement: &Statement) -> bool {
        self.taken_in.contains(&statement.digest)
    }

    /// Whether an officer of this participant consented to exactly this version.
    pub fn is_pinned(&self, reference: &AgreementRef) -> bool {
        self.pins.contains(reference)
    }
}

impl Directory {
    /// Takes in that an officer confirmed a signing key.
    pub fn confirm_pin(&mut self, whose: &ParticipantCode, key: Fingerprint) {
        self.confirmed.insert((whose.clone(), key));
    }

    /// Whether an officer confirmed this signing key.
    pub fn is_confirmed(&self, whose: &ParticipantCode, key: &Fingerprint) -> bool {
        self.confirmed.contains(&(whose.clone(), *key))
    }

    /// Whether a consent of this participant names this signing key.
    pub fn is_consented(&self, whose: &ParticipantCode, key: &Fingerprint) -> bool {
        let party = |named| self.agreements.version(named).and_then(|version| version.text.party(whose));
        self.pins.iter().filter_map(party).any(|party| party.signing_key == *key)
    }

    /// Whether what a participant signs with `key` counts where a version was consented to that names `named`.
    ///
    /// Invariant: a key that came after the named one counts only where one that counts vouches for it, or by a word of this participant:
    /// a consent that names it, or an officer who confirmed it. An earlier key never does.
    pub fn counts(&self, whose: &ParticipantCode, named: &Fingerprint, key: &Fingerprint) -> bool {
        if named == key {
            return true;
        }
        let Some(enrolment) = self.registry.enrolment(whose) else { return false };
        let is_said = |one: &Fingerprint| self.is_confirmed(whose, one) || self.is_consented(whose, one);
        let mut counting = false;
        for (one, is_vouched_for) in enrolment.succession().skip_while(|(one, _)| one != named) {
            let follows = counting && (is_vouched_for || concord_faults::planted("count-any-later-key"));
            counting = one == *named || follows || is_said(&one);
            if one == *key {
                return counting;
            }
        }
        false
    }
}

fn founding(hub: &HubKeys, registry: registry::Registry) -> Founding {
    Founding {
        hub: hub.name.clone(),
        anchor: hub.anchor.clone(),
        anchor_fingerprint: hub.anchor_fingerprint,
        signing_key: hub.signing_key.clone(),
        participants: registry.participants,
        areas: registry.areas,
        measures: registry.measures,
    }
}
