//! Applying is total: whatever well-typed facts a journal holds, nothing panics, and deciding afterwards does not either.

use concord_ledger::{
    Acknowledge, AnchorSuccession, At, AudienceGroup, Candidate, ChainTip, ClosedEpoch, Command, Consign,
    ConsignmentRecorded, ContactSetting, DecisionContent, EpochOpening, Fact, FeedResumed, ForumDecision, Found,
    Handed, HistoryBegun, IndexRange, Item, ItemRefusal, JoinRequest, KeyRotation, Ledger, Lost, Mail,
    MailAcknowledged, MailboxResumed, MailboxRun, NodeSeen, NotHealed, NoticeOutcome, OriginNotices, Quorum,
    ReceiptNotice, Replacement, Resume, RoleDecision, SenderNotice, Shown, Statement, StatementContent,
    StatementDecided, Target, Told,
};
use concord_model::{
    AgreementDigest, AgreementId, AgreementRef, AgreementText, ChainKey, ConsignmentDigest, Digest, ExchangeId,
    ExchangeUuid, Fingerprint, ForumRole, Handling, Header, InForceAmong, Lane, MeasureCode, Name, Narrowing,
    ParticipantCode, Reason, RoleScope, Terms, Timestamp, Title,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::forum::{contact, founding, join_request, party, public_key, t};

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..4_u64, Just(u64::MAX), Just(u64::MAX - 1), any::<u64>()]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![0..4_u32, Just(u32::MAX)]
}

fn code() -> impl Strategy<Value = ParticipantCode> {
    select(vec!["SEC", "KAZ", "IRN", "USA"]).prop_map(t)
}

fn name() -> impl Strategy<Value = Name> {
    select(vec!["hub", "node", "other"]).prop_map(t)
}

fn id() -> impl Strategy<Value = AgreementId> {
    select(vec!["KAZ/a", "IRN/b"]).prop_map(t)
}

fn measure() -> impl Strategy<Value = MeasureCode> {
    select(vec!["challenges.3", "human.1"]).prop_map(t)
}

fn lane() -> impl Strategy<Value = Lane> {
    select(Lane::ALL.to_vec())
}

fn any_digest() -> impl Strategy<Value = Digest> {
    (0..3_u8).prop_map(|byte| Digest([byte; 32]))
}

fn reason() -> impl Strategy<Value = Reason> {
    select(Reason::ALL.to_vec())
}

fn reference() -> impl Strategy<Value = AgreementRef> {
    (id(), small(), any_digest()).prop_map(|(id, version, digest)| AgreementRef {
        id,
        version,
        digest: AgreementDigest(digest),
    })
}

fn chain() -> impl Strategy<Value = ChainKey> {
    (code(), name(), name(), small(), lane()).prop_map(|(origin, hub, node, epoch, lane)| ChainKey {
        origin,
        hub,
        node,
        epoch,
        lane,
    })
}

