//! A hub that lost data is handed back what its participants were told, in whatever order their nodes come.

use std::collections::BTreeMap;

use concord_ledger::{
    AgreementState, Audience, ClosedEpoch, Command, ContactSetting, Decision, Fact, FeedResumed, Handed,
    MailboxResumed, PartyState, Quorum, RoleDecision, Shown, Statement, StatementContent, Stood,
};
use concord_model::{
    AgreementId, AgreementRef, AgreementText, ForumRole, InForceAmong, Lane, ParticipantCode, Reason, RoleScope,
};
use proptest::prelude::*;

use crate::forum::{Forum, HISTORY, MEASURES, contact, digest, reason, t};

const ID: &str = "KAZ/floods";

/// Each participant's own list: what its node was told, in order.
type Lists = BTreeMap<String, Vec<Statement>>;

fn lists(forum: &Forum) -> Lists {
    let mut lists = Lists::new();
    for (fact, _) in &forum.facts {
        if let Fact::Statement(decided) = fact
            && decided.refused.is_none()
        {
            for told in &decided.told {
                let list = lists.entry(told.participant.to_string()).or_default();
                // What it missed it is told right before its own return.
                if told.participant == decided.statement.participant {
                    list.extend(decided.missed.iter().map(|sequence| said_at(forum, *sequence)));
                }
                list.push(decided.statement.clone());
            }
        }
    }
    lists
}

fn said_at(forum: &Forum, sequence: u64) -> Statement {
    let mut said = forum.facts.iter().filter(|(_, at)| at.sequence == sequence);
    match said.next() {
        Some((Fact::Statement(decided), _)) => decided.statement.clone(),
        other => panic!("{other:?} was missed"),
    }
}

fn hand_all(forum: &mut Forum, by: &str, list: &[Statement]) {
    for statement in list {
        hand(forum, by, statement, None).unwrap();
    }
}

/// Hands back what the node of `by` was told.
pub(crate) fn hand(
    forum: &mut Forum,
    by: &str,
    statement: &Statement,
    refused: Option<Reason>,
) -> Result<Decision, Reason> {
    let handed = Handed {
        statement: statement.clone(),
        by: t(by),
        was_told: true,
        refused,
        closes: None,
        approvals: Vec::new(),
        quorum: Quorum::ONE,
    };
    reason(forum.run(&Command::HandBack(handed)))
}

/// Of a version of an agreement: its id, its number, where it stands, and what each party said.
type Standing = (String, u32, AgreementState, Vec<(ParticipantCode, PartyState)>);

fn ids(forum: &Forum) -> Vec<AgreementId> {
    forum.ledger.agreements().all().map(|agreement| agreement.text.id.clone()).collect()
}

/// What became of every version, without the positions, which are new.
fn standing(forum: &Forum) -> Vec<Standing> {
    let of = |agreement: &concord_ledger::Agreement| {
        let parties = agreement.parties.iter().map(|(code, record)| (code.clone(), record.state)).collect();
        (agreement.text.id.to_string(), agreement.text.version, agreement.state, parties)
    };
    ids(forum).iter().flat_map(|id| forum.ledger.agreements().versions(id).map(of).collect::<Vec<_>>()).collect()
}

/// Three versions of one agreement among different participants, one of whom leaves the first and comes back in the second; another
/// that is declined; one that ends.
fn eventful() -> Forum {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR", "UZB"]);
    forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    forum.leave("TUR", ID).unwrap();
    forum.leave("IRN", ID).unwrap();
    forum.agree(ID, &["KAZ", "TUR", "UZB"]);
    forum.leave("UZB", ID).unwrap();
    let declined = forum.propose("IRN/drugs", &["IRN", "KAZ"]).unwrap();
    forum.decline("KAZ", &declined).unwrap();
    forum.agree("IRN/drugs", &["IRN", "UZB"]);
    forum.leave("TUR", ID).unwrap();
    let waits = forum.propose(ID, &["IRN", "KAZ", "UZB"]).unwrap();
    forum.consent("UZB", &waits).unwrap();
    amended(&mut forum);
    left_before_an_amendment(&mut forum);
    left_and_came_again(&mut forum);
    left_and_came_back(&mut forum);
    among_each(&mut forum);
    contacts_and_roles(&mut forum);
    forum
}

