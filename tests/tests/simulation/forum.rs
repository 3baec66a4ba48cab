//! Who takes part: the secretariat and five states with real keys, made once; and the journals with which they begin.

use std::sync::Arc;

use bytes::Bytes;
use concord_identity::{
    Anchor, AnchorKeys, CertificateRequest, Credentials, LeafKey, LeafKeyKind, SigningKey, StatementSigner,
};
use concord_journal::{Draft as JournalDraft, HistoryId, Journal, MemoryJournal};
use concord_ledger::Founding;
use concord_model::{
    AgreementId, AgreementText, Area, Identity, Measure, MeasureCode, Name, Participant, ParticipantCode,
    ParticipantKind, Party, PartyRole, Role, Terms, Timestamp, Title,
};
use concord_server::{Clock as _, SystemClock};
use concord_wire::agreement::{Draft, DraftContent, encode_join_request, encode_statement};
use concord_wire::proto::agreement::v1::SignedStatement;
use concord_wire::proto::operations::v1::Bundle;
use concord_wire::stored;
use futures::FutureExt as _;

use crate::clock::{BEGIN, HOUR};

/// The states, in the order of their nodes' numbers.
pub(crate) const STATES: [&str; 5] = ["IRN", "KAZ", "KGZ", "TJK", "TUR"];
/// The agencies of every state.
pub(crate) const AGENCIES: [&str; 2] = ["customs", "police"];
pub(crate) const MEASURE: &str = "challenges.2";
/// The agreement of all five, which nobody leaves.
pub(crate) const ALL: &str = "IRN/all";
/// The agreement of the first four, which some leave.
pub(crate) const SOME: &str = "KAZ/some";

/// Where the hub is found, where there are addresses.
pub(crate) const HUB_ADDRESS: &str = "hub:7443";

const FIRST_HISTORY: HistoryId = HistoryId([1; 16]);

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(crate) fn code(text: &str) -> ParticipantCode {
    ParticipantCode::parse(text).unwrap()
}

/// A participant with its keys.
pub(crate) struct Member {
    pub(crate) code: ParticipantCode,
    keys: AnchorKeys,
    signing: Vec<u8>,
    officer: StatementSigner,
    join_request: Bytes,
}

impl Member {
    fn new(text: &str) -> Self {
        let code = code(text);
        // A day before, so that a clock that is behind by an hour still finds them valid.
        let made_at = Timestamp::from_micros(BEGIN.as_micros() - 24 * HOUR);
        let keys = AnchorKeys::create(&code, made_at).unwrap();
        let key = LeafKey::generate(LeafKeyKind::Ed25519).unwrap();
        let identity = |role, of: &str| Identity { participant: code.clone(), role, name: name(of) };
        let request = CertificateRequest::leaf(&identity(Role::Officer, "officer"), key.public(), made_at);
        let certificate = keys.issue(&request).unwrap();
        let officer = StatementSigner::new(&[certificate], key.into_signing_key().unwrap()).unwrap();
        let signing = SigningKey::generate().unwrap();
        let node_key = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
        let request = CertificateRequest::leaf(&identity(Role::Node, "main"), node_key.public(), made_at);
        let certificate = keys.issue(&request).unwrap();
        let (der, public) = (keys.anchor().der(), signing.public());
        let join_request =
            encode_join_request(&code, &name("main"), der, &public, &certificate, |message| signing.sign(message));
        let kept = signing.to_pkcs8_der().unwrap().to_vec();
        Self { keys, signing: kept, officer, join_request, code }
    }

    pub(crate) fn anchor(&self) -> &Anchor {
        self.keys.anchor()
    }

    /// A certificate for TLS with its key, of whoever acts for this participant. It is valid now by this machine's own clock, which is
    /// the one that TLS goes by.
    pub(crate) fn credentials(&self, role: Role, of: &str) -> Credentials {
        let key = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
        let identity = Identity { participant: self.code.clone(), role, name: name(of) };
        let request = CertificateRequest::leaf(&identity, key.public(), SystemClock.now());
        Credentials::new(vec![self.keys.issue(&request).unwrap()], &key).unwrap()
    }

    pub(crate) fn signing_key(&self) -> SigningKey {
        SigningKey::from_pkcs8_der(&self.signing).unwrap()
    }

