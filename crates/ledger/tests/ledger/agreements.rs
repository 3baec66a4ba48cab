use concord_ledger::{AgreementState, Agreements, Fact, PartyState, StatementContent};
use concord_model::limits::{AGREEMENT_MEASURES_MAX, AGREEMENT_PARTIES_MAX};
use concord_model::{AgreementId, AgreementText, Fingerprint, ParticipantCode, Reason, Refusal, Timestamp};

use crate::forum::{Forum, digest, party, reason, t};

const ID: &str = "KAZ/floods";

fn state(forum: &Forum) -> AgreementState {
    forum.ledger.agreements().get(&t(ID)).unwrap().state
}

fn members(forum: &Forum) -> Vec<String> {
    let agreements = forum.ledger.agreements();
    agreements.members(&t(ID)).map(ToString::to_string).collect()
}

fn told(forum: &Forum) -> Vec<String> {
    let told = &forum.last_statement().told;
    told.iter().map(|told| told.participant.to_string()).collect()
}

#[test]
fn a_proposal_is_refused_unless_every_word_of_it_holds() {
    let check = |change: &dyn Fn(&mut AgreementText), expected: Result<(), Reason>| {
        let mut forum = Forum::of(["IRN", "KAZ", "TUR"]);
        let mut text = forum.text(ID, &["IRN", "KAZ"]);
        change(&mut text);
        let shown = format!("{text:?}");
        let before = forum.ledger.agreements().clone();
        let heard = forum.propose_text("KAZ", text).map(|_| ());
        assert_eq!(reason(heard), expected, "{shown}");
        if expected.is_err() {
            assert_eq!(*forum.ledger.agreements(), before);
            assert_eq!(told(&forum), ["KAZ"]);
        }
    };
    let malformed = Err(Reason::AgreementMalformed);
    check(&|_| {}, Ok(()));
    check(&|text| text.id = t("IRN/floods"), Err(Reason::AgreementNotOwn));
    check(&|text| text.version = 2, malformed);
    check(&|text| text.version = 0, malformed);
    check(&|text| text.parties = vec![party("KAZ")], malformed);
    check(&|text| text.parties = vec![party("IRN"), party("TUR")], malformed);
    check(&|text| text.parties.reverse(), malformed);
    check(&|text| text.parties.push(party("KAZ")), malformed);
    check(&|text| text.measures.clear(), malformed);
    check(&|text| text.measures.reverse(), malformed);
    check(&|text| text.measures.push(text.measures[1].clone()), malformed);
    check(&|text| text.parties.extend((0..AGREEMENT_PARTIES_MAX).map(|_| party("TUR"))), malformed);
    check(&|text| text.measures = (0..=AGREEMENT_MEASURES_MAX).map(|_| t("challenges.3")).collect(), malformed);
    check(&|text| text.measures = vec![t("human.1")], Err(Reason::MeasureUnknown));
    check(&|text| text.parties.push(party("USA")), Err(Reason::ParticipantUnknown));
    let other = Fingerprint(digest("another"));
    check(&|text| text.parties[0].anchor = other, Err(Reason::FingerprintMismatch));
    check(&|text| text.parties[1].signing_key = other, Err(Reason::FingerprintMismatch));
}

#[test]
fn all_named_in_a_proposal_are_enrolled() {
    let mut forum = Forum::founded(["KAZ", "IRN"]);
    forum.enrol("KAZ").unwrap();
    let heard = forum.propose(ID, &["IRN", "KAZ"]);
    assert_eq!(reason(heard), Err(Reason::ParticipantNotEnrolled));
}

