//! Withdrawals: who is told, who gets nothing any more, whichever of the two is recorded first and wherever it stands.

use std::collections::BTreeMap;

use concord_ledger::withdrawal::{WITHDRAWN_AHEAD_MAX, look_again};
use concord_ledger::{
    Audience, Candidate, Command, Consign, ConsignmentRecorded, ExchangePlace, Fact, Found, HistoryBegun, Item, Ledger,
    Mail, NotHealed, Shown, Stood, Target,
};
use concord_model::{
    AgreementRef, ExchangeId, Header, Lane, ParticipantCode, Reason, Refusal, Timestamp, Withdrawal, WithdrawalKind,
    WithheldReason,
};
use proptest::prelude::*;

use crate::forum::{Forum, HISTORY, chain, digest, narrowed, t};

const ID: &str = "KAZ/floods";

/// An agreement of three, and an exchange under it.
struct Story {
    forum: Forum,
    agreement: AgreementRef,
    header: Header,
    id: ExchangeId,
}

impl Story {
    fn begin() -> Self {
        let mut forum = Forum::of(["KAZ", "IRN", "TUR", "UZB"]);
        let agreement = forum.agree(ID, &["IRN", "KAZ", "TUR"]);
        let header = forum.header("KAZ", &agreement);
        let id = ExchangeId(digest("what is withdrawn"));
        Self { forum, agreement, header, id }
    }

    fn exchange(&self) -> Candidate {
        Candidate::Fit(Box::new(Item { id: self.id, header: self.header.clone() }))
    }

    fn send(&mut self) -> ConsignmentRecorded {
        let consign = self.forum.consign("KAZ", Lane::Routine, vec![self.exchange()]);
        self.forum.consigned(consign).unwrap()
    }

    fn withdrawal(&mut self, origin: &str, lane: Lane, kind: WithdrawalKind) -> Candidate {
        let header = self.forum.header(origin, &self.agreement);
        let header = Header { narrowing: self.header.narrowing.clone(), ..header };
        let withdraws = Some(Withdrawal { exchange: self.id, kind });
        self.forum.item(Header { lane, withdraws, ..header })
    }

    /// What the hub finds: the first consignment of lane routine, with one exchange.
    fn target(&self, found: Found) -> Target {
        Target { chain: chain("KAZ", Lane::Routine), number: 1, found }
    }

    fn recorded(&self, sent: &ConsignmentRecorded) -> Target {
        let group = &sent.groups[0];
        let audience = Audience { agreement: group.agreement.clone(), recipients: group.recipients.clone() };
        self.target(Found::Recorded(ExchangePlace { sequence: self.forum.ledger.sequence(), index: 0 }, audience))
    }

    fn consign_withdrawal(&mut self, lane: Lane, target: Target) -> Consign {
        let item = self.withdrawal("KAZ", lane, WithdrawalKind::Withdrawn);
        Consign { targets: BTreeMap::from([(0, target)]), ..self.forum.consign("KAZ", lane, vec![item]) }
    }

    fn withdraw(&mut self, lane: Lane, target: Target) -> Result<ConsignmentRecorded, Refusal> {
        let consign = self.consign_withdrawal(lane, target);
        self.forum.consigned(consign)
    }

    fn permit_at(&self, who: &str, recorded: u64, withdraws: bool) -> Result<(), WithheldReason> {
        let origin: ParticipantCode = t("KAZ");
        let exchange = Some((&origin, self.id));
        let mail = Mail { recorded, agreement: &self.agreement, expires_at: None, exchange, withdraws };
        self.forum.ledger.permit(&t(who), &mail, Timestamp::from_micros(0)).map(drop)
    }
}

fn recipients(recorded: &ConsignmentRecorded) -> Vec<String> {
    recorded.groups.iter().flat_map(|group| &group.recipients).map(ToString::to_string).collect()
}

fn refused(recorded: &ConsignmentRecorded) -> Vec<Reason> {
    recorded.refused.iter().map(|refusal| refusal.reason).collect()
}

fn places(ledger: &Ledger) -> Vec<ExchangePlace> {
    ledger.withdrawals().places_after(0).map(|(_, place)| place).collect()
}

