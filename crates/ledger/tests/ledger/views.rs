//! What is asked of agreements: who sees which version, and who was a member when.

use concord_ledger::{Agreement, Agreements, GoesOn, StatementContent};
use concord_model::{AgreementRef, AgreementText, Party, PartyRole};

use crate::forum::{Forum, party, t};

const ID: &str = "KAZ/floods";

/// The first version among IRN, KAZ and TUR; the second has UZB in place of TUR; the third is as the second; a fourth with TUR waits.
struct Past {
    forum: Forum,
    versions: Vec<AgreementRef>,
    /// The sequence of the fact by which each came into force.
    began: Vec<u64>,
}

fn amend(forum: &mut Forum, who: &str, parties: &[&str], going: &[&str]) -> AgreementRef {
    let amends = forum.ledger.agreements().in_force(&t(ID)).map(Agreement::reference);
    let outgoing = going.iter().map(|code| t(code)).collect();
    let text = AgreementText { amends, outgoing, ..forum.text(ID, parties) };
    forum.propose_text(who, text).unwrap()
}

fn past() -> Past {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR", "UZB", "CHN"]);
    forum.agree("KAZ/other", &["CHN", "KAZ"]);
    let first = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    let mut began = vec![forum.ledger.sequence()];
    let mut versions = vec![first];
    for (parties, going, consent) in [
        (&["IRN", "KAZ", "UZB"], &["TUR"][..], &["KAZ", "TUR", "UZB"][..]),
        (&["IRN", "KAZ", "UZB"], &[], &["KAZ", "UZB"]),
    ] {
        let next = amend(&mut forum, "IRN", parties, going);
        for who in consent {
            forum.consent(who, &next).unwrap();
        }
        began.push(forum.ledger.sequence());
        versions.push(next);
    }
    versions.push(amend(&mut forum, "UZB", &["IRN", "KAZ", "TUR", "UZB"], &[]));
    Past { forum, versions, began }
}

fn numbers<'a>(versions: impl Iterator<Item = &'a Agreement>) -> Vec<(String, u32)> {
    versions.map(|one| (one.text.id.to_string(), one.text.version)).collect()
}

#[test]
fn each_sees_the_version_that_counts_for_it_and_its_own_past() {
    let Past { forum, .. } = past();
    let agreements = forum.ledger.agreements();
    let of = |version| (ID.to_owned(), version);
    let other = ("KAZ/other".to_owned(), 1);
    let visible = |who: &str| numbers(agreements.visible_to(&t(who)));
    assert_eq!(visible("IRN"), [of(3), of(4)]);
    assert_eq!(visible("TUR"), [of(4)]);
    assert_eq!(visible("CHN"), std::slice::from_ref(&other));
    assert_eq!(visible("SEC"), [of(3), of(4), other.clone()]);
    assert_eq!(numbers(agreements.all()), [of(3), other]);
    let past = |who: &str| numbers(agreements.history_for(&t(who), &t(ID)));
    assert_eq!(past("IRN"), [of(4), of(3), of(2), of(1)]);
    assert_eq!(past("UZB"), [of(4), of(3), of(2)]);
    // It consented to its going.
    assert_eq!(past("TUR"), [of(4), of(2), of(1)]);
    assert_eq!((past("CHN"), past("SEC").len()), (Vec::new(), 4));
    let waits = |who: &str| agreements.amendment_for(&t(who), &t(ID)).map(|one| one.text.version);
    assert_eq!((waits("KAZ"), waits("TUR"), waits("CHN")), (Some(4), None, None));
}

#[test]
fn the_secretariat_sees_the_only_version_once_where_none_is_in_force() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    forum.propose(ID, &["IRN", "KAZ"]).unwrap();
    let shown = |forum: &Forum| numbers(forum.ledger.agreements().visible_to(&t("SEC")));
    assert_eq!(shown(&forum), [(ID.to_owned(), 1)]);
    let waits = forum.latest(ID);
    forum.consent("IRN", &waits).unwrap();
    assert_eq!(shown(&forum), [(ID.to_owned(), 1)]);
}