#[test]
fn an_agreement_is_in_force_when_all_have_consented_and_membership_begins_there() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let reference = forum.propose(ID, &["IRN", "KAZ", "TUR"]).unwrap();
    forum.consent("IRN", &reference).unwrap();
    assert_eq!(state(&forum), AgreementState::Proposed);
    assert_eq!(members(&forum), [""; 0]);
    forum.consent("TUR", &reference).unwrap();
    assert_eq!(state(&forum), AgreementState::InForce);
    assert_eq!(members(&forum), ["IRN", "KAZ", "TUR"]);
    let position = forum.ledger.sequence();
    let agreement = forum.ledger.agreements().get(&t(ID)).unwrap();
    assert_eq!(agreement.in_force_since, Some(position));
    for record in agreement.parties.values() {
        assert_eq!(record.member_since, Some(position));
    }
    assert!(agreement.was_member_at(&t("IRN"), position));
    assert!(!agreement.was_member_at(&t("IRN"), position - 1));
}

#[test]
fn a_consent_is_to_exactly_the_version_and_digest_and_keys_that_stand_here() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let reference = forum.propose(ID, &["IRN", "KAZ"]).unwrap();
    let mut other_digest = reference.clone();
    other_digest.digest.0 = digest("another");
    let mut other_version = reference.clone();
    other_version.version += 1;
    for wrong in [other_digest, other_version] {
        let mismatch = Err(Reason::AgreementVersionMismatch);
        assert_eq!(reason(forum.consent("IRN", &wrong)), mismatch);
        assert_eq!(reason(forum.decline("IRN", &wrong)), mismatch);
    }
    // A directory whose registry has other keys must not sign for these.
    let elsewhere = Forum::founded(["KAZ", "IRN"]);
    let agreements = forum.ledger.agreements();
    let refused = agreements.check_consent(elsewhere.ledger.registry(), &t("IRN"), &reference, Timestamp::default());
    assert_eq!(reason(refused), Err(Reason::ParticipantNotEnrolled));
    let here = agreements.check_consent(forum.ledger.registry(), &t("IRN"), &reference, Timestamp::default());
    assert_eq!(here, Ok(()));
}

#[test]
fn ones_own_consent_again_is_harmless_and_tells_nobody_else() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let reference = forum.agree(ID, &["IRN", "KAZ"]);
    let before = forum.ledger.agreements().clone();
    forum.consent("IRN", &reference).unwrap();
    assert_eq!(*forum.ledger.agreements(), before);
    assert_eq!(told(&forum), ["IRN"]);
}

#[test]
fn a_decline_ends_a_proposal_and_nothing_else() {
    for decliner in ["IRN", "KAZ"] {
        let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
        let reference = forum.propose(ID, &["IRN", "KAZ", "TUR"]).unwrap();
        forum.decline(decliner, &reference).unwrap();
        assert_eq!(state(&forum), AgreementState::Declined);
        assert_eq!(told(&forum), ["IRN", "KAZ", "TUR"]);
        let not_pending = Err(Reason::AgreementNotPending);
        assert_eq!(reason(forum.consent("TUR", &reference)), not_pending);
        assert_eq!(reason(forum.decline("TUR", &reference)), not_pending);
        assert_eq!(reason(forum.leave("TUR", ID)), Err(Reason::AgreementNotInForce));
    }
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let reference = forum.agree(ID, &["IRN", "KAZ"]);
    assert_eq!(reason(forum.decline("IRN", &reference)), Err(Reason::AgreementNotPending));
}

#[test]
fn after_a_leave_it_stays_in_force_among_the_rest_and_ends_below_two() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    forum.leave("TUR", ID).unwrap();
    assert_eq!(told(&forum), ["IRN", "KAZ", "TUR"]);
    assert_eq!(members(&forum), ["IRN", "KAZ"]);
    assert_eq!(state(&forum), AgreementState::InForce);
    assert_eq!(reason(forum.leave("TUR", ID)), Err(Reason::AgreementNotInForce));
    forum.leave("IRN", ID).unwrap();
    assert_eq!(told(&forum), ["IRN", "KAZ"], "who left before is not told of the others");
    assert_eq!(members(&forum), [""; 0]);
    assert_eq!(state(&forum), AgreementState::Ended);
    assert_eq!(reason(forum.leave("KAZ", ID)), Err(Reason::AgreementNotInForce));
}