/// Leaves and returns that cross, down to two members and up again, and once more under an amendment.
fn left_and_came_back(forum: &mut Forum) {
    let id = "IRN/cranes";
    let first = forum.agree(id, &["IRN", "KAZ", "TUR", "UZB"]);
    forum.leave("TUR", id).unwrap();
    forum.leave("UZB", id).unwrap();
    forum.come_back("TUR", &first).unwrap();
    forum.leave("KAZ", id).unwrap();
    forum.come_back("UZB", &first).unwrap();
    forum.leave("TUR", id).unwrap();
    forum.come_back("TUR", &first).unwrap();
    let text = AgreementText { amends: Some(first), ..forum.text(id, &["IRN", "TUR", "UZB"]) };
    let second = forum.propose_text("IRN", text).unwrap();
    for who in ["UZB", "TUR"] {
        forum.consent(who, &second).unwrap();
    }
    forum.leave("UZB", id).unwrap();
    forum.come_back("UZB", &second).unwrap();
    forum.leave("IRN", id).unwrap();
    let members: Vec<_> = forum.ledger.agreements().members(&t(id)).cloned().collect();
    assert_eq!(members, [t("TUR"), t("UZB")]);
}

/// In force among those who consent: one joins late, one declines, one leaves and comes back.
fn among_each(forum: &mut Forum) {
    let id = "UZB/storks";
    let text = AgreementText { in_force: InForceAmong::Each, ..forum.text(id, &["IRN", "KAZ", "TUR", "UZB"]) };
    let agreed = forum.propose_text("UZB", text).unwrap();
    forum.consent("IRN", &agreed).unwrap();
    forum.decline("TUR", &agreed).unwrap();
    forum.consent("KAZ", &agreed).unwrap();
    forum.leave("IRN", id).unwrap();
    forum.come_back("IRN", &agreed).unwrap();
    forum.leave("UZB", id).unwrap();
    let members: Vec<_> = forum.ledger.agreements().members(&t(id)).cloned().collect();
    assert_eq!(members, [t("IRN"), t("KAZ")]);
}

/// Contact points that are set again and removed, a chair that goes from one to the next, and a role that is taken.
fn contacts_and_roles(forum: &mut Forum) {
    for (revision, contact) in (1..).zip([Some(contact("one")), None, Some(contact("two"))]) {
        let setting = ContactSetting { measure: None, revision, contact };
        forum.say("KAZ", StatementContent::SetContact(setting)).unwrap();
    }
    let about = ContactSetting { measure: Some(t(MEASURES[0])), revision: 1, contact: Some(contact("three")) };
    forum.say("IRN", StatementContent::SetContact(about)).unwrap();
    for (participant, role, measure, revision, is_given) in [
        ("KAZ", ForumRole::Chair, None, 1, true),
        ("IRN", ForumRole::Coordinator, Some(t(MEASURES[0])), 1, true),
        ("IRN", ForumRole::Coordinator, Some(t(MEASURES[0])), 2, false),
        ("TUR", ForumRole::Chair, None, 2, true),
    ] {
        let (participant, scope) = (t(participant), RoleScope { measure, ..RoleScope::default() });
        let reference = t("a decision");
        let decision = RoleDecision { participant, role, scope, revision, is_given, reference };
        forum.say("SEC", StatementContent::Role(decision)).unwrap();
    }
}

/// Of contact points and roles what holds, without when it was recorded.
fn offices(forum: &Forum) -> Vec<String> {
    let registry = forum.ledger.registry();
    let points = |code| registry.contacts().of(code).map(move |(measure, point)| (code, measure, point));
    let contacts = registry.contacts().participants().flat_map(points);
    let contacts = contacts.map(|(code, measure, point)| {
        let office = point.contact.as_ref().map(|contact| contact.office.as_str());
        format!("{code} {measure:?} {} {office:?}", point.revision.number)
    });
    let roles =
        registry.roles().iter().map(|(place, held)| format!("{place:?} {} {:?}", held.revision.number, held.holder));
    contacts.chain(roles).collect()
}