fn content() -> impl Strategy<Value = StatementContent> {
    let among = prop_oneof![Just(InForceAmong::All), Just(InForceAmong::Each)];
    let changes = (prop::option::of(reference()), vec(code(), 0..2), prop::option::of(0..9_i64), among);
    let text = (id(), small(), vec(measure(), 0..3), vec(code(), 0..4), changes).prop_map(
        |(id, version, measures, parties, (amends, outgoing, until, in_force))| AgreementText {
            id,
            version,
            title: Title::parse("x").unwrap(),
            measures,
            parties: parties.iter().map(|code| party(code.as_str())).collect(),
            terms: Terms::default(),
            valid_until: until.map(Timestamp::from_micros),
            amends,
            outgoing,
            in_force,
        },
    );
    prop_oneof![
        (text, any_digest())
            .prop_map(|(text, digest)| StatementContent::Propose { text, digest: AgreementDigest(digest) }),
        reference().prop_map(StatementContent::Consent),
        reference().prop_map(|of| StatementContent::Decline(of, None)),
        (reference(), any_digest()).prop_map(|(of, leave)| StatementContent::Return(of, leave)),
        reference().prop_map(StatementContent::Leave),
        reference().prop_map(StatementContent::End),
        code().prop_map(|participant| StatementContent::Hold { participant, reason: Title::parse("x").unwrap() }),
        any_digest().prop_map(StatementContent::Release),
        (prop::option::of(measure()), small(), any::<bool>()).prop_map(|(measure, revision, is_set)| {
            let contact = is_set.then(|| contact("the office"));
            StatementContent::SetContact(ContactSetting { measure, revision, contact })
        }),
        (code(), prop::option::of(measure()), small(), any::<bool>()).prop_map(
            |(participant, measure, revision, is_given)| {
                let role = if measure.is_none() { ForumRole::Chair } else { ForumRole::Coordinator };
                let scope = RoleScope { measure, ..RoleScope::default() };
                StatementContent::Role(RoleDecision {
                    participant,
                    role,
                    scope,
                    revision,
                    is_given,
                    reference: Title::parse("x").unwrap(),
                })
            }
        ),
        (code(), name())
            .prop_map(|(code, node)| StatementContent::Enrol(JoinRequest { node, ..join_request(code.as_str()) })),
        (code(), name()).prop_map(|(code, node)| {
            let request = JoinRequest { node, ..join_request(code.as_str()) };
            StatementContent::Replace(Replacement { request, reference: Title::parse("x").unwrap() })
        }),
        (name(), small()).prop_map(|(node, epoch)| StatementContent::OpenEpoch(EpochOpening { node, epoch })),
        (option::of((name(), small())), code(), code()).prop_map(|(opening, before, next)| {
            StatementContent::RotateKey(KeyRotation {
                opening: opening.map(|(node, epoch)| EpochOpening { node, epoch }),
                before: public_key(before.as_str()),
                signing_key: public_key(&format!("{next}-next")),
            })
        }),
        (code(), any_digest()).prop_map(|(code, anchor)| {
            StatementContent::SucceedAnchor(AnchorSuccession {
                anchor: anchor.as_bytes().to_vec(),
                anchor_fingerprint: Fingerprint(anchor),
                signing_key: public_key(code.as_str()),
            })
        }),
        any_digest().prop_map(|anchor| StatementContent::EndAnchor(Fingerprint(anchor))),
        any_digest().prop_map(StatementContent::Approve),
        any_digest().prop_map(StatementContent::Reject),
        (code(), small()).prop_map(|(participant, revision)| {
            let names = std::collections::BTreeMap::from([("en".to_owned(), "Another name".to_owned())]);
            let content = DecisionContent::Rename { participant, revision, names };
            StatementContent::Decided(ForumDecision { content, reference: Title::parse("x").unwrap() })
        }),
    ]
}

fn statement() -> impl Strategy<Value = Statement> {
    (code(), name(), name(), number(), any_digest(), content()).prop_map(
        |(participant, officer, hub, number, digest, content)| Statement {
            participant,
            officer,
            hub,
            number,
            made_at: Timestamp::from_micros(0),
            digest,
            content,
        },
    )
}

fn told() -> impl Strategy<Value = Told> {
    (code(), number()).prop_map(|(participant, number)| Told { participant, number })
}

fn ranges() -> impl Strategy<Value = Vec<IndexRange>> {
    vec((small(), small()).prop_map(|(first, count)| IndexRange { first, count }), 0..3)
}

fn recorded() -> impl Strategy<Value = ConsignmentRecorded> {
    let group = (reference(), vec(code(), 0..3), ranges()).prop_map(|(agreement, recipients, items)| AudienceGroup {
        agreement,
        recipients,
        items,
    });
    let refusal = (small(), reason()).prop_map(|(index, reason)| ItemRefusal { index, reason });
    let run = (code(), number(), small(), number()).prop_map(|(recipient, first, count, feed_number)| MailboxRun {
        recipient,
        first,
        count,
        feed_number,
    });
    (chain(), number(), any_digest(), small(), vec(group, 0..3), vec(refusal, 0..2), vec(run, 0..3)).prop_map(
        |(chain, number, digest, count, groups, refused, mailboxes)| ConsignmentRecorded {
            rehanded: false,
            withdrawals: Vec::new(),
            withdrawn_before: Vec::new(),
            chain,
            number,
            digest: ConsignmentDigest(digest),
            count,
            groups,
            refused,
            mailboxes,
        },
    )
}

