//! A sequencer on a ledger with three agreed states, and a journal whose syncs the test lets pass.

#![allow(clippy::unwrap_used, reason = "a fixture that cannot be made fails its test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use concord_hub::fencing::{NodeRun, ShownJournal, ShownLane};
use concord_hub::sequencer::{Proposal, Sequencer, SequencerTask};
use concord_journal::hooked::{AppendHook, HookedJournal};
use concord_journal::{
    AppendError, Blob, Bodies, Committed, Draft, FileJournal, FrameMark, HistoryId, Journal, MemoryJournal,
    OpenOptions, Redacted, Tail,
};
use concord_ledger::{
    At, Audience, ClosedEpoch, Command, Decision, EpochOpening, Founding, Handed, JoinRequest, Ledger, NodeLine,
    Quorum, Statement, StatementContent, Stood,
};
use concord_model::{
    AgreementDigest, AgreementId, AgreementRef, AgreementText, ChainKey, ConsignmentDigest, Description, Digest,
    ExchangeUuid, Fingerprint, Handling, Header, Lane, MeasureCode, MediaType, Name, Part, Participant,
    ParticipantCode, ParticipantKind, Party, PartyRole, PublicKey, Terms, Timestamp, Title,
};
use concord_server::Clock;
use concord_wire::consignment::{Opened, Sealed, blob_to_bytes, open, seal, to_message};
use concord_wire::proto::agreement::v1::SignedStatement;
use concord_wire::tree::Seed;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};

pub(crate) use failing_disk::FailingDisk;

mod failing_disk;

const STATES: [&str; 3] = ["IRN", "KAZ", "TUR"];
const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// Stands still until the test moves it.
#[derive(Default)]
struct StoppedClock {
    moved_micros: AtomicI64,
}

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(NOW.as_micros() + self.moved_micros.load(Ordering::SeqCst))
    }
}

/// The sequencer under test.
pub(crate) struct Bench {
    pub(crate) sequencer: Sequencer,
    clock: Arc<StoppedClock>,
    journal: Arc<HookedJournal<SlowAppends>>,
    begun: mpsc::UnboundedReceiver<()>,
    task: tokio::task::JoinHandle<Result<(), AppendError>>,
}

impl Bench {
    pub(crate) fn start() -> Self {
        let (begun_in, begun) = mpsc::unbounded_channel();
        let hook = SlowAppends {
            passes: Arc::new(Semaphore::new(0)),
            begun: begun_in,
            appends: AtomicUsize::new(0),
            full: Arc::default(),
        };
        let inner = MemoryJournal::new(HistoryId([1; 16]), NOW.as_micros());
        let journal = Arc::new(HookedJournal { inner, hook });
        let clock = Arc::new(StoppedClock::default());
        let (task, sequencer) = SequencerTask::new(
            Arc::clone(&journal) as _,
            Arc::clone(&clock) as _,
            name("main"),
            agreed_ledger(&journal.inner),
        );
        Self { sequencer, clock, journal, begun, task: tokio::spawn(task.run()) }
    }

    /// Resolves when the next append has been handed to the journal.
    pub(crate) async fn append_begun(&mut self) {
        self.begun.recv().await.unwrap();
    }

    /// Time passes.
    pub(crate) fn pass(&self, time: Duration) {
        self.clock.moved_micros.fetch_add(time.as_micros() as i64, Ordering::SeqCst);
    }

    pub(crate) fn let_sync_pass(&self) {
        self.journal.hook.passes.add_permits(1);
    }

    /// The append that is begun finds no room, and so does every one that passes until there is room again.
    pub(crate) fn fill_disk(&self) {
        self.journal.hook.full.store(true, Ordering::SeqCst);
    }

    pub(crate) fn make_room(&self) {
        self.journal.hook.full.store(false, Ordering::SeqCst);
    }

    /// What a start would make of the journal as it is now.
    pub(crate) fn folded(&self) -> Ledger {
        folded(&self.journal.inner)
    }

    pub(crate) fn fail_sync(&self) {
        self.journal.hook.passes.close();
    }

    pub(crate) fn appends(&self) -> usize {
        self.journal.hook.appends.load(Ordering::SeqCst)
    }

    pub(crate) async fn ended(&mut self) -> Result<(), AppendError> {
        (&mut self.task).await.unwrap()
    }
}

/// Appends that wait for the test.
struct SlowAppends {
    passes: Arc<Semaphore>,
    begun: mpsc::UnboundedSender<()>,
    appends: AtomicUsize,
    full: Arc<AtomicBool>,
}

