//! Who there is, what may be exchanged, and whose keys are whose. Folded by the hub, and by every node for its directory.

use std::collections::BTreeMap;

use concord_model::{
    Area, Fingerprint, Measure, MeasureCode, Name, Participant, ParticipantCode, Party, PublicKey, Reason, Refusal,
    Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::fact::Founding;
use crate::statement::{JoinRequest, Statement, StatementContent};

/// The registry and the catalogue of one forum.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Registry {
    hub: Option<Name>,
    participants: BTreeMap<ParticipantCode, Participant>,
    areas: Vec<Area>,
    measures: Vec<Measure>,
    enrolments: BTreeMap<ParticipantCode, Enrolment>,
}

/// The keys that a participant is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Its node; the hub's name for the secretariat.
    pub node: Name,
    /// The trust anchor's certificate, DER.
    pub anchor: Vec<u8>,
    /// SHA-256 of it.
    pub anchor_fingerprint: Fingerprint,
    /// The key that signs consignments and acknowledgements; for the secretariat, receipts.
    pub signing_key: PublicKey,
    /// When the hub recorded it.
    pub enrolled_at: Timestamp,
}

impl Enrolment {
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
            return refuse(format!("this hub was founded before, under the name {hub}"));
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
        if *code == ParticipantCode::secretariat() {
            return taken(format!("the founding enrolled {code} with the hub's keys; nobody else does"));
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

    /// Whether the keys that a party signed are the registry's.
    pub fn check_keys(&self, party: &Party) -> Result<(), Refusal> {
        let code = &party.participant;
        let enrolment = self
            .enrolment(code)
            .ok_or_else(|| Refusal::new(Reason::ParticipantNotEnrolled, format!("{code} has no enrolled keys")))?;
        if enrolment.anchor_fingerprint == party.anchor && enrolment.signing_key.fingerprint == party.signing_key {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::FingerprintMismatch,
            format!("the fingerprints of {code} in the agreement are not those in the registry"),
        ))
    }

    /// Takes in the founding. Only the first counts.
    pub fn found(&mut self, founding: &Founding, at: Timestamp) {
        if self.hub.is_some() {
            return;
        }
        self.hub = Some(founding.hub.clone());
        self.participants =
            founding.participants.iter().map(|participant| (participant.code.clone(), participant.clone())).collect();
        self.areas.clone_from(&founding.areas);
        self.measures.clone_from(&founding.measures);
        self.enrolments.entry(ParticipantCode::secretariat()).or_insert_with(|| Enrolment {
            node: founding.hub.clone(),
            anchor: founding.anchor.clone(),
            anchor_fingerprint: founding.anchor_fingerprint,
            signing_key: founding.signing_key.clone(),
            enrolled_at: at,
        });
    }

    /// Takes in an accepted statement; only an enrolment means something here, and only a participant's first.
    pub fn apply(&mut self, statement: &Statement, at: Timestamp) {
        let StatementContent::Enrol(request) = &statement.content else {
            return;
        };
        self.enrolments.entry(request.participant.clone()).or_insert_with(|| Enrolment {
            node: request.node.clone(),
            anchor: request.anchor.clone(),
            anchor_fingerprint: request.anchor_fingerprint,
            signing_key: request.signing_key.clone(),
            enrolled_at: at,
        });
    }

    /// The hub's name, once it is founded.
    pub fn hub(&self) -> Option<&Name> {
        self.hub.as_ref()
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

    /// All enrolments, by participant.
    pub fn enrolments(&self) -> impl Iterator<Item = (&ParticipantCode, &Enrolment)> {
        self.enrolments.iter()
    }

    /// The keys of one participant.
    pub fn enrolment(&self, code: &ParticipantCode) -> Option<&Enrolment> {
        self.enrolments.get(code)
    }

    /// The signing key of a participant, if it has one with this fingerprint.
    pub fn signing_key(&self, code: &ParticipantCode, fingerprint: &Fingerprint) -> Option<&PublicKey> {
        self.enrolment(code).map(|enrolment| &enrolment.signing_key).filter(|key| key.fingerprint == *fingerprint)
    }

    /// Each trust anchor in DER, with the participant that it vouches for.
    pub fn anchors(&self) -> impl Iterator<Item = (&ParticipantCode, &[u8])> {
        self.enrolments.iter().map(|(code, enrolment)| (code, enrolment.anchor.as_slice()))
    }
}

fn first_repeated<'a, T: PartialEq>(sorted: &[&'a T]) -> Option<&'a T> {
    sorted.iter().zip(sorted.iter().skip(1)).find_map(|(one, next)| (one == next).then_some(*one))
}
