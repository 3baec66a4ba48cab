//! The feed: without a gap, and only what was signed by whom it speaks for.

use bytes::Bytes;
use concord_model::{Digest, Reason};
use concord_wire::agreement::DraftContent;
use concord_wire::proto::feed::v1::FeedItem;
use concord_wire::proto::feed::v1::feed_item::Content;

use super::support::{Forum, HISTORY, Running, founded, item, reference};
use crate::downlink::verify_items;
use crate::state::Directory;
use concord_server::{Clock as _, SystemClock};

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_refused_and_what_was_applied_is_passed_over() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let feed = forum.feed();
    node.writer.feed(HISTORY, feed[..3].to_vec(), 0).await.unwrap();
    let gap = node.writer.feed(HISTORY, feed[4..].to_vec(), 0).await.unwrap_err();
    assert_eq!(gap.reason, Reason::HistoryUnknown);
    assert_eq!(node.now().feed().number, 3);
    let entries = node.journal_length();
    node.writer.feed(HISTORY, feed[..2].to_vec(), 0).await.unwrap();
    assert_eq!(node.journal_length(), entries, "items that were applied before were journaled again");
    node.writer.feed(HISTORY, feed[1..].to_vec(), 0).await.unwrap();
    let state = node.now();
    assert_eq!(state.feed().number, 8);
    let mut expected = Directory::default();
    for item in &feed {
        expected.apply(&forum.hub(), &forum.kaz.code, item).unwrap();
    }
    assert!(**state.directory() == expected, "the directory is not the fold of its feed");
    let node = Running::start(&forum, node.stop().await, &place.path().join("views"));
    assert!(node.now() == state, "a replay gives another state");
}

#[test]
fn only_what_the_own_officer_consented_to_is_pinned() {
    let forum = Forum::new();
    let directory = forum.directory();
    assert!(directory.is_pinned(&reference(&forum.text("KAZ/drugs"))));
    assert!(!directory.is_pinned(&reference(&forum.text("IRN/other"))));
    let mut changed = forum.text("KAZ/drugs");
    changed.parties.swap(0, 1);
    assert!(!directory.is_pinned(&reference(&changed)));
}

#[test]
fn a_statement_counts_only_when_an_officer_of_its_participant_signed_it() {
    let forum = Forum::new();
    let own = &forum.kaz.code;
    let verify = |items: &[_]| verify_items(Directory::default(), &forum.hub(), own, items, SystemClock.now());
    let feed = forum.feed();
    assert_eq!(verify(&feed), Ok(()), "an enrolment counts for the statements behind it");

    let forged = |content| {
        let mut items = feed.clone();
        items.push(item(9, content));
        verify(&items).unwrap_err().reason
    };
    let consent = || DraftContent::Consent(reference(&forum.text("IRN/other")));
    let mut broken = forum.kaz.says(2, consent());
    broken.signature = Bytes::from(vec![0; 64]);
    assert_eq!(forged(Content::Statement(broken)), Reason::StatementSignatureInvalid);
    // IRN's officer puts KAZ's statement under its own signature.
    let mut stolen = forum.kaz.says(2, consent());
    let irns = forum.irn.says(3, consent());
    stolen.certificates.clone_from(&irns.certificates);
    assert_eq!(forged(Content::Statement(stolen)), Reason::StatementSignatureInvalid);
    let renamed = forum.kaz.says_as("another", 1, consent());
    assert_eq!(forged(Content::Statement(renamed)), Reason::StatementSignatureInvalid);
    // Nobody speaks before its enrolment.
    let early = [feed[0].clone(), feed[4].clone()];
    assert_eq!(verify(&early).unwrap_err().reason, Reason::StatementSignatureInvalid);
}

