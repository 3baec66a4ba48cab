//! Whatever is said twice has one effect.

use concord_model::{ConsignmentDigest, Digest, Lane};
use concord_tests::{Forum, RawNode, exchange_ids};
use tonic::Code;

const AGREEMENT: &str = "KAZ/warnings";
/// Receipts of one chain that are given again.
const KEPT: u64 = 32;

#[test]
fn the_same_request_id_and_content_gives_the_first_answer_and_other_content_a_conflict() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let options = "--request-id alert-1 --title Alert";
    let first = kaz.submit("one", options);
    let again = |forum: &Forum| {
        let mut answer = forum.agency("KAZ").submit("one", options).answer;
        // Where the body was read from is this command's own affair.
        answer["file"] = first.answer["file"].clone();
        assert_eq!(answer, first.answer);
        kaz.try_submit("two", options).refused(3, "REQUEST_ID_CONFLICT");
        kaz.try_submit("one", "--request-id alert-1 --title Other").refused(3, "REQUEST_ID_CONFLICT");
        kaz.try_submit("one", &format!("{options} --lane flash")).refused(3, "REQUEST_ID_CONFLICT");
    };
    again(&forum);
    assert_eq!(exchange_ids(&irn.receive(1)), [first.id.clone()]);
    again(&forum);
    forum.kill_node("KAZ");
    forum.start_node("KAZ");
    again(&forum);

    let honest = kaz.submit("another", "--wait delivered");
    assert_eq!(exchange_ids(&irn.receive_rest()), [honest.id]);
}

#[test]
fn request_ids_are_each_agencys_own() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    concord_tests::concord(concord_tests::words!["agency", "add", "other", "--dir", forum.node_dir("KAZ")]).ok();
    let first = forum.agency("KAZ").submit("one", "--request-id r --title T");
    let second = forum.agency_named("KAZ", "other").submit("two", "--request-id r --title T");
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(2)), [first.id, second.id]);
}

#[test]
fn a_consignment_that_comes_again_gets_the_same_receipt_and_an_old_one_is_already_recorded() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let agreement = forum.agreement(AGREEMENT, "KAZ");
    forum.stop_node("KAZ");
    let raw = RawNode::of(&forum, "KAZ");

    let mut previous = ConsignmentDigest(Digest::ZERO);
    let mut all = Vec::new();
    let mut ids = Vec::new();
    for number in 1..=KEPT + 1 {
        let draft = raw.draft(&agreement, "environmental.5", Lane::Routine, b"body");
        ids.push(draft.id());
        let (consignment, digest) = raw.consignment(Lane::Routine, number, previous, &[draft]);
        previous = digest;
        all.push(consignment);
    }
    let first = raw.consign(Lane::Routine, all.clone());
    assert!(first.refused.is_none(), "{first:?}");
    assert_eq!(first.receipts.len(), all.len());

    let again = raw.consign(Lane::Routine, all[1..].to_vec());
    assert!(again.refused.is_none(), "{again:?}");
    assert_eq!(again.receipts, first.receipts[1..]);
    forum.kill_hub();
    forum.start_hub();
    // The hub serves nobody before its feed was shown again.
    raw.follow(&[], 0).unwrap();
    let again = raw.consign(Lane::Routine, all[1..].to_vec());
    assert_eq!(again.receipts, first.receipts[1..], "after the hub was killed");

    let oldest = raw.consign(Lane::Routine, all[..1].to_vec());
    assert_eq!(oldest.refusal(), Some((Code::AlreadyExists, "ALREADY_RECORDED".to_owned())));
    let other = raw.draft(&agreement, "environmental.5", Lane::Routine, b"another past");
    let (fork, _) = raw.consignment(Lane::Routine, KEPT + 1, previous, &[other]);
    let forked = raw.consign(Lane::Routine, vec![fork]);
    assert_eq!(forked.refusal(), Some((Code::DataLoss, "FORK".to_owned())));

    // However often it was said: once each, in order.
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(all.len())), ids);
    let answer = forum.agency("IRN").submit("from the other side", "");
    assert_eq!(text(&forum, &answer.id), "recorded");
}

fn text(forum: &Forum, id: &str) -> String {
    let track = concord_tests::words!["track", id, "--wait", "recorded", "--profile", forum.agency("IRN").profile];
    concord_tests::text_of(&concord_tests::concord(track).ok().json(), "state")
}
