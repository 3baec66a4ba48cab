//! What the forum decides about itself: participants and measures join, names and kinds change, and nothing goes.

use std::collections::BTreeMap;

use concord_ledger::{
    Command, Decision, DecisionContent, ForumDecision, Handed, Quorum, Registry, Shown, Statement, StatementContent,
};
use concord_model::{Digest, Measure, Name, Participant, ParticipantKind, Reason, Refusal, Timestamp, Title};

use crate::forum::{Forum, HISTORY, reason, t};

fn named(code: &str) -> Participant {
    let names = BTreeMap::from([("en".to_owned(), format!("The state {code}"))]);
    Participant { code: t(code), kind: ParticipantKind::ObserverState, names }
}

fn measure(code: &str) -> Measure {
    let slug = format!("water-{}", code.split('.').next_back().unwrap());
    Measure { code: t(code), slug: t(&slug), title: "Shared rivers".to_owned() }
}

fn rename(code: &str, revision: u32, name: &str) -> DecisionContent {
    let names = BTreeMap::from([("en".to_owned(), name.to_owned())]);
    DecisionContent::Rename { participant: t(code), revision, names }
}

fn set_kind(code: &str, revision: u32, kind: ParticipantKind) -> DecisionContent {
    DecisionContent::SetKind { participant: t(code), revision, kind }
}

fn decided(content: DecisionContent) -> StatementContent {
    StatementContent::Decided(ForumDecision { content, reference: Title::parse("decision 4").unwrap() })
}

impl Forum {
    fn decides(&mut self, content: DecisionContent) -> Result<(), Refusal> {
        self.say("SEC", decided(content))
    }

    /// What another participant's node hands back; why it is refused, if it is.
    pub(crate) fn takes_back(&mut self, statement: &Statement) -> Option<Reason> {
        let handed = Handed {
            statement: statement.clone(),
            by: t("IRN"),
            was_told: true,
            refused: None,
            closes: None,
            approvals: Vec::new(),
            quorum: Quorum::ONE,
        };
        match self.run(&Command::HandBack(handed)).unwrap() {
            Decision::Fact { refusal, .. } => refusal.map(|refusal| refusal.reason),
            other => panic!("{other:?}"),
        }
    }

    /// The first measure's area with a number that is free.
    fn free_measure(&self) -> String {
        let first = self.ledger.registry().measures()[0].code.to_string();
        format!("{}.77", first.split('.').next().unwrap())
    }
}

#[test]
fn a_participant_joins_with_a_feed_that_begins_with_what_everybody_was_told() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let told_before = forum.ledger.feed_last(&t("KAZ"));
    forum.decides(DecisionContent::AddParticipant(named("TKM"))).unwrap();
    let fact = forum.last_statement().clone();
    // The founding, two enrolments.
    assert_eq!((fact.begins_with.len(), fact.begins()), (3, Some(&t("TKM"))));
    assert_eq!(forum.ledger.feed_last(&t("TKM")), 4);
    assert_eq!(forum.ledger.feed_last(&t("KAZ")), told_before + 1);
    forum.enrol("TKM").unwrap();
    assert_eq!(forum.ledger.feed_last(&t("TKM")), 5);
    forum.agree("KAZ/with-them", &["KAZ", "TKM"]);
    assert!(forum.ledger.agreements().in_force(&t("KAZ/with-them")).is_some());
    crate::snapshots::check_at_every_fact(&forum.facts);
}

#[test]
fn whoever_joins_is_told_what_everybody_was_told_behind_the_numbers_that_its_feed_has() {
    for knows in [0, 9] {
        let mut forum = Forum::of(["KAZ", "IRN"]);
        if knows > 0 {
            // Of numbers that this hub forgot.
            let shown = Shown { history: HISTORY, number: knows, digest: None };
            forum.run(&Command::ResumeFeed { participant: t("TKM"), shown, common: 0 }).unwrap();
        }
        forum.decides(DecisionContent::AddParticipant(named("TKM"))).unwrap();
        let fact = forum.last_statement();
        let tells = fact.tells().filter(|(code, ..)| **code == t("TKM"));
        let (numbers, entries): (Vec<_>, Vec<_>) = tells.map(|(_, number, entry)| (number, entry)).unzip();
        assert_eq!(numbers, (knows + 1..=knows + 4).collect::<Vec<_>>());
        // The founding, two enrolments, and the addition itself.
        assert_eq!(entries, fact.begins_with.iter().copied().map(Some).chain([None]).collect::<Vec<_>>());
        assert_eq!(forum.ledger.feed_last(&t("TKM")), knows + 4);
    }
}