#[test]
fn a_withdrawal_goes_to_all_for_whom_it_was_recorded_and_what_it_withdraws_to_nobody_any_more() {
    for lane in [Lane::Flash, Lane::Priority, Lane::Routine] {
        let mut story = Story::begin();
        let sent = story.send();
        let at = story.forum.ledger.sequence();
        let target = story.recorded(&sent);
        assert_eq!(story.permit_at("IRN", at, false), Ok(()));
        story.forum.leave("TUR", ID).unwrap();
        let withdrawn = story.withdraw(lane, target).unwrap();
        assert_eq!(recipients(&withdrawn), ["IRN", "TUR"], "also who left since");
        let numbers = |recorded: &ConsignmentRecorded| {
            recorded.mailboxes.iter().map(|run| (run.recipient.to_string(), run.first)).collect::<Vec<_>>()
        };
        let first = if lane == Lane::Routine { 2 } else { 1 };
        assert_eq!(numbers(&withdrawn), [("IRN".to_owned(), first), ("TUR".to_owned(), first)]);
        assert_eq!(withdrawn.withdrawals[0].target, Some(ExchangePlace { sequence: at, index: 0 }));
        for who in ["IRN", "TUR"] {
            assert_eq!(story.permit_at(who, at, false), Err(WithheldReason::Withdrawn));
            assert_eq!(story.permit_at(who, at + 2, true), Ok(()));
        }
        assert_eq!(places(&story.forum.ledger), [ExchangePlace { sequence: at, index: 0 }]);
        assert_eq!(story.forum.ledger.withdrawals().ahead(&t("KAZ")), 0);
        // Once is enough.
        let target = story.target(Found::Other);
        assert_eq!(refused(&story.withdraw(lane, target).unwrap()), [Reason::ExchangeWithdrawn]);
    }
}

#[test]
fn what_comes_behind_its_withdrawal_is_refused_and_the_withdrawal_goes_to_nobody() {
    let mut story = Story::begin();
    let target = story.target(Found::NotYet { queued_in: Some(HISTORY) });
    let withdrawn = story.withdraw(Lane::Priority, target).unwrap();
    assert_eq!((recipients(&withdrawn), refused(&withdrawn)), (vec![], vec![]));
    assert_eq!(withdrawn.mailboxes, []);
    assert_eq!(story.forum.ledger.withdrawals().ahead(&t("KAZ")), 1);
    let sent = story.send();
    assert_eq!(refused(&sent), [Reason::ExchangeWithdrawn]);
    assert_eq!((sent.groups, sent.mailboxes), (vec![], vec![]));
    assert_eq!(story.forum.ledger.withdrawals().ahead(&t("KAZ")), 0, "it waits for nothing any more");
    assert_eq!(places(&story.forum.ledger), []);
}

#[test]
fn whoever_has_what_its_hub_forgot_hears_that_it_was_withdrawn_before_it_is_handed_in_again() {
    let mut story = Story::begin();
    // As a receipt of before says it; one of them left since.
    let audience = Audience { agreement: story.agreement.clone(), recipients: vec![t("IRN"), t("TUR")] };
    story.forum.leave("TUR", ID).unwrap();
    let target = story.target(Found::Forgotten(audience.clone()));
    let withdrawn = story.withdraw(Lane::Priority, target).unwrap();
    assert_eq!(recipients(&withdrawn), ["IRN", "TUR"]);
    assert_eq!(withdrawn.withdrawals[0].target, None);
    assert_eq!(story.forum.ledger.withdrawals().ahead(&t("KAZ")), 1);
    let stood = Some(vec![Stood::Recorded(audience)]);
    let again = story.forum.consign("KAZ", Lane::Routine, vec![story.exchange()]);
    let again = story.forum.consigned(Consign { stood, ..again }).unwrap();
    let at = story.forum.ledger.sequence();
    assert_eq!(recipients(&again), ["IRN"], "it stands as it stood");
    assert_eq!(story.permit_at("IRN", at, false), Err(WithheldReason::Withdrawn));
    assert_eq!(story.forum.ledger.withdrawals().ahead(&t("KAZ")), 0);
    assert_eq!(places(&story.forum.ledger), [ExchangePlace { sequence: at, index: 0 }]);
}

