//! Who there is, what may be exchanged, and whose keys are whose. Folded by the hub, and by every node for its directory.

use std::collections::BTreeMap;

use concord_model::{
    Area, Fingerprint, Measure, MeasureCode, Name, Participant, ParticipantCode, Party, PublicKey, Reason, Refusal,
    Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::contact::Contacts;
use crate::decision::{Change, Changes, insert_measure};
use crate::fact::Founding;
use crate::hold::{Hold, Holds};
use crate::role::Roles;
use crate::statement::{DecisionContent, ForumDecision, JoinRequest, Replacement, Statement, StatementContent};
use crate::succession::EndingAnchor;

/// The registry and the catalogue of one forum.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Registry {
    /// The hub: its name, and its keys, of which the anchor is the secretariat's.
    hub: Option<Enrolment>,
    participants: BTreeMap<ParticipantCode, Participant>,
    areas: Vec<Area>,
    measures: Vec<Measure>,
    enrolments: BTreeMap<ParticipantCode, Enrolment>,
    holds: Holds,
    /// As they began, at the founding or by a decision.
    begun: BTreeMap<ParticipantCode, Participant>,
    changes: BTreeMap<ParticipantCode, Changes>,
    added_measures: BTreeMap<MeasureCode, Changes>,
    contacts: Contacts,
    roles: Roles,
}

/// The keys that a participant is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Its node; of the hub's own keys the hub.
    pub node: Name,
    /// The trust anchor's certificate, DER.
    pub anchor: Vec<u8>,
    /// SHA-256 of it.
    pub anchor_fingerprint: Fingerprint,
    /// The anchor before it, while that counts too.
    pub ending: Option<EndingAnchor>,
    /// The key that signs consignments and acknowledgements; of the hub's own, receipts.
    pub signing_key: PublicKey,
    /// When the hub recorded it.
    pub enrolled_at: Timestamp,
    /// The officers of the secretariat who signed for these keys, in order, of a state that changed its own for those that vouch for them; none
    /// for the founding.
    pub signed_by: Vec<Name>,
    /// What it was known by before, the first first: what was said and signed with them stands for ever.
    pub earlier: Vec<EarlierKeys>,
}

/// Keys that others followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierKeys {
    /// The trust anchor's certificate, DER.
    pub anchor: Vec<u8>,
    /// SHA-256 of it.
    pub anchor_fingerprint: Fingerprint,
    /// The key that signed consignments and acknowledgements.
    pub signing_key: PublicKey,
    /// Whether it vouches for what followed; else the secretariat bound the participant to other keys.
    pub vouches: bool,
}

impl Enrolment {
    /// The trust anchors that officers' certificates are judged by, the present one first.
    pub fn anchors(&self) -> impl Iterator<Item = &[u8]> {
        let earlier = self.earlier.iter().rev().map(|keys| keys.anchor.as_slice());
        std::iter::once(self.anchor.as_slice()).chain(earlier)
    }

    /// A signing key that it has or had.
    pub fn known_key(&self, fingerprint: &Fingerprint) -> Option<&PublicKey> {
        let earlier = self.earlier.iter().map(|keys| &keys.signing_key);
        std::iter::once(&self.signing_key).chain(earlier).find(|key| key.fingerprint == *fingerprint)
    }

    fn says_the_same_as(&self, request: &JoinRequest) -> bool {
        self.node == request.node
            && self.anchor == request.anchor
            && self.anchor_fingerprint == request.anchor_fingerprint
            && self.signing_key == request.signing_key
    }
}

