//! Random histories of a small forum, judged by the reference.

use std::collections::BTreeMap;

use concord_ledger::{
    Acknowledge, Candidate, Command, ConsignmentRecorded, Decision, Fact, IndexRange, Ledger, NoticeOutcome,
    SenderNotice,
};
use concord_model::{AgreementRef, Lane};
use proptest::prelude::*;

use crate::forum::{Forum, MEASURES, narrowed, party, t};
use crate::reference::{Crowd, Reference, Who};

/// Few, so that they meet often; in order of their codes.
const POOL: [&str; 4] = ["CHN", "IRN", "KAZ", "TUR"];
const SLOTS: [&str; 2] = ["floods", "drugs"];

#[derive(Debug, Clone)]
enum Step {
    Propose {
        id: (Who, usize),
        named: u8,
        measures: u8,
    },
    /// Proposes with the proposer among the parties, and all consent.
    Agree {
        id: (Who, usize),
        named: u8,
        measures: u8,
    },
    Consent {
        by: Who,
        id: (Who, usize),
        older: usize,
    },
    ConsentAll {
        id: (Who, usize),
    },
    Decline {
        by: Who,
        id: (Who, usize),
        older: usize,
    },
    Leave {
        by: Who,
        id: (Who, usize),
    },
    Send {
        by: Who,
        lane: Lane,
        letters: Vec<Draft>,
    },
    Acknowledge {
        by: Who,
        lane: Lane,
        delivered: u64,
        taken: u64,
    },
}

#[derive(Debug, Clone)]
struct Draft {
    id: (Who, usize),
    older: usize,
    measure: usize,
    narrowing: Option<u8>,
}

fn crowd(mask: u8) -> Crowd {
    (0..POOL.len()).filter(|who| mask & (1 << who) != 0).collect()
}

fn id_text((who, slot): (Who, usize)) -> String {
    format!("{}/{}", POOL[who], SLOTS[slot])
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = || 0..POOL.len();
    // One agreement comes up again and again, and others beside it.
    let id = || prop_oneof![5 => Just((0_usize, 0_usize)), 1 => (0..2_usize, 0..SLOTS.len())];
    let older = || prop_oneof![3 => Just(0_usize), 1 => 0..3_usize];
    let lane = || prop::sample::select(Lane::ALL.to_vec());
    let narrowing = || prop_oneof![3 => Just(None), 1 => (1_u8..16).prop_map(Some)];
    let measure = || prop_oneof![3 => Just(0_usize), 1 => 0..MEASURES.len()];
    let draft = (id(), older(), measure(), narrowing()).prop_map(|(id, older, measure, narrowing)| Draft {
        id,
        older,
        measure,
        narrowing,
    });
    let measures = || prop_oneof![3 => Just(3_u8), 1 => 0_u8..4];
    let step = prop_oneof![
        1 => (id(), 0_u8..16, measures()).prop_map(|(id, named, measures)| Step::Propose { id, named, measures }),
        5 => (id(), 0_u8..16, measures()).prop_map(|(id, named, measures)| Step::Agree { id, named, measures }),
        1 => (who(), id(), older()).prop_map(|(by, id, older)| Step::Consent { by, id, older }),
        2 => id().prop_map(|id| Step::ConsentAll { id }),
        1 => (who(), id(), older()).prop_map(|(by, id, older)| Step::Decline { by, id, older }),
        4 => (who(), id()).prop_map(|(by, id)| Step::Leave { by, id }),
        10 => (who(), lane(), prop::collection::vec(draft, 1..4))
            .prop_map(|(by, lane, letters)| Step::Send { by, lane, letters }),
        2 => (who(), lane(), 0_u64..6, 0_u64..6)
            .prop_map(|(by, lane, delivered, taken)| Step::Acknowledge { by, lane, delivered, taken }),
    ];
    prop::collection::vec(step, 1..60)
}