#[test]
fn an_id_is_taken_while_it_waits_or_is_in_force_and_free_with_the_next_version_after() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let exists = Err(Reason::AgreementExists);
    let parties = ["IRN", "KAZ"];
    let first = forum.propose(ID, &parties).unwrap();
    assert_eq!(reason(forum.propose(ID, &parties).map(|_| ())), exists);
    forum.decline("IRN", &first).unwrap();
    let second = forum.agree(ID, &parties);
    assert_eq!(second.version, 2);
    assert_eq!(reason(forum.propose(ID, &parties).map(|_| ())), exists);
    forum.leave("KAZ", ID).unwrap();
    let mut again = forum.text(ID, &parties);
    again.version = 2;
    let refused = forum.propose_text("KAZ", again).map(|_| ());
    assert_eq!(reason(refused), Err(Reason::AgreementMalformed));
    assert_eq!(forum.agree(ID, &parties).version, 3);
    let agreements = forum.ledger.agreements();
    assert_eq!(agreements.version(&first).unwrap().state, AgreementState::Declined);
    assert_eq!(agreements.version(&second).unwrap().state, AgreementState::Ended);
}

#[test]
fn a_stranger_hears_of_an_agreement_exactly_what_it_hears_of_one_that_never_was() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let real = forum.agree(ID, &["IRN", "KAZ"]);
    let mut never = real.clone();
    never.id = t("KAZ/never");
    let mut heard = |who: &str, reference: &concord_model::AgreementRef| -> Vec<Refusal> {
        let hide =
            |refusal: Refusal| Refusal::new(refusal.reason, refusal.message.replace(reference.id.as_str(), "ID"));
        [
            StatementContent::Consent(reference.clone()),
            StatementContent::Decline(reference.clone(), None),
            StatementContent::Leave(reference.clone()),
        ]
        .map(|content| hide(forum.say(who, content).unwrap_err()))
        .to_vec()
    };
    let of_real = heard("TUR", &real);
    assert_eq!(of_real, heard("TUR", &never));
    assert!(of_real.iter().all(|refusal| refusal.reason == Reason::AgreementUnknown));
    // Its own id that never existed.
    never.id = t("TUR/never");
    assert_eq!(of_real, heard("TUR", &never));
    // The secretariat sees all, and still speaks only where it is a party.
    assert_eq!(of_real, heard("SEC", &real));
}

#[test]
fn one_who_is_not_on_the_next_version_cannot_tell_that_there_is_one() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR", "CHN"]);
    let first = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    forum.leave("TUR", ID).unwrap();
    forum.leave("IRN", ID).unwrap();
    let ask = |forum: &mut Forum| {
        let mut second = first.clone();
        second.version = 2;
        ["TUR", "IRN"].map(|who| {
            [
                forum.consent(who, &first).unwrap_err(),
                forum.consent(who, &second).unwrap_err(),
                forum.decline(who, &first).unwrap_err(),
                // What it names is what it knows.
                forum.say(who, StatementContent::Leave(first.clone())).unwrap_err(),
                forum.say(who, StatementContent::Leave(second.clone())).unwrap_err(),
            ]
        })
    };
    let before = ask(&mut forum);
    let second = forum.propose(ID, &["CHN", "KAZ"]).unwrap();
    assert_eq!(told(&forum), ["CHN", "KAZ"]);
    assert_eq!(ask(&mut forum), before);
    forum.consent("CHN", &second).unwrap();
    assert_eq!(ask(&mut forum), before);
}

#[test]
fn an_agreement_is_visible_to_those_on_it_and_the_secretariat() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR", "CHN"]);
    forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    forum.leave("TUR", ID).unwrap();
    let sees = |forum: &Forum, who: &str| -> Vec<(AgreementId, u32)> {
        let who: ParticipantCode = t(who);
        let visible = forum.ledger.agreements_visible_to(&who);
        visible.map(|one| (one.text.id.clone(), one.text.version)).collect()
    };
    for who in ["KAZ", "IRN", "SEC"] {
        assert_eq!(sees(&forum, who), [(t(ID), 1)], "{who}");
    }
    for who in ["TUR", "CHN", "USA"] {
        assert_eq!(sees(&forum, who), [], "{who}");
    }
    forum.leave("IRN", ID).unwrap();
    forum.propose(ID, &["CHN", "KAZ"]).unwrap();
    assert_eq!(sees(&forum, "CHN"), [(t(ID), 2)]);
    assert_eq!(sees(&forum, "IRN"), []);
}

