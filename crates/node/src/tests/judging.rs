//! Judging: one row for each reason to set a delivery aside.

use bytes::Bytes;
use concord_journal::Blob;
use concord_model::{AgreementText, Handling, Header, Lane, Narrowing, PartyRole, SetAsideReason, Timestamp};
use concord_wire::proto::exchange::v1::Delivery;

use super::support::{Forum, HISTORY, Member, Running, code, delivered, founded, reference};
use crate::downlink::judge;
use crate::writer::Judged;
use concord_wire::stored::node::Verdict;

fn check(forum: &Forum, delivery: &Delivery, expected: Result<(), SetAsideReason>, what: &str) {
    let judged = judge(&forum.directory(), &forum.hub(), &forum.kaz.code, Lane::Routine, delivery);
    assert_eq!(judged.map(|_| ()), expected, "{what}");
}

/// As a hub or a node would that wants an exchange to be taken for an exercise.
fn mark_as_exercise(delivery: &mut Delivery) {
    let header = concord_wire::header::parse(&delivery.header).unwrap();
    delivery.header = concord_wire::header::encode(&Header { exercise: true, ..header });
}

#[test]
fn each_reason_is_found_and_what_holds_is_accepted() {
    use SetAsideReason as Aside;
    let forum = Forum::new();
    let (header, blobs) = forum.exchange(&forum.irn, 1);
    let good = delivered(&forum.irn, &header, &blobs, 1);
    check(&forum, &good, Ok(()), "good");

    type Change = fn(&mut Delivery);
    let changes: [(&str, Change, Aside); 9] = [
        ("header", |delivery| delivery.header = Bytes::from_static(b"x"), Aside::HeaderInvalid),
        ("signature", |delivery| delivery.signature = Bytes::from(vec![0; 64]), Aside::SignatureInvalid),
        ("path", |delivery| delivery.path.swap(0, 1), Aside::SignatureInvalid),
        ("slot", |delivery| delivery.slot ^= 1, Aside::SignatureInvalid),
        ("salt", |delivery| delivery.leaf_salt = Bytes::from(vec![0; 32]), Aside::SignatureInvalid),
        ("body", |delivery| delivery.blobs[1] = Bytes::from(vec![0; 38]), Aside::BodyMismatch),
        ("no body", |delivery| drop(delivery.blobs.pop()), Aside::BodyMismatch),
        ("the mark of an exercise", mark_as_exercise, Aside::SignatureInvalid),
        ("before it was in force", |delivery| delivery.feed_number = 6, Aside::NotAMember),
    ];
    for (what, change, expected) in changes {
        let mut delivery = good.clone();
        change(&mut delivery);
        check(&forum, &delivery, Err(expected), what);
    }
}

#[test]
fn a_header_that_is_signed_counts_only_within_what_was_consented_to() {
    use SetAsideReason as Aside;
    let forum = Forum::new();
    let signed = |origin: &Member, signer: &Member, change: &dyn Fn(&mut Header)| {
        let (mut header, blobs): (Header, Vec<Blob>) = forum.exchange(origin, 1);
        change(&mut header);
        delivered(signer, &header, &blobs, 1)
    };
    let kazs = Narrowing::new([code("KAZ")]).unwrap();
    let turs = Narrowing::new([code("TUR")]).unwrap();
    let other = reference(&forum.text("IRN/other"));
    let (irn, tur, kaz, sec) = (&forum.irn, &forum.tur, &forum.kaz, &forum.sec);
    let rows: [(&str, Delivery, Result<(), Aside>); 7] = [
        ("narrowed to us", signed(irn, irn, &|header| header.narrowing = Some(kazs.clone())), Ok(())),
        (
            "narrowed to another",
            signed(irn, irn, &|header| header.narrowing = Some(turs.clone())),
            Err(Aside::NotAMember),
        ),
        ("not consented to", signed(irn, irn, &|header| header.agreement = other.clone()), Err(Aside::NotAMember)),
        ("not on it", signed(sec, sec, &|_| {}), Err(Aside::NotAMember)),
        ("our own", signed(kaz, kaz, &|_| {}), Err(Aside::NotAMember)),
        ("another's key", signed(irn, tur, &|_| {}), Err(Aside::KeyNotPinned)),
        ("another lane", signed(irn, irn, &|header| header.lane = Lane::Priority), Err(Aside::HeaderInvalid)),
    ];
    for (what, delivery, expected) in rows {
        check(&forum, &delivery, expected, what);
    }
}

