//! A small forum: SEC, KAZ (whose node is tested), IRN and TUR, with real keys, and a writer on a journal in memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use concord_identity::{AnchorKeys, CertificateRequest, LeafKey, LeafKeyKind, SigningKey, StatementSigner};
use concord_journal::{Blob, HistoryId, Journal, MemoryJournal};
use concord_model::{
    AgreementDigest, AgreementId, AgreementRef, AgreementText, Area, ChainKey, ConsignmentDigest, Description, Digest,
    ExchangeUuid, Handling, Header, Identity, Lane, Measure, MeasureCode, MediaType, Name, Part, Participant,
    ParticipantCode, ParticipantKind, Party, PartyRole, RequestId, Role, Terms, Timestamp, Title,
};
use concord_views::Views;
use concord_wire::agreement::{self, Draft, DraftContent, agreement_digest, encode_join_request, encode_text};
use concord_wire::consignment::{self, Sealed, blob_to_bytes};
use concord_wire::convert::timestamp;
use concord_wire::proto::agreement::v1::SignedStatement;
use concord_wire::proto::exchange::v1::Delivery;
use concord_wire::proto::feed::v1::{FeedItem, feed_item::Content};
use concord_wire::proto::operations::v1::Bundle;
use concord_wire::stored::node as stored;
use concord_wire::tree::Seed;
use concord_wire::{delivery, header, registry};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::index::Index;
use crate::projection::NodeProjection;
use crate::state::{Directory, HubKeys, NodeState};
use crate::writer::{Accepted, NodeWriter, Prepared, Writer, WriterError};
use concord_server::{Clock, SystemClock};

pub(super) const HISTORY: HistoryId = HistoryId([7; 16]);
pub(super) const MEASURE: &str = "challenges.2";
pub(super) const OTHER_MEASURE: &str = "challenges.3";

pub(super) fn code(text: &str) -> ParticipantCode {
    ParticipantCode::parse(text).unwrap()
}

pub(super) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(super) fn measure(text: &str) -> MeasureCode {
    MeasureCode::parse(text).unwrap()
}

pub(super) struct Member {
    pub(super) code: ParticipantCode,
    pub(super) anchor: AnchorKeys,
    pub(super) signing: SigningKey,
    officer: StatementSigner,
}

impl Member {
    pub(super) fn new(text: &str) -> Self {
        let (code, now) = (code(text), SystemClock.now());
        let anchor = AnchorKeys::create(&code, now).unwrap();
        let officer = signer(&anchor, &code, "officer");
        Self { code, anchor, signing: SigningKey::generate().unwrap(), officer }
    }

    pub(super) fn party(&self) -> Party {
        Party {
            participant: self.code.clone(),
            anchor: self.anchor.anchor().fingerprint(),
            signing_key: self.signing.public().fingerprint,
            role: PartyRole::Both,
        }
    }

    pub(super) fn says(&self, number: u64, content: DraftContent) -> SignedStatement {
        self.says_as("officer", number, content)
    }

    /// Signed by the one officer that there is, whatever name the statement gives.
    pub(super) fn says_as(&self, officer: &str, number: u64, content: DraftContent) -> SignedStatement {
        self.says_by(&self.officer, officer, number, content)
    }

    /// Signed by another officer, with a key of its own.
    pub(super) fn another_says(&self, officer: &str, number: u64, content: DraftContent) -> SignedStatement {
        self.says_by(&signer(&self.anchor, &self.code, officer), officer, number, content)
    }

    fn says_by(&self, signer: &StatementSigner, officer: &str, number: u64, content: DraftContent) -> SignedStatement {
        let draft = Draft {
            participant: self.code.clone(),
            officer: name(officer),
            hub: name("main"),
            number,
            made_at: SystemClock.now(),
            content,
        };
        let statement = agreement::encode_statement(&draft);
        SignedStatement {
            certificates: signer.chain().iter().map(|der| Bytes::copy_from_slice(der)).collect(),
            suite: concord_wire::SUITE_ED25519,
            signature: Bytes::copy_from_slice(&signer.sign_statement(&statement)),
            statement,
        }
    }