/// The history in which a loss was shown, and one that a cut began behind it.
const SINCE: [u8; 16] = [9; 16];
const LATER: [u8; 16] = [10; 16];

fn begin_history(story: &mut Story, history: [u8; 16]) {
    let parent = story.forum.ledger.histories().current();
    story.forum.record(Fact::HistoryBegun(HistoryBegun { history, parent }));
}

/// Somebody shows that the hub lost data, and it goes on in other histories.
fn lose(story: &mut Story, shown: &Command) {
    begin_history(story, SINCE);
    story.forum.run(shown).unwrap();
    begin_history(story, LATER);
}

fn shown_by_mailbox() -> Command {
    let shown = Shown { history: HISTORY, number: 1, digest: Some(digest("what it has")) };
    Command::ResumeMailbox { recipient: t("IRN"), lane: Lane::Routine, shown }
}

fn shown_by_feed() -> Command {
    let shown = Shown { history: HISTORY, number: 99, digest: Some(digest("what it has")) };
    Command::ResumeFeed { participant: t("KAZ"), shown, common: 1 }
}

#[test]
fn whoever_may_have_what_a_hub_forgot_without_a_receipt_hears_that_it_was_withdrawn() {
    let ways = [(Some(HISTORY), shown_by_mailbox()), (Some(HISTORY), shown_by_feed()), (None, shown_by_feed())];
    for (queued_in, shown) in ways {
        let mut story = Story::begin();
        lose(&mut story, &shown);
        story.forum.leave("TUR", ID).unwrap();
        let target = story.target(Found::NotYet { queued_in });
        let withdrawn = story.withdraw(Lane::Priority, target).unwrap();
        assert_eq!(recipients(&withdrawn), ["IRN"], "whoever would be sent it now");
        assert_eq!((refused(&withdrawn), withdrawn.withdrawals[0].target), (vec![], None));
        assert_eq!(story.permit_at("IRN", story.forum.ledger.sequence(), true), Ok(()));
        assert_eq!(story.forum.ledger.withdrawals().ahead(&t("KAZ")), 1);
        // It comes again, and goes to nobody.
        let again = story.send();
        assert_eq!((recipients(&again), refused(&again)), (vec![], vec![Reason::ExchangeWithdrawn]));
        assert_eq!(story.forum.ledger.withdrawals().ahead(&t("KAZ")), 0);
    }
}

#[test]
fn a_receipt_that_comes_beside_what_it_is_for_shows_a_loss_too() {
    let mut story = Story::begin();
    begin_history(&mut story, SINCE);
    let audience = Audience { agreement: story.agreement.clone(), recipients: vec![t("IRN"), t("TUR")] };
    let older = story.forum.header("KAZ", &story.agreement.clone());
    let older = story.forum.item(Header { lane: Lane::Flash, ..older });
    let older = story.forum.consign("KAZ", Lane::Flash, vec![older]);
    story.forum.consigned(Consign { stood: Some(vec![Stood::Recorded(audience)]), ..older }).unwrap();
    let target = story.target(Found::NotYet { queued_in: Some(HISTORY) });
    assert_eq!(recipients(&story.withdraw(Lane::Priority, target).unwrap()), ["IRN", "TUR"]);
}

