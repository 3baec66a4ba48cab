//! Who comes back, and who joins late: what is theirs and what is not.

use concord_ledger::{Audience, AudienceRule, Consign, Fact, Had, Lost, PartyState, StatementContent, Stood};
use concord_model::{AgreementRef, AgreementText, ExchangeId, InForceAmong, Lane, Reason, WithheldReason};

use crate::forum::{Forum, digest, reason, t};

const ID: &str = "KAZ/floods";
const ALL: [&str; 4] = ["IRN", "KAZ", "TUR", "UZB"];

fn among_each(forum: &mut Forum) -> AgreementRef {
    let text = AgreementText { in_force: InForceAmong::Each, ..forum.text(ID, &ALL) };
    forum.propose_text("KAZ", text).unwrap()
}

fn audience(forum: &mut Forum, agreement: &AgreementRef) -> Result<Vec<String>, Reason> {
    let header = forum.header("KAZ", agreement);
    forum.audience(header)
}

#[test]
fn a_membership_begins_anew_with_a_return_and_has_nothing_of_before() {
    let mut forum = Forum::of(ALL);
    let agreed = forum.agree(ID, &ALL);
    audience(&mut forum, &agreed).unwrap();
    let before = forum.facts.len() as u64;
    assert_eq!(forum.permit("TUR", before, &agreed), Ok(()));
    forum.leave("TUR", ID).unwrap();
    assert_eq!(audience(&mut forum, &agreed).unwrap(), ["IRN", "UZB"]);
    let between = forum.facts.len() as u64;
    forum.come_back("TUR", &agreed).unwrap();
    assert_eq!(audience(&mut forum, &agreed).unwrap(), ["IRN", "TUR", "UZB"]);
    let after = forum.facts.len() as u64;
    for old in [before, between] {
        assert_eq!(forum.permit("TUR", old, &agreed), Err(WithheldReason::Left));
        assert_eq!(forum.permit("IRN", old, &agreed), Ok(()), "nobody else lost anything");
    }
    assert_eq!(forum.permit("TUR", after, &agreed), Ok(()));
    // What it sent in its earlier membership was a member's.
    let version = forum.ledger.agreements().version(&agreed).unwrap();
    let was = |position| version.was_member_at(&t("TUR"), position);
    assert_eq!([was(before), was(between), was(after)], [true, false, true]);
}

#[test]
fn a_return_is_to_the_version_that_was_left_by_the_leave_that_stands_and_while_it_is_in_force() {
    let mut forum = Forum::of(ALL);
    let agreed = forum.agree(ID, &ALL);
    let back = |forum: &mut Forum, leave| reason(forum.say("TUR", StatementContent::Return(agreed.clone(), leave)));
    let nothing = Err(Reason::AgreementNotInForce);
    assert_eq!(back(&mut forum, digest("no leave")), nothing, "it has not left");
    forum.leave("TUR", ID).unwrap();
    let first = forum.last_statement().statement.digest;
    assert_eq!(back(&mut forum, digest("no leave")), nothing);
    assert_eq!(
        reason(forum.consent("TUR", &agreed)),
        Err(Reason::AgreementNotPending),
        "an old consent brings nobody back"
    );
    assert_eq!(back(&mut forum, first), Ok(()));
    assert_eq!(back(&mut forum, first), Ok(()), "its own return again is harmless");
    forum.leave("TUR", ID).unwrap();
    assert_eq!(back(&mut forum, first), nothing, "a return is used up by the next leave");
    // While an amendment waits, whose leavers were settled when it was proposed, nobody comes back; nor is it said why.
    let text = AgreementText { amends: Some(agreed.clone()), ..forum.text(ID, &["IRN", "KAZ", "UZB"]) };
    let amendment = forum.propose_text("KAZ", text).unwrap();
    assert_eq!(reason(forum.come_back("TUR", &agreed)), nothing);
    forum.decline("IRN", &amendment).unwrap();
    forum.come_back("TUR", &agreed).unwrap();
    forum.say("TUR", StatementContent::Leave(agreed.clone())).unwrap();
    for who in ["IRN", "KAZ", "UZB"] {
        forum.say(who, StatementContent::End(agreed.clone())).unwrap();
    }
    assert_eq!(reason(forum.come_back("TUR", &agreed)), nothing, "it ended");
    let stranger = reason(forum.say("SEC", StatementContent::Return(agreed, digest("x"))));
    assert_eq!(stranger, Err(Reason::AgreementUnknown));
}

