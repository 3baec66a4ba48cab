//! A forum in a few words: `Forum::of(["KAZ", "IRN"])` is founded, and both are enrolled.

use std::collections::BTreeMap;

use concord_ledger::{
    At, AudienceRule, Candidate, Command, Consign, ConsignmentRecorded, Decision, Fact, Founding, HistoryBegun, Item,
    JoinRequest, Ledger, Mail, Quorum, Statement, StatementContent, StatementDecided, audience, preview,
};
use concord_model::{
    AgreementDigest, AgreementId, AgreementRef, AgreementText, Area, ChainKey, ConsignmentDigest, Contact, Digest,
    ExchangeId, ExchangeUuid, Fingerprint, Handling, Header, Lane, Languages, Measure, Narrowing, Participant,
    ParticipantCode, ParticipantKind, Party, PartyRole, PublicKey, Reason, Refusal, Terms, Timestamp, Title,
    WithheldReason,
};

pub(crate) const MEASURES: [&str; 2] = ["challenges.3", "environmental.5"];
pub(crate) const HISTORY: [u8; 16] = [1; 16];

/// Parses any of the model's texts.
pub(crate) fn t<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

/// A digest that is another for every label of at most 32 bytes.
pub(crate) fn digest(label: &str) -> Digest {
    assert!(label.len() <= 32, "{label} is too long");
    let mut bytes = [0; 32];
    bytes[..label.len()].copy_from_slice(label.as_bytes());
    Digest(bytes)
}

pub(crate) struct Forum {
    pub(crate) ledger: Ledger,
    pub(crate) facts: Vec<(Fact, At)>,
    made: u64,
}

impl Forum {
    /// Founded and enrolled.
    pub(crate) fn of<const N: usize>(codes: [&str; N]) -> Self {
        let mut forum = Self::founded(codes);
        for code in codes {
            forum.enrol(code).unwrap();
        }
        forum
    }

    /// Founded; only the secretariat is enrolled.
    pub(crate) fn founded<const N: usize>(codes: [&str; N]) -> Self {
        let mut forum = Self { ledger: Ledger::default(), facts: Vec::new(), made: 0 };
        forum.record(Fact::HistoryBegun(HistoryBegun { history: HISTORY, parent: None }));
        forum.run(&Command::Found(founding(&codes))).unwrap();
        forum
    }

    /// Where the next fact will stand.
    pub(crate) fn at(&self) -> At {
        At {
            sequence: self.ledger.sequence() + 1,
            now: Timestamp::from_micros(1_000_000 * (1 + self.ledger.sequence() as i64)),
        }
    }

    /// Decides, and applies what was decided.
    pub(crate) fn run(&mut self, command: &Command) -> Result<Decision, Refusal> {
        let decision = self.ledger.decide(command, self.at())?;
        if let Decision::Fact { fact, .. } = &decision {
            self.record(fact.clone());
        }
        Ok(decision)
    }

    pub(crate) fn record(&mut self, fact: Fact) {
        let at = self.at();
        self.ledger.apply(&fact, at);
        self.facts.push((fact, at));
    }

    // Statements.

    pub(crate) fn statement(&mut self, who: &str, content: StatementContent) -> Statement {
        let officer = t("officer");
        let last = self.ledger.signers().last(&t(who), &officer);
        Statement {
            participant: t(who),
            officer,
            hub: t("hub"),
            number: last.map_or(1, |last| last.number + 1),
            made_at: Timestamp::from_micros(7),
            digest: self.unique("statement"),
            content,
        }
    }

    /// Says it, and hears the officer's answer.
    pub(crate) fn say(&mut self, who: &str, content: StatementContent) -> Result<(), Refusal> {
        let statement = self.statement(who, content);
        match self.run(&Command::Statement(statement, Quorum::ONE))? {
            Decision::Fact { refusal: Some(refusal), .. } => Err(refusal),
            _ => Ok(()),
        }
    }

    pub(crate) fn enrol(&mut self, code: &str) -> Result<(), Refusal> {
        self.say("SEC", StatementContent::Enrol(join_request(code)))
    }

    /// The next version of an agreement over all measures.
    pub(crate) fn text(&self, id: &str, parties: &[&str]) -> AgreementText {
        let last = self.ledger.agreements().get(&t(id));
        AgreementText {
            id: t(id),
            version: last.map_or(1, |last| last.text.version + 1),
            title: Title::parse("what we share").unwrap(),
            measures: MEASURES.into_iter().map(t).collect(),
            parties: parties.iter().copied().map(party).collect(),
            terms: Terms::default(),
            valid_until: None,
            amends: None,
            outgoing: Vec::new(),
            in_force: concord_model::InForceAmong::All,
        }
    }