#[test]
fn of_what_was_withdrawn_before_it_came_nobody_hears_whom_its_hub_cannot_have_sent_it() {
    let withdrawn = |queued_in: [u8; 16], prepare: &dyn Fn(&mut Story)| {
        let mut story = Story::begin();
        prepare(&mut story);
        let target = story.target(Found::NotYet { queued_in: Some(queued_in) });
        let withdrawn = story.withdraw(Lane::Priority, target).unwrap();
        assert_eq!(refused(&withdrawn), [], "it is withdrawn all the same");
        assert_eq!(refused(&story.send()), [Reason::ExchangeWithdrawn]);
        recipients(&withdrawn)
    };
    let lose = |story: &mut Story| lose(story, &shown_by_mailbox());
    assert_eq!(withdrawn(HISTORY, &|_| {}), [""; 0], "the hub lost nothing");
    assert_eq!(withdrawn(HISTORY, &|story| begin_history(story, SINCE)), [""; 0], "a cut loses nothing that was shown");
    assert_eq!(withdrawn(SINCE, &lose), [""; 0], "it was queued since");
    assert_eq!(withdrawn(LATER, &lose), [""; 0], "it was queued since");
    let narrow = |story: &mut Story| {
        lose(story);
        story.header = narrowed(story.header.clone(), &["TUR"]);
    };
    assert_eq!(withdrawn(HISTORY, &narrow), ["TUR"], "the origin meant nobody else");
    let leave = |story: &mut Story| {
        lose(story);
        story.forum.leave("KAZ", ID).unwrap();
    };
    assert_eq!(withdrawn(HISTORY, &leave), [""; 0], "who left reaches nobody");
}

#[test]
fn what_its_node_says_to_be_withdrawn_goes_to_nobody_where_its_hub_forgot_the_withdrawal() {
    for has_receipt in [true, false] {
        let mut story = Story::begin();
        let recorded = |who: &[&str]| {
            let recipients = who.iter().copied().map(t).collect();
            Some(vec![Stood::Recorded(Audience { agreement: story.agreement.clone(), recipients })])
        };
        // Without a receipt it was never sent, and its withdrawal was recorded for nobody.
        let (stood, told) = match has_receipt {
            true => (recorded(&["IRN", "TUR"]), recorded(&["IRN", "TUR"])),
            false => (None, recorded(&[])),
        };
        let mut both = story.forum.consign("KAZ", Lane::Routine, vec![story.exchange()]);
        let other = story.forum.header("KAZ", &story.agreement.clone());
        let other = story.forum.item(other);
        both.exchanges.push(other);
        let stood = stood.map(|stood| stood.into_iter().cycle().take(2).collect());
        let both = Consign { stood, withdrawn_before: [0].into(), ..both };
        let both = story.forum.consigned(both).unwrap();
        let at = story.forum.ledger.sequence();
        assert_eq!(story.permit_at("IRN", at, false), Err(WithheldReason::Withdrawn));
        let refusals = if has_receipt { vec![] } else { vec![Reason::ExchangeWithdrawn] };
        assert_eq!((recipients(&both), refused(&both)), (vec!["IRN".to_owned(), "TUR".to_owned()], refusals));
        let expected: &[ExchangePlace] = if has_receipt { &[ExchangePlace { sequence: at, index: 0 }] } else { &[] };
        assert_eq!(places(&story.forum.ledger), expected, "what is there of it is to go");
        let target = story.target(Found::Other);
        let withdrawal = story.consign_withdrawal(Lane::Priority, target);
        let withdrawal = story.forum.consigned(Consign { stood: told, ..withdrawal }).unwrap();
        assert_eq!((recipients(&withdrawal).len(), refused(&withdrawal)), (if has_receipt { 2 } else { 0 }, vec![]));
        story.id = ExchangeId(digest("another"));
        assert_eq!(story.permit_at("IRN", at, false), Ok(()), "what stands beside it is not withdrawn");
        assert_eq!(story.forum.ledger.withdrawals().ahead(&t("KAZ")), 0);
    }
}

#[test]
fn what_was_recorded_between_the_look_and_the_decision_is_looked_for_again_and_nothing_is_recorded_meanwhile() {
    let mut story = Story::begin();
    let target = story.target(Found::NotYet { queued_in: Some(HISTORY) });
    let early = story.consign_withdrawal(Lane::Priority, target);
    let sent = story.send();
    let before = story.forum.ledger.clone();
    assert_eq!(story.forum.consigned(early.clone()), Err(look_again()));
    assert_eq!(story.forum.ledger, before);
    let targets = BTreeMap::from([(0, story.recorded(&sent))]);
    assert_eq!(recipients(&story.forum.consigned(Consign { targets, ..early }).unwrap()), ["IRN", "TUR"]);
}

