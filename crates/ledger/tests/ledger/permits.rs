use concord_ledger::{Fact, Mail};
use concord_model::{Reason, Timestamp, WithheldReason};

use crate::forum::{Forum, digest, t};

const ID: &str = "KAZ/floods";

#[test]
fn mail_is_permitted_from_its_recording_until_its_recipient_leaves() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let agreement = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    let in_force = forum.ledger.sequence();
    let header = forum.header("KAZ", &agreement);
    forum.send("KAZ", vec![header]).unwrap();
    let recorded = forum.ledger.sequence();
    assert_eq!(forum.permit("TUR", recorded, &agreement), Ok(()));
    assert_eq!(forum.permit("TUR", in_force, &agreement), Ok(()));
    assert_eq!(forum.permit("TUR", in_force - 1, &agreement), Err(WithheldReason::Left));
    forum.leave("TUR", ID).unwrap();
    assert_eq!(forum.permit("TUR", recorded, &agreement), Err(WithheldReason::Left));
    assert_eq!(forum.permit("IRN", recorded, &agreement), Ok(()));
}

#[test]
fn what_was_withheld_stays_withheld_when_the_recipient_joins_again() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let first = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    let recorded = forum.ledger.sequence();
    forum.leave("TUR", ID).unwrap();
    forum.leave("IRN", ID).unwrap();
    assert_eq!(forum.permit("KAZ", recorded, &first), Err(WithheldReason::AgreementEnded));
    let second = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
    for (who, why) in
        [("TUR", WithheldReason::Left), ("IRN", WithheldReason::Left), ("KAZ", WithheldReason::AgreementEnded)]
    {
        assert_eq!(forum.permit(who, recorded, &first), Err(why), "{who}");
        assert_eq!(forum.permit(who, forum.ledger.sequence(), &first), Ok(()), "{who}");
        assert_eq!(forum.permit(who, forum.ledger.sequence(), &second), Ok(()), "{who}");
    }
}

#[test]
fn nobody_is_permitted_what_names_a_version_without_it() {
    let mut forum = Forum::of(["KAZ", "IRN", "CHN"]);
    let mut agreement = forum.agree(ID, &["IRN", "KAZ"]);
    let now = forum.ledger.sequence();
    for stranger in ["CHN", "SEC", "USA"] {
        assert_eq!(forum.permit(stranger, now, &agreement), Err(WithheldReason::Left));
    }
    agreement.digest.0 = digest("another");
    assert_eq!(forum.permit("IRN", now, &agreement), Err(WithheldReason::Left));
    agreement.id = t("KAZ/never");
    assert_eq!(forum.permit("IRN", now, &agreement), Err(WithheldReason::Left));
}

#[test]
fn a_proposal_permits_nothing() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let agreement = forum.propose(ID, &["IRN", "KAZ"]).unwrap();
    let now = forum.ledger.sequence();
    for who in ["KAZ", "IRN"] {
        assert_eq!(forum.permit(who, now, &agreement), Err(WithheldReason::Left));
    }
}

#[test]
fn what_expires_is_neither_recorded_nor_permitted_from_that_moment_on_whatever_a_clock_says_later() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let agreement = forum.agree(ID, &["IRN", "KAZ"]);
    let next = |at: Timestamp| Timestamp::from_micros(at.as_micros() + 1);
    let now = forum.at().now;
    let expiring = |forum: &mut Forum, at| {
        let mut header = forum.header("KAZ", &agreement);
        header.expires_at = Some(at);
        forum.audience(header)
    };
    assert_eq!(expiring(&mut forum, next(now)), Ok(vec!["IRN".to_owned()]));
    let now = forum.at().now;
    assert_eq!(expiring(&mut forum, now), Err(Reason::ExchangeExpired));

    let recorded = forum.ledger.sequence();
    let last = forum.ledger.last_recorded_at();
    let permit = |forum: &Forum, expires, now| {
        let mail =
            Mail { recorded, agreement: &agreement, expires_at: Some(expires), exchange: None, withdraws: false };
        forum.ledger.permit(&t("IRN"), &mail, now).map(|_| ())
    };
    let expires = next(next(last));
    assert_eq!(permit(&forum, expires, next(last)), Ok(()));
    assert_eq!(permit(&forum, expires, expires), Err(WithheldReason::Expired));
    // Not before what was recorded last.
    forum.record(Fact::JournalEffect);
    forum.enrol("KAZ").unwrap();
    assert_eq!(permit(&forum, expires, last), Err(WithheldReason::Expired));
}