/// One leaves while an amendment waits, so that whoever joins by that is told of a leave of a version that it never saw.
fn left_before_an_amendment(forum: &mut Forum) {
    let first = forum.agree("KAZ/storms", &["IRN", "KAZ", "TUR"]);
    let text = AgreementText { amends: Some(first.clone()), ..forum.text("KAZ/storms", &["IRN", "KAZ", "TUR", "UZB"]) };
    let second = forum.propose_text("KAZ", text).unwrap();
    forum.consent("UZB", &second).unwrap();
    forum.say("TUR", StatementContent::Leave(first)).unwrap();
    forum.consent("IRN", &second).unwrap();
}

/// One leaves that was to go by an amendment anyway, and is taken in again by the one after it.
fn left_and_came_again(forum: &mut Forum) {
    let id = "TUR/locusts";
    let first = forum.agree(id, &["IRN", "KAZ", "TUR"]);
    let text = AgreementText {
        amends: Some(first.clone()),
        outgoing: vec![t("IRN")],
        ..forum.text(id, &["KAZ", "TUR", "UZB"])
    };
    let second = forum.propose_text("TUR", text).unwrap();
    forum.consent("UZB", &second).unwrap();
    forum.say("IRN", StatementContent::Leave(first)).unwrap();
    forum.consent("KAZ", &second).unwrap();
    let text = AgreementText { amends: Some(second), ..forum.text(id, &["IRN", "KAZ", "TUR", "UZB"]) };
    let third = forum.propose_text("KAZ", text).unwrap();
    for who in ["UZB", "IRN", "TUR"] {
        forum.consent(who, &third).unwrap();
    }
    assert!(forum.ledger.agreements().is_member(&t(id), &t("IRN")));
}

/// One that is amended twice, by a version without a member of the first, and left in between; and one that all ended.
fn amended(forum: &mut Forum) {
    let first = forum.agree("TUR/quakes", &["IRN", "KAZ", "TUR"]);
    let amend = |forum: &Forum, amends: &AgreementRef, parties: &[&str], outgoing: &[&str]| AgreementText {
        amends: Some(amends.clone()),
        outgoing: outgoing.iter().map(|code| t(code)).collect(),
        ..forum.text("TUR/quakes", parties)
    };
    let text = amend(forum, &first, &["KAZ", "TUR", "UZB"], &["IRN"]);
    let second = forum.propose_text("TUR", text).unwrap();
    for who in ["UZB", "IRN", "KAZ"] {
        forum.consent(who, &second).unwrap();
    }
    let text = amend(forum, &second, &["IRN", "KAZ", "TUR", "UZB"], &[]);
    let third = forum.propose_text("KAZ", text).unwrap();
    forum.consent("UZB", &third).unwrap();
    forum.say("UZB", StatementContent::Leave(second)).unwrap();
    forum.consent("TUR", &third).unwrap();
    forum.consent("IRN", &third).unwrap();
    let ended = forum.agree("UZB/poppies", &["IRN", "UZB"]);
    for who in ["UZB", "IRN"] {
        forum.say(who, StatementContent::End(ended.clone())).unwrap();
    }
    let hold = StatementContent::Hold { participant: t("IRN"), reason: t("a test") };
    forum.say("IRN", hold.clone()).unwrap();
    let laid = forum.last_statement().statement.digest;
    forum.say("IRN", StatementContent::Release(laid)).unwrap();
    forum.say("IRN", hold).unwrap();
}

/// The same hub without the facts after the first `kept`.
fn rolled_back(forum: &Forum, kept: usize) -> Forum {
    let mut older = Forum::founded(["KAZ", "IRN", "TUR", "UZB"]);
    for (fact, _) in forum.facts.iter().take(kept).skip(2) {
        older.record(fact.clone());
    }
    older
}