fn acknowledged() -> impl Strategy<Value = MailAcknowledged> {
    let notice = (chain(), number(), ranges()).prop_map(|(chain, number, items)| ReceiptNotice {
        node: chain.node,
        epoch: chain.epoch,
        lane: chain.lane,
        number,
        items,
        outcome: NoticeOutcome::Taken,
    });
    let notices = (told(), vec(notice, 0..2)).prop_map(|(told, notices)| OriginNotices { told, notices });
    (code(), lane(), number(), number(), vec(notices, 0..3)).prop_map(
        |(recipient, lane, delivered_through, taken_count, told)| MailAcknowledged {
            recipient,
            lane,
            delivered_through,
            taken_count,
            told,
        },
    )
}

fn shown() -> impl Strategy<Value = Shown> {
    ((0..3_u8).prop_map(|byte| [byte; 16]), number(), prop::option::of(any_digest()))
        .prop_map(|(history, number, digest)| Shown { history, number, digest })
}

fn resume() -> impl Strategy<Value = Resume> {
    (shown(), number(), number(), number()).prop_map(|(shown, common, last, at)| Resume {
        shown,
        common,
        last,
        at,
        again: 0,
        sequence: 0,
    })
}

fn tip() -> impl Strategy<Value = ChainTip> {
    (number(), any_digest()).prop_map(|(number, digest)| ChainTip { number, digest: ConsignmentDigest(digest) })
}

fn closed() -> impl Strategy<Value = ClosedEpoch> {
    [tip(), tip(), tip()].prop_map(|tips| ClosedEpoch { tips })
}

