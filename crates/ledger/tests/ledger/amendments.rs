//! How agreements change, end and lapse: who has to consent, who goes on without a break, and who is told.

use std::collections::BTreeMap;

use concord_ledger::{AgreementState, Agreements, Command, Decision, Fact, Handed, PartyState, StatementContent};
use concord_model::limits::AGREEMENT_MEDIA_MAX;
use concord_model::{
    AgreementDigest, AgreementRef, AgreementText, Handling, InForceAmong, MediaRange, Party, PartyRole, Reason, Terms,
    Timestamp, WithheldReason,
};
use proptest::prelude::*;

use crate::forum::{Forum, MEASURES, party, reason, t};

const ID: &str = "KAZ/floods";

impl Forum {
    /// The version after the one in force among these, as a proposal of one of its members.
    fn amendment(&self, parties: &[&str]) -> AgreementText {
        let current = self.ledger.agreements().in_force(&t(ID)).unwrap();
        let going = current.members().filter(|member| !parties.contains(&member.as_str()));
        AgreementText {
            amends: Some(current.reference()),
            outgoing: going.cloned().collect(),
            ..self.text(ID, parties)
        }
    }

    fn amend(&mut self, who: &str, parties: &[&str]) -> AgreementRef {
        let text = self.amendment(parties);
        self.propose_text(who, text).unwrap()
    }

    fn end(&mut self, who: &str) -> Result<(), Reason> {
        let reference =
            self.ledger.agreements().in_force(&t(ID)).map_or_else(|| self.latest(ID), |now| now.reference());
        reason(self.say(who, StatementContent::End(reference)))
    }

    fn now_members(&self) -> Vec<String> {
        self.ledger.agreements().members(&t(ID)).map(ToString::to_string).collect()
    }

    fn told_last(&self) -> Vec<String> {
        self.last_statement().told.iter().map(|told| told.participant.to_string()).collect()
    }

    fn lapse(&mut self, reference: &AgreementRef) -> Decision {
        self.run(&Command::Lapse(reference.clone())).unwrap()
    }

    /// What the node of a participant makes of all that it was told.
    fn directory_of(&self, who: &str) -> Agreements {
        let mut directory = Agreements::default();
        for (fact, at) in &self.facts {
            let told = match fact {
                Fact::Statement(decided) if decided.refused.is_none() => &decided.told,
                Fact::Lapsed(lapsed) => &lapsed.told,
                _ => continue,
            };
            let Some(told) = told.iter().find(|told| told.participant == t(who)) else { continue };
            match fact {
                Fact::Statement(decided) => {
                    // Whoever comes back is told with it what it missed.
                    let is_own = decided.statement.participant == t(who);
                    for sequence in decided.missed.iter().filter(|_| is_own) {
                        let Some((Fact::Statement(missed), at)) =
                            self.facts.iter().find(|(_, at)| at.sequence == *sequence)
                        else {
                            panic!("what was missed at {sequence} is no statement");
                        };
                        directory.apply(&missed.statement, told.number, at.now);
                    }
                    directory.apply(&decided.statement, told.number, at.now);
                }
                Fact::Lapsed(lapsed) => directory.lapse(&lapsed.agreement, told.number, at.now),
                _ => {}
            }
        }
        directory
    }
}

#[test]
fn an_amendment_is_in_force_when_all_on_it_and_all_who_go_have_consented_and_not_before() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR", "UZB"]);
    let first = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    // TUR goes, UZB comes; a member that is not the first proposer proposes it.
    let second = forum.amend("IRN", &["IRN", "KAZ", "UZB"]);
    assert_eq!(forum.told_last(), ["IRN", "KAZ", "UZB", "TUR"]);
    for who in ["KAZ", "UZB"] {
        forum.consent(who, &second).unwrap();
        assert_eq!(forum.now_members(), ["IRN", "KAZ", "TUR"], "one of them has not consented: {who} was not the last");
    }
    forum.consent("TUR", &second).unwrap();
    assert_eq!(forum.now_members(), ["IRN", "KAZ", "UZB"]);
    let agreements = forum.ledger.agreements();
    let state = |reference| agreements.version(reference).unwrap().state;
    assert_eq!((state(&first), state(&second)), (AgreementState::Amended, AgreementState::InForce));
    // What becomes of it now is no matter of whoever went.
    forum.leave("IRN", ID).unwrap();
    assert_eq!(forum.told_last(), ["IRN", "KAZ", "UZB"]);
}