#[test]
fn the_end_of_an_epoch_is_believed_of_a_statement_that_closes_one_and_of_no_other() {
    let told = eventful();
    let mut healed = rolled_back(&told, 2);
    for statement in &lists(&told)["KAZ"] {
        let closes = Some(ClosedEpoch::default());
        let handed = Handed {
            statement: statement.clone(),
            by: t("KAZ"),
            was_told: true,
            refused: None,
            closes,
            approvals: Vec::new(),
            quorum: Quorum::ONE,
        };
        healed.run(&Command::HandBack(handed)).unwrap();
    }
    let decided =
        healed.facts.iter().filter_map(|(fact, _)| if let Fact::Statement(one) = fact { Some(one) } else { None });
    let mut accepted = 0;
    for one in decided.filter(|one| one.refused.is_none()) {
        assert_eq!(one.closes.is_some(), one.statement.closes().is_some(), "no hub could read {one:?}");
        accepted += 1;
    }
    assert!(accepted > 5);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn whatever_was_lost_and_whoever_comes_first_the_agreements_end_as_they_were(
        kept in 2..120_usize,
        turns in prop::collection::vec(0..4_usize, 0..200),
        ends in Just([0, 1, 2, 3]).prop_shuffle(),
    ) {
        let told = eventful();
        let lists = lists(&told);
        let mut healed = rolled_back(&told, kept);
        let codes = ["KAZ", "IRN", "TUR", "UZB"];
        let mut places = [0; 4];
        // By turns, then each to its end; and all of it once more, which changes nothing.
        for turn in turns {
            if let Some(statement) = lists[codes[turn]].get(places[turn]) {
                hand_all(&mut healed, codes[turn], std::slice::from_ref(statement));
                places[turn] += 1;
            }
        }
        for (turn, code) in ends.map(|turn| (turn, codes[turn])) {
            hand_all(&mut healed, code, &lists[code][places[turn]..]);
            // A hub delivers to a participant from then on, whoever is yet to come.
            for id in ids(&told) {
                let is_member = |forum: &Forum| forum.ledger.agreements().is_member(&id, &t(code));
                prop_assert!(is_member(&told) || !is_member(&healed), "{} left {} and its own node said so", code, id);
            }
        }
        prop_assert_eq!(standing(&healed), standing(&told));
        prop_assert_eq!(offices(&healed), offices(&told));
        prop_assert!(healed.ledger.registry().holds().is_held(&t("IRN")));
        let before = healed.facts.len();
        for code in codes {
            hand_all(&mut healed, code, &lists[code]);
        }
        prop_assert_eq!(healed.facts.len(), before);
        for code in codes {
            let last = |forum: &Forum| forum.ledger.signers().last(&t(code), &t("officer")).map(|last| last.number);
            prop_assert_eq!(last(&healed), last(&told), "the numbers of {} go on", code);
        }
    }
}

#[test]
fn a_leave_is_remembered_even_where_the_leaver_s_node_says_that_it_was_refused() {
    let mut told = Forum::of(["KAZ", "IRN", "TUR"]);
    told.agree(ID, &["IRN", "KAZ", "TUR"]);
    let kept = told.facts.len();
    told.leave("TUR", ID).unwrap();
    let leave = lists(&told)["TUR"].last().unwrap().clone();
    let mut healed = rolled_back(&told, kept);
    hand(&mut healed, "TUR", &leave, Some(Reason::AgreementNotInForce)).unwrap();
    assert!(healed.ledger.agreements().is_member(&t(ID), &t("TUR")), "nobody else has come yet");
    // KAZ was told that it was accepted.
    hand(&mut healed, "KAZ", &leave, None).unwrap();
    assert!(!healed.ledger.agreements().is_member(&t(ID), &t("TUR")));
    // And it stays so, whoever says what.
    let again = hand(&mut healed, "TUR", &leave, Some(Reason::AgreementNotInForce));
    assert_eq!(again, Ok(Decision::Nothing));
}

/// Said by an officer and refused by the hub, or never handed in; its own node hands it back as if it had been told.
pub(crate) fn pretend(forum: &mut Forum, by: &str, content: StatementContent) -> Result<Decision, Reason> {
    let statement = forum.statement(by, content);
    hand(forum, by, &statement, None)
}