fn fact() -> impl Strategy<Value = Fact> {
    let history = || (0..3_u8).prop_map(|byte| [byte; 16]);
    prop_oneof![
        1 => (history(), prop::option::of(history()))
            .prop_map(|(history, parent)| Fact::HistoryBegun(HistoryBegun { history, parent })),
        1 => Just(()).prop_map(|()| Fact::Founded(founding(&["KAZ", "IRN"]))),
        6 => (statement(), prop::option::weighted(0.2, reason()), vec(told(), 0..3), prop::option::of(closed()), vec(small().prop_map(u64::from), 0..3)).prop_map(
            |(statement, refused, told, closes, missed)| {
                let closes = closes.map(Box::new);
                Fact::Statement(StatementDecided { closes, missed, ..StatementDecided::alone(statement, refused, told) })
            }
        ),
        2 => (code(), resume()).prop_map(|(participant, resume)| Fact::FeedResumed(FeedResumed { participant, resume })),
        2 => (code(), lane(), resume())
            .prop_map(|(recipient, lane, resume)| Fact::MailboxResumed(MailboxResumed { recipient, lane, resume })),
        1 => (code(), any::<[u8; 16]>(), any::<[u8; 16]>())
            .prop_map(|(participant, history, run)| Fact::NodeSeen(NodeSeen { participant, history, run })),
        1 => (code(), vec((any::<u64>(), reason()), 0..3)).prop_map(|(participant, lost)| {
            let officer = Name::parse("officer").unwrap();
            let lost = lost.into_iter().map(|(number, reason)| (Lost::Statement { officer: officer.clone(), number }, reason));
            Fact::NotHealed(NotHealed { participant, lost: lost.collect() })
        }),
        3 => recorded().prop_map(Fact::Consignment),
        2 => acknowledged().prop_map(Fact::Acknowledged),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let header = (code(), name(), reference(), measure(), lane(), prop::option::of(code())).prop_map(
        |(origin, node, agreement, measure, lane, to)| Header {
            origin,
            node,
            uuid: ExchangeUuid::from_parts(Timestamp::from_micros(0), &[0; 10]),
            agreement,
            measure,
            lane,
            narrowing: to.map(|to| Narrowing::new([to]).unwrap()),
            language: None,
            created: Timestamp::from_micros(0),
            parts: Vec::new(),
            description: Digest::ZERO,
            handling: Handling::Amber,
            expires_at: None,
            supersedes: None,
            exercise: false,
            withdraws: None,
            agencies: Vec::new(),
        },
    );
    let item = (any_digest(), header).prop_map(|(id, header)| {
        let id = ExchangeId(id);
        Candidate::Fit(Box::new(Item { id, header }))
    });
    let found = prop_oneof![
        option::of(any::<[u8; 16]>()).prop_map(|queued_in| Found::NotYet { queued_in }),
        Just(Found::Refused),
        Just(Found::Other),
    ];
    let target = (chain(), number(), found).prop_map(|(chain, number, found)| Target { chain, number, found });
    let beside = (btree_map(small(), target, 0..3), btree_set(small(), 0..3));
    let consign =
        (chain(), number(), any_digest(), any_digest(), code(), vec(item, 0..3), prop::option::of(tip()), beside)
            .prop_map(|(chain, number, previous, digest, key, exchanges, begins_after, beside)| Consign {
                chain,
                number,
                previous: ConsignmentDigest(previous),
                begins_after,
                digest: ConsignmentDigest(digest),
                key: party(key.as_str()).signing_key,
                exchanges,
                stood: None,
                targets: beside.0,
                withdrawn_before: beside.1,
            });
    let acknowledge =
        (acknowledged(), number(), number(), chain()).prop_map(|(word, delivered_before, taken_before, chain)| {
            Acknowledge {
                recipient: word.recipient,
                lane: word.lane,
                delivered_before,
                delivered_through: word.delivered_through,
                taken_before,
                taken_count: word.taken_count,
                notices: vec![SenderNotice { chain, number: 1, items: Vec::new(), outcome: NoticeOutcome::Taken }],
            }
        });
    prop_oneof![
        1 => Just(()).prop_map(|()| Command::Found(founding(&["KAZ"]))),
        3 => (statement(), 1..4_u32)
            .prop_map(|(statement, quorum)| Command::Statement(statement, Quorum::new(quorum).unwrap())),
        3 => consign.prop_map(Command::Consign),
        2 => acknowledge.prop_map(Command::Acknowledge),
        3 => (statement(), code(), prop::option::of(reason()), any::<bool>(), prop::option::of(closed())).prop_map(
            |(statement, by, refused, was_told, closes)| {
                let (approvals, quorum) = (Vec::new(), Quorum::ONE);
                Command::HandBack(Handed { statement, by, was_told, refused, closes, approvals, quorum })
            }
        ),
        2 => (code(), shown(), number())
            .prop_map(|(participant, shown, common)| Command::ResumeFeed { participant, shown, common }),
        2 => (code(), lane(), shown())
            .prop_map(|(recipient, lane, shown)| Command::ResumeMailbox { recipient, lane, shown }),
    ]
}

fn at() -> impl Strategy<Value = At> {
    (number(), any::<i64>()).prop_map(|(sequence, now)| At { sequence, now: Timestamp::from_micros(now) })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_facts_apply_and_replay_to_the_same_state(
        facts in vec((fact(), at()), 0..40),
        commands in vec((command(), at()), 0..10),
        asked in (code(), number(), reference()),
    ) {
        let mut ledger = Ledger::default();
        for (fact, at) in &facts {
            let before = ledger.recorded_at(Timestamp::from_micros(i64::MIN));
            ledger.apply(fact, *at);
            prop_assert!(ledger.recorded_at(Timestamp::from_micros(i64::MIN)) >= before);
        }
        let mut replayed = Ledger::default();
        for (fact, at) in &facts {
            replayed.apply(fact, *at);
        }
        prop_assert_eq!(&ledger, &replayed);
        crate::snapshots::check_at_every_fact(&facts);

        // A copy that was published stays as it was, whatever is applied afterwards.
        let published = ledger.clone();
        for (command, at) in &commands {
            let first = ledger.decide(command, *at);
            prop_assert_eq!(&ledger, &published);
            prop_assert_eq!(first, ledger.decide(command, *at));
        }
        let (who, recorded, agreement) = asked;
        let mail = Mail { recorded, agreement: &agreement, expires_at: None, exchange: None, withdraws: false };
        if let Ok(permit) = ledger.permit(&who, &mail, Timestamp::from_micros(0)) {
            prop_assert!(ledger.agreements().is_member(&agreement.id, permit.recipient()));
        }
        for (fact, at) in &facts {
            ledger.apply(fact, *at);
        }
        prop_assert_eq!(&published, &replayed);
    }
}