impl AppendHook for SlowAppends {
    fn append(
        &self,
        inner: &MemoryJournal,
        expected: Tail,
        batch: Vec<Draft>,
    ) -> BoxFuture<'static, Result<Committed, AppendError>> {
        self.appends.fetch_add(1, Ordering::SeqCst);
        self.begun.send(()).unwrap();
        let passes = Arc::clone(&self.passes);
        let append = inner.append(expected, batch);
        let full = Arc::clone(&self.full);
        async move {
            match passes.acquire().await {
                Ok(pass) => pass.forget(),
                Err(_) => return Err(AppendError::OutcomeUnknown { reason: "the test's disk failed".to_owned() }),
            }
            if full.load(Ordering::SeqCst) {
                return Err(AppendError::NoRoom { size: 1, reason: "the test's disk is full".to_owned() });
            }
            append.await
        }
        .boxed()
    }

    /// Where the disk is full, as a journal that could only finish an earlier redaction: no error, and nothing of this one.
    fn redact(
        &self,
        inner: &MemoryJournal,
        expected: Tail,
        recorded_at: i64,
        bodies: Vec<Bodies>,
    ) -> BoxFuture<'static, Result<Redacted, AppendError>> {
        if self.full.load(Ordering::SeqCst) {
            return async move { Ok(Redacted { tail: expected, recorded: false, gone: false }) }.boxed();
        }
        inner.redact(expected, recorded_at, bodies)
    }
}

/// A sequencer on the journal of this disk, opened anew and folded as a start does.
pub(crate) fn on_file_journal(
    disk: &Arc<FailingDisk>,
) -> (Sequencer, tokio::task::JoinHandle<Result<(), AppendError>>) {
    let options = OpenOptions::new(NOW.as_micros(), HistoryId([7; 16]), FrameMark([3; 8]));
    let (journal, _) = FileJournal::open(Arc::clone(disk) as _, &options).unwrap();
    let ledger = folded(&journal);
    let (task, sequencer) =
        SequencerTask::new(Arc::new(journal), Arc::new(StoppedClock::default()), name("main"), ledger);
    (sequencer, tokio::spawn(task.run()))
}

fn folded(journal: &dyn Journal) -> Ledger {
    let mut ledger = agreed_ledger(journal);
    for entry in journal.read(2, usize::MAX).unwrap() {
        let fact = concord_wire::stored::hub::read(&entry).unwrap().into_fact();
        ledger.apply(&fact, At { sequence: entry.sequence, now: Timestamp::from_micros(entry.recorded_at) });
    }
    ledger
}

/// A state that consigns.
pub(crate) struct State {
    pub(crate) code: ParticipantCode,
}

pub(crate) fn state(code: &str) -> State {
    State { code: ParticipantCode::parse(code).unwrap() }
}

impl State {
    /// A run of its node.
    pub(crate) fn run(&self, run: u8) -> NodeRun {
        NodeRun { participant: self.code.clone(), run: [run; 16] }
    }

    /// Its node shows a journal that was restored in this history, and had these runs.
    pub(crate) fn seen(&self, history: u8, runs: &[u8]) -> Proposal {
        let line = NodeLine {
            history: [history; 16],
            ancestors: (1..history).map(|before| [before; 16]).collect(),
            runs: runs.iter().map(|run| [*run; 16]).collect(),
            restored_in: Some([history; 16]),
            rebuilt_in: None,
        };
        let journal = Box::new(ShownJournal { line, lanes: Vec::new() });
        Proposal::SeeNode { participant: self.code.clone(), journal }
    }

    /// The next run of its node shows its journal in the history of before, which has routine consignments up to this one.
    pub(crate) fn seen_again(&self, history: u8, runs: &[u8], chain_last: u64) -> Proposal {
        let mut proposal = self.seen(history, runs);
        if let Proposal::SeeNode { journal, .. } = &mut proposal {
            let chain = self.chain(Lane::Routine);
            journal.lanes.push(ShownLane { chain, chain_last, received_through: 0, taken_count: 0 });
        }
        proposal
    }

    pub(crate) fn chain(&self, lane: Lane) -> ChainKey {
        ChainKey { origin: self.code.clone(), hub: name("main"), node: name("main"), epoch: 1, lane }
    }

    /// A consignment of one small exchange. Its previous digest is right where the numbers go up from 1 on the same lane.
    pub(crate) fn consignment(&self, lane: Lane, number: u64) -> Proposal {
        self.consign(lane, number, 16)
    }

    /// Another consignment of one small exchange under the same number.
    pub(crate) fn other_consignment(&self, lane: Lane, number: u64) -> Proposal {
        self.consign(lane, number, 17)
    }

    /// A consignment of one exchange of four megabytes.
    pub(crate) fn large_consignment(&self, lane: Lane, number: u64) -> Proposal {
        self.consign(lane, number, 4 * 1024 * 1024)
    }