    pub(super) fn request(&self) -> Bytes {
        let key = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
        let identity = Identity { participant: self.code.clone(), role: Role::Node, name: name("main") };
        let request = CertificateRequest::leaf(&identity, key.public(), SystemClock.now());
        let certificate = self.anchor.issue(&request).unwrap();
        let (anchor, public) = (self.anchor.anchor().der(), self.signing.public());
        encode_join_request(&self.code, &name("main"), anchor, &public, &certificate, |message| {
            self.signing.sign(message)
        })
    }
}

fn signer(anchor: &AnchorKeys, code: &ParticipantCode, officer: &str) -> StatementSigner {
    let key = LeafKey::generate(LeafKeyKind::Ed25519).unwrap();
    let identity = Identity { participant: code.clone(), role: Role::Officer, name: name(officer) };
    let certificate = anchor.issue(&CertificateRequest::leaf(&identity, key.public(), SystemClock.now())).unwrap();
    StatementSigner::new(&[certificate], key.into_signing_key().unwrap()).unwrap()
}

/// That the key of this member's node is followed by another's, in this epoch.
pub(super) fn rotation(before: &Member, next: &Member, epoch: u32) -> DraftContent {
    let rotation = concord_ledger::KeyRotation {
        opening: Some(concord_ledger::EpochOpening { node: name("main"), epoch }),
        before: before.signing.public(),
        signing_key: next.signing.public(),
    };
    let sign = |of: &Member, bytes: &[u8]| of.signing.sign(bytes);
    DraftContent::RotateKey(agreement::keys::rotation(
        &before.code,
        &name("main"),
        &rotation,
        |bytes| sign(before, bytes),
        |bytes| sign(next, bytes),
    ))
}

pub(super) struct Forum {
    pub(super) sec: Member,
    pub(super) kaz: Member,
    pub(super) irn: Member,
    pub(super) tur: Member,
}

impl Forum {
    pub(super) fn new() -> Self {
        Self { sec: Member::new("SEC"), kaz: Member::new("KAZ"), irn: Member::new("IRN"), tur: Member::new("TUR") }
    }

    pub(super) fn bundle(&self) -> Bundle {
        Bundle {
            hub: "main".to_owned(),
            addresses: vec!["127.0.0.1:1".to_owned()],
            anchor: Bytes::copy_from_slice(self.sec.anchor.anchor().der()),
            signing_key: Bytes::copy_from_slice(&self.sec.signing.public().bytes),
            participant: "KAZ".to_owned(),
            enrolment_fingerprint: Bytes::from_static(&[0; 32]),
            history: Bytes::copy_from_slice(HISTORY.as_bytes()),
            replaces: false,
            present_anchors: Vec::new(),
        }
    }

    pub(super) fn hub(&self) -> HubKeys {
        HubKeys::from_bundle(&self.bundle()).unwrap()
    }

    /// KAZ, IRN and TUR on both measures, under a name.
    pub(super) fn text(&self, id: &str) -> AgreementText {
        AgreementText {
            id: AgreementId::parse(id).unwrap(),
            version: 1,
            title: Title::parse("Drug trafficking").unwrap(),
            measures: vec![measure(MEASURE), measure(OTHER_MEASURE)],
            parties: vec![self.irn.party(), self.kaz.party(), self.tur.party()],
            terms: Terms::default(),
            valid_until: None,
            amends: None,
            outgoing: Vec::new(),
            in_force: concord_model::InForceAmong::All,
        }
    }

    pub(super) fn registry_item(&self) -> FeedItem {
        let participant = |text: &str, kind| Participant {
            code: code(text),
            kind,
            names: [("en".to_owned(), text.to_owned())].into(),
        };
        let member = ParticipantKind::Member;
        let participants = [
            participant("IRN", member),
            participant("KAZ", member),
            participant("SEC", ParticipantKind::Secretariat),
            participant("TUR", member),
        ];
        let areas = [Area { slug: name("challenges"), title: "Challenges".to_owned() }];
        let measures = [MEASURE, OTHER_MEASURE].map(|text| Measure {
            code: measure(text),
            slug: name(&text.replace('.', "-")),
            title: text.to_owned(),
        });
        item(1, Content::Registry(registry::registry(&participants, &areas, &measures)))
    }

