use std::collections::BTreeMap;

use concord_ledger::{AudienceRule, JoinRequest, StatementContent, audience, why_not_in_audience};
use concord_model::{AgreementText, Fingerprint, Header, Party, PartyRole, Reason, Timestamp};

use crate::forum::{Forum, digest, join_request, narrowed, party, reason, t};

const ID: &str = "KAZ/floods";

#[test]
fn an_exchange_goes_to_the_members_but_not_to_its_origin() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR", "CHN"]);
    let agreement = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    let header = forum.header("IRN", &agreement);
    assert_eq!(forum.audience(header), Ok(vec!["KAZ".to_owned(), "TUR".to_owned()]));
}

#[test]
fn a_narrowing_narrows_and_never_widens_or_means_all() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR", "CHN"]);
    let agreement = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    let mut check = |to: &[&str], expected: Result<Vec<String>, Reason>| {
        let header = forum.header("KAZ", &agreement);
        assert_eq!(forum.audience(narrowed(header, to)), expected, "narrowed to {to:?}");
    };
    check(&["IRN"], Ok(vec!["IRN".to_owned()]));
    check(&["IRN", "KAZ"], Ok(vec!["IRN".to_owned()]));
    check(&["KAZ"], Err(Reason::AudienceEmpty));
    check(&["IRN", "CHN"], Err(Reason::NarrowingInvalid));
    check(&["USA"], Err(Reason::NarrowingInvalid));
    check(&["SEC"], Err(Reason::NarrowingInvalid));
}

#[test]
fn one_who_left_gets_nothing_even_when_it_is_named() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let agreement = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    forum.leave("TUR", ID).unwrap();
    let header = forum.header("KAZ", &agreement);
    assert_eq!(forum.audience(header.clone()), Ok(vec!["IRN".to_owned()]));
    let only_tur = narrowed(header.clone(), &["TUR"]);
    assert_eq!(forum.audience(only_tur), Err(Reason::AudienceEmpty));
    let both = narrowed(header, &["IRN", "TUR"]);
    assert_eq!(forum.audience(both), Ok(vec!["IRN".to_owned()]));
}

#[test]
fn a_header_is_refused_for_what_its_agreement_does_not_give() {
    let check = |change: &dyn Fn(&mut Header), expected: Reason| {
        let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
        let agreement = forum.agree(ID, &["IRN", "KAZ"]);
        forum.agree("TUR/other", &["IRN", "TUR"]);
        let mut header = forum.header("KAZ", &agreement);
        change(&mut header);
        assert_eq!(forum.audience(header.clone()), Err(expected), "{header:?}");
    };
    check(&|header| header.agreement.id = t("KAZ/never"), Reason::AgreementUnknown);
    check(&|header| header.agreement.id = t("TUR/other"), Reason::AgreementUnknown);
    check(&|header| header.agreement.version = 2, Reason::AgreementVersionMismatch);
    check(&|header| header.agreement.digest.0 = digest("another"), Reason::AgreementVersionMismatch);
    check(&|header| header.measure = t("human.1"), Reason::MeasureNotInAgreement);
}

#[test]
fn a_stranger_and_one_who_left_hear_only_that_there_is_no_such_agreement() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR", "CHN"]);
    let agreement = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    forum.leave("TUR", ID).unwrap();
    for stranger in ["CHN", "TUR"] {
        let header = narrowed(forum.header(stranger, &agreement), &["USA"]);
        assert_eq!(forum.audience(header), Err(Reason::AgreementUnknown), "{stranger}");
    }
}

#[test]
fn what_is_not_in_force_carries_nothing() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let agreement = forum.propose(ID, &["IRN", "KAZ"]).unwrap();
    let header = forum.header("KAZ", &agreement);
    assert_eq!(forum.audience(header.clone()), Err(Reason::AgreementNotInForce));
    forum.consent("IRN", &agreement).unwrap();
    assert_eq!(forum.audience(header.clone()), Ok(vec!["IRN".to_owned()]));
    forum.leave("IRN", ID).unwrap();
    assert_eq!(forum.audience(header), Err(Reason::AgreementNotInForce));
}

/// Version 1 among KAZ, IRN and TUR has ended; version 2 is in force among KAZ, IRN and CHN.
fn renewed() -> (Forum, concord_model::AgreementRef, concord_model::AgreementRef) {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR", "CHN"]);
    let first = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    forum.leave("TUR", ID).unwrap();
    forum.leave("IRN", ID).unwrap();
    let mut text = forum.text(ID, &["CHN", "IRN", "KAZ"]);
    text.measures.truncate(1);
    let second = forum.propose_text("KAZ", text).unwrap();
    forum.consent("CHN", &second).unwrap();
    forum.consent("IRN", &second).unwrap();
    (forum, first, second)
}