#[test]
fn a_leaver_s_own_word_first_does_not_make_its_leave_be_forgotten() {
    let mut told = Forum::of(["KAZ", "IRN", "TUR"]);
    let before_consent = told.facts.len() + 2;
    told.agree(ID, &["IRN", "KAZ", "TUR"]);
    let agreed = told.facts.len();
    told.leave("TUR", ID).unwrap();
    let lists = lists(&told);
    let leave = lists["TUR"].last().unwrap().clone();
    for kept in [before_consent, agreed] {
        let mut healed = rolled_back(&told, kept);
        // Nothing but the leave, and nothing of what it is about; then the others come.
        hand(&mut healed, "TUR", &leave, None).unwrap();
        hand_all(&mut healed, "KAZ", &lists["KAZ"]);
        hand_all(&mut healed, "IRN", &lists["IRN"]);
        let agreement = healed.ledger.agreements().get(&t(ID)).unwrap();
        let members: Vec<_> = agreement.members().cloned().collect();
        assert_eq!(members, [t("IRN"), t("KAZ")], "with the first {kept} facts");
    }
}

#[test]
fn a_leave_of_an_earlier_version_expels_nobody_from_a_later_one_whoever_hands_it_back() {
    let mut told = Forum::of(["KAZ", "IRN", "TUR"]);
    let kept = told.facts.len();
    told.agree(ID, &["IRN", "KAZ", "TUR"]);
    told.leave("TUR", ID).unwrap();
    told.leave("IRN", ID).unwrap();
    told.agree(ID, &["IRN", "KAZ", "TUR"]);
    let lists = lists(&told);
    let leaves = |one: &&Statement| matches!(one.content, StatementContent::Leave(_));
    let mut healed = rolled_back(&told, kept);
    hand_all(&mut healed, "TUR", &lists["TUR"].iter().filter(|one| !leaves(one)).cloned().collect::<Vec<_>>());
    hand_all(&mut healed, "IRN", &lists["IRN"].iter().filter(leaves).cloned().collect::<Vec<_>>());
    assert!(healed.ledger.agreements().is_member(&t(ID), &t("TUR")));
}

#[test]
fn nobody_s_own_node_brings_in_a_proposal_that_takes_the_place_of_what_stands() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let agreed = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    for version in [2, 3, u32::MAX] {
        let text = concord_model::AgreementText { version, ..forum.text(ID, &["IRN", "KAZ"]) };
        let proposal =
            StatementContent::Propose { text, digest: concord_model::AgreementDigest(digest(&format!("v{version}"))) };
        let statement = forum.statement("KAZ", proposal);
        let decided = hand(&mut forum, "KAZ", &statement, None);
        assert!(matches!(decided, Ok(Decision::Fact { refusal: Some(_), .. })), "{version}: {decided:?}");
        assert_eq!(forum.ledger.agreements().get(&t(ID)).unwrap().reference(), agreed);
        // Its own word does not turn that round; one that was told of it does, as far as versions can have gone.
        assert_eq!(hand(&mut forum, "KAZ", &statement, None), Ok(Decision::Nothing));
    }
    assert!(forum.ledger.agreements().is_member(&t(ID), &t("TUR")));
    // What it may say now anyway it may hand back, too.
    forum.leave("IRN", ID).unwrap();
    forum.leave("TUR", ID).unwrap();
    let text = forum.text(ID, &["IRN", "KAZ"]);
    let proposal = StatementContent::Propose { text, digest: agreed.digest };
    let decided = pretend(&mut forum, "KAZ", proposal);
    assert!(matches!(decided, Ok(Decision::Fact { refusal: None, .. })), "{decided:?}");
}

/// One that went is on no later version. On its own word alone it would be on one that waits again, be told who leaves, and keep those who
/// are left from amending anything.
#[test]
fn whoever_left_or_went_brings_in_no_amendment_by_its_own_word() {
    for removed in [false, true] {
        let mut forum = Forum::of(["KAZ", "IRN", "TUR", "UZB"]);
        let first = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
        let now = match removed {
            true => {
                let text = AgreementText {
                    amends: Some(first.clone()),
                    outgoing: vec![t("TUR")],
                    ..forum.text(ID, &["IRN", "KAZ"])
                };
                let second = forum.propose_text("KAZ", text).unwrap();
                forum.consent("IRN", &second).unwrap();
                forum.consent("TUR", &second).unwrap();
                second
            }
            false => {
                forum.leave("TUR", ID).unwrap();
                first
            }
        };
        let amends = AgreementText {
            amends: Some(now.clone()),
            version: now.version + 1,
            ..forum.text(ID, &["IRN", "KAZ", "TUR", "UZB"])
        };
        let amends = StatementContent::Propose { text: amends, digest: now.digest };
        let decided = pretend(&mut forum, "TUR", amends);
        let Ok(Decision::Fact { refusal: Some(refusal), .. }) = decided else { panic!("{removed}: {decided:?}") };
        assert_eq!(refusal.reason, Reason::AgreementNotOwn);
        assert_eq!(forum.ledger.agreements().get(&t(ID)).unwrap().reference(), now);
        // A member's own is as good as a new one.
        let text = AgreementText { amends: Some(now.clone()), ..forum.text(ID, &["IRN", "KAZ", "UZB"]) };
        let proposal = StatementContent::Propose { text, digest: now.digest };
        let decided = pretend(&mut forum, "IRN", proposal);
        assert!(matches!(decided, Ok(Decision::Fact { refusal: None, .. })), "{decided:?}");
    }
}