#[test]
fn the_key_that_counts_is_the_one_consented_to_and_not_the_registrys() {
    use super::support::item;
    use concord_wire::agreement::DraftContent;
    use concord_wire::proto::feed::v1::feed_item::Content;
    let forum = Forum::new();
    // What KAZ consented to names another key of IRN than the registry has now.
    let mut text = forum.text("KAZ/older");
    text.parties[0].signing_key = forum.sec.signing.public().fingerprint;
    let mut directory = forum.directory();
    let consent = DraftContent::Consent(reference(&text));
    let said = [
        forum.kaz.says(2, DraftContent::Propose(text.clone())),
        forum.irn.says(3, consent.clone()),
        forum.tur.says(2, consent),
    ];
    for (number, signed) in (9..).zip(said) {
        directory.apply(&forum.hub(), &forum.kaz.code, &item(number, Content::Statement(signed))).unwrap();
    }
    let (mut header, blobs) = forum.exchange(&forum.irn, 1);
    header.agreement = reference(&text);
    let mut delivery = delivered(&forum.irn, &header, &blobs, 1);
    delivery.feed_number = 11;
    let judged = judge(&directory, &forum.hub(), &forum.kaz.code, Lane::Routine, &delivery);
    assert_eq!(judged.map(|_| ()), Err(SetAsideReason::KeyNotPinned));
}

#[test]
fn keys_that_came_after_those_consented_to_count_by_the_own_officers_word_alone() {
    use super::support::{Member, item};
    use concord_model::Title;
    use concord_wire::agreement::DraftContent;
    use concord_wire::proto::feed::v1::feed_item::Content;
    let forum = Forum::new();
    let renewed = Member::new("IRN");
    let mut directory = forum.directory();
    let replace = DraftContent::Replace(renewed.request(), Title::parse("note 17").unwrap());
    let replace = item(9, Content::Statement(forum.sec.says(4, replace)));
    directory.apply(&forum.hub(), &forum.kaz.code, &replace).unwrap();
    let (header, blobs) = forum.exchange(&forum.irn, 1);
    let [by_old, by_new] = [&forum.irn, &renewed].map(|signer| {
        let mut delivery = delivered(signer, &header, &blobs, 1);
        delivery.feed_number = 9;
        delivery
    });
    let judged = |directory: &crate::state::Directory, delivery| {
        judge(directory, &forum.hub(), &forum.kaz.code, Lane::Routine, delivery).map(|_| ())
    };
    assert_eq!(judged(&directory, &by_new), Err(SetAsideReason::KeyNotPinned));
    assert_eq!(judged(&directory, &by_old), Ok(()));
    // A word about another's key, or about an earlier one, is none about this one.
    let (old, new) = (forum.irn.signing.public().fingerprint, renewed.signing.public().fingerprint);
    for (whose, key) in [(&forum.tur.code, new), (&forum.irn.code, old)] {
        directory.confirm_pin(whose, key);
        assert_eq!(judged(&directory, &by_new), Err(SetAsideReason::KeyNotPinned));
    }
    directory.confirm_pin(&forum.irn.code, new);
    assert_eq!(judged(&directory, &by_new), Ok(()));
    assert_eq!(judged(&directory, &by_old), Ok(()), "what was signed with it stands");
    // Where the later key was consented to, the earlier one does not count for that.
    assert!(!directory.counts(&forum.irn.code, &new, &old));
}