#[test]
fn what_binds_all_counts_from_the_secretariat_alone_however_many_officers_of_a_state_sign_it() {
    use concord_ledger::{DecisionContent, ForumDecision};
    use concord_model::{ParticipantKind, Title};
    use concord_wire::agreement::parse_statement;
    use concord_wire::proto::agreement::v1::SignedStatement;

    use super::support::{Member, code};

    let forum = Forum::new();
    // All three are enrolled; IRN's officers would have keys of their own making counted as TUR's.
    let known = forum.feed()[..4].to_vec();
    let verify = |signed: SignedStatement, approvals| {
        let told = FeedItem { approvals, ..item(5, Content::Statement(signed)) };
        let items = [known.clone(), vec![told]].concat();
        let verified = verify_items(Directory::default(), &forum.hub(), &forum.kaz.code, &items, SystemClock.now());
        verified.map_err(|refusal| refusal.reason)
    };
    let paper = || Title::parse("note 17").unwrap();
    let reason = || Title::parse("it floods").unwrap();
    let fake = Member::new("TUR");
    let enrol = || DraftContent::Enrol(fake.request());
    let replace = || DraftContent::Replace(fake.request(), paper());
    let hold = |held| DraftContent::Hold(code(held), reason());
    let set_kind =
        DecisionContent::SetKind { participant: code("KAZ"), revision: 1, kind: ParticipantKind::ObserverState };
    let decided = || DraftContent::Decided(ForumDecision { content: set_kind.clone(), reference: paper() });

    for content in [enrol(), replace(), decided(), hold("KAZ")] {
        let signed = forum.irn.says(3, content.clone());
        let about = parse_statement(&signed).unwrap().digest;
        let approval = forum.irn.another_says("officer-2", 1, DraftContent::Approve(about));
        assert_eq!(verify(signed.clone(), Vec::new()), Err(Reason::StatementSignatureInvalid), "{content:?}");
        assert_eq!(verify(signed, vec![approval]), Err(Reason::StatementSignatureInvalid), "{content:?}");
        assert_eq!(verify(forum.sec.says(4, content.clone()), Vec::new()), Ok(()), "{content:?}");
    }
    assert_eq!(verify(forum.irn.says(3, hold("IRN")), Vec::new()), Ok(()), "its own node");
    let of_the_hub = forum.sec.says(4, hold("SEC"));
    assert_eq!(verify(of_the_hub, Vec::new()), Err(Reason::StatementSignatureInvalid), "nobody holds the hub");
}

#[test]
fn keys_that_follow_count_only_where_those_before_signed_for_them() {
    use super::support::{Member, rotation};
    use bytes::Bytes;
    let forum = Forum::new();
    let known = forum.feed()[..4].to_vec();
    let told = |content: DraftContent| {
        let items = [known.clone(), vec![item(5, Content::Statement(forum.irn.says(3, content)))]].concat();
        verify_items(Directory::default(), &forum.hub(), &forum.kaz.code, &items, SystemClock.now())
    };
    let next = Member::new("IRN");
    told(rotation(&forum.irn, &next, 2)).unwrap();
    // A hub that has one of IRN's officers with it, and none of its keys.
    let forged = |change: &dyn Fn(&mut concord_wire::proto::agreement::v1::KeyRotation)| {
        let DraftContent::RotateKey(mut rotation) = rotation(&forum.irn, &next, 2) else { panic!("it is one") };
        change(&mut rotation);
        told(DraftContent::RotateKey(rotation)).unwrap_err().reason
    };
    let refused = Reason::StatementSignatureInvalid;
    assert_eq!(forged(&|rotation| rotation.signature_before = Bytes::new()), refused);
    assert_eq!(forged(&|rotation| rotation.signature_before = rotation.signature.clone()), refused);
    assert_eq!(forged(&|rotation| rotation.signature = rotation.signature_before.clone()), refused);
    assert_eq!(forged(&|rotation| rotation.opening.as_mut().unwrap().epoch = 3), refused);
}

#[test]
fn an_approval_counts_only_when_another_officer_of_the_secretariat_signed_that_very_statement() {
    let forum = Forum::new();
    let (own, sec) = (&forum.kaz.code, &forum.sec);
    let enrolled = forum.enrolment_item(2, 1, &forum.kaz);
    let Some(Content::Statement(enrolment)) = &enrolled.content else { panic!("an enrolment") };
    let about = concord_wire::agreement::parse_statement(enrolment).unwrap().digest;
    let verify = |approvals: Vec<_>| {
        let items = [forum.registry_item(), FeedItem { approvals, ..enrolled.clone() }];
        verify_items(Directory::default(), &forum.hub(), own, &items, SystemClock.now()).map(|()| items)
    };
    let approve = || DraftContent::Approve(about);
    let second = sec.another_says("officer-2", 1, approve());
    let items = verify(vec![second.clone(), sec.another_says("officer-3", 1, approve())]).unwrap();
    let mut directory = Directory::default();
    items.iter().for_each(|item| drop(directory.apply(&forum.hub(), own, item).unwrap()));
    let signed_by = &directory.registry.enrolment(own).unwrap().signed_by;
    assert_eq!(signed_by.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["officer", "officer-2", "officer-3"]);

    let mut torn = second.clone();
    torn.signature = Bytes::from_static(&[0; 64]);
    for (what, approvals) in [
        ("a signature that does not hold", vec![torn]),
        ("under another's name", vec![sec.says_as("officer-2", 1, approve())]),
        ("of the same officer", vec![sec.says(2, approve())]),
        ("of one officer twice", vec![second.clone(), sec.another_says("officer-2", 2, approve())]),
        ("of a state's officer", vec![forum.irn.says(1, approve())]),
        ("of another statement", vec![sec.another_says("officer-2", 1, DraftContent::Approve(Digest::ZERO))]),
        ("a rejection", vec![sec.another_says("officer-2", 1, DraftContent::Reject(about))]),
    ] {
        let refused = verify(approvals).map(drop).map_err(|refusal| refusal.reason);
        assert_eq!(refused, Err(Reason::StatementSignatureInvalid), "{what}");
    }
    let of_nothing = FeedItem { approvals: vec![second], ..forum.registry_item() };
    let refused = verify_items(Directory::default(), &forum.hub(), own, &[of_nothing], SystemClock.now());
    assert_eq!(refused.unwrap_err().reason, Reason::StatementSignatureInvalid);
}