#[test]
fn who_comes_back_is_told_what_the_others_said_since_it_left_and_nothing_twice() {
    let mut forum = Forum::of(ALL);
    let agreed = forum.agree(ID, &ALL);
    forum.leave("TUR", ID).unwrap();
    assert_eq!(forum.last_statement().missed, [] as [u64; 0]);
    forum.leave("UZB", ID).unwrap();
    let left = forum.facts.len() as u64;
    assert!(!forum.last_statement().told.iter().any(|told| told.participant == t("TUR")));
    forum.come_back("UZB", &agreed).unwrap();
    forum.say("IRN", StatementContent::End(agreed.clone())).unwrap();
    let before = forum.ledger.feed_last(&t("TUR"));
    forum.come_back("TUR", &agreed).unwrap();
    assert_eq!(forum.last_statement().missed, [left, left + 1, left + 2]);
    // One by one, each under a number of its own, since all of it together has no bound.
    let own = forum.last_statement().told.iter().find(|told| told.participant == t("TUR")).unwrap();
    assert_eq!((own.number, forum.ledger.feed_last(&t("TUR"))), (before + 4, before + 4));
    let told: Vec<_> = forum.last_statement().told.iter().map(|told| told.participant.to_string()).collect();
    assert_eq!(told, ALL);
}

#[test]
fn who_left_while_an_amendment_waited_that_names_it_may_come_back_and_is_asked_again() {
    let mut forum = Forum::of(ALL);
    let agreed = forum.agree(ID, &ALL);
    let text = AgreementText { amends: Some(agreed.clone()), ..forum.text(ID, &ALL) };
    let second = forum.propose_text("KAZ", text).unwrap();
    forum.consent("TUR", &second).unwrap();
    forum.say("TUR", StatementContent::Leave(agreed.clone())).unwrap();
    let state = |forum: &Forum| forum.ledger.agreements().version(&second).unwrap().party_state(&t("TUR"));
    assert_eq!(state(&forum), Some(PartyState::Left));
    forum.consent("IRN", &second).unwrap();
    let missed = forum.facts.len() as u64;
    forum.come_back("TUR", &agreed).unwrap();
    assert_eq!(forum.last_statement().missed, [missed], "what was said of the amendment");
    assert_eq!(state(&forum), Some(PartyState::Consented), "its own word of before stands");
    forum.consent("UZB", &second).unwrap();
    assert_eq!(audience(&mut forum, &second).unwrap(), ["IRN", "TUR", "UZB"]);
}

#[test]
fn among_each_who_has_not_consented_is_sent_nothing_and_sends_nothing() {
    let mut forum = Forum::of(ALL);
    let agreed = among_each(&mut forum);
    assert_eq!(audience(&mut forum, &agreed), Err(Reason::AgreementNotInForce), "one consents to nothing alone");
    forum.consent("IRN", &agreed).unwrap();
    assert_eq!(audience(&mut forum, &agreed).unwrap(), ["IRN"]);
    let before = forum.facts.len() as u64;
    let header = forum.header("KAZ", &agreed);
    let rules = forum.preview(&header).unwrap();
    assert_eq!(rules["TUR"], AudienceRule::HasNotConsented);
    let early = forum.header("TUR", &agreed);
    assert_eq!(forum.audience(early), Err(Reason::AgreementNotInForce));
    // One declines: it is off, and hears nothing more; the others go on.
    forum.decline("UZB", &agreed).unwrap();
    forum.consent("TUR", &agreed).unwrap();
    let told: Vec<_> = forum.last_statement().told.iter().map(|told| told.participant.to_string()).collect();
    assert_eq!(told, ["IRN", "KAZ", "TUR"]);
    assert_eq!(audience(&mut forum, &agreed).unwrap(), ["IRN", "TUR"]);
    assert_eq!(forum.permit("TUR", before, &agreed), Err(WithheldReason::Left), "who joins late gets nothing old");
    assert_eq!(reason(forum.consent("UZB", &agreed)), Err(Reason::AgreementNotPending), "a decline stands");
    let version = forum.ledger.agreements().version(&agreed).unwrap();
    assert_eq!(version.party_state(&t("UZB")), Some(PartyState::Declined));
    // Down to one it ends.
    forum.leave("IRN", ID).unwrap();
    forum.leave("KAZ", ID).unwrap();
    assert_eq!(audience(&mut forum, &agreed), Err(Reason::AgreementUnknown));
}

#[test]
fn what_is_in_force_among_each_is_amended_by_all_who_consented_and_by_nobody_else() {
    let mut forum = Forum::of(ALL);
    let agreed = among_each(&mut forum);
    forum.consent("IRN", &agreed).unwrap();
    let amendment = |forum: &Forum, in_force| AgreementText {
        amends: Some(agreed.clone()),
        in_force,
        ..forum.text(ID, &["IRN", "KAZ", "UZB"])
    };
    let each = amendment(&forum, InForceAmong::Each);
    assert_eq!(reason(forum.propose_text("KAZ", each)), Err(Reason::AgreementMalformed));
    let by_a_stranger = amendment(&forum, InForceAmong::All);
    assert_eq!(reason(forum.propose_text("TUR", by_a_stranger.clone())), Err(Reason::AgreementNotOwn));
    let second = forum.propose_text("KAZ", by_a_stranger).unwrap();
    let refusal = forum.consent("TUR", &agreed).unwrap_err();
    assert_eq!(refusal.reason, Reason::AgreementNotPending, "nobody joins what is being amended");
    assert!(refusal.message.contains("decline it"), "{}", refusal.message);
    forum.consent("IRN", &second).unwrap();
    forum.consent("UZB", &second).unwrap();
    // UZB is on both and consented to the second only: what names the first is not its.
    assert_eq!(audience(&mut forum, &agreed).unwrap(), ["IRN"]);
    let header = forum.header("KAZ", &agreed);
    assert_eq!(forum.preview(&header).unwrap()["UZB"], AudienceRule::HasNotConsented);
    assert_eq!(audience(&mut forum, &second).unwrap(), ["IRN", "UZB"]);
    // TUR never answered, and takes what is over off its list.
    forum.decline("TUR", &agreed).unwrap();
}