#[test]
fn nobody_withdraws_what_another_sent_nor_what_is_not_there() {
    let mut story = Story::begin();
    let sent = story.send();
    let at = story.forum.ledger.sequence();
    // Another's withdrawal of the same id counts for its own exchanges only.
    let item = story.withdrawal("IRN", Lane::Priority, WithdrawalKind::Withdrawn);
    let target =
        Target { chain: chain("IRN", Lane::Routine), number: 1, found: Found::NotYet { queued_in: Some(HISTORY) } };
    let forged = story.forum.consign("IRN", Lane::Priority, vec![item]);
    let forged = Consign { targets: BTreeMap::from([(0, target)]), ..forged };
    assert_eq!(recipients(&story.forum.consigned(forged).unwrap()), [""; 0]);
    assert_eq!(story.permit_at("TUR", at, false), Ok(()));
    // In another's name it is of no chain.
    let item = story.withdrawal("KAZ", Lane::Routine, WithdrawalKind::Withdrawn);
    let target = story.recorded(&sent);
    let consign = story.forum.consign("IRN", Lane::Routine, vec![item]);
    let consign = Consign { targets: BTreeMap::from([(0, target)]), ..consign };
    assert_eq!(refused(&story.forum.consigned(consign).unwrap()), [Reason::HeaderChainMismatch]);

    for found in [Found::Other, Found::Refused] {
        let target = story.target(found);
        assert_eq!(refused(&story.withdraw(Lane::Priority, target).unwrap()), [Reason::ExchangeUnknown]);
    }
    let mut nowhere = story.consign_withdrawal(Lane::Priority, story.target(Found::Other));
    nowhere.targets.clear();
    assert_eq!(refused(&story.forum.consigned(nowhere).unwrap()), [Reason::ExchangeUnknown]);
    assert_eq!(story.permit_at("TUR", at, false), Ok(()));
}

#[test]
fn nothing_is_withdrawn_beside_itself_or_twice_in_one_consignment() {
    let mut story = Story::begin();
    let number = 1;
    let item = story.withdrawal("KAZ", Lane::Routine, WithdrawalKind::Withdrawn);
    let exchange = story.exchange();
    let consign = story.forum.consign("KAZ", Lane::Routine, vec![exchange, item]);
    let target =
        Target { chain: chain("KAZ", Lane::Routine), number, found: Found::NotYet { queued_in: Some(HISTORY) } };
    let recorded = story.forum.consigned(Consign { targets: BTreeMap::from([(1, target)]), ..consign }).unwrap();
    assert_eq!(refused(&recorded), [Reason::ExchangeUnknown]);
    assert_eq!(recipients(&recorded), ["IRN", "TUR"]);

    let items = [(); 2].map(|()| story.withdrawal("KAZ", Lane::Flash, WithdrawalKind::Withdrawn));
    let target = story.recorded(&recorded);
    let consign = story.forum.consign("KAZ", Lane::Flash, items.to_vec());
    let targets = BTreeMap::from([(0, target.clone()), (1, target)]);
    let recorded = story.forum.consigned(Consign { targets, ..consign }).unwrap();
    assert_eq!(
        (recipients(&recorded), refused(&recorded)),
        (vec!["IRN".into(), "TUR".into()], vec![Reason::ExchangeWithdrawn])
    );
}