#[test]
fn whoever_left_sees_nothing_of_its_past() {
    let Past { mut forum, versions, .. } = past();
    forum.say("IRN", StatementContent::Leave(versions[2].clone())).unwrap();
    assert_eq!(forum.ledger.agreements().history_for(&t("IRN"), &t(ID)).count(), 0);
}

#[test]
fn its_own_node_has_the_past_of_whoever_left_and_what_it_left() {
    let Past { mut forum, versions, .. } = past();
    let gone =
        |forum: &Forum, who: &str| forum.ledger.agreements().gone_from(&t(who), &t(ID)).map(|one| one.text.version);
    assert_eq!((gone(&forum, "IRN"), gone(&forum, "CHN")), (None, None));
    forum.say("IRN", StatementContent::Leave(versions[2].clone())).unwrap();
    assert_eq!((gone(&forum, "IRN"), gone(&forum, "KAZ"), gone(&forum, "CHN")), (Some(3), None, None));
    let past = |who: &str| numbers(forum.ledger.agreements().past_of(&t(who), &t(ID)));
    assert_eq!(past("IRN"), [4, 3, 2, 1].map(|version| (ID.to_owned(), version)));
    assert!(past("CHN").is_empty());
}

#[test]
fn a_member_to_the_last_is_who_is_one_or_was_one_when_it_ended() {
    let Past { mut forum, versions, .. } = past();
    let last = |forum: &Forum, version: usize, who: &str| {
        forum.ledger.agreements().was_member_to_the_last(&versions[version], &t(who))
    };
    for version in 0..3 {
        assert_eq!(
            ["IRN", "KAZ", "UZB", "TUR", "CHN"].map(|who| last(&forum, version, who)),
            [true, true, true, false, false]
        );
    }
    assert!(!last(&forum, 3, "UZB"), "what waits has no members");
    forum.say("KAZ", StatementContent::Leave(versions[2].clone())).unwrap();
    assert!(!last(&forum, 0, "KAZ"));
    for who in ["IRN", "UZB"] {
        forum.say(who, StatementContent::End(versions[2].clone())).unwrap();
    }
    assert!(forum.ledger.agreements().in_force(&t(ID)).is_none());
    assert_eq!(["IRN", "KAZ", "UZB", "TUR"].map(|who| last(&forum, 0, who)), [true, false, true, false]);
}

#[test]
fn which_version_was_in_force_and_who_a_member_is_told_by_the_position() {
    let Past { mut forum, versions, began } = past();
    let at = |agreements: &Agreements, position| agreements.in_force_at(&t(ID), position).map(Agreement::reference);
    let was = |agreements: &Agreements, who: &str, position| agreements.was_member_at(&t(ID), &t(who), position);
    let agreements = forum.ledger.agreements();
    assert_eq!(at(agreements, began[0] - 1), None);
    for (index, begins) in began.iter().enumerate() {
        assert_eq!(at(agreements, *begins).as_ref(), Some(&versions[index]));
        assert_eq!(at(agreements, *begins - 1).as_ref(), index.checked_sub(1).map(|before| &versions[before]));
    }
    assert_eq!(
        [began[0] - 1, began[0], began[1] - 1, began[1]].map(|at| was(agreements, "TUR", at)),
        [false, true, true, false]
    );
    assert_eq!([began[1] - 1, began[1], began[2]].map(|at| was(agreements, "UZB", at)), [false, true, true]);
    assert!(!was(agreements, "CHN", began[2]));
    let before = |who: &str, position| agreements.was_member_before(&t(ID), &t(who), position);
    assert_eq!((before("TUR", began[0] - 1), before("TUR", began[0]), before("TUR", began[2])), (false, true, true));
    assert!(!before("CHN", began[2]));

    let left_after = |forum: &Forum, position| forum.ledger.agreements().left_after(&t(ID), &t("IRN"), position);
    assert!(!left_after(&forum, 0));
    forum.say("IRN", StatementContent::Leave(versions[2].clone())).unwrap();
    let left = forum.ledger.sequence();
    assert_eq!((left_after(&forum, left - 1), left_after(&forum, left)), (true, false));
    // One that has ended has had no members before.
    forum.say("UZB", StatementContent::Leave(versions[2].clone())).unwrap();
    assert!(forum.ledger.agreements().in_force(&t(ID)).is_none());
    assert!(!forum.ledger.agreements().was_member_before(&t(ID), &t("KAZ"), began[2]));
}