    /// A consignment of one small exchange that was recorded before the hub lost it; its content is gone at its node.
    pub(crate) fn rehanded_without_content(&self, lane: Lane, number: u64, recipients: &[&str]) -> Proposal {
        let (sealed, _) = self.sealed(lane, number, 16);
        let opened = open(to_message(&sealed, [Vec::new()]), &self.code, |_, _, _| Ok(())).unwrap();
        let agreement = AgreementRef { id: agreement_text().id, version: 1, digest: digest_of_text() };
        let recipients = recipients.iter().map(|code| ParticipantCode::parse(code).unwrap()).collect();
        Proposal::Rehand(Box::new(opened), vec![Stood::Recorded(Audience { agreement, recipients })])
    }

    /// Proposes that the third state goes, for an hour only.
    pub(crate) fn amends_for_an_hour(&self, number: u64) -> Proposal {
        let mut text = AgreementText {
            version: 2,
            amends: Some(Self::agreed()),
            valid_until: Some(Timestamp::from_micros(NOW.as_micros() + 3_600_000_000)),
            ..agreement_text()
        };
        text.outgoing = vec![text.parties.remove(2).participant];
        self.says(number, StatementContent::Propose { text, digest: AgreementDigest(Digest([9; 32])) })
    }

    /// Its consent to that.
    pub(crate) fn consents_to_the_hour(&self, number: u64) -> Proposal {
        let digest = AgreementDigest(Digest([9; 32]));
        self.says(number, StatementContent::Consent(AgreementRef { version: 2, digest, ..Self::agreed() }))
    }

    /// Its leave of what all agreed.
    pub(crate) fn leaves(&self, number: u64) -> Proposal {
        self.says(number, StatementContent::Leave(Self::agreed()))
    }

    fn agreed() -> AgreementRef {
        AgreementRef { id: agreement_text().id, version: 1, digest: digest_of_text() }
    }

    fn says(&self, number: u64, content: StatementContent) -> Proposal {
        let Command::Statement(statement, _) = statement(&self.code, number, content) else { panic!("a statement") };
        Proposal::Statement(Box::new(statement), SignedStatement::default())
    }

    /// The leave of an agreement that the hub does not know, handed back by its own node, which was told of it.
    pub(crate) fn handed_leave_of_nothing(&self, number: u64) -> Proposal {
        let id = AgreementId::parse("KAZ/nothing").unwrap();
        let content = StatementContent::Leave(AgreementRef { id, version: 1, digest: digest_of_text() });
        let Command::Statement(statement, _) = statement(&self.code, number, content) else { panic!("a statement") };
        let handed = Handed {
            statement,
            by: self.code.clone(),
            was_told: true,
            refused: None,
            closes: None,
            approvals: Vec::new(),
            quorum: Quorum::ONE,
        };
        Proposal::HandBack(Box::new(handed), SignedStatement::default(), Vec::new())
    }

    /// The opening of epoch 2, handed back by its own node, which was told that its chains ended here.
    pub(crate) fn handed_epoch(&self, number: u64, closes: ClosedEpoch) -> Proposal {
        let content = StatementContent::OpenEpoch(EpochOpening { node: self.chain(Lane::Routine).node, epoch: 2 });
        let Command::Statement(statement, _) = statement(&self.code, number, content) else { panic!("a statement") };
        let handed = Handed {
            statement,
            by: self.code.clone(),
            was_told: true,
            refused: None,
            closes: Some(closes),
            approvals: Vec::new(),
            quorum: Quorum::ONE,
        };
        Proposal::HandBack(Box::new(handed), SignedStatement::default(), Vec::new())
    }

    fn consign(&self, lane: Lane, number: u64, size: usize) -> Proposal {
        let (sealed, blobs) = self.sealed(lane, number, size);
        let message = to_message(&sealed, [blobs.iter().map(blob_to_bytes).collect()]);
        let opened: Opened = open(message, &self.code, |_, _, _| Ok(())).unwrap();
        Proposal::Consign(Box::new(opened))
    }