#[test]
fn whoever_declines_an_amendment_keeps_the_agreement_as_it_was() {
    for who in ["KAZ", "TUR", "UZB"] {
        let mut forum = Forum::of(["KAZ", "IRN", "TUR", "UZB"]);
        let first = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
        let second = forum.amend("IRN", &["IRN", "KAZ", "UZB"]);
        forum.decline(who, &second).unwrap();
        assert_eq!(forum.now_members(), ["IRN", "KAZ", "TUR"]);
        assert_eq!(forum.ledger.agreements().in_force(&t(ID)).unwrap().reference(), first);
        assert_eq!(reason(forum.consent("KAZ", &second)), Err(Reason::AgreementNotPending));
        // Another one amends what is in force, under the next number.
        let third = forum.amend("KAZ", &["IRN", "KAZ", "TUR", "UZB"]);
        assert_eq!(third.version, 3);
    }
}

#[test]
fn only_a_member_amends_and_only_what_is_in_force_with_everybody_who_goes_named() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR", "UZB"]);
    forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    let good = forum.amendment(&["IRN", "KAZ", "UZB"]);
    let refused = |forum: &mut Forum, who: &str, text: AgreementText| reason(forum.propose_text(who, text).map(drop));
    // Neither a stranger nor the secretariat adds a reader.
    let with = |code: &str| AgreementText { parties: ["IRN", "KAZ", code].map(party).into(), ..good.clone() };
    assert_eq!(refused(&mut forum, "UZB", good.clone()), Err(Reason::AgreementNotOwn));
    assert_eq!(refused(&mut forum, "SEC", with("SEC")), Err(Reason::AgreementNotOwn));
    let malformed = Err(Reason::AgreementMalformed);
    assert_eq!(refused(&mut forum, "IRN", AgreementText { outgoing: Vec::new(), ..good.clone() }), malformed);
    assert_eq!(refused(&mut forum, "IRN", AgreementText { outgoing: vec![t("UZB")], ..good.clone() }), malformed);
    let amends_nothing = AgreementText { amends: None, outgoing: Vec::new(), ..good.clone() };
    assert_eq!(refused(&mut forum, "IRN", amends_nothing), Err(Reason::AgreementExists));
    let mut other = good.clone();
    other.amends.as_mut().unwrap().digest.0 = crate::forum::digest("another");
    assert_eq!(refused(&mut forum, "IRN", other), Err(Reason::AgreementAmended));
    assert_eq!(refused(&mut forum, "IRN", good.clone()), Ok(()));
    // One at a time.
    let next = AgreementText { version: 3, ..good };
    assert_eq!(refused(&mut forum, "KAZ", next), Err(Reason::AgreementExists));
}