#[test]
fn a_party_record_says_what_and_when() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let reference = forum.propose(ID, &["IRN", "KAZ"]).unwrap();
    let proposed = forum.ledger.agreements().get(&t(ID)).unwrap().proposed_at;
    let consented = forum.at().now;
    forum.consent("IRN", &reference).unwrap();
    let left = forum.at();
    forum.leave("IRN", ID).unwrap();
    let agreement = forum.ledger.agreements().get(&t(ID)).unwrap();
    let (kaz, irn) = (&agreement.parties[&t("KAZ")], &agreement.parties[&t("IRN")]);
    assert_eq!((kaz.state, kaz.at), (PartyState::Consented, proposed));
    assert_eq!((irn.state, irn.at), (PartyState::Left, left.now));
    assert_eq!(irn.left_at, Some(left.sequence));
    assert_eq!(agreement.in_force_at, Some(consented));
    assert_eq!(agreement.ended_since, Some(left.sequence));
}

#[test]
fn membership_at_a_position_ends_with_a_leave_and_with_the_end() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    forum.leave("TUR", ID).unwrap();
    let left = forum.ledger.sequence();
    forum.leave("IRN", ID).unwrap();
    let ended = forum.ledger.sequence();
    let agreement = forum.ledger.agreements().get(&t(ID)).unwrap();
    for (who, last) in [("TUR", left), ("IRN", ended), ("KAZ", ended)] {
        assert!(agreement.was_member_at(&t(who), last - 1), "{who} before");
        assert!(!agreement.was_member_at(&t(who), last), "{who} after");
    }
    assert!(!agreement.was_member_at(&t("CHN"), left));
}

#[test]
fn what_does_not_fit_the_latest_version_changes_nothing_when_it_is_applied() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let waiting = forum.propose(ID, &["IRN", "KAZ"]).unwrap();
    let mut other_digest = waiting.clone();
    other_digest.digest.0 = digest("another");
    let mut other_version = waiting.clone();
    other_version.version = 2;
    let mut never = waiting.clone();
    never.id = t("KAZ/never");
    for reference in [other_digest, other_version, never] {
        for content in [
            StatementContent::Consent(reference.clone()),
            StatementContent::Decline(reference.clone(), None),
            StatementContent::Leave(reference.clone()),
        ] {
            let statement = forum.statement("IRN", content);
            let mut agreements = forum.ledger.agreements().clone();
            agreements.apply(&statement, 99, statement.made_at);
            assert_eq!(agreements, *forum.ledger.agreements(), "{statement:?}");
        }
    }
}

#[test]
fn a_directory_that_was_not_told_of_earlier_versions_reads_the_next_alike() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let first = forum.propose(ID, &["IRN", "KAZ"]).unwrap();
    forum.decline("IRN", &first).unwrap();
    let second = forum.agree(ID, &["KAZ", "TUR"]);
    let mut directory = Agreements::default();
    for (fact, at) in &forum.facts {
        let Fact::Statement(decided) = fact else { continue };
        let told = decided.told.iter().find(|told| told.participant == t("TUR"));
        if let (Some(told), None) = (told, decided.refused) {
            directory.apply(&decided.statement, told.number, at.now);
        }
    }
    let own = directory.get(&t(ID)).unwrap();
    assert_eq!((own.reference(), own.state), (second, AgreementState::InForce));
    assert_eq!(own.in_force_since, Some(forum.ledger.feed_last(&t("TUR"))));
    assert_eq!(directory.version(&first), None);
}