    pub(super) fn enrolment_item(&self, number: u64, statement: u64, member: &Member) -> FeedItem {
        item(number, Content::Statement(self.sec.says(statement, DraftContent::Enrol(member.request()))))
    }

    /// The registry, three enrolments, `KAZ/drugs` in force with item 7, and `IRN/other`, to which KAZ never consented.
    pub(super) fn feed(&self) -> Vec<FeedItem> {
        let (drugs, other) = (self.text("KAZ/drugs"), self.text("IRN/other"));
        let consent = DraftContent::Consent(reference(&drugs));
        let said = |member: &Member, number, content| Content::Statement(member.says(number, content));
        vec![
            self.registry_item(),
            self.enrolment_item(2, 1, &self.kaz),
            self.enrolment_item(3, 2, &self.irn),
            self.enrolment_item(4, 3, &self.tur),
            item(5, said(&self.kaz, 1, DraftContent::Propose(drugs))),
            item(6, said(&self.irn, 1, consent.clone())),
            item(7, said(&self.tur, 1, consent)),
            item(8, said(&self.irn, 2, DraftContent::Propose(other))),
        ]
    }

    pub(super) fn directory(&self) -> Directory {
        let mut directory = Directory::default();
        for item in self.feed() {
            directory.apply(&self.hub(), &self.kaz.code, &item).unwrap();
        }
        directory
    }

    /// An exchange of a member on lane routine, as it goes into a mailbox.
    pub(super) fn exchange(&self, origin: &Member, uuid: u8) -> (Header, Vec<Blob>) {
        let description = Description { title: Title::parse("Изъятие").unwrap(), caveats: Vec::new() };
        let description = Blob::seal([1; 32], header::encode_description(&description));
        let body = Blob::seal([2; 32], Bytes::from_static(b"seized"));
        let header = Header {
            origin: origin.code.clone(),
            node: name("main"),
            uuid: ExchangeUuid::from_parts(SystemClock.now(), &[uuid; 10]),
            agreement: reference(&self.text("KAZ/drugs")),
            measure: measure(MEASURE),
            lane: Lane::Routine,
            narrowing: None,
            language: None,
            created: SystemClock.now(),
            parts: vec![Part {
                media_type: MediaType::parse("text/csv").unwrap(),
                size_bytes: body.bytes().len() as u64,
                commitment: Digest(*body.commitment().as_bytes()),
            }],
            description: Digest(*description.commitment().as_bytes()),
            handling: Handling::Amber,
            expires_at: None,
            supersedes: None,
            exercise: false,
            withdraws: None,
            agencies: Vec::new(),
        };
        (header, vec![description, body])
    }
}

pub(super) fn reference(text: &AgreementText) -> AgreementRef {
    let digest: AgreementDigest = agreement_digest(&encode_text(text));
    AgreementRef { id: text.id.clone(), version: text.version, digest }
}

pub(super) fn item(number: u64, content: Content) -> FeedItem {
    FeedItem {
        number,
        recorded_at: Some(timestamp(SystemClock.now())),
        content: Some(content),
        closes: None,
        approvals: Vec::new(),
    }
}

/// A sealed exchange as a delivery with this number, judged at the end of [`Forum::feed`].
pub(super) fn delivered(signer: &Member, header: &Header, blobs: &[Blob], number: u64) -> Delivery {
    let chain =
        ChainKey { origin: header.origin.clone(), hub: name("main"), node: name("main"), epoch: 1, lane: header.lane };
    let previous = ConsignmentDigest(Digest::ZERO);
    let headers = vec![header::encode(header)];
    let key = signer.signing.public().fingerprint;
    let sealed: Sealed =
        consignment::seal(chain, 1, previous, Seed::new([5; 32]), headers, key, |message| signer.signing.sign(message));
    let blobs = blobs.iter().map(blob_to_bytes).collect();
    delivery::delivery(&sealed, &sealed.tree(), 0, number, blobs, SystemClock.now(), 8).unwrap()
}