#[test]
fn an_earlier_version_reaches_only_those_on_it_who_are_members_now() {
    let (mut forum, first, second) = renewed();
    let header = forum.header("KAZ", &first);
    assert_eq!(forum.audience(header.clone()), Ok(vec!["IRN".to_owned()]));
    assert_eq!(
        forum.audience(narrowed(header.clone(), &["CHN"])),
        Err(Reason::NarrowingInvalid),
        "CHN is not on the version that the origin named"
    );
    assert_eq!(forum.audience(narrowed(header, &["TUR"])), Err(Reason::AudienceEmpty));
    let header = forum.header("KAZ", &second);
    assert_eq!(forum.audience(header), Ok(vec!["CHN".to_owned(), "IRN".to_owned()]));
    // An earlier version without the origin does not exist for it.
    let header = forum.header("CHN", &first);
    assert_eq!(forum.audience(header), Err(Reason::AgreementVersionMismatch));
}

#[test]
fn an_earlier_version_does_not_carry_what_the_members_no_longer_exchange() {
    let (mut forum, first, _) = renewed();
    let mut header = forum.header("KAZ", &first);
    header.measure = t("environmental.5");
    assert_eq!(forum.audience(header), Err(Reason::MeasureNotInAgreement));
}

#[test]
fn a_version_that_was_declined_never_carries_anything() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let declined = forum.propose(ID, &["IRN", "KAZ"]).unwrap();
    forum.decline("IRN", &declined).unwrap();
    let header = forum.header("KAZ", &declined);
    assert_eq!(forum.audience(header.clone()), Err(Reason::AgreementNotInForce));
    forum.agree(ID, &["IRN", "KAZ"]);
    assert_eq!(forum.audience(header), Err(Reason::AgreementVersionMismatch));
}

fn rules(rules: &[(&str, AudienceRule)]) -> BTreeMap<String, AudienceRule> {
    rules.iter().map(|(code, rule)| ((*code).to_owned(), *rule)).collect()
}

#[test]
fn a_preview_says_of_each_party_by_which_rule_it_would_or_would_not_be_sent_it() {
    use AudienceRule as Rule;
    let mut forum = Forum::of(["KAZ", "IRN", "TUR", "CHN", "UZB"]);
    let contributes = Party { role: PartyRole::Contribute, ..party("CHN") };
    let parties = vec![contributes, party("IRN"), party("KAZ"), party("TUR"), party("UZB")];
    let first = forum.propose_text("KAZ", AgreementText { parties, ..forum.text(ID, &[]) }).unwrap();
    for who in ["CHN", "IRN", "TUR", "UZB"] {
        forum.consent(who, &first).unwrap();
    }
    forum.leave("TUR", ID).unwrap();
    let hold = StatementContent::Hold { participant: t("UZB"), reason: t("a test") };
    forum.say("SEC", hold).unwrap();
    let header = forum.header("KAZ", &first);
    let expected = [
        ("CHN", Rule::OnlyContributes),
        ("IRN", Rule::Receives),
        ("KAZ", Rule::IsOrigin),
        ("TUR", Rule::Left),
        ("UZB", Rule::ReceivesWhenReleased),
    ];
    assert_eq!(forum.preview(&header), Ok(rules(&expected)));
    let to_one = forum.preview(&narrowed(header.clone(), &["UZB"])).unwrap();
    assert_eq!((to_one["IRN"], to_one["UZB"]), (Rule::NotNamed, Rule::ReceivesWhenReleased));
    // Where nobody would be left it is shown why, and what is wrong with the rest of it is refused as when it is sent.
    let to_nobody = forum.preview(&narrowed(header.clone(), &["TUR", "CHN"])).unwrap();
    assert!(!to_nobody.values().any(|rule| rule.receives()), "{to_nobody:?}");
    assert_eq!(forum.preview(&narrowed(header.clone(), &["USA"])), Err(Reason::NarrowingInvalid));
    assert_eq!(forum.preview(&Header { measure: t("human.1"), ..header }), Err(Reason::MeasureNotInAgreement));
    let codes = Rule::ALL.map(Rule::as_str);
    assert_eq!(codes.iter().collect::<std::collections::BTreeSet<_>>().len(), Rule::ALL.len());
    assert_eq!(codes[0], "RECEIVES");
}