/// Its number is one that a version has which it was never told of: its node lets it take a later one, and the hub says which.
#[test]
fn who_joins_after_an_amendment_was_declined_can_amend_under_the_number_that_the_hub_names() {
    let mut forum = Forum::of(ALL);
    let agreed = among_each(&mut forum);
    forum.consent("IRN", &agreed).unwrap();
    let amends = |forum: &Forum, version, parties: &[&str]| AgreementText {
        version,
        amends: Some(agreed.clone()),
        ..forum.text(ID, parties)
    };
    let declined = forum.propose_text("KAZ", amends(&forum, 2, &["IRN", "KAZ"])).unwrap();
    forum.decline("IRN", &declined).unwrap();
    forum.consent("TUR", &agreed).unwrap();
    let refusal = forum.propose_text("TUR", amends(&forum, 2, &["IRN", "KAZ", "TUR"])).unwrap_err();
    assert!(refusal.message.contains("the number 3"), "{}", refusal.message);
    let fourth = amends(&forum, 4, &["IRN", "KAZ", "TUR"]);
    assert_eq!(reason(forum.propose_text("TUR", fourth)), Err(Reason::AgreementMalformed));
    let third = amends(&forum, 3, &["IRN", "KAZ", "TUR"]);
    // As its node knows the agreement, which was never told of the second version.
    let mut known = concord_ledger::Agreements::default();
    for (fact, at) in &forum.facts {
        if let Fact::Statement(decided) = fact
            && decided.refused.is_none()
            && decided.told.iter().any(|told| told.participant == t("TUR"))
        {
            known.apply(&decided.statement, at.sequence, at.now);
        }
    }
    assert!(known.versions(&t(ID)).all(|version| version.text.version == 1));
    assert_eq!(known.check_propose(forum.ledger.registry(), &t("TUR"), &third, forum.at().now), Ok(()));
    forum.propose_text("TUR", third).unwrap();
}

#[test]
fn what_a_hub_lost_and_is_handed_again_goes_to_nobody_who_ever_came_back() {
    let mut forum = Forum::of(ALL);
    let agreed = forum.agree(ID, &ALL);
    forum.leave("TUR", ID).unwrap();
    forum.come_back("TUR", &agreed).unwrap();
    // Its receipt names TUR: it was recorded before the leave, or after the return, and nothing shows which.
    let header = forum.header("KAZ", &agreed);
    let item = forum.item(header);
    let audience = Audience { agreement: agreed.clone(), recipients: vec![t("IRN"), t("TUR")] };
    let stood = Some(vec![Stood::Recorded(audience)]);
    let consign = Consign { stood, ..forum.consign("KAZ", Lane::Routine, vec![item]) };
    let recorded = forum.consigned(consign).unwrap();
    assert_eq!(recorded.groups[0].recipients, [t("IRN")]);
    // What may have been its is listed as lost, also where it was nobody else's; what IRN or KAZ has is not.
    let had = |index, recipients: &[&str]| {
        let audience = Audience { agreement: agreed.clone(), recipients: recipients.iter().copied().map(t).collect() };
        Had { index, id: ExchangeId(digest("had")), audience }
    };
    let lost = |exchange: &[&str]| {
        let recipients = exchange.iter().copied().map(t).collect();
        vec![(Lost::Exchange { id: ExchangeId(digest("had")), recipients }, Reason::MembershipChanged)]
    };
    assert_eq!(forum.ledger.lost_of(&recorded, vec![had(0, &["IRN", "TUR"])]), lost(&["TUR"]));
    assert_eq!(forum.ledger.lost_of(&recorded, vec![had(0, &["IRN"])]), []);
    let header = forum.header("KAZ", &agreed);
    let item = forum.item(header);
    let audience = Audience { agreement: agreed.clone(), recipients: vec![t("TUR")] };
    let alone =
        Consign { stood: Some(vec![Stood::Recorded(audience)]), ..forum.consign("KAZ", Lane::Routine, vec![item]) };
    let recorded = forum.consigned(alone).unwrap();
    assert_eq!(recorded.refused[0].reason, Reason::AudienceEmpty);
    assert_eq!(forum.ledger.lost_of(&recorded, vec![had(0, &["TUR"])]), lost(&["TUR"]));
    // Of one that is out again nobody has the right any more, and that is no loss.
    forum.leave("TUR", ID).unwrap();
    assert_eq!(forum.ledger.lost_of(&recorded, vec![had(0, &["TUR"])]), []);
}