#[test]
fn a_text_has_one_spelling_and_says_nothing_that_means_nothing() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR", "UZB"]);
    let first = forum.agree(ID, &["IRN", "KAZ", "TUR", "UZB"]);
    let good = AgreementText { outgoing: vec![t("TUR"), t("UZB")], ..forum.amendment(&["IRN", "KAZ"]) };
    let media = |ranges: &[&str]| ranges.iter().map(|range| MediaRange::parse(range).unwrap()).collect::<Vec<_>>();
    let many: Vec<String> = (0..=AGREEMENT_MEDIA_MAX).map(|number| format!("text/x{number:04}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    type Change<'a> = Box<dyn Fn(&mut AgreementText) + 'a>;
    let bad: [(&str, Change<'_>); 12] = [
        ("media unsorted", Box::new(|text| text.terms.media = media(&["text/xml", "text/csv"]))),
        ("media twice", Box::new(|text| text.terms.media = media(&["text/csv", "text/csv"]))),
        ("too many media", Box::new(|text| text.terms.media = media(&many))),
        ("size 0", Box::new(|text| text.terms.body_size_max_bytes = Some(0))),
        ("days 0", Box::new(|text| text.terms.retention_days = Some(0))),
        ("going unsorted", Box::new(|text| text.outgoing.reverse())),
        ("going twice", Box::new(|text| text.outgoing = vec![t("TUR"), t("TUR"), t("UZB")])),
        ("goes and stays", Box::new(|text| text.outgoing.insert(0, t("IRN")))),
        ("goes from nothing", Box::new(|text| text.amends = None)),
        ("amends another", Box::new(|text| text.amends.as_mut().unwrap().id = t("KAZ/other"))),
        ("amends itself", Box::new(|text| text.amends.as_mut().unwrap().version = text.version)),
        ("amends a later one", Box::new(|text| text.amends.as_mut().unwrap().version = text.version + 1)),
    ];
    for (what, change) in bad {
        let mut text = good.clone();
        change(&mut text);
        // Handed back by another it is judged by its form only.
        let digest = AgreementDigest(crate::forum::digest(what));
        let statement = forum.statement("IRN", StatementContent::Propose { text: text.clone(), digest });
        let handed = Handed { statement, by: t("KAZ"), was_told: true, refused: None, closes: None };
        let decided = forum.ledger.decide(&Command::HandBack(handed), forum.at());
        let Ok(Decision::Fact { refusal: Some(refusal), .. }) = decided else { panic!("{what}: {decided:?}") };
        assert_eq!(refusal.reason, Reason::AgreementMalformed, "{what}");
        assert_eq!(reason(forum.propose_text("IRN", text).map(drop)), Err(Reason::AgreementMalformed), "{what}");
    }
    let mut most = good.clone();
    most.terms.media = media(&many[1..]);
    (most.terms.body_size_max_bytes, most.terms.retention_days) = (Some(1), Some(1));
    let waits = forum.propose_text("IRN", most).unwrap();
    let shown = |who: &str| forum.ledger.agreements().amendment_for(&t(who), &t(ID)).map(|one| one.reference());
    assert_eq!((shown("KAZ"), shown("TUR")), (Some(waits.clone()), Some(waits)));
    assert_eq!(forum.ledger.agreements().in_force(&t(ID)).unwrap().reference(), first);
}

#[test]
fn an_end_names_the_version_in_force() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let first = forum.agree(ID, &["IRN", "KAZ"]);
    let second = forum.amend("KAZ", &["IRN", "KAZ"]);
    forum.consent("IRN", &second).unwrap();
    let end = |forum: &mut Forum, of: &AgreementRef| reason(forum.say("KAZ", StatementContent::End(of.clone())));
    assert_eq!(end(&mut forum, &first), Err(Reason::AgreementAmended));
    assert_eq!(end(&mut forum, &second), Ok(()));
}

#[test]
fn mail_of_before_an_amendment_goes_on_to_those_who_stay_and_to_nobody_else() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR", "UZB"]);
    let first = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    let header = forum.header("KAZ", &first);
    let recorded = forum.send("KAZ", vec![header]).unwrap();
    assert_eq!(recorded.groups[0].recipients, [t("IRN"), t("TUR")]);
    let at = forum.ledger.sequence();
    let second = forum.amend("IRN", &["IRN", "KAZ", "UZB"]);
    for who in ["KAZ", "TUR", "UZB"] {
        forum.consent(who, &second).unwrap();
    }
    assert_eq!(forum.permit("IRN", at, &first), Ok(()));
    assert_eq!(forum.permit("TUR", at, &first), Err(WithheldReason::Removed));
    assert_eq!(forum.permit("UZB", at, &first), Err(WithheldReason::Left), "it was not on the version that it names");
    // Whoever comes is sent nothing of before under the new version either, and who went does not come back with a later one.
    assert_eq!(forum.permit("UZB", at, &second), Err(WithheldReason::Left));
    let third = forum.amend("KAZ", &["IRN", "KAZ", "TUR", "UZB"]);
    for who in ["IRN", "TUR", "UZB"] {
        forum.consent(who, &third).unwrap();
    }
    assert_eq!(forum.permit("TUR", at, &first), Err(WithheldReason::Removed), "its membership was broken");
    assert_eq!(forum.permit("IRN", at, &first), Ok(()));
    // An older version may still be named: those on both get it.
    let header = forum.header("KAZ", &first);
    assert_eq!(forum.audience(header), Ok(vec!["IRN".to_owned(), "TUR".to_owned()]));
    let header = forum.header("UZB", &first);
    assert_eq!(forum.audience(header), Err(Reason::AgreementVersionMismatch));
}