#[test]
fn a_held_node_s_own_word_does_not_lift_the_hold_of_another_that_has_yet_to_come_back() {
    let mut told = Forum::of(["KAZ", "IRN"]);
    let kept = told.facts.len();
    let hold = StatementContent::Hold { participant: t("KAZ"), reason: t("its node floods") };
    told.say("SEC", hold).unwrap();
    let laid = told.last_statement().statement.digest;
    let mut healed = rolled_back(&told, kept);
    pretend(&mut healed, "KAZ", StatementContent::Release(laid)).unwrap();
    hand_all(&mut healed, "IRN", &lists(&told)["IRN"]);
    assert!(healed.ledger.registry().holds().is_held(&t("KAZ")));
}

#[test]
fn what_was_declined_is_not_in_force_because_a_consent_came_back_first() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let proposed = forum.propose(ID, &["IRN", "KAZ", "TUR"]).unwrap();
    forum.consent("IRN", &proposed).unwrap();
    let kept = forum.facts.len();
    forum.decline("IRN", &proposed).unwrap();
    let mut healed = rolled_back(&forum, kept);
    pretend(&mut healed, "TUR", StatementContent::Consent(proposed)).unwrap();
    assert!(healed.ledger.agreements().is_member(&t(ID), &t("KAZ")), "so far nobody has said otherwise");
    hand_all(&mut healed, "IRN", &lists(&forum)["IRN"]);
    assert!(healed.ledger.agreements().in_force(&t(ID)).is_none());
    let was_member = |at| healed.ledger.agreements().was_member_at(&t(ID), &t("KAZ"), at);
    let now = healed.ledger.sequence();
    assert!(was_member(now - 1) && !was_member(now));
}

/// Said by another number after a loss, or heard in another order than it was said.
#[test]
fn a_version_is_taken_in_once_and_a_leave_of_what_it_amends_counts_though_it_came_first() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let first = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    forum.leave("TUR", ID).unwrap();
    let mut agreements = forum.ledger.agreements().clone();
    let text = AgreementText { amends: Some(first.clone()), ..forum.text(ID, &["IRN", "KAZ", "TUR"]) };
    let second = AgreementRef { version: 2, ..first };
    let propose = forum.statement("KAZ", StatementContent::Propose { text, digest: second.digest });
    let consents = ["IRN", "TUR"].map(|who| forum.statement(who, StatementContent::Consent(second.clone())));
    for (position, said) in (100..).zip([&propose].into_iter().chain(&consents)) {
        agreements.apply(said, position, forum.at().now);
    }
    assert_eq!(agreements.in_force(&t(ID)).map(|now| now.reference()), Some(second.clone()));
    assert!(!agreements.is_member(&t(ID), &t("TUR")));
    let before = agreements.clone();
    for known in
        forum.facts.iter().filter_map(|(fact, _)| if let Fact::Statement(said) = fact { Some(said) } else { None })
    {
        if matches!(known.statement.content, StatementContent::Propose { .. }) {
            agreements.apply(&known.statement, 200, forum.at().now);
        }
    }
    agreements.apply(&propose, 201, forum.at().now);
    assert_eq!(agreements, before);
}