struct Play {
    forum: Forum,
    reference: Reference,
    /// The names of each agreement's versions, the first first.
    names: BTreeMap<String, Vec<AgreementRef>>,
    feeds: BTreeMap<String, u64>,
    mailboxes: BTreeMap<(String, Lane), u64>,
    /// The last (consignment, exchange) of each origin in each mailbox.
    order: BTreeMap<(String, Lane, String), (u64, u32)>,
    judged: usize,
}

impl Play {
    fn new() -> Self {
        let forum = Forum::of(POOL);
        let feeds = forum.ledger.feed().iter().map(|(who, last)| (who.to_string(), last)).collect();
        Self {
            judged: forum.facts.len(),
            forum,
            reference: Reference::default(),
            names: BTreeMap::new(),
            feeds,
            mailboxes: BTreeMap::new(),
            order: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        let before = self.forum.ledger.clone();
        let recorded_before = self.forum.facts.len();
        match step {
            Step::Propose { id, named, measures } => self.propose(*id, *named, *measures),
            Step::Agree { id, named, measures } => {
                self.propose(*id, *named | 1 << id.0, *measures);
                (0..POOL.len()).for_each(|by| self.consent(by, *id, 0));
            }
            Step::Consent { by, id, older } => self.consent(*by, *id, *older),
            Step::ConsentAll { id } => (0..POOL.len()).for_each(|by| self.consent(by, *id, 0)),
            Step::Decline { by, id, older } => self.decline(*by, *id, *older),
            Step::Leave { by, id } => {
                let id = id_text(*id);
                let accepted = self.forum.leave(POOL[*by], &id).is_ok();
                assert_eq!(accepted, self.reference.leave(*by, &id), "leave");
            }
            Step::Send { by, lane, letters } => self.send(*by, *lane, letters),
            Step::Acknowledge { by, lane, delivered, taken } => self.acknowledge(*by, *lane, *delivered, *taken),
        }
        if self.forum.facts.len() == recorded_before {
            assert_eq!(self.forum.ledger, before, "what records nothing changes nothing");
        }
        self.count_told();
        self.ask_every_permit();
    }

    /// The name of a version counted from the last, or one that never was.
    fn name(&self, id: &str, older: usize) -> (AgreementRef, usize) {
        let names = self.names.get(id).map(Vec::as_slice).unwrap_or_default();
        let index = names.len().wrapping_sub(1 + older);
        let never = || AgreementRef {
            id: t(id),
            version: 99,
            digest: concord_model::AgreementDigest(concord_model::Digest::ZERO),
        };
        (names.get(index).cloned().unwrap_or_else(never), index)
    }

    fn propose(&mut self, id: (Who, usize), named: u8, measures: u8) {
        let (by, id) = (id.0, id_text(id));
        let mut text = self.forum.text(&id, &[]);
        text.parties = crowd(named).into_iter().map(|who| party(POOL[who])).collect();
        let measures: std::collections::BTreeSet<usize> =
            (0..MEASURES.len()).filter(|one| measures & (1 << one) != 0).collect();
        text.measures = measures.iter().map(|one| t(MEASURES[*one])).collect();
        let proposed = self.forum.propose_text(POOL[by], text);
        let expected = self.reference.propose(by, &id, crowd(named), measures);
        assert_eq!(proposed.is_ok(), expected, "propose: {proposed:?}");
        if let Ok(reference) = proposed {
            self.names.entry(id).or_default().push(reference);
        }
    }

    fn consent(&mut self, by: Who, id: (Who, usize), older: usize) {
        let id = id_text(id);
        let (reference, version) = self.name(&id, older);
        let heard = self.forum.consent(POOL[by], &reference);
        let expected = self.reference.consent(by, &id, version);
        assert_eq!(heard.is_ok(), expected, "consent: {heard:?}");
    }

    fn decline(&mut self, by: Who, id: (Who, usize), older: usize) {
        let id = id_text(id);
        let (reference, version) = self.name(&id, older);
        let heard = self.forum.decline(POOL[by], &reference);
        let expected = self.reference.decline(by, &id, version);
        assert_eq!(heard.is_ok(), expected, "decline: {heard:?}");
    }

    fn send(&mut self, by: Who, lane: Lane, letters: &[Draft]) {
        let mut exchanges: Vec<Candidate> = Vec::new();
        let mut rights = Vec::new();
        for letter in letters {
            let id = id_text(letter.id);
            let (reference, version) = self.name(&id, letter.older);
            let mut header = self.forum.header(POOL[by], &reference);
            header.lane = lane;
            header.measure = t(MEASURES[letter.measure]);
            let narrowing = letter.narrowing.map(crowd);
            if let Some(names) = &narrowing {
                let names: Vec<&str> = names.iter().map(|who| POOL[*who]).collect();
                header = narrowed(header, &names);
            }
            let right = self.reference.right(by, &id, version, letter.measure, narrowing.as_ref());
            let expected: Vec<_> = right.iter().map(|who| POOL[*who].to_owned()).collect();
            assert_eq!(self.forum.ask_before(&header).unwrap_or_default(), expected, "asked before");
            rights.push((id, version, right));
            exchanges.push(self.forum.item(header));
        }
        let consign = self.forum.consign(POOL[by], lane, exchanges);
        let recorded = self.forum.consigned(consign).unwrap();
        self.judge_audiences(&recorded, &rights);
        self.judge_mailboxes(&recorded);
    }

    fn judge_audiences(&mut self, recorded: &ConsignmentRecorded, rights: &[(String, usize, Crowd)]) {
        let sequence = self.forum.ledger.sequence();
        for (index, (id, version, right)) in (0_u32..).zip(rights) {
            let given: Vec<&str> = recorded
                .groups
                .iter()
                .filter(|group| group.items.iter().any(|range| range.indices().contains(&index)))
                .flat_map(|group| group.recipients.iter().map(|who| who.as_str()))
                .collect();
            let expected: Vec<&str> = right.iter().map(|who| POOL[*who]).collect();
            assert_eq!(given, expected, "audience of exchange {index} under {id} version {version}");
            let refused = recorded.refused.iter().any(|refused| refused.index == index);
            assert_eq!(refused, right.is_empty(), "an exchange is refused or has an audience");
            for who in right {
                self.reference.record(*who, sequence, id, *version);
            }
        }
    }

    fn judge_mailboxes(&mut self, recorded: &ConsignmentRecorded) {
        let (lane, origin) = (recorded.chain.lane, recorded.chain.origin.to_string());
        for recipient in recorded.recipients() {
            let (run, who) = (&recipient.run, recipient.run.recipient.to_string());
            let last = self.mailboxes.entry((who.clone(), lane)).or_default();
            assert_eq!(run.first, *last + 1, "mailbox numbers have no gaps");
            *last += u64::from(run.count);
            let items: Vec<u32> = recipient.items.iter().flat_map(|range| range.indices()).collect();
            assert_eq!(items.len() as u64, u64::from(run.count), "a number for each exchange");
            assert_eq!(run.feed_number, self.feeds[&who], "the feed number at recording");
            let latest = self.order.entry((origin.clone(), lane, who)).or_default();
            for item in items {
                let place = (recorded.number, item);
                assert!(*latest < place, "deliveries come in the origin's order");
                *latest = place;
            }
        }
        for ((who, lane), last) in &self.mailboxes {
            assert_eq!(self.forum.ledger.mailbox(&t(who), *lane).last, *last);
        }
    }

    fn acknowledge(&mut self, by: Who, lane: Lane, delivered: u64, taken: u64) {
        let mailbox = self.forum.ledger.mailbox(&t(POOL[by]), lane);
        let command = Acknowledge {
            recipient: t(POOL[by]),
            lane,
            delivered_before: mailbox.delivered_through,
            delivered_through: mailbox.delivered_through + delivered,
            taken_before: mailbox.taken_count,
            taken_count: mailbox.taken_count + taken,
            notices: vec![SenderNotice {
                chain: crate::forum::chain(POOL[(by + 1) % POOL.len()], lane),
                number: 1,
                items: vec![IndexRange { first: 0, count: 1 }],
                outcome: NoticeOutcome::Delivered,
            }],
        };
        let beyond = command.delivered_through > mailbox.last || command.taken_count > 2 * command.delivered_through;
        let heard = self.forum.run(&Command::Acknowledge(command));
        match heard {
            Err(_) => assert!(beyond),
            Ok(Decision::Nothing) => assert_eq!((delivered, taken), (0, 0)),
            Ok(_) => assert!(!beyond && delivered + taken > 0),
        }
        let after = self.forum.ledger.mailbox(&t(POOL[by]), lane);
        assert!(after.taken_count <= 2 * after.delivered_through && after.delivered_through <= after.last);
    }

    fn count_told(&mut self) {
        for (fact, _) in &self.forum.facts[self.judged..] {
            let told: Vec<_> = match fact {
                Fact::Statement(decided) => decided.tells().map(|(who, number, _)| (who, number)).collect(),
                Fact::Acknowledged(acknowledged) => {
                    acknowledged.told.iter().map(|one| (&one.told.participant, one.told.number)).collect()
                }
                _ => Vec::new(),
            };
            for (who, number) in told {
                let last = self.feeds.get_mut(who.as_str()).unwrap();
                assert_eq!(number, *last + 1, "feed numbers have no gaps");
                *last = number;
            }
        }
        self.judged = self.forum.facts.len();
        for (who, last) in &self.feeds {
            assert_eq!(self.forum.ledger.feed_last(&t(who)), *last);
        }
    }

    fn ask_every_permit(&self) {
        for letter in &self.reference.mail {
            let reference = &self.names[&letter.id][letter.version];
            let permitted = self.forum.permit(POOL[letter.to], letter.recorded, reference);
            assert_eq!(permitted.is_ok(), letter.may_be_sent(), "{permitted:?} of {letter:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn over_any_history_only_the_agreed_receive_in_order_without_gaps_and_never_after_a_leave(steps in steps()) {
        let mut play = Play::new();
        for step in &steps {
            play.take(step);
        }
        let mut replayed = Ledger::default();
        for (fact, at) in &play.forum.facts {
            replayed.apply(fact, *at);
        }
        prop_assert_eq!(&replayed, &play.forum.ledger);
        crate::snapshots::check_at_every_fact(&play.forum.facts);
    }
}

/// The random histories must reach what they are there to judge: deliveries, ends, rejoins, and old names.
#[test]
fn the_random_histories_reach_rejoins_and_earlier_versions() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut delivered, mut dead, mut renewed, mut old_names) = (0, 0, 0, 0);
    for _ in 0..200 {
        let mut play = Play::new();
        for step in steps().new_tree(&mut runner).unwrap().current() {
            play.take(&step);
        }
        let mail = &play.reference.mail;
        delivered += mail.len();
        dead += mail.iter().filter(|letter| !letter.may_be_sent()).count();
        renewed += mail.iter().filter(|letter| letter.version > 0).count();
        old_names += mail
            .iter()
            .filter(|letter| {
                let agreement = play.forum.ledger.agreements();
                let named = agreement.version(&play.names[&letter.id][letter.version]).unwrap();
                named.ended_since.is_some_and(|ended| ended < letter.recorded)
            })
            .count();
    }
    assert!(
        delivered > 500 && dead > 100 && renewed > 100 && old_names > 10,
        "{delivered} delivered, {dead} dead, {renewed} under later versions, {old_names} under ended ones"
    );
}