#[test]
fn what_takes_the_place_of_something_stands_right_before_its_withdrawal_or_nothing_is_withdrawn() {
    /// Whether it is accepted, and what the withdrawal hears.
    fn superseding(change: impl FnOnce(&mut Header, &mut Forum)) -> (bool, Vec<Reason>) {
        let mut story = Story::begin();
        let sent = story.send();
        let target = story.recorded(&sent);
        let header = story.forum.header("KAZ", &story.agreement.clone());
        let mut successor = Header { supersedes: Some(story.id), ..header };
        change(&mut successor, &mut story.forum);
        let successor = story.forum.item(successor);
        let item = story.withdrawal("KAZ", Lane::Routine, WithdrawalKind::Superseded);
        let consign = story.forum.consign("KAZ", Lane::Routine, vec![successor, item]);
        let recorded = story.forum.consigned(Consign { targets: BTreeMap::from([(1, target)]), ..consign }).unwrap();
        let is_withdrawn = story.permit_at("IRN", story.forum.ledger.sequence() - 1, false).is_err();
        (is_withdrawn, refused(&recorded))
    }
    assert_eq!(superseding(|_, _| {}), (true, vec![]));
    let (is_withdrawn, reasons) = superseding(|header, _| header.expires_at = Some(Timestamp::from_micros(0)));
    assert_eq!((is_withdrawn, reasons), (false, vec![Reason::ExchangeExpired, Reason::SupersedingRefused]));
    let other = ExchangeId(digest("another"));
    assert_eq!(superseding(|header, _| header.supersedes = Some(other)), (false, vec![Reason::SupersedingRefused]));
    assert_eq!(superseding(|header, _| header.supersedes = None), (false, vec![Reason::SupersedingRefused]));
    let is_real = superseding(|header, _| header.exercise = true);
    assert_eq!(is_real, (false, vec![Reason::SupersedingRefused]), "an exercise takes the place of what is none");
    let elsewhere = superseding(|header, forum| header.agreement = forum.agree("KAZ/other", &["IRN", "KAZ"]));
    assert_eq!(elsewhere, (false, vec![Reason::SupersedingRefused]));
}

#[test]
fn withdrawals_of_what_has_yet_to_come_are_bounded_for_each_participant() {
    let mut story = Story::begin();
    let mut made = 0;
    let mut withdraw = |story: &mut Story, count: usize| {
        let items: Vec<_> = (0..count)
            .map(|_| {
                made += 1;
                story.id = ExchangeId(digest(&format!("yet to come {made}")));
                story.withdrawal("KAZ", Lane::Priority, WithdrawalKind::Withdrawn)
            })
            .collect();
        let target = story.target(Found::NotYet { queued_in: Some(HISTORY) });
        let targets = (0..).zip(&items).map(|(index, _)| (index, target.clone())).collect();
        let consign = story.forum.consign("KAZ", Lane::Priority, items);
        refused(&story.forum.consigned(Consign { targets, ..consign }).unwrap())
    };
    let (whole, rest) = (WITHDRAWN_AHEAD_MAX as usize / 1000, WITHDRAWN_AHEAD_MAX as usize % 1000);
    for _ in 0..whole {
        assert_eq!(withdraw(&mut story, 1000), []);
    }
    assert_eq!(withdraw(&mut story, rest + 2), [Reason::QuotaExceeded; 2]);
    // One that comes makes room for one.
    story.id = ExchangeId(digest("yet to come 1"));
    assert_eq!(refused(&story.send()), [Reason::ExchangeWithdrawn]);
    let ahead = story.forum.ledger.withdrawals().ahead(&t("KAZ"));
    assert_eq!(ahead, WITHDRAWN_AHEAD_MAX - 1);
}

/// Both as a hub that forgot them is handed them back, in either order.
#[test]
fn a_hub_that_is_handed_both_back_delivers_neither_anew_but_the_notice() {
    for withdrawal_first in [false, true] {
        let mut told = Story::begin();
        let sent = told.send();
        let target = told.recorded(&sent);
        let withdrawn = told.withdraw(Lane::Priority, target).unwrap();

        let mut story = Story::begin();
        let stood = |recorded: &ConsignmentRecorded| {
            let group = &recorded.groups[0];
            let audience = Audience { agreement: group.agreement.clone(), recipients: group.recipients.clone() };
            Some(vec![Stood::Recorded(audience)])
        };
        // One who left before it is handed back is told all the same; it had the exchange.
        story.forum.leave("TUR", ID).unwrap();
        let hand_exchange = |story: &mut Story| {
            let consign = story.forum.consign("KAZ", Lane::Routine, vec![story.exchange()]);
            story.forum.consigned(Consign { stood: stood(&sent), ..consign }).unwrap()
        };
        let hand_withdrawal = |story: &mut Story, target: Target| {
            let consign = story.consign_withdrawal(Lane::Priority, target);
            story.forum.consigned(Consign { stood: stood(&withdrawn), ..consign }).unwrap()
        };
        let (exchange, at, withdrawal) = if withdrawal_first {
            let target = story.target(Found::NotYet { queued_in: Some(HISTORY) });
            let withdrawal = hand_withdrawal(&mut story, target);
            let exchange = hand_exchange(&mut story);
            (exchange, story.forum.ledger.sequence(), withdrawal)
        } else {
            let exchange = hand_exchange(&mut story);
            let at = story.forum.ledger.sequence();
            let target = story.recorded(&exchange);
            (exchange, at, hand_withdrawal(&mut story, target))
        };
        assert_eq!(recipients(&withdrawal), ["IRN", "TUR"]);
        assert_eq!((recipients(&exchange), refused(&exchange)), (vec!["IRN".to_owned()], vec![]), "it stands");
        assert_eq!(story.permit_at("IRN", at, false), Err(WithheldReason::Withdrawn));
        assert_eq!(places(&story.forum.ledger), [ExchangePlace { sequence: at, index: 0 }], "its content is to go");
        assert_eq!(story.forum.ledger.withdrawals().ahead(&t("KAZ")), 0);
    }
}