#[test]
fn a_key_for_which_the_one_consented_to_vouches_counts_and_one_behind_a_replacement_does_not() {
    use super::support::{Member, item, rotation};
    use concord_model::Title;
    use concord_wire::agreement::DraftContent;
    use concord_wire::proto::feed::v1::feed_item::Content;
    let forum = Forum::new();
    let (next, replaced, last) = (Member::new("IRN"), Member::new("IRN"), Member::new("IRN"));
    let of = |member: &Member| member.signing.public().fingerprint;
    let mut directory = forum.directory();
    let mut tell = |number, signed| {
        directory.apply(&forum.hub(), &forum.kaz.code, &item(number, Content::Statement(signed))).unwrap();
        directory.clone()
    };
    let rotated = tell(9, forum.irn.says(3, rotation(&forum.irn, &next, 2)));
    assert!(rotated.counts(&forum.irn.code, &of(&forum.irn), &of(&next)));
    assert!(!rotated.counts(&forum.irn.code, &of(&next), &of(&forum.irn)), "an earlier one counts for nothing later");
    let replace = DraftContent::Replace(replaced.request(), Title::parse("note 17").unwrap());
    tell(10, forum.sec.says(4, replace));
    // From here on the way from the key that was consented to is broken, whatever is vouched for behind that.
    let behind = tell(11, replaced.says(1, rotation(&replaced, &last, 4)));
    for key in [of(&replaced), of(&last)] {
        assert!(!behind.counts(&forum.irn.code, &of(&forum.irn), &key));
    }
    let mut confirmed = behind;
    confirmed.confirm_pin(&forum.irn.code, of(&replaced));
    assert!(
        confirmed.counts(&forum.irn.code, &of(&forum.irn), &of(&last)),
        "what was confirmed vouches for what follows"
    );
}

#[test]
fn what_this_participant_left_is_set_aside_and_what_ended_for_another_is_not() {
    use super::support::item;
    use concord_wire::agreement::DraftContent;
    use concord_wire::proto::feed::v1::feed_item::Content;
    let forum = Forum::new();
    let (header, blobs) = forum.exchange(&forum.irn, 1);
    let delivery = delivered(&forum.irn, &header, &blobs, 1);
    let agreement = reference(&forum.text("KAZ/drugs"));
    for (leaver, number, expected) in [(&forum.tur, 2, Ok(())), (&forum.kaz, 2, Err(SetAsideReason::NotAMember))] {
        let mut directory = forum.directory();
        let left = item(9, Content::Statement(leaver.says(number, DraftContent::Leave(agreement.clone()))));
        directory.apply(&forum.hub(), &forum.kaz.code, &left).unwrap();
        let judged = judge(&directory, &forum.hub(), &forum.kaz.code, Lane::Routine, &delivery);
        assert_eq!(judged.map(|_| ()), expected, "{} left", leaver.code);
    }
}

#[test]
fn what_was_recorded_before_a_return_is_not_its_own_and_what_its_origin_sent_as_a_member_stays_so() {
    use super::support::item;
    use concord_wire::agreement::{DraftContent, parse_statement};
    use concord_wire::proto::feed::v1::feed_item::Content;
    let forum = Forum::new();
    let (header, blobs) = forum.exchange(&forum.irn, 1);
    let agreement = reference(&forum.text("KAZ/drugs"));
    let stranger = Err(SetAsideReason::NotAMember);
    for (who, number, before) in [(&forum.kaz, 2, stranger), (&forum.irn, 3, Ok(()))] {
        let mut directory = forum.directory();
        let leave = who.says(number, DraftContent::Leave(agreement.clone()));
        let left_by = parse_statement(&leave).unwrap().digest;
        let back = who.says(number + 1, DraftContent::Return(agreement.clone(), left_by));
        for (number, said) in [(9, leave), (11, back)] {
            directory.apply(&forum.hub(), &forum.kaz.code, &item(number, Content::Statement(said))).unwrap();
        }
        let judged = |position| {
            let mut delivery = delivered(&forum.irn, &header, &blobs, 1);
            delivery.feed_number = position;
            judge(&directory, &forum.hub(), &forum.kaz.code, Lane::Routine, &delivery).map(|_| ())
        };
        let (first, between, after) = (judged(8), judged(10), judged(11));
        assert_eq!((first, between, after), (before, stranger, Ok(())), "{} came back", who.code);
    }
}