    fn party(&self) -> Party {
        Party {
            participant: self.code.clone(),
            anchor: self.anchor().fingerprint(),
            signing_key: self.signing_key().public().fingerprint,
            role: PartyRole::Both,
        }
    }

    /// A statement of the state's officer.
    pub(crate) fn says(&self, number: u64, content: DraftContent) -> SignedStatement {
        let statement = encode_statement(&Draft {
            participant: self.code.clone(),
            officer: name("officer"),
            hub: name("main"),
            number,
            made_at: BEGIN,
            content,
        });
        SignedStatement {
            certificates: self.officer.chain().iter().map(|der| Bytes::copy_from_slice(der)).collect(),
            suite: concord_wire::SUITE_ED25519,
            signature: Bytes::copy_from_slice(&self.officer.sign_statement(&statement)),
            statement,
        }
    }
}

/// All participants.
pub(crate) struct Forum {
    pub(crate) secretariat: Arc<Member>,
    pub(crate) states: Vec<Arc<Member>>,
}

impl Forum {
    pub(crate) fn new() -> Self {
        let states = STATES.map(|code| Arc::new(Member::new(code)));
        Self { secretariat: Arc::new(Member::new("SEC")), states: states.into() }
    }

    /// The text of an agreement among the first so many states.
    pub(crate) fn text(&self, id: &str, parties: usize) -> AgreementText {
        AgreementText {
            id: AgreementId::parse(id).unwrap(),
            version: 1,
            title: Title::parse("Simulated").unwrap(),
            measures: vec![MeasureCode::parse(MEASURE).unwrap()],
            parties: self.states[..parties].iter().map(|member| member.party()).collect(),
            terms: Terms::default(),
            valid_until: None,
            amends: None,
            outgoing: Vec::new(),
            in_force: concord_model::InForceAmong::All,
        }
    }

    /// A consent of the secretariat's officer to a state's keys.
    pub(crate) fn enrolment(&self, number: u64, state: usize) -> SignedStatement {
        self.secretariat.says(number, DraftContent::Enrol(self.states[state].join_request.clone()))
    }

    /// The journal of a hub that was just made.
    pub(crate) fn hub_journal(&self) -> MemoryJournal {
        let participant = |text: &str, kind| Participant {
            code: code(text),
            kind,
            names: [("en".to_owned(), text.to_owned())].into(),
        };
        let states = STATES.iter().map(|code| participant(code, ParticipantKind::Member));
        let founding = Founding {
            hub: name("main"),
            anchor: self.secretariat.anchor().der().to_vec(),
            anchor_fingerprint: self.secretariat.anchor().fingerprint(),
            signing_key: self.secretariat.signing_key().public(),
            participants: states.chain([participant("SEC", ParticipantKind::Secretariat)]).collect(),
            areas: vec![Area { slug: name("challenges"), title: "Challenges".to_owned() }],
            measures: vec![Measure {
                code: MeasureCode::parse(MEASURE).unwrap(),
                slug: name("challenges-2"),
                title: "Drugs".to_owned(),
            }],
        };
        journal(vec![stored::hub::founded(&founding, BEGIN)])
    }

    /// The journal of a node that joined and has its agencies.
    pub(crate) fn node_journal(&self, state: usize) -> MemoryJournal {
        let bundle = Bundle {
            hub: "main".to_owned(),
            addresses: vec![HUB_ADDRESS.to_owned()],
            anchor: Bytes::copy_from_slice(self.secretariat.anchor().der()),
            signing_key: Bytes::copy_from_slice(&self.secretariat.signing_key().public().bytes),
            participant: STATES[state].to_owned(),
            enrolment_fingerprint: Bytes::from_static(&[0; 32]),
            history: Bytes::copy_from_slice(FIRST_HISTORY.as_bytes()),
            replaces: false,
            present_anchors: Vec::new(),
        };
        let founded = stored::node::founded(&self.states[state].code, &name("main"), BEGIN);
        let agencies = AGENCIES.map(|agency| stored::node::agency_added(&name(agency), &[], BEGIN));
        journal([founded, stored::node::joined(bundle, BEGIN)].into_iter().chain(agencies).collect())
    }
}

fn journal(drafts: Vec<JournalDraft>) -> MemoryJournal {
    let journal = MemoryJournal::new(FIRST_HISTORY, BEGIN.as_micros());
    journal.append(journal.tail(), drafts).now_or_never().unwrap().unwrap();
    journal
}