#[test]
fn a_leave_that_crosses_an_amendment_leaves_that_too() {
    // Before the last consent, and after it.
    for crosses in [false, true] {
        let mut forum = Forum::of(["KAZ", "IRN", "TUR", "UZB"]);
        let first = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
        let second = forum.amend("KAZ", &["IRN", "KAZ", "TUR", "UZB"]);
        let leave = StatementContent::Leave(first.clone());
        forum.consent("TUR", &second).unwrap();
        forum.consent("IRN", &second).unwrap();
        if crosses {
            forum.consent("UZB", &second).unwrap();
            forum.say("TUR", leave).unwrap();
        } else {
            forum.say("TUR", leave).unwrap();
            assert_eq!(forum.told_last(), ["IRN", "KAZ", "TUR", "UZB"]);
            forum.consent("UZB", &second).unwrap();
        }
        assert_eq!(forum.now_members(), ["IRN", "KAZ", "UZB"]);
        let state = |who: &str| forum.directory_of(who).in_force(&t(ID)).unwrap().party_state(&t("TUR"));
        assert_eq!((state("UZB"), state("KAZ")), (Some(PartyState::Left), Some(PartyState::Left)));
        // No amendment takes it in again: it would come back to what it left without having said so last.
        let again = forum.amendment(&["IRN", "KAZ", "TUR", "UZB"]);
        assert_eq!(reason(forum.propose_text("KAZ", again).map(drop)), Err(Reason::AgreementMalformed));
    }
}

#[test]
fn a_leave_names_the_version_in_force_or_the_one_that_it_crossed_and_no_other() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let all = ["IRN", "KAZ", "TUR"];
    let mut versions = vec![forum.agree(ID, &all)];
    for _ in 0..2 {
        let next = forum.amend("KAZ", &all);
        forum.consent("IRN", &next).unwrap();
        forum.consent("TUR", &next).unwrap();
        versions.push(next);
    }
    let leave = |forum: &mut Forum, of: &AgreementRef| reason(forum.say("TUR", StatementContent::Leave(of.clone())));
    assert_eq!(leave(&mut forum, &versions[0]), Err(Reason::AgreementAmended));
    // Whoever would join by one that waits does not know the version that was crossed.
    let waits = forum.amend("KAZ", &all);
    assert_eq!(leave(&mut forum, &versions[1]), Err(Reason::AgreementAmended));
    forum.decline("IRN", &waits).unwrap();
    assert_eq!(leave(&mut forum, &versions[1]), Ok(()));
    assert_eq!(forum.now_members(), ["IRN", "KAZ"]);
}

#[test]
fn who_leaves_while_it_is_to_go_has_said_enough() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR", "UZB"]);
    forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    let second = forum.amend("KAZ", &["IRN", "KAZ", "UZB"]);
    forum.consent("IRN", &second).unwrap();
    forum.consent("UZB", &second).unwrap();
    let first = forum.ledger.agreements().in_force(&t(ID)).unwrap().reference();
    forum.say("TUR", StatementContent::Leave(first)).unwrap();
    assert_eq!(forum.ledger.agreements().in_force(&t(ID)).unwrap().reference(), second);
    assert_eq!(forum.directory_of("UZB").in_force(&t(ID)).unwrap().reference(), second);
}

#[test]
fn who_would_join_is_told_of_leaves_and_of_nothing_else_that_was_said_of_the_version_before() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR", "UZB"]);
    let until = Timestamp::from_micros(40_000_000);
    let text = AgreementText { valid_until: Some(until), ..forum.text(ID, &["IRN", "KAZ", "TUR"]) };
    let first = forum.propose_text("KAZ", text).unwrap();
    forum.consent("IRN", &first).unwrap();
    forum.consent("TUR", &first).unwrap();
    forum.amend("KAZ", &["IRN", "KAZ", "TUR", "UZB"]);
    forum.end("IRN").unwrap();
    assert_eq!(forum.told_last(), ["IRN", "KAZ", "TUR"]);
    while forum.at().now < until {
        forum.record(Fact::JournalEffect);
    }
    let lapsed = forum.lapse(&first);
    let Decision::Fact { fact: Fact::Lapsed(lapsed), .. } = lapsed else { panic!("{lapsed:?}") };
    let told: Vec<_> = lapsed.told.iter().map(|told| told.participant.as_str()).collect();
    assert_eq!(told, ["IRN", "KAZ", "TUR"]);
}