#[test]
fn what_was_lost_and_is_withdrawn_is_lost_no_more() {
    let mut story = Story::begin();
    let exchange = concord_ledger::Lost::Exchange { id: story.id, recipients: vec![t("IRN")] };
    let other = concord_ledger::Lost::Exchange { id: ExchangeId(digest("another")), recipients: vec![t("IRN")] };
    let lost = vec![(exchange, Reason::BlobMismatch), (other.clone(), Reason::BlobMismatch)];
    story.forum.run(&concord_ledger::Command::ListLost(NotHealed { participant: t("KAZ"), lost })).unwrap();
    let target = story.target(Found::NotYet { queued_in: Some(HISTORY) });
    story.withdraw(Lane::Priority, target).unwrap();
    let left: Vec<_> = story.forum.ledger.losses().listed().map(|(_, lost, _)| lost.clone()).collect();
    assert_eq!((left, story.forum.ledger.losses().count()), (vec![other], 1));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn whatever_is_withdrawn_in_whatever_order_a_replay_and_a_snapshot_know_the_same(
        steps in proptest::collection::vec((0_u8..3, 0_u8..4), 1..20),
    ) {
        let mut story = Story::begin();
        let mut places: BTreeMap<u8, (u64, ConsignmentRecorded, u64)> = BTreeMap::new();
        for (what, which) in steps {
            story.id = ExchangeId(digest(&format!("exchange {which}")));
            if what == 0 {
                let number = story.forum.ledger.chain_last(&chain("KAZ", Lane::Routine)) + 1;
                let recorded = story.send();
                places.entry(which).or_insert((number, recorded, story.forum.ledger.sequence()));
                continue;
            }
            let target = match places.get(&which) {
                Some((number, recorded, sequence)) if !recorded.groups.is_empty() => {
                    let Found::Recorded(_, audience) = story.recorded(recorded).found else { unreachable!() };
                    let place = ExchangePlace { sequence: *sequence, index: 0 };
                    Target { number: *number, ..story.target(Found::Recorded(place, audience)) }
                }
                Some(_) => story.target(Found::Refused),
                None => Target { number: u64::MAX, ..story.target(Found::NotYet { queued_in: Some(HISTORY) }) },
            };
            story.withdraw(Lane::Priority, target).unwrap();
        }
        let mut replayed = Ledger::default();
        for (fact, at) in &story.forum.facts {
            replayed.apply(fact, *at);
        }
        prop_assert_eq!(&replayed, &story.forum.ledger);
        // Nobody who may have it is there for whom it was withdrawn.
        for (which, (_, recorded, sequence)) in &places {
            story.id = ExchangeId(digest(&format!("exchange {which}")));
            let is_withdrawn = story.forum.ledger.withdrawals().is_withdrawn(&t("KAZ"), &story.id);
            for recipient in recipients(recorded) {
                prop_assert_eq!(story.permit_at(&recipient, *sequence, false).is_err(), is_withdrawn);
            }
        }
    }
}