#[test]
fn why_one_was_not_in_an_audience_is_said_by_what_held_when_it_was_recorded() {
    use AudienceRule as Rule;
    let mut forum = Forum::of(["KAZ", "IRN", "TUR", "CHN", "UZB"]);
    let contributes = Party { role: PartyRole::Contribute, ..party("CHN") };
    let parties = vec![contributes, party("IRN"), party("KAZ"), party("TUR")];
    let text = AgreementText { parties: parties.clone(), ..forum.text(ID, &[]) };
    let first = forum.propose_text("KAZ", text).unwrap();
    let before = forum.at().now;
    for who in ["CHN", "IRN", "TUR"] {
        forum.consent(who, &first).unwrap();
    }
    let header = narrowed(forum.header("KAZ", &first), &["TUR"]);
    let asked = |forum: &Forum, header: &Header, at: Timestamp| {
        let why = |who: &str| why_not_in_audience(forum.ledger.agreements(), header, &t(who), at);
        ["CHN", "IRN", "KAZ", "TUR", "UZB"].map(why)
    };
    let recorded = forum.at().now;
    let expected = [Rule::OnlyContributes, Rule::NotNamed, Rule::IsOrigin, Rule::NotOnVersion, Rule::NotOnVersion];
    assert_eq!(asked(&forum, &header, recorded), expected);
    assert_eq!(asked(&forum, &header, before)[1], Rule::NotOnVersion, "nothing was in force yet");
    forum.record(concord_ledger::Fact::JournalEffect);
    forum.leave("TUR", ID).unwrap();
    let left = forum.at().now;
    assert_eq!(asked(&forum, &header, recorded), expected, "what came later changes nothing of it");
    assert_eq!(asked(&forum, &header, left)[3], Rule::Left);
    // By a version that IRN is not on, and that CHN is to receive by; the other one counts as well.
    let mut stay = parties;
    stay[0].role = PartyRole::Both;
    stay.remove(1);
    stay[2] = party("UZB");
    let text =
        AgreementText { parties: stay, amends: Some(first.clone()), outgoing: vec![t("IRN")], ..forum.text(ID, &[]) };
    let second = forum.propose_text("KAZ", text).unwrap();
    for who in ["CHN", "IRN", "UZB"] {
        forum.consent(who, &second).unwrap();
    }
    let now = forum.at().now;
    let of_first = [Rule::OnlyContributes, Rule::NotOnVersion, Rule::IsOrigin, Rule::NotOnVersion, Rule::NotOnVersion];
    assert_eq!(asked(&forum, &header, now), of_first);
    assert_eq!(asked(&forum, &header, recorded), expected);
    let header = narrowed(forum.header("KAZ", &second), &["UZB"]);
    assert_eq!(asked(&forum, &header, now)[0], Rule::NotNamed);
}

#[test]
fn one_that_was_narrowed_away_before_it_left_and_came_back_was_not_named() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let agreed = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    let header = forum.header("KAZ", &agreed);
    let (to_all, to_one) = (header.clone(), narrowed(header, &["IRN"]));
    let recorded = forum.at().now;
    forum.leave("TUR", ID).unwrap();
    forum.come_back("TUR", &agreed).unwrap();
    let why = |header: &Header| why_not_in_audience(forum.ledger.agreements(), header, &t("TUR"), recorded);
    assert_eq!(why(&to_one), AudienceRule::NotNamed);
    assert_eq!(why(&to_all), AudienceRule::Left);
}

#[test]
fn an_origin_whose_keys_are_not_those_of_the_version_is_refused_before_anybody_sets_it_aside() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let agreement = forum.agree(ID, &["IRN", "KAZ"]);
    let header = forum.header("KAZ", &agreement);
    let check = |request: JoinRequest, expected: Result<(), Reason>| {
        let mut elsewhere = Forum::founded(["KAZ", "IRN"]);
        elsewhere.say("SEC", StatementContent::Enrol(request)).unwrap();
        let registry = elsewhere.ledger.registry();
        let heard = audience(forum.ledger.agreements(), registry, &t("KAZ"), &header, Timestamp::default());
        assert_eq!(reason(heard).map(|_| ()), expected);
    };
    check(join_request("KAZ"), Ok(()));
    check(join_request("IRN"), Err(Reason::ParticipantNotEnrolled));
    let mut other_key = join_request("KAZ");
    other_key.signing_key.fingerprint = Fingerprint(digest("another"));
    check(other_key, Err(Reason::FingerprintMismatch));
}
