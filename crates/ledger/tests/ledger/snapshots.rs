//! A snapshot is the ledger: nothing is lost in it, and what it holds changes only with its version.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use concord_ledger::{
    Acknowledge, At, Command, ContactSetting, DecisionContent, Fact, ForumDecision, HistoryBegun, JoinRequest,
    LEDGER_STATE_VERSION, Ledger, Lost, NodeSeen, NotHealed, NoticeOutcome, Quorum, Replacement, RoleDecision,
    SenderNotice, StatementContent,
};
use concord_model::{Digest, ExchangeId, ForumRole, Lane, Measure, Name, Reason, RoleScope, Title};

use crate::forum::{Forum, HISTORY, chain, contact, join_request, t};

/// Folds the facts through a snapshot after each of them, and beside it without any.
pub(crate) fn check_at_every_fact(facts: &[(Fact, At)]) {
    let (mut folded, mut through_snapshots) = (Ledger::default(), Ledger::default());
    for (fact, at) in facts {
        folded.apply(fact, *at);
        through_snapshots.apply(fact, *at);
        let bytes = postcard::to_stdvec(&through_snapshots).unwrap();
        through_snapshots = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(through_snapshots, folded, "after entry {}", at.sequence);
    }
}

/// Something of everything that a ledger keeps.
fn everything() -> Forum {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    forum.agree("KAZ/floods", &["IRN", "KAZ"]);
    forum.leave("IRN", "KAZ/floods").unwrap();
    forum.agree("KAZ/floods", &["IRN", "KAZ", "TUR"]);
    let declined = forum.propose("IRN/drugs", &["IRN", "TUR"]).unwrap();
    forum.decline("TUR", &declined).unwrap();
    let agreement = forum.agree("TUR/drugs", &["IRN", "TUR"]);
    for _ in 0..2 {
        let header = forum.header("TUR", &agreement);
        forum.send("TUR", vec![header]).unwrap();
    }
    let acknowledge = Acknowledge {
        recipient: t("IRN"),
        lane: Lane::Routine,
        delivered_before: 0,
        delivered_through: 2,
        taken_before: 0,
        taken_count: 1,
        notices: vec![SenderNotice {
            chain: chain("TUR", Lane::Routine),
            number: 1,
            items: Vec::new(),
            outcome: NoticeOutcome::Taken,
        }],
    };
    forum.run(&Command::Acknowledge(acknowledge)).unwrap();
    forum.record(Fact::HistoryBegun(HistoryBegun { history: [2; 16], parent: Some(HISTORY) }));
    let id = ExchangeId(Digest([7; 32]));
    let lost = [
        (Lost::Exchange { id, recipients: vec![t("IRN"), t("TUR")] }, Reason::BlobMismatch),
        (Lost::Statement { officer: Name::parse("officer").unwrap(), number: 9 }, Reason::StatementOutOfOrder),
        (Lost::Consignment { lane: Lane::Flash, epoch: 1, number: 5 }, Reason::Fork),
    ];
    forum.record(Fact::NotHealed(NotHealed { participant: t("KAZ"), lost: lost.into() }));
    let setting = ContactSetting { measure: None, revision: 1, contact: Some(contact("duty officer")) };
    forum.say("KAZ", StatementContent::SetContact(setting)).unwrap();
    let (participant, reference) = (t("IRN"), t("a decision"));
    let (role, scope) = (ForumRole::Coordinator, RoleScope { words: Some(t("poppies")), ..RoleScope::default() });
    let decision = RoleDecision { participant, role, scope, revision: 1, is_given: true, reference };
    forum.say("SEC", StatementContent::Role(decision)).unwrap();
    for history in [3, 4] {
        forum.record(Fact::NodeSeen(NodeSeen { participant: t("IRN"), history: [history; 16], run: [5; 16] }));
    }
    // One that was rejected, and one that waits.
    for keys in ["ABC", "ABD"] {
        let request = JoinRequest { participant: t("TUR"), ..join_request(keys) };
        let replacement = Replacement { request, reference: Title::parse("note 17").unwrap() };
        let said = forum.statement("SEC", StatementContent::Replace(replacement));
        forum.run(&Command::Statement(said.clone(), Quorum::new(2).unwrap())).unwrap();
        assert!(forum.last_statement().waits());
        if keys == "ABC" {
            forum.say("SEC", StatementContent::Reject(said.digest)).unwrap();
        }
    }
    let names = BTreeMap::from([("en".to_owned(), "Another name".to_owned())]);
    let measure = Measure { code: t("challenges.77"), slug: t("water"), title: "Shared rivers".to_owned() };
    for content in
        [DecisionContent::Rename { participant: t("KAZ"), revision: 1, names }, DecisionContent::AddMeasure(measure)]
    {
        let reference = Title::parse("decision 4").unwrap();
        forum.say("SEC", StatementContent::Decided(ForumDecision { content, reference })).unwrap();
    }
    forum
}

#[test]
fn a_snapshot_after_every_fact_of_a_forum_is_its_ledger() {
    check_at_every_fact(&everything().facts);
}

/// The bytes show every change of a field. A change of what `apply` does to it shows nowhere: raise the version then, too.
#[test]
fn what_a_snapshot_holds_changes_only_with_its_version() {
    let bytes = postcard::to_stdvec(&everything().ledger).unwrap();
    let mut text =
        format!("# The state of a small forum's ledger as a snapshot holds it.\nversion: {LEDGER_STATE_VERSION}\n");
    for line in bytes.chunks(64) {
        line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/snapshot.txt");
    if std::env::var_os("CONCORD_BLESS").is_some_and(|value| value == "1") {
        return std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == text,
        "what a snapshot of the ledger holds has changed: raise LEDGER_STATE_VERSION above the committed one (snapshots that \
         were written before are ignored then), and `CONCORD_BLESS=1 cargo test -p concord-ledger` writes the file anew"
    );
}