#[test]
fn a_proposer_that_left_or_went_cannot_ask_by_proposing_whether_the_others_go_on() {
    for removed in [false, true] {
        let mut heard = Vec::new();
        for goes_on in [false, true] {
            let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
            forum.agree(ID, &["IRN", "KAZ", "TUR"]);
            if removed {
                let second = forum.amend("IRN", &["IRN", "TUR"]);
                forum.consent("TUR", &second).unwrap();
                forum.consent("KAZ", &second).unwrap();
            } else {
                forum.leave("KAZ", ID).unwrap();
            }
            if goes_on {
                let later = forum.amend("IRN", &["IRN", "TUR"]);
                forum.consent("TUR", &later).unwrap();
            } else {
                forum.leave("TUR", ID).unwrap();
            }
            for version in 1..5 {
                let text = AgreementText { version, ..forum.text(ID, &["IRN", "KAZ"]) };
                let refusal = forum.propose_text("KAZ", text).unwrap_err();
                heard.push((refusal.reason, refusal.message));
            }
        }
        heard.dedup();
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert_eq!(heard[0].0, Reason::AgreementExists);
    }
}

#[test]
fn an_agreement_ends_when_all_its_members_have_said_so() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    assert_eq!(forum.end("KAZ"), Ok(()));
    assert_eq!(forum.end("KAZ"), Ok(()), "again is harmless");
    assert_eq!(forum.end("IRN"), Ok(()));
    assert_eq!(forum.now_members().len(), 3, "one has not said so");
    // A leave of the one who had not leaves those who had.
    forum.leave("TUR", ID).unwrap();
    assert_eq!(forum.now_members(), [""; 0]);
    assert_eq!(forum.ledger.agreements().get(&t(ID)).unwrap().state, AgreementState::Ended);
    assert_eq!(forum.end("KAZ"), Err(Reason::AgreementNotInForce));
    // What was said of one version is not said of the next.
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    forum.end("KAZ").unwrap();
    forum.end("IRN").unwrap();
    let second = forum.amend("KAZ", &["IRN", "KAZ", "TUR"]);
    forum.consent("IRN", &second).unwrap();
    forum.consent("TUR", &second).unwrap();
    forum.end("TUR").unwrap();
    assert_eq!(forum.now_members().len(), 3);
}

#[test]
fn an_agreement_lapses_at_its_time_and_takes_nothing_from_then_on() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let until = Timestamp::from_micros(12_000_000);
    let text = AgreementText { valid_until: Some(until), ..forum.text(ID, &["IRN", "KAZ"]) };
    let reference = forum.propose_text("KAZ", text.clone()).unwrap();
    forum.consent("IRN", &reference).unwrap();
    assert_eq!(forum.ledger.agreements().next_lapse(), Some(until));
    assert_eq!(forum.lapse(&reference), Decision::Nothing, "its time has not come");
    let header = forum.header("KAZ", &reference);
    assert_eq!(forum.audience(header), Ok(vec!["IRN".to_owned()]));
    let recorded = forum.ledger.sequence();
    while forum.at().now < until {
        forum.record(Fact::JournalEffect);
    }
    // Also before the fact.
    let header = forum.header("KAZ", &reference);
    assert_eq!(forum.audience(header), Err(Reason::AgreementNotInForce));
    assert!(matches!(forum.lapse(&reference), Decision::Fact { .. }));
    assert_eq!(forum.lapse(&reference), Decision::Nothing, "once");
    assert_eq!(forum.permit("IRN", recorded, &reference), Err(WithheldReason::AgreementEnded));
    assert_eq!(forum.directory_of("IRN").get(&t(ID)).unwrap().state, AgreementState::Lapsed);
    assert_eq!(forum.ledger.agreements().next_lapse(), None);
    let late = AgreementText { version: 2, ..text };
    assert_eq!(reason(forum.propose_text("KAZ", late).map(drop)), Err(Reason::AgreementMalformed));
}