impl Registry {
    /// Whether a founding may be recorded: once, with the secretariat, each name once.
    pub fn check_found(&self, founding: &Founding) -> Result<(), Refusal> {
        let refuse = |message: String| Err(Refusal::new(Reason::ArgumentInvalid, message));
        if let Some(hub) = &self.hub {
            return refuse(format!("this hub was founded before, under the name {}", hub.node));
        }
        let secretariat = ParticipantCode::secretariat();
        let mut codes: Vec<_> = founding.participants.iter().map(|one| &one.code).collect();
        if !codes.contains(&&secretariat) {
            return refuse(format!("the participants do not include {secretariat}, which runs the hub"));
        }
        codes.sort_unstable();
        if let Some(twice) = first_repeated(&codes) {
            return refuse(format!("the participant {twice} is named twice"));
        }
        let mut measures: Vec<_> = founding.measures.iter().map(|one| &one.code).collect();
        measures.sort_unstable();
        if let Some(twice) = first_repeated(&measures) {
            return refuse(format!("the measure {twice} is named twice"));
        }
        Ok(())
    }

    /// Whether a participant may be enrolled with these keys. The same request again is a harmless repeat.
    pub fn check_enrol(&self, by: &ParticipantCode, request: &JoinRequest) -> Result<(), Refusal> {
        let code = &request.participant;
        if *by != ParticipantCode::secretariat() {
            return Err(Refusal::new(
                Reason::CallerNotAllowed,
                "only an officer of the secretariat enrols participants",
            ));
        }
        if self.participant(code).is_none() {
            return Err(Refusal::new(
                Reason::ParticipantUnknown,
                format!("there is no participant {code} in the registry"),
            ));
        }
        let taken = |message: String| Err(Refusal::new(Reason::ParticipantAlreadyEnrolled, message));
        // It has one anchor, by which all know the hub and the secretariat's officers.
        let is_own = |hub: &Enrolment| hub.anchor == request.anchor && hub.signing_key != request.signing_key;
        if *code == ParticipantCode::secretariat() && !self.hub.as_ref().is_some_and(is_own) {
            return taken(format!("a node of {code} has the hub's trust anchor, and a signing key of its own"));
        }
        match self.enrolment(code) {
            Some(enrolment) if !enrolment.says_the_same_as(request) => {
                taken(format!("{code} is enrolled with its node {} and other keys", enrolment.node))
            }
            _ => Ok(()),
        }
    }

    /// Whether this request only says again what the registry has.
    pub fn repeats(&self, request: &JoinRequest) -> bool {
        self.enrolment(&request.participant).is_some_and(|enrolment| enrolment.says_the_same_as(request))
    }