    fn sealed(&self, lane: Lane, number: u64, size: usize) -> (Sealed, Vec<Blob>) {
        // Sizes are part of the chain: a large one follows small ones and large ones follow it.
        let previous = match number {
            1 => ConsignmentDigest(Digest::ZERO),
            2 => self.sealed(lane, 1, 16).0.digest,
            _ => self.sealed(lane, number - 1, size).0.digest,
        };
        let title = Description { title: Title::parse("Test").unwrap(), caveats: Vec::new() };
        let description = Blob::seal([1; 32], concord_wire::header::encode_description(&title));
        let body = Blob::seal([2; 32], vec![7; size].into());
        let header = Header {
            origin: self.code.clone(),
            node: name("main"),
            uuid: ExchangeUuid::from_parts(NOW, &[number as u8; 10]),
            agreement: AgreementRef { id: agreement_text().id, version: 1, digest: digest_of_text() },
            measure: MeasureCode::parse("economic.1").unwrap(),
            lane,
            narrowing: None,
            language: None,
            created: NOW,
            parts: vec![Part {
                media_type: MediaType::parse("text/plain").unwrap(),
                size_bytes: size as u64,
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
        let chain = self.chain(lane);
        let headers: Vec<Bytes> = vec![concord_wire::header::encode(&header)];
        let sealed =
            seal(chain, number, previous, Seed::new([3; 32]), headers, key(&self.code).fingerprint, |_| [0; 64]);
        (sealed, vec![description, body])
    }
}

/// A ledger in which three states are enrolled and agreed; it stands where the journal begins.
fn agreed_ledger(journal: &dyn Journal) -> Ledger {
    let mut ledger = Ledger::default();
    let codes = STATES.map(|code| ParticipantCode::parse(code).unwrap());
    let secretariat = ParticipantCode::secretariat();
    let participant = |code: &ParticipantCode, kind| Participant {
        code: code.clone(),
        kind,
        names: [("en".to_owned(), code.to_string())].into(),
    };
    let members = codes.iter().map(|code| participant(code, ParticipantKind::Member));
    let founding = Founding {
        hub: name("main"),
        anchor: Vec::new(),
        anchor_fingerprint: fingerprint(&secretariat, 1),
        signing_key: key(&secretariat),
        participants: members.chain([participant(&secretariat, ParticipantKind::Secretariat)]).collect(),
        areas: vec![concord_model::Area { slug: name("economic"), title: "Economy".to_owned() }],
        measures: vec![concord_model::Measure {
            code: MeasureCode::parse("economic.1").unwrap(),
            slug: name("transport"),
            title: "Transport".to_owned(),
        }],
    };
    let mut commands = vec![Command::Found(founding)];
    for (number, code) in (1..).zip(&codes) {
        let request = JoinRequest {
            participant: code.clone(),
            node: name("main"),
            anchor: code.as_str().into(),
            anchor_fingerprint: fingerprint(code, 1),
            signing_key: key(code),
        };
        commands.push(statement(&secretariat, number, StatementContent::Enrol(request)));
    }
    let text = agreement_text();
    let reference = AgreementRef { id: text.id.clone(), version: 1, digest: digest_of_text() };
    commands.push(statement(&codes[1], 1, StatementContent::Propose { text, digest: digest_of_text() }));
    for code in [&codes[0], &codes[2]] {
        commands.push(statement(code, 1, StatementContent::Consent(reference.clone())));
    }
    for command in commands {
        // All of it at the journal's first entry: the test's journal holds only what the test appends.
        let at = At { sequence: journal.first_sequence(), now: NOW };
        let Ok(Decision::Fact { fact, refusal: None }) = ledger.decide(&command, at) else { panic!("{command:?}") };
        ledger.apply(&fact, at);
    }
    ledger
}

fn statement(by: &ParticipantCode, number: u64, content: StatementContent) -> Command {
    let statement = Statement {
        participant: by.clone(),
        officer: name("officer"),
        hub: name("main"),
        number,
        made_at: NOW,
        digest: Digest([number as u8; 32]),
        content,
    };
    Command::Statement(statement, Quorum::ONE)
}

fn agreement_text() -> AgreementText {
    let party = |code: &str| {
        let participant = ParticipantCode::parse(code).unwrap();
        Party {
            anchor: fingerprint(&participant, 1),
            signing_key: key(&participant).fingerprint,
            role: PartyRole::Both,
            participant,
        }
    };
    AgreementText {
        id: AgreementId::parse("KAZ/test").unwrap(),
        version: 1,
        title: Title::parse("Test").unwrap(),
        measures: vec![MeasureCode::parse("economic.1").unwrap()],
        parties: STATES.map(party).into(),
        terms: Terms::default(),
        valid_until: None,
        amends: None,
        outgoing: Vec::new(),
        in_force: concord_model::InForceAmong::All,
    }
}

fn digest_of_text() -> AgreementDigest {
    concord_wire::agreement::agreement_digest(&concord_wire::agreement::encode_text(&agreement_text()))
}

fn key(code: &ParticipantCode) -> PublicKey {
    PublicKey { bytes: [code.as_str().as_bytes()[0]; 32], fingerprint: fingerprint(code, 2) }
}

fn fingerprint(code: &ParticipantCode, kind: u8) -> Fingerprint {
    let mut bytes = [kind; 32];
    bytes[..3].copy_from_slice(&code.as_str().as_bytes()[..3]);
    Fingerprint(Digest(bytes))
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}