#[test]
fn the_terms_of_both_versions_bind_every_exchange() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let with_role = |code: &str, role| Party { role, ..party(code) };
    let terms = Terms {
        media: vec![MediaRange::parse("text/*").unwrap()],
        body_size_max_bytes: Some(10),
        handling_max: Handling::Amber,
        ..Terms::default()
    };
    let parties = vec![with_role("IRN", PartyRole::Receive), party("KAZ"), with_role("TUR", PartyRole::Contribute)];
    let text = AgreementText { parties, terms, ..forum.text(ID, &[]) };
    let first = forum.propose_text("KAZ", text.clone()).unwrap();
    forum.consent("IRN", &first).unwrap();
    forum.consent("TUR", &first).unwrap();
    let part = |media: &str, size_bytes| concord_model::Part {
        media_type: t(media),
        size_bytes,
        commitment: concord_model::Digest::ZERO,
    };
    let mut heard = |origin: &str, media: &str, size, handling| {
        let mut header = forum.header(origin, &first);
        header.parts = vec![part(media, size)];
        header.handling = handling;
        forum.audience(header)
    };
    // To receive only, to contribute only, and both.
    assert_eq!(heard("KAZ", "text/csv", 10, Handling::Amber), Ok(vec!["IRN".to_owned()]));
    assert_eq!(heard("TUR", "text/csv", 10, Handling::Clear), Ok(vec!["IRN".to_owned(), "KAZ".to_owned()]));
    assert_eq!(heard("IRN", "text/csv", 10, Handling::Clear), Err(Reason::RoleNotAllowed));
    assert_eq!(heard("KAZ", "application/xml", 10, Handling::Amber), Err(Reason::MediaTypeNotAllowed));
    assert_eq!(heard("KAZ", "text/csv", 11, Handling::Amber), Err(Reason::BodyTooLarge));
    assert_eq!(heard("KAZ", "text/csv", 10, Handling::AmberStrict), Err(Reason::HandlingNotAllowed));
    // A stricter version in force binds what names the older one.
    let stricter = Terms { handling_max: Handling::Green, ..text.terms.clone() };
    let second = AgreementText { terms: stricter, amends: Some(first.clone()), version: 2, ..text };
    let second = forum.propose_text("KAZ", second).unwrap();
    forum.consent("IRN", &second).unwrap();
    forum.consent("TUR", &second).unwrap();
    let header = forum.header("KAZ", &first);
    assert_eq!(forum.audience(header), Err(Reason::HandlingNotAllowed));
}

#[test]
fn one_who_is_only_to_contribute_from_now_on_is_sent_nothing_more() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let first = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    let header = forum.header("KAZ", &first);
    forum.send("KAZ", vec![header]).unwrap();
    let recorded = forum.ledger.sequence();
    let mut text = forum.amendment(&["IRN", "KAZ", "TUR"]);
    text.parties[2].role = PartyRole::Contribute;
    let second = forum.propose_text("KAZ", text).unwrap();
    forum.consent("IRN", &second).unwrap();
    forum.consent("TUR", &second).unwrap();
    assert_eq!(forum.permit("TUR", recorded, &first), Err(WithheldReason::Removed));
    assert_eq!(forum.permit("IRN", recorded, &first), Ok(()));
    // Nor what was recorded before, when it is to receive again: what was withheld stays withheld.
    let third = forum.amend("KAZ", &["IRN", "KAZ", "TUR"]);
    forum.consent("IRN", &third).unwrap();
    forum.consent("TUR", &third).unwrap();
    assert_eq!(forum.permit("TUR", recorded, &first), Err(WithheldReason::Removed));
    assert_eq!(forum.permit("IRN", recorded, &first), Ok(()));
    let header = forum.header("KAZ", &first);
    assert_eq!(forum.audience(header), Ok(vec!["IRN".to_owned(), "TUR".to_owned()]));
    assert_eq!(forum.permit("TUR", forum.ledger.sequence(), &first), Ok(()));
}