    /// Whether the keys that a party signed are the registry's, or lead to them by their owner's own word alone.
    pub fn check_keys(&self, party: &Party) -> Result<(), Refusal> {
        let code = &party.participant;
        let enrolment = self
            .enrolment(code)
            .ok_or_else(|| Refusal::new(Reason::ParticipantNotEnrolled, format!("{code} has no enrolled keys")))?;
        if enrolment.leads_from(&party.anchor, &party.signing_key) {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::FingerprintMismatch,
            format!("the fingerprints of {code} in the agreement are not those in the registry"),
        ))
    }

    /// Whether the key that a party signed is one that the participant has or had. Whether what came after it counts for those who
    /// consented is each recipient's own to say.
    pub fn check_known(&self, party: &Party) -> Result<(), Refusal> {
        match self.enrolment(&party.participant) {
            Some(enrolment) if enrolment.known_key(&party.signing_key).is_some() => Ok(()),
            _ => self.check_keys(party),
        }
    }

    /// Takes in the founding. Only the first counts.
    pub fn found(&mut self, founding: &Founding, at: Timestamp) {
        if self.hub.is_some() {
            return;
        }
        self.participants =
            founding.participants.iter().map(|participant| (participant.code.clone(), participant.clone())).collect();
        self.begun.clone_from(&self.participants);
        self.areas.clone_from(&founding.areas);
        self.measures.clone_from(&founding.measures);
        self.hub = Some(Enrolment {
            node: founding.hub.clone(),
            anchor: founding.anchor.clone(),
            anchor_fingerprint: founding.anchor_fingerprint,
            ending: None,
            signing_key: founding.signing_key.clone(),
            enrolled_at: at,
            signed_by: Vec::new(),
            earlier: Vec::new(),
        });
    }

    /// Takes in a statement that takes effect, with those who signed it: only a participant's first enrolment means something here,
    /// keys that follow others, holds, what the forum decided, contact points and roles.
    pub fn apply(&mut self, statement: &Statement, signed_by: &[Name], at: Timestamp) {
        match &statement.content {
            StatementContent::Enrol(request) => {
                self.enrolments.entry(request.participant.clone()).or_insert_with(|| Enrolment {
                    node: request.node.clone(),
                    anchor: request.anchor.clone(),
                    anchor_fingerprint: request.anchor_fingerprint,
                    ending: None,
                    signing_key: request.signing_key.clone(),
                    enrolled_at: at,
                    signed_by: signed_by.to_vec(),
                    earlier: Vec::new(),
                });
            }
            // To a hub that lost it a replacement may have been said anew: the keys change once.
            StatementContent::Replace(Replacement { request, .. }) if self.repeats(request) => {}
            StatementContent::Replace(Replacement { request, .. }) => {
                let Some(enrolment) = self.enrolments.get_mut(&request.participant) else { return };
                enrolment.earlier.push(enrolment.keys(false));
                enrolment.anchor.clone_from(&request.anchor);
                enrolment.anchor_fingerprint = request.anchor_fingerprint;
                enrolment.ending = None;
                enrolment.signing_key.clone_from(&request.signing_key);
                enrolment.enrolled_at = at;
                enrolment.signed_by = signed_by.to_vec();
            }
            StatementContent::RotateKey(rotation) => {
                let keys = match &rotation.opening {
                    Some(_) => self.enrolments.get_mut(&statement.participant),
                    None => self.hub.as_mut(),
                };
                if let Some(keys) = keys.filter(|keys| keys.signing_key == rotation.before) {
                    keys.rotate(&rotation.signing_key, at);
                    // Of the hub's the secretariat's officers are known as who signed.
                    if rotation.opening.is_none() {
                        keys.signed_by = signed_by.to_vec();
                    }
                }
            }
            // At a node a hub that lies may say that others vouch for it.
            StatementContent::SucceedAnchor(next) if self.vouches(&statement.participant, &next.signing_key) => {
                let is_secretariats = statement.participant == ParticipantCode::secretariat();
                for keys in self.with_anchor_of(&statement.participant) {
                    keys.succeed(next, at);
                    if is_secretariats {
                        keys.signed_by = signed_by.to_vec();
                    }
                }
            }
            StatementContent::SucceedAnchor(_) => {}
            StatementContent::EndAnchor(anchor) => {
                self.with_anchor_of(&statement.participant).for_each(|keys| keys.end(anchor));
            }
            StatementContent::Hold { participant, reason } => {
                let (participant, by, reason) = (participant.clone(), statement.participant.clone(), reason.clone());
                self.holds.lay(statement.digest, Hold { participant, by, reason, since: at });
            }
            StatementContent::Release(hold) => self.holds.lift(&statement.participant, *hold),
            StatementContent::Decided(decision) => self.decide(statement, decision, at),
            StatementContent::SetContact(setting) => self.contacts.take_in(statement, setting, at),
            StatementContent::Role(decision) => self.roles.take_in(statement, decision, at),
            _ => {}
        }
    }

    /// The keys that have the anchor of a participant: its node's, and the hub's where it is the secretariat.
    fn with_anchor_of(&mut self, participant: &ParticipantCode) -> impl Iterator<Item = &mut Enrolment> {
        let hub = self.hub.as_mut().filter(|_| *participant == ParticipantCode::secretariat());
        self.enrolments.get_mut(participant).into_iter().chain(hub)
    }

    /// What the founding has under a code stays, else what was made first; and changes may come before what they change.
    fn decide(&mut self, statement: &Statement, decision: &ForumDecision, at: Timestamp) {
        let participant = match &decision.content {
            DecisionContent::AddMeasure(measure) => {
                let is_there = self.measure(&measure.code).is_some();
                if is_there && !self.added_measures.contains_key(&measure.code) {
                    return;
                }
                let added = self.added_measures.entry(measure.code.clone()).or_default();
                added.take_in(statement, decision, at);
                let Some(DecisionContent::AddMeasure(first)) = added.addition().map(|change| &change.decision.content)
                else {
                    return;
                };
                match self.measures.iter_mut().find(|one| one.code == first.code) {
                    Some(one) => one.clone_from(first),
                    None => insert_measure(&mut self.measures, first.clone()),
                }
                return;
            }
            DecisionContent::AddParticipant(participant) => {
                if self.begun.contains_key(&participant.code) && !self.is_added(&participant.code) {
                    return;
                }
                &participant.code
            }
            DecisionContent::Rename { participant, .. } | DecisionContent::SetKind { participant, .. } => participant,
        };
        let changes = self.changes.entry(participant.clone()).or_default();
        changes.take_in(statement, decision, at);
        if let Some(DecisionContent::AddParticipant(first)) = changes.addition().map(|change| &change.decision.content)
        {
            self.begun.insert(participant.clone(), first.clone());
        }
        if let Some(begun) = self.begun.get(participant) {
            self.participants.insert(participant.clone(), changes.applied_to(begun));
        }
    }

    /// What the forum decided about a participant since it began.
    pub fn changes_of(&self, participant: &ParticipantCode) -> Option<&Changes> {
        self.changes.get(participant)
    }

    /// A participant as it began.
    pub fn begun(&self, participant: &ParticipantCode) -> Option<&Participant> {
        self.begun.get(participant)
    }

    /// By what a measure joined the catalogue; none of the founding's.
    pub fn addition_of(&self, measure: &MeasureCode) -> Option<&Change> {
        self.added_measures.get(measure)?.addition()
    }

    /// Whether a participant joined by a decision, not with the founding.
    pub(crate) fn is_added(&self, participant: &ParticipantCode) -> bool {
        self.changes.get(participant).is_some_and(|changes| changes.addition().is_some())
    }

    /// The technical holds.
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Whom one calls in each state.
    pub fn contacts(&self) -> &Contacts {
        &self.contacts
    }

    /// The chair, and who coordinates what.
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// Whether the keys of a participant's node may be replaced by these.
    pub fn check_replace(&self, by: &ParticipantCode, request: &JoinRequest) -> Result<(), Refusal> {
        let code = &request.participant;
        let secretariat = ParticipantCode::secretariat();
        if *by != secretariat || *code == secretariat {
            let what = "only an officer of the secretariat replaces a node's keys, and not those of the hub";
            return Err(Refusal::new(Reason::CallerNotAllowed, what));
        }
        let enrolment = self
            .enrolment(code)
            .ok_or_else(|| Refusal::new(Reason::ParticipantNotEnrolled, format!("{code} has no keys to replace")))?;
        if enrolment.node != request.node {
            let what = format!("the node of {code} is {}, and a new one takes its name too", enrolment.node);
            return Err(Refusal::new(Reason::StatementMalformed, what));
        }
        if self.repeats(request) {
            let what =
                format!("{code} is enrolled with these keys: without --replace the request gets its bundle again");
            return Err(Refusal::new(Reason::ParticipantAlreadyEnrolled, what));
        }
        // Whoever has the old ones could else vouch for the old node.
        let is_known = enrolment.known_key(&request.signing_key.fingerprint).is_some();
        if is_known || enrolment.anchors().any(|anchor| anchor == request.anchor) {
            let what = format!("{code} has or had this signing key or this trust anchor: a new node brings new ones");
            return Err(Refusal::new(Reason::ParticipantAlreadyEnrolled, what));
        }
        Ok(())
    }

    /// The hub's name, once it is founded.
    pub fn hub(&self) -> Option<&Name> {
        self.hub.as_ref().map(|hub| &hub.node)
    }

    /// The hub's keys: the secretariat's anchor, and the key that signs receipts.
    pub fn hub_keys(&self) -> Option<&Enrolment> {
        self.hub.as_ref()
    }

    /// The keys by which people know a participant: its node's; of a secretariat that runs no node of its own, the hub's.
    pub fn shown_keys(&self, code: &ParticipantCode) -> Option<&Enrolment> {
        let is_secretariat = *code == ParticipantCode::secretariat();
        self.enrolment(code).or_else(|| self.hub_keys().filter(|_| is_secretariat))
    }

    /// The trust anchors that officers' certificates of a participant are judged by, the present one first; none before its keys are known.
    pub fn anchors_of(&self, code: &ParticipantCode) -> impl Iterator<Item = &[u8]> {
        self.shown_keys(code).into_iter().flat_map(Enrolment::anchors)
    }

    /// The anchors that an officer's certificate is judged by who says this: of what is about keys and chains only those that count now, so
    /// that nobody goes on from an anchor that was ended; of all else also those of before, since what was said under them stands and may be
    /// told late.
    pub fn anchors_for<'a>(&'a self, statement: &Statement) -> Vec<&'a [u8]> {
        let Some(keys) = self.shown_keys(&statement.participant) else { return Vec::new() };
        match statement.is_about_own_keys() {
            true => keys.present_anchors().collect(),
            false => keys.anchors().collect(),
        }
    }

    /// All participants, by code.
    pub fn participants(&self) -> impl Iterator<Item = &Participant> {
        self.participants.values()
    }

    /// One participant.
    pub fn participant(&self, code: &ParticipantCode) -> Option<&Participant> {
        self.participants.get(code)
    }

    /// The areas, in the catalogue's order.
    pub fn areas(&self) -> &[Area] {
        &self.areas
    }

    /// The measures, in the catalogue's order.
    pub fn measures(&self) -> &[Measure] {
        &self.measures
    }

    /// One measure.
    pub fn measure(&self, code: &MeasureCode) -> Option<&Measure> {
        self.measures.iter().find(|measure| &measure.code == code)
    }

    /// All enrolments of nodes, by participant; the secretariat is among them where it runs one beside the hub.
    pub fn enrolments(&self) -> impl Iterator<Item = (&ParticipantCode, &Enrolment)> {
        self.enrolments.iter()
    }

    /// The keys of one participant's node.
    pub fn enrolment(&self, code: &ParticipantCode) -> Option<&Enrolment> {
        self.enrolments.get(code)
    }

    /// The signing key with this fingerprint, if it is or was the participant's. From which consignment on it counts, its epochs say.
    pub fn signing_key(&self, code: &ParticipantCode, fingerprint: &Fingerprint) -> Option<&PublicKey> {
        self.enrolment(code)?.known_key(fingerprint)
    }

    /// Each trust anchor in DER under which callers are known, with the participant that it vouches for.
    pub fn anchors(&self) -> impl Iterator<Item = (&ParticipantCode, &[u8])> {
        let secretariat = self.participants.get_key_value(&ParticipantCode::secretariat()).map(|(code, _)| code);
        // A node of the secretariat's has the hub's anchor.
        let others = self.enrolments.iter().filter(move |(code, _)| secretariat != Some(*code));
        let all = secretariat.zip(self.hub.as_ref()).into_iter().chain(others);
        all.flat_map(|(code, keys)| keys.present_anchors().map(move |anchor| (code, anchor)))
    }
}

fn first_repeated<'a, T: PartialEq>(sorted: &[&'a T]) -> Option<&'a T> {
    sorted.iter().zip(sorted.iter().skip(1)).find_map(|(one, next)| (one == next).then_some(*one))
}