    pub(crate) fn propose_text(&mut self, who: &str, text: AgreementText) -> Result<AgreementRef, Refusal> {
        let reference = AgreementRef {
            id: text.id.clone(),
            version: text.version,
            digest: AgreementDigest(self.unique("agreement")),
        };
        let digest = reference.digest;
        self.say(who, StatementContent::Propose { text, digest })?;
        Ok(reference)
    }

    pub(crate) fn propose(&mut self, id: &str, parties: &[&str]) -> Result<AgreementRef, Refusal> {
        let proposer = t::<AgreementId>(id).proposer();
        self.propose_text(proposer.as_str(), self.text(id, parties))
    }

    pub(crate) fn consent(&mut self, who: &str, reference: &AgreementRef) -> Result<(), Refusal> {
        self.say(who, StatementContent::Consent(reference.clone()))
    }

    pub(crate) fn decline(&mut self, who: &str, reference: &AgreementRef) -> Result<(), Refusal> {
        self.say(who, StatementContent::Decline(reference.clone(), None))
    }

    pub(crate) fn leave(&mut self, who: &str, id: &str) -> Result<(), Refusal> {
        let reference = self.latest(id);
        self.say(who, StatementContent::Leave(reference))
    }

    /// Comes back to this version, by the leave that stands.
    pub(crate) fn come_back(&mut self, who: &str, reference: &AgreementRef) -> Result<(), Refusal> {
        let version = self.ledger.agreements().version(reference);
        let leave = version.and_then(|version| version.left_by(&t(who))).unwrap_or_else(|| digest("no leave"));
        self.say(who, StatementContent::Return(reference.clone(), leave))
    }

    /// The latest version of an agreement; a made-up one where there is none.
    pub(crate) fn latest(&self, id: &str) -> AgreementRef {
        let never = || AgreementRef { id: t(id), version: 1, digest: AgreementDigest(digest("never")) };
        self.ledger.agreements().get(&t(id)).map_or_else(never, |latest| latest.reference())
    }

    /// Proposed, and consented to by all.
    pub(crate) fn agree(&mut self, id: &str, parties: &[&str]) -> AgreementRef {
        let reference = self.propose(id, parties).unwrap();
        for party in parties {
            self.consent(party, &reference).unwrap();
        }
        reference
    }

    /// The last fact, which must be a statement.
    pub(crate) fn last_statement(&self) -> &StatementDecided {
        match self.facts.last() {
            Some((Fact::Statement(decided), _)) => decided,
            other => panic!("the last fact is {other:?}"),
        }
    }

    // Exchanges.

    pub(crate) fn header(&mut self, origin: &str, agreement: &AgreementRef) -> Header {
        self.made += 1;
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.made.to_be_bytes());
        Header {
            origin: t(origin),
            node: t("node"),
            uuid: ExchangeUuid::from_parts(Timestamp::from_micros(0), &random),
            agreement: agreement.clone(),
            measure: t(MEASURES[0]),
            lane: Lane::Routine,
            narrowing: None,
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
        }
    }

    pub(crate) fn item(&mut self, header: Header) -> Candidate {
        let id = ExchangeId(self.unique("exchange"));
        Candidate::Fit(Box::new(Item { id, header }))
    }

    /// The next consignment of a chain.
    pub(crate) fn consign(&mut self, origin: &str, lane: Lane, exchanges: Vec<Candidate>) -> Consign {
        let chain = chain(origin, lane);
        let before = self.ledger.chains().get(&chain);
        Consign {
            number: before.map_or(1, |before| before.last + 1),
            begins_after: None,
            previous: before.map_or(ConsignmentDigest(Digest::ZERO), |before| before.digest),
            digest: ConsignmentDigest(self.unique("consignment")),
            key: public_key(origin).fingerprint,
            chain,
            exchanges,
            stood: None,
            targets: std::collections::BTreeMap::new(),
            withdrawn_before: std::collections::BTreeSet::new(),
        }
    }

    /// Sends headers of lane routine in one consignment.
    pub(crate) fn send(&mut self, origin: &str, headers: Vec<Header>) -> Result<ConsignmentRecorded, Refusal> {
        let items = headers.into_iter().map(|header| self.item(header)).collect();
        let consign = self.consign(origin, Lane::Routine, items);
        self.consigned(consign)
    }

    pub(crate) fn consigned(&mut self, consign: Consign) -> Result<ConsignmentRecorded, Refusal> {
        match self.run(&Command::Consign(consign))? {
            Decision::Fact { fact: Fact::Consignment(recorded), .. } => Ok(recorded),
            other => panic!("not recorded: {other:?}"),
        }
    }

    /// Whom the agreement lets have one exchange, or why it is refused. A node that asks before hears what the hub decides.
    pub(crate) fn audience(&mut self, header: Header) -> Result<Vec<String>, Reason> {
        let asked_before = self.ask_before(&header);
        let _shown = self.preview(&header);
        let origin = header.origin.to_string();
        let recorded = self.send(&origin, vec![header]).unwrap();
        let decided = match (recorded.groups.as_slice(), recorded.refused.as_slice()) {
            ([group], []) => Ok(group.recipients.iter().map(ToString::to_string).collect()),
            ([], [refused]) => Err(refused.reason),
            other => panic!("one exchange has two outcomes: {other:?}"),
        };
        assert_eq!(asked_before, decided);
        decided
    }

    /// What the preview says of each party, which must be what is decided of an exchange like this.
    pub(crate) fn preview(&self, header: &Header) -> Result<BTreeMap<String, AudienceRule>, Reason> {
        let (agreements, registry) = (self.ledger.agreements(), self.ledger.registry());
        let shown = reason(preview(agreements, registry, &header.origin, header, self.at().now));
        let receive = shown.as_ref().map(|shown| {
            let receive = shown.iter().filter(|(_, rule)| rule.receives());
            receive.map(|(code, _)| code.to_string()).collect::<Vec<_>>()
        });
        match self.ask_before(header) {
            Err(Reason::AudienceEmpty) => assert_eq!(receive, Ok(Vec::new())),
            decided => assert_eq!(receive.map_err(|reason| *reason), decided),
        }
        shown.map(|shown| shown.into_iter().map(|(code, rule)| (code.to_string(), rule)).collect())
    }

    /// What a node hears that asks its own directory before it queues.
    pub(crate) fn ask_before(&self, header: &Header) -> Result<Vec<String>, Reason> {
        let (agreements, registry) = (self.ledger.agreements(), self.ledger.registry());
        let audience = reason(audience(agreements, registry, &header.origin, header, self.at().now))?;
        Ok(audience.recipients.iter().map(ToString::to_string).collect())
    }

    pub(crate) fn permit(&self, who: &str, recorded: u64, agreement: &AgreementRef) -> Result<(), WithheldReason> {
        let mail = Mail { recorded, agreement, expires_at: None, exchange: None, withdraws: false };
        self.ledger.permit(&t(who), &mail, self.at().now).map(|permit| {
            assert_eq!(permit.recipient(), &t::<ParticipantCode>(who));
            assert_eq!(permit.recorded(), recorded);
        })
    }

    pub(crate) fn unique(&mut self, kind: &str) -> Digest {
        self.made += 1;
        digest(&format!("{kind} {}", self.made))
    }
}