#[test]
fn codes_are_never_used_again_and_what_has_no_place_is_refused() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let free = forum.free_measure();
    let refused = |decided: Result<(), Refusal>| decided.unwrap_err().reason;
    let of = |participant: Participant| DecisionContent::AddParticipant(participant);
    assert_eq!(refused(forum.decides(of(named("KAZ")))), Reason::ParticipantExists);
    let secretariat = Participant { kind: ParticipantKind::Secretariat, ..named("TKM") };
    assert_eq!(refused(forum.decides(of(secretariat))), Reason::ArgumentInvalid);
    let nameless = Participant { names: BTreeMap::from([("ru".to_owned(), "Т".to_owned())]), ..named("TKM") };
    assert_eq!(refused(forum.decides(of(nameless))), Reason::ArgumentInvalid);
    let torn = Participant { names: BTreeMap::from([("en".to_owned(), "a\nb".to_owned())]), ..named("TKM") };
    assert_eq!(refused(forum.decides(of(torn))), Reason::ArgumentInvalid);
    assert_eq!(refused(forum.decides(rename("TKM", 1, "x"))), Reason::ParticipantUnknown);
    assert_eq!(refused(forum.decides(rename("KAZ", 2, "x"))), Reason::RegistryChanged);
    assert_eq!(refused(forum.decides(set_kind("SEC", 1, ParticipantKind::Member))), Reason::ArgumentInvalid);
    forum.decides(DecisionContent::AddMeasure(measure(&free))).unwrap();
    assert_eq!(refused(forum.decides(DecisionContent::AddMeasure(measure(&free)))), Reason::MeasureExists);
    let under_its_name = Measure { slug: measure(&free).slug, ..measure(&free.replace(".77", ".78")) };
    assert_eq!(refused(forum.decides(DecisionContent::AddMeasure(under_its_name))), Reason::MeasureExists);
    assert_eq!(refused(forum.decides(DecisionContent::AddMeasure(measure("nowhere.1")))), Reason::ArgumentInvalid);
    let kaz = forum.ledger.registry().participant(&t("KAZ")).unwrap().clone();
    for nothing in [set_kind("KAZ", 1, kaz.kind), rename("KAZ", 1, &kaz.names["en"])] {
        assert_eq!(refused(forum.decides(nothing)), Reason::ArgumentInvalid);
    }
    let by_a_state = forum.say("KAZ", decided(of(named("TKM"))));
    assert_eq!(reason(by_a_state), Err(Reason::CallerNotAllowed));
}

#[test]
fn names_and_kinds_change_and_what_they_were_stays_known() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let before = forum.ledger.registry().participant(&t("KAZ")).unwrap().clone();
    forum.decides(rename("KAZ", 1, "The first new name")).unwrap();
    forum.decides(rename("KAZ", 2, "The second new name")).unwrap();
    forum.decides(set_kind("KAZ", 3, ParticipantKind::ObserverState)).unwrap();
    let registry = forum.ledger.registry();
    let now = registry.participant(&t("KAZ")).unwrap();
    assert_eq!((now.names["en"].as_str(), now.kind), ("The second new name", ParticipantKind::ObserverState));
    assert_eq!(registry.begun(&t("KAZ")), Some(&before));
    let changes = registry.changes_of(&t("KAZ")).unwrap();
    assert_eq!(changes.iter().map(|(number, _)| number).collect::<Vec<_>>(), [1, 2, 3]);
    let (_, first) = changes.iter().next().unwrap();
    assert_eq!((first.officer.as_str(), first.decision.reference.as_str()), ("officer", "decision 4"));
}