#[test]
fn what_one_that_comes_back_missed_counts_only_as_its_speakers_signed_it() {
    use concord_wire::agreement::parse_statement;
    let forum = Forum::new();
    let agreement = reference(&forum.text("KAZ/drugs"));
    let leave = forum.kaz.says(2, DraftContent::Leave(agreement.clone()));
    let left_by = parse_statement(&leave).unwrap().digest;
    let back = forum.kaz.says(3, DraftContent::Return(agreement.clone(), left_by));
    let others = forum.irn.says(3, DraftContent::Leave(agreement.clone()));
    let told = |content, missed| {
        let mut items = forum.feed();
        items.push(item(9, Content::Statement(leave.clone())));
        items.push(item(10, Content::Statement(missed)));
        items.push(item(11, Content::Statement(content)));
        items
    };
    let verify = |items: &[_]| {
        let verified = verify_items(Directory::default(), &forum.hub(), &forum.kaz.code, items, SystemClock.now());
        verified.map_err(|refusal| refusal.reason)
    };
    let whole = told(back.clone(), others.clone());
    assert_eq!(verify(&whole), Ok(()));
    let mut directory = Directory::default();
    for item in &whole {
        directory.apply(&forum.hub(), &forum.kaz.code, item).unwrap();
    }
    let members: Vec<_> = directory.agreements.members(&agreement.id).map(ToString::to_string).collect();
    assert_eq!(members, ["KAZ", "TUR"]);

    let refused = Err(Reason::StatementSignatureInvalid);
    let mut broken = others.clone();
    broken.signature = Bytes::from(vec![0; 64]);
    assert_eq!(verify(&told(back, broken)), refused);
}