#[test]
fn a_proposal_by_which_nobody_would_be_sent_anything_is_refused() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    for (irn, kaz) in [(PartyRole::Receive, PartyRole::Receive), (PartyRole::Contribute, PartyRole::Contribute)] {
        let mut text = forum.text(ID, &["IRN", "KAZ"]);
        (text.parties[0].role, text.parties[1].role) = (irn, kaz);
        assert_eq!(reason(forum.propose_text("KAZ", text).map(drop)), Err(Reason::AgreementMalformed));
    }
}

#[test]
fn a_hold_is_the_secretariats_or_ones_own_and_is_lifted_by_whoever_laid_it() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let hold = |code: &str| StatementContent::Hold { participant: t(code), reason: t("its node floods") };
    let held = |forum: &Forum| forum.ledger.registry().holds().is_held(&t("KAZ"));
    assert_eq!(reason(forum.say("IRN", hold("KAZ"))), Err(Reason::CallerNotAllowed));
    assert_eq!(reason(forum.say("KAZ", hold("SEC"))), Err(Reason::CallerNotAllowed));
    assert_eq!(reason(forum.say("SEC", hold("UZB"))), Err(Reason::ParticipantUnknown));
    forum.say("SEC", hold("KAZ")).unwrap();
    assert_eq!(forum.told_last(), ["IRN", "KAZ", "SEC"], "visibly");
    let by_secretariat = forum.last_statement().statement.digest;
    assert_eq!(reason(forum.say("SEC", hold("KAZ"))), Err(Reason::HoldExists));
    let holds = forum.ledger.registry().holds();
    let shown: Vec<_> = holds.iter().map(|(digest, hold)| (*digest, hold.by.to_string())).collect();
    assert_eq!(shown, [(by_secretariat, "SEC".to_owned())]);
    forum.say("KAZ", hold("KAZ")).unwrap();
    let own = forum.last_statement().statement.digest;
    assert_eq!(reason(forum.say("KAZ", StatementContent::Release(by_secretariat))), Err(Reason::HoldUnknown));
    forum.say("KAZ", StatementContent::Release(own)).unwrap();
    assert!(held(&forum), "the secretariat's stands");
    // Its statements go on, so that leaving is always possible.
    let first = forum.agree(ID, &["IRN", "KAZ"]);
    forum.say("KAZ", StatementContent::Leave(first)).unwrap();
    forum.say("SEC", StatementContent::Release(by_secretariat)).unwrap();
    assert!(!held(&forum));
}

/// One thing that a participant of the random history does.
#[derive(Debug, Clone)]
enum Act {
    Propose(usize, u8),
    Amend(usize, u8),
    Consent(usize),
    Decline(usize),
    Return(usize),
    Leave(usize),
    End(usize),
    Send(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (0..4_usize, any::<u8>()).prop_map(|(who, mask)| Act::Propose(who, mask)),
        3 => (0..4_usize, any::<u8>()).prop_map(|(who, mask)| Act::Amend(who, mask)),
        8 => (0..4_usize).prop_map(Act::Consent),
        1 => (0..4_usize).prop_map(Act::Decline),
        2 => (0..4_usize).prop_map(Act::Leave),
        3 => (0..4_usize).prop_map(Act::Return),
        1 => (0..4_usize).prop_map(Act::End),
        4 => (0..4_usize).prop_map(Act::Send),
    ]
}

const CODES: [&str; 4] = ["IRN", "KAZ", "TUR", "UZB"];

