use concord_ledger::{Candidate, IndexRange};
use concord_model::{AgreementRef, Header, Lane, Reason, Refusal};

use crate::forum::{Forum, narrowed, t};

fn forum() -> (Forum, AgreementRef) {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let agreement = forum.agree("KAZ/floods", &["IRN", "KAZ", "TUR"]);
    (forum, agreement)
}

fn range(first: u32, count: u32) -> IndexRange {
    IndexRange { first, count }
}

#[test]
fn one_bad_exchange_is_refused_by_itself_with_its_reason() {
    let check = |change: &dyn Fn(&mut Header), expected: Reason| {
        let (mut forum, agreement) = forum();
        let good = forum.header("KAZ", &agreement);
        let mut bad = forum.header("KAZ", &agreement);
        change(&mut bad);
        let headers = vec![good.clone(), bad, good];
        let recorded = forum.send("KAZ", headers).unwrap();
        assert_eq!(recorded.count, 3);
        assert_eq!(recorded.refused.len(), 1);
        assert_eq!((recorded.refused[0].index, recorded.refused[0].reason), (1, expected));
        assert_eq!(recorded.groups.len(), 1);
        assert_eq!(recorded.groups[0].items, [range(0, 1), range(2, 1)]);
    };
    check(&|header| header.origin = t("IRN"), Reason::HeaderChainMismatch);
    check(&|header| header.node = t("second"), Reason::HeaderChainMismatch);
    check(&|header| header.lane = Lane::Flash, Reason::HeaderChainMismatch);
    check(&|header| header.measure = t("human.1"), Reason::MeasureNotInAgreement);
    check(&|header| header.agreement.id = t("KAZ/never"), Reason::AgreementUnknown);
}

#[test]
fn an_unfit_exchange_keeps_its_own_reason() {
    let (mut forum, agreement) = forum();
    let header = forum.header("KAZ", &agreement);
    let exchanges =
        vec![Candidate::Unfit(Refusal::new(Reason::FeatureNotEnabled, "expires is set")), forum.item(header)];
    let consign = forum.consign("KAZ", Lane::Routine, exchanges);
    let recorded = forum.consigned(consign).unwrap();
    assert_eq!(recorded.refused[0].reason, Reason::FeatureNotEnabled);
    assert_eq!(recorded.groups[0].items, [range(1, 1)]);
}

#[test]
fn the_same_exchange_twice_in_one_consignment_counts_once() {
    let (mut forum, agreement) = forum();
    let header = forum.header("KAZ", &agreement);
    let (one, other) = (forum.item(header.clone()), forum.item(header));
    let exchanges = vec![one.clone(), other.clone(), one.clone(), other, one];
    let consign = forum.consign("KAZ", Lane::Routine, exchanges);
    let recorded = forum.consigned(consign).unwrap();
    let refused: Vec<_> = recorded.refused.iter().map(|item| (item.index, item.reason)).collect();
    let malformed = Reason::HeaderMalformed;
    assert_eq!(refused, [(2, malformed), (3, malformed), (4, malformed)]);
    assert_eq!(recorded.groups[0].items, [range(0, 2)]);
}

#[test]
fn alternating_audiences_make_two_groups_in_order_of_their_first_exchange() {
    let (mut forum, agreement) = forum();
    let all = forum.header("KAZ", &agreement);
    let irn = narrowed(all.clone(), &["IRN"]);
    let both = narrowed(all.clone(), &["IRN", "TUR"]);
    let headers = vec![irn.clone(), all.clone(), irn, both, all];
    let recorded = forum.send("KAZ", headers).unwrap();
    let groups: Vec<_> = recorded.groups.iter().map(|group| (group.recipients.len(), group.items.clone())).collect();
    assert_eq!(groups, [(1, vec![range(0, 1), range(2, 1)]), (2, vec![range(1, 1), range(3, 2)])]);
    let runs: Vec<_> = recorded.mailboxes.iter().map(|run| (run.recipient.as_str(), run.first, run.count)).collect();
    assert_eq!(runs, [("IRN", 1, 5), ("TUR", 1, 3)]);
    let items: Vec<_> = recorded.recipients().map(|recipient| recipient.items).collect();
    assert_eq!(items, [vec![range(0, 5)], vec![range(1, 1), range(3, 2)]]);
}

#[test]
fn mailbox_numbers_go_on_where_they_ended_and_name_the_recipients_feed_number() {
    let (mut forum, agreement) = forum();
    for expected_first in [1, 3, 5] {
        let headers = vec![forum.header("KAZ", &agreement), forum.header("KAZ", &agreement)];
        let recorded = forum.send("KAZ", headers).unwrap();
        for run in &recorded.mailboxes {
            assert_eq!(run.first, expected_first);
            assert_eq!(run.feed_number, forum.ledger.feed_last(&run.recipient));
        }
    }
}

#[test]
fn a_consignment_of_refused_exchanges_uses_its_number_up_and_reaches_nobody() {
    let (mut forum, mut agreement) = forum();
    agreement.id = t("KAZ/never");
    let header = forum.header("KAZ", &agreement);
    let recorded = forum.send("KAZ", vec![header]).unwrap();
    assert!(recorded.groups.is_empty() && recorded.mailboxes.is_empty());
    assert_eq!(forum.ledger.chain_last(&recorded.chain), 1);
}