#[test]
fn a_version_goes_on_in_those_that_amend_it_as_long_as_they_have_the_participant() {
    let Past { forum, versions, .. } = past();
    let goes_on = |who: &str, named: &AgreementRef| forum.ledger.agreements().goes_on(named, &t(who));
    for (index, version) in versions.iter().enumerate() {
        // The fourth waits, so that nothing goes on from it.
        let yes = |yes: bool| if yes { GoesOn::Yes } else { GoesOn::No };
        assert_eq!(goes_on("IRN", version), yes(index < 3), "version {}", version.version);
        assert_eq!(goes_on("UZB", version), yes((1..3).contains(&index)), "version {}", version.version);
        assert_eq!(goes_on("TUR", version), GoesOn::No, "version {}", version.version);
    }
    let other = AgreementRef { digest: versions[3].digest, ..versions[0].clone() };
    assert_eq!(goes_on("IRN", &other), GoesOn::No);
    // Whoever was told of the last one only cannot tell.
    let mut alone = Agreements::default();
    for (fact, at) in &forum.facts {
        let concord_ledger::Fact::Statement(decided) = fact else { continue };
        let about = match &decided.statement.content {
            StatementContent::Propose { text, .. } => Some((&text.id, text.version)),
            StatementContent::Consent(reference) => Some((&reference.id, reference.version)),
            _ => None,
        };
        if about == Some((&t(ID), 3)) {
            alone.apply(&decided.statement, at.sequence, at.now);
        }
    }
    assert_eq!(alone.goes_on(&versions[2], &t("IRN")), GoesOn::Yes);
    assert_eq!(alone.goes_on(&versions[0], &t("IRN")), GoesOn::Unknown);
}

#[test]
fn a_leave_is_of_what_rests_on_a_version_as_far_as_the_versions_have_the_leaver() {
    let Past { forum, versions, .. } = past();
    let left = |who: &str, of: usize| {
        forum.ledger.agreements().left_with(&versions[of], &t(who), &concord_model::Digest([9; 32]))
    };
    assert_eq!(left("IRN", 0), versions);
    assert_eq!(left("UZB", 1), versions[1..]);
    // It was to go from the second, and comes back by a consent of its own, if at all.
    assert_eq!(left("TUR", 0), versions[..2]);
    assert_eq!(left("TUR", 3), versions[3..]);
}

#[test]
fn who_only_contributed_for_a_while_received_until_then_and_from_then_on() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    let mut began = vec![forum.ledger.sequence()];
    for role in [PartyRole::Contribute, PartyRole::Receive] {
        let amends = forum.ledger.agreements().in_force(&t(ID)).map(Agreement::reference);
        let parties = vec![party("IRN"), party("KAZ"), Party { role, ..party("TUR") }];
        let text = AgreementText { amends, parties, ..forum.text(ID, &[]) };
        let next = forum.propose_text("KAZ", text).unwrap();
        forum.consent("IRN", &next).unwrap();
        forum.consent("TUR", &next).unwrap();
        began.push(forum.ledger.sequence());
    }
    let receives = |at| forum.ledger.agreements().receives_since(&t(ID), &t("TUR"), at);
    let expected = [began[0], began[1] - 1, began[1], began[2] - 1, began[2]].map(receives);
    assert_eq!(expected, [false, false, false, false, true]);
}