/// Everything that a registry says, but for when it was recorded.
fn said_by(registry: &Registry) -> (Vec<Participant>, Vec<Measure>) {
    (registry.participants().cloned().collect(), registry.measures().to_vec())
}

#[test]
fn whatever_order_decisions_come_back_in_the_registry_is_the_same() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let area = forum.free_measure();
    let other = area.replace(".77", ".78");
    let contents = [
        DecisionContent::AddParticipant(named("TKM")),
        rename("TKM", 1, "Their first name"),
        rename("TKM", 2, "Their second name"),
        set_kind("TKM", 3, ParticipantKind::Member),
        DecisionContent::AddMeasure(measure(&area)),
        DecisionContent::AddMeasure(measure(&other)),
    ];
    let statements: Vec<Statement> = contents
        .into_iter()
        .map(|content| {
            let statement = forum.statement("SEC", decided(content));
            forum.run(&Command::Statement(statement.clone(), Quorum::ONE)).unwrap();
            statement
        })
        .collect();
    let expected = said_by(forum.ledger.registry());

    for shift in 0..statements.len() {
        for reversed in [false, true] {
            let mut order = statements.clone();
            order.rotate_left(shift);
            if reversed {
                order.reverse();
            }
            // At a hub that lost them, handed back by a node.
            let mut restored = Forum::of(["KAZ", "IRN"]);
            // And at a node that is told them so.
            let mut told = Forum::of(["KAZ", "IRN"]).ledger.registry().clone();
            for statement in &order {
                assert_eq!(restored.takes_back(statement), None);
                let officers: [Name; 1] = [statement.officer.clone()];
                told.apply(statement, &officers, Timestamp::from_micros(1));
            }
            assert_eq!(said_by(restored.ledger.registry()), expected);
            assert_eq!(said_by(&told), expected);
        }
    }
}

#[test]
fn no_change_that_comes_back_takes_the_numbers_of_the_next_ones() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    for revision in [0, 1002, u32::MAX] {
        let far = forum.statement("SEC", decided(rename("KAZ", revision, "A name from afar")));
        assert_eq!(forum.takes_back(&far), Some(Reason::RegistryChanged), "{revision}");
    }
    forum.decides(rename("KAZ", 1, "A name")).unwrap();
}

#[test]
fn what_was_decided_anew_where_it_had_been_lost_comes_out_the_same_whichever_comes_first() {
    let area = Forum::of(["KAZ", "IRN"]).free_measure();
    let titled = |title: &str| Measure { title: title.to_owned(), ..measure(&area) };
    let called =
        |name: &str| Participant { names: BTreeMap::from([("en".to_owned(), name.to_owned())]), ..named("TKM") };
    let twice = [
        [DecisionContent::AddParticipant(called("Before")), DecisionContent::AddParticipant(called("Anew"))],
        [DecisionContent::AddMeasure(titled("Before")), DecisionContent::AddMeasure(titled("Anew"))],
        [rename("KAZ", 1, "Before"), rename("KAZ", 1, "Anew")],
    ];
    for [before, anew] in twice {
        let mut ends = Vec::new();
        // Digests in the order of the times, and in the other.
        for digests in [[1, 2], [2, 1]] {
            let first = Forum::of(["KAZ", "IRN"]).statement("SEC", decided(before.clone()));
            let [earlier, later] = digests.map(|byte| Digest([byte; 32]));
            let made_at = Timestamp::from_micros(first.made_at.as_micros() + 1);
            let content = decided(anew.clone());
            let last = Statement { digest: later, made_at, number: first.number + 1, content, ..first.clone() };
            let first = Statement { digest: earlier, ..first };
            for order in [[&first, &last], [&last, &first]] {
                let mut hub = Forum::of(["KAZ", "IRN"]);
                let mut told = hub.ledger.registry().clone();
                for statement in order {
                    assert_eq!(hub.takes_back(statement), None);
                    told.apply(statement, std::slice::from_ref(&statement.officer), Timestamp::from_micros(1));
                }
                assert_eq!(said_by(hub.ledger.registry()), said_by(&told));
                ends.push(said_by(&told));
            }
        }
        assert!(ends.iter().all(|end| *end == ends[0]), "{before:?}");
    }
}