#[test]
fn what_was_answered_and_not_yet_told_is_told_to_its_own_node_too() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let proposed = forum.propose(ID, &["IRN", "KAZ"]).unwrap();
    let consent = forum.statement("IRN", StatementContent::Consent(proposed));
    let handed = |was_told| Handed {
        statement: consent.clone(),
        by: t("IRN"),
        was_told,
        refused: None,
        closes: None,
        approvals: Vec::new(),
        quorum: Quorum::ONE,
    };
    for (was_told, expected) in [(true, vec![t("KAZ")]), (false, vec![t("IRN"), t("KAZ")])] {
        let decided = forum.ledger.decide(&Command::HandBack(handed(was_told)), forum.at()).unwrap();
        let Decision::Fact { fact: Fact::Statement(decided), refusal: None } = decided else { panic!("{decided:?}") };
        let told: Vec<ParticipantCode> = decided.told.into_iter().map(|told| told.participant).collect();
        assert_eq!(told, expected);
    }
}

#[test]
fn a_statement_that_is_missing_below_a_known_one_is_missed() {
    let mut told = Forum::of(["KAZ", "IRN", "TUR", "UZB"]);
    told.agree(ID, &["KAZ", "TUR"]);
    let other = told.propose("IRN/drugs", &["IRN", "KAZ"]).unwrap();
    let kept = told.facts.len();
    told.leave("KAZ", ID).unwrap();
    told.consent("KAZ", &other).unwrap();
    let last = told.ledger.signers().last(&t("KAZ"), &t("officer")).unwrap();
    let knows = |forum: &Forum, digest: &concord_model::Digest| {
        forum.ledger.signers().has_all_up_to(&t("KAZ"), &t("officer"), last.number, digest)
    };
    assert!(knows(&told, &last.digest) && !knows(&told, &digest("other content")));
    // IRN was told of the consent, not of the leave before it.
    let mut healed = rolled_back(&told, kept);
    hand_all(&mut healed, "IRN", &lists(&told)["IRN"]);
    assert_eq!(healed.ledger.signers().last(&t("KAZ"), &t("officer")).unwrap().number, last.number);
    assert!(!knows(&healed, &last.digest), "the leave is missing");
    hand_all(&mut healed, "TUR", &lists(&told)["TUR"]);
    assert!(knows(&healed, &last.digest));
}

#[test]
fn another_statement_under_a_known_number_is_refused_and_changes_nothing() {
    let mut told = Forum::of(["KAZ", "IRN"]);
    told.agree(ID, &["IRN", "KAZ"]);
    let mut other = lists(&told)["KAZ"].last().unwrap().clone();
    other.digest = digest("other content");
    let before = told.ledger.clone();
    assert_eq!(hand(&mut told, "IRN", &other, None), Err(Reason::StatementFork));
    other.number = u64::MAX;
    assert_eq!(hand(&mut told, "IRN", &other, None), Err(Reason::StatementOutOfOrder));
    assert_eq!(told.ledger, before);
}

#[test]
fn an_enrolment_that_was_made_again_with_the_same_keys_is_known_under_any_number() {
    let told = Forum::of(["KAZ", "IRN"]);
    let first = lists(&told)["IRN"][0].clone();
    let mut founded_anew = Forum::founded(["KAZ", "IRN"]);
    // In another order, so under other numbers.
    founded_anew.enrol("IRN").unwrap();
    founded_anew.enrol("KAZ").unwrap();
    assert_eq!(hand(&mut founded_anew, "KAZ", &first, None), Ok(Decision::Nothing));
}

#[test]
fn one_who_hands_back_is_not_told_what_it_told() {
    let mut told = Forum::of(["KAZ", "IRN", "TUR"]);
    let kept = told.facts.len();
    told.agree(ID, &["IRN", "KAZ", "TUR"]);
    let mut healed = rolled_back(&told, kept);
    let feed = |forum: &Forum, code: &str| forum.ledger.feed_last(&t(code));
    let before = (feed(&healed, "KAZ"), feed(&healed, "IRN"));
    let list = lists(&told)["KAZ"].clone();
    let new = list.len() - 3;
    hand_all(&mut healed, "KAZ", &list);
    assert_eq!((feed(&healed, "KAZ"), feed(&healed, "IRN")), (before.0, before.1 + new as u64));
}