pub(super) struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// A writer that runs, on a journal that outlives it.
pub(super) struct Running {
    pub(super) writer: NodeWriter,
    pub(super) state: watch::Receiver<Arc<NodeState>>,
    pub(super) index: Index,
    pub(super) journal: MemoryJournal,
    stop: CancellationToken,
    task: JoinHandle<Result<(), WriterError>>,
}

pub(super) async fn founded(forum: &Forum) -> MemoryJournal {
    let journal = MemoryJournal::new(HistoryId([1; 16]), 0);
    let now = SystemClock.now();
    let drafts = vec![
        stored::founded(&forum.kaz.code, &name("main"), now),
        stored::joined(forum.bundle(), now),
        stored::agency_added(&name("customs"), &[], now),
    ];
    journal.append(journal.tail(), drafts).await.unwrap();
    journal
}

impl Running {
    pub(super) fn start(forum: &Forum, journal: MemoryJournal, views: &Path) -> Self {
        let written = Arc::new(journal.clone());
        Self::start_on(forum, journal, written, views)
    }

    /// Writes to a journal that may do otherwise than the one that it keeps its entries in.
    pub(super) fn start_on(forum: &Forum, journal: MemoryJournal, written: Arc<dyn Journal>, views: &Path) -> Self {
        let snapshots = crate::open::snapshots(views.with_file_name("snapshots"));
        let state = crate::open::fold(&snapshots, &journal).unwrap().state;
        let (views, _) = Views::open(views, NodeProjection::VERSION, &journal).unwrap();
        views.catch_up(&journal, &mut NodeProjection, journal.tail(), |_| {}).unwrap();
        let index = Index::new(views, written);
        let key = SigningKey::from_pkcs8_der(&forum.kaz.signing.to_pkcs8_der().unwrap()).unwrap();
        let keys = Arc::new(crate::signing::NodeKeys::only(key));
        let clock = Arc::new(TestClock(AtomicI64::new(SystemClock.now().as_micros())));
        let (writer, handle, state) = Writer::new(state, index.clone(), keys, clock);
        let stop = CancellationToken::new();
        let task = tokio::spawn(writer.run(stop.clone()));
        Self { writer: handle, state, index, journal, stop, task }
    }

    /// Ends the writer and closes the views; the journal is what a restart finds.
    pub(super) async fn stop(self) -> MemoryJournal {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        self.journal
    }

    /// How the writer ended by itself.
    pub(super) async fn ended(self) -> Result<(), WriterError> {
        self.task.await.unwrap()
    }

    pub(super) fn now(&self) -> Arc<NodeState> {
        Arc::clone(&self.state.borrow())
    }
}

/// An exchange of KAZ's agency, ready to be queued.
pub(super) fn prepared(forum: &Forum, request_id: &str, content: &'static [u8], lane: Lane) -> Box<Prepared> {
    let (mut header, blobs) = forum.exchange(&forum.kaz, content.first().copied().unwrap_or(0));
    header.lane = lane;
    let serialised = header::encode(&header);
    Box::new(Prepared {
        agency: name("customs"),
        request_id: RequestId::parse(request_id).unwrap(),
        request: Bytes::from_static(content),
        lane,
        answer: Accepted {
            id: header::exchange_id(&serialised),
            agreement: header.agreement.id.clone(),
            measure: header.measure,
            exercise: header.exercise,
        },
        header: serialised,
        blobs,
        withdraws: None,
        by_right: None,
        second: None,
    })
}

/// Looks until it is so; fails after a time that is long on any machine.
pub(super) async fn until(mut is_so: impl FnMut() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(600), looking).await.expect("it did not become so");
}