#[test]
fn what_its_origin_sent_before_it_left_holds_where_it_comes_again_after_a_loss_and_only_there() {
    use super::support::item;
    use concord_wire::agreement::DraftContent;
    use concord_wire::proto::feed::v1::feed_item::Content;
    let forum = Forum::new();
    let (header, blobs) = forum.exchange(&forum.irn, 1);
    let mut delivery = delivered(&forum.irn, &header, &blobs, 1);
    let leave = || DraftContent::Leave(reference(&forum.text("KAZ/drugs")));
    let mut directory = forum.directory();
    let left = item(9, Content::Statement(forum.irn.says(3, leave())));
    directory.apply(&forum.hub(), &forum.kaz.code, &left).unwrap();
    // The leave is told again before the exchange comes again.
    delivery.feed_number = 9;
    let judged = |delivery: &Delivery, directory: &crate::state::Directory| {
        judge(directory, &forum.hub(), &forum.kaz.code, Lane::Routine, delivery).map(|_| ())
    };
    assert_eq!(judged(&delivery, &directory), Err(SetAsideReason::NotAMember));
    delivery.recorded_before_loss = true;
    assert_eq!(judged(&delivery, &directory), Ok(()));
    // Not where the agreement ended, nor where this participant left.
    let ended = item(10, Content::Statement(forum.tur.says(2, leave())));
    directory.apply(&forum.hub(), &forum.kaz.code, &ended).unwrap();
    assert_eq!(judged(&delivery, &directory), Err(SetAsideReason::NotAMember));
}