#[test]
fn a_feed_and_a_mailbox_go_on_behind_what_their_node_has_and_once_for_each_position() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let agreement = forum.agree(ID, &["IRN", "KAZ"]);
    for _ in 0..3 {
        let header = forum.header("KAZ", &agreement);
        forum.send("KAZ", vec![header]).unwrap();
    }
    let last = forum.ledger.feed_last(&t("IRN"));
    let shown = Shown { history: HISTORY, number: last + 4, digest: Some(digest("what it has")) };
    let resume = Command::ResumeFeed { participant: t("IRN"), shown, common: last - 1 };
    let Ok(Decision::Fact { fact: Fact::FeedResumed(FeedResumed { resume: told, .. }), .. }) = forum.run(&resume)
    else {
        panic!("the feed was not resumed");
    };
    assert_eq!((told.common, told.last, told.at), (last - 1, last, last + 4));
    assert_eq!(forum.ledger.feed_last(&t("IRN")), last + 5, "one item is told again");
    assert_eq!(forum.run(&resume), Ok(Decision::Nothing));
    // What was recorded before names feed numbers of before.
    assert_eq!(forum.ledger.feed().number_now(&t("IRN"), last, forum.ledger.sequence() - 1), last + 5);

    let resume =
        Command::ResumeMailbox { recipient: t("IRN"), lane: Lane::Routine, shown: Shown { number: 7, ..shown } };
    let Ok(Decision::Fact { fact: Fact::MailboxResumed(MailboxResumed { resume: told, .. }), .. }) = forum.run(&resume)
    else {
        panic!("the mailbox was not resumed");
    };
    assert_eq!((told.common, told.last, told.at), (0, 3, 7));
    let mailbox = forum.ledger.mailbox(&t("IRN"), Lane::Routine);
    assert_eq!((mailbox.last, mailbox.delivered_through), (10, 7), "three are posted again as 8, 9 and 10");
    assert_eq!(forum.run(&resume), Ok(Decision::Nothing));
}

#[test]
fn a_consignment_that_comes_again_keeps_its_outcomes_for_those_who_have_the_right_still() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let agreement = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    let headers: Vec<_> = (0..3).map(|_| forum.header("KAZ", &agreement)).collect();
    let items = headers.into_iter().map(|header| forum.item(header)).collect();
    let mut consign = forum.consign("KAZ", Lane::Routine, items);
    let recorded = |codes: &[&str]| {
        let recipients = codes.iter().copied().map(t).collect();
        Stood::Recorded(Audience { agreement: agreement.clone(), recipients })
    };
    // The second was narrowed to one who left since; the third was refused for a reason that does not hold any more.
    consign.stood = Some(vec![recorded(&["IRN", "TUR"]), recorded(&["TUR"]), Stood::Refused(Reason::MeasureUnknown)]);
    forum.leave("TUR", ID).unwrap();
    let recorded = forum.consigned(consign).unwrap();
    let [group] = recorded.groups.as_slice() else { panic!("{:?}", recorded.groups) };
    assert_eq!((group.recipients.as_slice(), group.items[0].indices()), (&[t("IRN")][..], 0..1));
    let refused: Vec<_> = recorded.refused.iter().map(|refusal| (refusal.index, refusal.reason)).collect();
    assert_eq!(refused, [(1, Reason::AudienceEmpty), (2, Reason::MeasureUnknown)]);
}

#[test]
fn one_who_came_again_under_a_later_version_does_not_get_what_is_older_by_way_of_healing() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let older = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    let items = vec![forum.header("KAZ", &older)].into_iter().map(|header| forum.item(header)).collect();
    let mut consign = forum.consign("KAZ", Lane::Routine, items);
    let recipients = vec![t("IRN"), t("TUR")];
    consign.stood = Some(vec![Stood::Recorded(Audience { agreement: older, recipients })]);
    // Before it comes again all have left, and come again.
    for leaver in ["TUR", "IRN"] {
        forum.leave(leaver, ID).unwrap();
    }
    forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    let recorded = forum.consigned(consign).unwrap();
    assert!(recorded.groups.is_empty() && recorded.mailboxes.is_empty(), "{recorded:?}");
    assert_eq!(recorded.refused[0].reason, Reason::AudienceEmpty);
}