pub(crate) fn narrowed(mut header: Header, to: &[&str]) -> Header {
    header.narrowing = Some(Narrowing::new(to.iter().copied().map(t)).unwrap());
    header
}

pub(crate) fn chain(origin: &str, lane: Lane) -> ChainKey {
    ChainKey { origin: t(origin), hub: t("hub"), node: t("node"), epoch: 1, lane }
}

pub(crate) fn founding(codes: &[&str]) -> Founding {
    let participant = |code: &str, kind| Participant {
        code: t(code),
        kind,
        names: BTreeMap::from([("en".to_owned(), code.to_owned())]),
    };
    let mut participants = vec![participant("SEC", ParticipantKind::Secretariat)];
    participants.extend(codes.iter().map(|code| participant(code, ParticipantKind::Member)));
    Founding {
        hub: t("hub"),
        anchor: b"anchor SEC".to_vec(),
        anchor_fingerprint: Fingerprint(digest("anchor SEC")),
        signing_key: public_key("SEC"),
        participants,
        areas: vec![Area { slug: t("challenges"), title: "new challenges and threats".to_owned() }],
        measures: MEASURES
            .into_iter()
            .map(|code| Measure { code: t(code), slug: t("measure"), title: code.to_owned() })
            .collect(),
    }
}

pub(crate) fn join_request(code: &str) -> JoinRequest {
    JoinRequest {
        participant: t(code),
        node: t("node"),
        anchor: format!("anchor {code}").into_bytes(),
        anchor_fingerprint: Fingerprint(digest(&format!("anchor {code}"))),
        signing_key: public_key(code),
    }
}

pub(crate) fn contact(office: &str) -> Contact {
    let (telephone, languages) = (t("+7 7172 701522"), Languages::new(vec![t("ru"), t("en")]).unwrap());
    Contact { office: t(office), telephone, hours: t("always"), languages }
}

pub(crate) fn public_key(code: &str) -> PublicKey {
    let fingerprint = Fingerprint(digest(&format!("key {code}")));
    PublicKey { bytes: *fingerprint.0.as_bytes(), fingerprint }
}

pub(crate) fn party(code: &str) -> Party {
    Party {
        participant: t(code),
        anchor: Fingerprint(digest(&format!("anchor {code}"))),
        signing_key: public_key(code).fingerprint,
        role: PartyRole::Both,
    }
}

pub(crate) fn reason<T>(result: Result<T, Refusal>) -> Result<T, Reason> {
    result.map_err(|refusal| refusal.reason)
}