/// What was sent: where, under which version, and who was in its audience and has stayed a member ever since, as far as an observer of
/// the members after each act can tell.
struct Sent {
    recorded: u64,
    agreement: AgreementRef,
    entitled: BTreeMap<String, bool>,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// The oracle knows nothing of versions: it looks at who the members are after each act, and who of them said yes to the version
    /// in force.
    #[test]
    fn a_right_lasts_exactly_as_long_as_the_membership_in_which_it_began(acts in prop::collection::vec(act(), 0..60)) {
        let mut forum = Forum::of(["IRN", "KAZ", "TUR", "UZB"]);
        let mut sent: Vec<Sent> = Vec::new();
        for act in acts {
            let crowd = |mask: u8, who: usize| -> Vec<&str> {
                (0..4).filter(|index| *index == who || mask & (1 << index) != 0).map(|index| CODES[index]).collect()
            };
            let _refused_or_not = match act {
                Act::Propose(who, mask) => {
                    let in_force = if mask & 0x30 == 0 { InForceAmong::All } else { InForceAmong::Each };
                    let text = AgreementText { id: t(ID), in_force, ..forum.text(ID, &crowd(mask, who)) };
                    reason(forum.propose_text(CODES[who], text).map(drop))
                }
                Act::Amend(who, mask) if forum.ledger.agreements().in_force(&t(ID)).is_some() => {
                    let text = forum.amendment(&crowd(mask, who));
                    reason(forum.propose_text(CODES[who], text).map(drop))
                }
                Act::Amend(..) => Ok(()),
                Act::Consent(who) => { let latest = forum.latest(ID); reason(forum.consent(CODES[who], &latest)) }
                Act::Decline(who) => { let latest = forum.latest(ID); reason(forum.decline(CODES[who], &latest)) }
                Act::Leave(who) => {
                    let now = forum.ledger.agreements().in_force(&t(ID)).map(|now| now.reference());
                    let now = now.unwrap_or_else(|| forum.latest(ID));
                    reason(forum.say(CODES[who], StatementContent::Leave(now)))
                }
                Act::Return(who) => {
                    let now = forum.ledger.agreements().in_force(&t(ID)).map(|now| now.reference());
                    let now = now.unwrap_or_else(|| forum.latest(ID));
                    reason(forum.come_back(CODES[who], &now))
                }
                Act::End(who) => forum.end(CODES[who]),
                Act::Send(who) => {
                    let Some(agreement) = forum.ledger.agreements().in_force(&t(ID)).map(|now| now.reference()) else { continue };
                    let mut header = forum.header(CODES[who], &agreement);
                    header.measure = t(MEASURES[0]);
                    if let Ok(audience) = forum.audience(header) {
                        let others: Vec<String> = forum.now_members().into_iter().filter(|code| code != CODES[who]).collect();
                        prop_assert_eq!(&audience, &others);
                        // Also its origin, as far as membership goes: that nobody is sent its own is the audience's matter.
                        let members = forum.now_members();
                        let entitled =
                            CODES.iter().map(|code| ((*code).to_owned(), members.contains(&(*code).to_owned()))).collect();
                        sent.push(Sent { recorded: forum.ledger.sequence(), agreement, entitled });
                    }
                    Ok(())
                }
            };
            let members = forum.now_members();
            for letter in &mut sent {
                for (code, entitled) in &mut letter.entitled {
                    *entitled &= members.contains(code);
                    let permitted = forum.permit(code, letter.recorded, &letter.agreement).is_ok();
                    prop_assert_eq!(permitted, *entitled, "{} and what was recorded at {}", code, letter.recorded);
                }
            }
            // Nobody is a member by others' words, and each member's own node sees the same.
            if let Some(now) = forum.ledger.agreements().in_force(&t(ID)) {
                let reference = now.reference();
                for member in now.members() {
                    let said = forum.facts.iter().any(|(fact, _)| match fact {
                        Fact::Statement(decided) if decided.refused.is_none() && decided.statement.participant == *member => {
                            match &decided.statement.content {
                                StatementContent::Propose { text, digest } => (text.version, *digest) == (reference.version, reference.digest),
                                StatementContent::Consent(named) | StatementContent::Return(named, _) => *named == reference,
                                _ => false,
                            }
                        }
                        _ => false,
                    });
                    prop_assert!(said, "{} is a member of version {} and never said so", member, reference.version);
                    let directory = forum.directory_of(member.as_str());
                    let seen: Vec<String> = directory.members(&t(ID)).map(ToString::to_string).collect();
                    prop_assert_eq!(&seen, &members, "what {} sees", member);
                    prop_assert_eq!(directory.in_force(&t(ID)).map(|one| one.reference()), Some(reference.clone()));
                }
            }
            // Whoever is none sees none either.
            for code in CODES.iter().filter(|code| !members.contains(&(**code).to_owned())) {
                let directory = forum.directory_of(code);
                prop_assert!(!directory.is_member(&t(ID), &t(code)), "{} sees itself as a member", code);
            }
        }
    }
}