#[test]
fn the_version_in_force_when_it_was_recorded_binds_beside_the_one_that_it_names_and_only_its_time_counts() {
    use super::support::item;
    use concord_wire::agreement::DraftContent;
    use concord_wire::proto::feed::v1::feed_item::Content;
    let forum = Forum::new();
    let (header, blobs) = forum.exchange(&forum.irn, 1);
    let recorded_at = header.created;
    let micros = |after: i64| Timestamp::from_micros(recorded_at.as_micros() + after);
    let first = AgreementText { valid_until: Some(micros(1_000_000)), ..forum.text("KAZ/later") };
    let second = |change: &dyn Fn(&mut AgreementText)| {
        let mut text =
            AgreementText { version: 2, amends: Some(reference(&first)), valid_until: None, ..forum.text("KAZ/later") };
        change(&mut text);
        text
    };
    // What is recorded before the time of the first is over, and after it; before the second is in force, and after it.
    let judged = |text: &AgreementText, feed_number: u64, after: i64, before_loss: bool| {
        let mut directory = forum.directory();
        let agreed = [(&first, 0), (text, 2)].into_iter().flat_map(|(text, said)| {
            let consent = || DraftContent::Consent(reference(text));
            [
                forum.kaz.says(2 + said, DraftContent::Propose(text.clone())),
                forum.irn.says(3 + said, consent()),
                forum.tur.says(2 + said, consent()),
            ]
        });
        for (number, signed) in (9..).zip(agreed) {
            directory.apply(&forum.hub(), &forum.kaz.code, &item(number, Content::Statement(signed))).unwrap();
        }
        let header = Header { agreement: reference(&first), ..header.clone() };
        let mut delivery = delivered(&forum.irn, &header, &blobs, 1);
        delivery.feed_number = feed_number;
        delivery.recorded_at = Some(concord_wire::convert::timestamp(micros(after)));
        delivery.recorded_before_loss = before_loss;
        judge(&directory, &forum.hub(), &forum.kaz.code, Lane::Routine, &delivery).map(|_| ())
    };
    let broken = Err(SetAsideReason::TermsBroken);
    let longer = second(&|_| {});
    assert_eq!(judged(&longer, 11, 0, false), Ok(()));
    assert_eq!(judged(&longer, 11, 1_000_000, false), broken);
    assert_eq!(judged(&longer, 14, 1_000_000, false), Ok(()), "the second goes on");
    let stricter: [(&str, AgreementText); 3] = [
        ("handling", second(&|text| text.terms.handling_max = Handling::Green)),
        ("role", second(&|text| text.parties[1].role = PartyRole::Contribute)),
        ("measure", second(&|text| drop(text.measures.remove(0)))),
    ];
    for (what, text) in stricter {
        assert_eq!(judged(&text, 11, 0, false), Ok(()), "{what}");
        assert_eq!(judged(&text, 14, 0, false), broken, "{what}");
        // Where it came again after a loss, its position does not tell what was in force.
        assert_eq!(judged(&text, 14, 0, true), Ok(()), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_under_a_second_number_is_a_repeat_without_an_effect_and_the_lane_goes_on() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let mail = |numbers: &[(u64, u8)]| -> Vec<Judged> {
        numbers.iter().map(|(number, uuid)| accepted(&forum, *number, *uuid)).collect()
    };
    // In one batch and in the next one alike.
    node.writer.mail(Lane::Routine, HISTORY, mail(&[(1, 1), (2, 1), (3, 2)])).await.unwrap();
    node.writer.mail(Lane::Routine, HISTORY, mail(&[(4, 2), (5, 3)])).await.unwrap();
    let mailbox = node.now().mailbox(Lane::Routine).clone();
    assert_eq!((mailbox.received_through, mailbox.set_aside_count), (5, 0));
    assert!(node.index.aside(Lane::Routine, 0, 10).unwrap().is_empty());
    let inbox = node.index.inbox(Lane::Routine, 0, 10).unwrap();
    assert_eq!(inbox.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 3, 5]);

    // A number that was received is passed over, a gap is refused.
    node.writer.mail(Lane::Routine, HISTORY, mail(&[(5, 9)])).await.unwrap();
    assert!(node.writer.mail(Lane::Routine, HISTORY, mail(&[(7, 9)])).await.is_err());
    assert_eq!(*node.now().mailbox(Lane::Routine), mailbox);
    // However it is judged when it comes again, its effect stands.
    let mut again = accepted(&forum, 6, 1);
    let Verdict::Accepted(delivery) = again.verdict else { panic!("made as accepted") };
    again.verdict = Verdict::SetAside(delivery, SetAsideReason::NotAMember.to_string());
    node.writer.mail(Lane::Routine, HISTORY, vec![again]).await.unwrap();
    assert_eq!(node.now().mailbox(Lane::Routine).set_aside_count, 0);
}

/// A verified delivery; the same `uuid` is the same exchange.
pub(super) fn accepted(forum: &Forum, number: u64, uuid: u8) -> Judged {
    let (mut header, blobs) = forum.exchange(&forum.irn, uuid);
    header.created = concord_model::Timestamp::from_micros(0);
    header.uuid = concord_model::ExchangeUuid::from_parts(header.created, &[uuid; 10]);
    let mut delivery = delivered(&forum.irn, &header, &blobs, number);
    let id = concord_wire::header::exchange_id(&delivery.header);
    delivery.blobs.clear();
    Judged { verdict: Verdict::Accepted(delivery), id: Some(id), blobs, size_bytes: 1024 }
}