/// Whoever is out is not told of a lapse: by its return it would wait for an amendment for ever that is over.
#[test]
fn an_amendment_that_lapsed_while_its_party_was_out_waits_no_more_when_that_comes_back() {
    use concord_ledger::AgreementState;
    use concord_model::{AgreementText, Timestamp};
    use concord_wire::agreement::parse_statement;
    use concord_wire::convert::timestamp;
    use concord_wire::proto::feed::v1::FeedItem;
    let forum = Forum::new();
    let first = reference(&forum.text("KAZ/drugs"));
    let now = SystemClock.now().as_micros();
    let until = Timestamp::from_micros(now + 60_000_000);
    let text =
        AgreementText { version: 2, amends: Some(first.clone()), valid_until: Some(until), ..forum.text("KAZ/drugs") };
    let second = reference(&text);
    let leave = forum.kaz.says(2, DraftContent::Leave(first.clone()));
    let left_by = parse_statement(&leave).unwrap().digest;
    let back = forum.kaz.says(3, DraftContent::Return(first.clone(), left_by));
    let state = |passed_micros: i64| {
        let mut items = forum.feed();
        items.push(item(9, Content::Statement(forum.irn.says(3, DraftContent::Propose(text.clone())))));
        items.push(item(10, Content::Statement(leave.clone())));
        let recorded_at = Some(timestamp(Timestamp::from_micros(now + passed_micros)));
        items.push(FeedItem { recorded_at, ..item(11, Content::Statement(back.clone())) });
        let mut directory = Directory::default();
        for item in &items {
            directory.apply(&forum.hub(), &forum.kaz.code, item).unwrap();
        }
        assert!(directory.agreements.is_member(&first.id, &forum.kaz.code));
        directory.agreements.version(&second).unwrap().state
    };
    assert_eq!(state(59_000_000), AgreementState::Proposed);
    assert_eq!(state(61_000_000), AgreementState::Lapsed);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_numbered_repeated_and_refused_by_the_own_directory() {
    use crate::state::Step;
    use concord_wire::agreement::parse_statement;
    use concord_wire::stored::node::StatementAnswered;

    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    node.writer.feed(HISTORY, forum.feed(), 0).await.unwrap();
    let officer = super::support::name("officer");
    let next = |node: &Running| node.now().officers()[&officer].next_number();
    assert_eq!(next(&node), 2, "the statement that came back in the feed was not counted");

    let say = async |number, content| {
        let signed = forum.kaz.says(number, content);
        let statement = parse_statement(&signed).unwrap();
        node.writer.statement(signed, statement).await.map_err(|refusal| refusal.reason)
    };
    let other = reference(&forum.text("IRN/other"));
    let unknown = reference(&forum.text("IRN/unknown"));
    assert_eq!(say(2, DraftContent::Consent(unknown)).await, Err(Reason::AgreementUnknown));
    assert_eq!(say(3, DraftContent::Consent(other.clone())).await, Err(Reason::StatementOutOfOrder));
    let consent = forum.kaz.says(2, DraftContent::Consent(other.clone()));
    let statement = parse_statement(&consent).unwrap();
    assert_eq!(node.writer.statement(consent.clone(), statement.clone()).await, Ok(Step::Append));
    assert_eq!(node.writer.statement(consent, statement).await, Ok(Step::Repeat));
    assert_eq!(say(2, DraftContent::Decline(other.clone(), None)).await, Err(Reason::StatementFork));

    // The hub recorded nothing: the number is free again, for other content too.
    let whole = StatementAnswered {
        officer: "officer".to_owned(),
        number: 2,
        refused: Reason::StatementMalformed.code().to_owned(),
        whole: true,
        message: String::new(),
    };
    assert_eq!(next(&node), 3);
    node.writer.answer(whole).await.unwrap();
    assert_eq!(next(&node), 2);
    assert_eq!(say(2, DraftContent::Decline(other, None)).await, Ok(Step::Append));
    assert_eq!(next(&node), 3);
}

impl Running {
    fn journal_length(&self) -> u64 {
        concord_journal::Journal::tail(&self.journal).sequence
    }
}

mod receipts {
    use super::*;
    use concord_model::Lane;
    use concord_wire::convert::lane;
    use concord_wire::proto::exchange::v1::ChainKey;
    use concord_wire::proto::feed::v1::{IndexRange, Receipt, ReceiptState, Receipts};

    fn told(recipient: &str, change: impl FnOnce(&mut Receipt)) -> Content {
        let chain =
            ChainKey { hub: "main".to_owned(), node: "main".to_owned(), epoch: 1, lane: lane(Lane::Routine).into() };
        let mut receipt = Receipt {
            chain: Some(chain),
            number: 1,
            items: vec![IndexRange { first: 0, count: 1 }],
            state: ReceiptState::Delivered.into(),
            reason: String::new(),
        };
        change(&mut receipt);
        Content::Receipts(Receipts { recipient: recipient.to_owned(), receipts: vec![receipt] })
    }

    fn unreadable() -> Vec<Content> {
        vec![
            told("IRN", |receipt| receipt.state = 99),
            told("IRN", |receipt| receipt.items = vec![IndexRange { first: 2000, count: 1 }]),
            told("IRN", |receipt| receipt.chain = None),
            told("irn", |_| {}),
            told(&"I".repeat(4096), |_| {}),
        ]
    }

    #[test]
    fn a_receipt_that_cannot_be_read_is_refused_before_it_is_journaled() {
        let forum = Forum::new();
        let verify = |content| {
            let items = [forum.feed(), vec![item(9, content)]].concat();
            let verified = verify_items(Directory::default(), &forum.hub(), &forum.kaz.code, &items, SystemClock.now());
            verified.map_err(|refusal| refusal.reason)
        };
        assert_eq!(verify(told("IRN", |_| {})), Ok(()));
        for content in unreadable() {
            assert_eq!(verify(content.clone()), Err(Reason::StatementSignatureInvalid), "{content:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_receipt_that_cannot_be_read_and_stands_in_the_journal_is_passed_over() {
        let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
        let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
        node.writer.feed(HISTORY, forum.feed(), 0).await.unwrap();
        let contents = unreadable().into_iter().chain([told("TUR", |_| {})]);
        let items = (9..).zip(contents).map(|(number, content)| item(number, content)).collect();
        node.writer.feed(HISTORY, items, 0).await.unwrap();
        // Again with rows made anew, as at a start.
        let node = Running::start(&forum, node.stop().await, &place.path().join("new views"));
        let submitted = crate::tests::support::prepared(&forum, "r-1", b"x", Lane::Routine);
        let id = node.writer.submit(submitted).await.unwrap().id.to_string();
        let found = node.index.exchanges(&id, &crate::tests::support::name("customs")).unwrap();
        let reached = |code: &str| {
            let code = crate::tests::support::code(code);
            node.index.reached(&found[0], &code).unwrap().map(|(reached, ..)| reached)
        };
        assert_eq!(reached("TUR"), Some(crate::projection::Reached::Delivered));
        assert_eq!(reached("IRN"), None);
    }
}
