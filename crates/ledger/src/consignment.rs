//! Decides a consignment: the hot path. Its exchanges mostly go to the same audience, which is then computed once.

use std::collections::{BTreeMap, BTreeSet};

use concord_model::{
    AgreementRef, ExchangeId, Header, MeasureCode, Narrowing, ParticipantCode, Reason, Refusal, Timestamp, Withdrawal,
    WithdrawalKind,
};

use crate::agreement::GoesOn;
use crate::audience::{Audience, Route, audience};
use crate::chain::ChainStep;
use crate::command::{At, Candidate, Consign, Item, Stood};
use crate::fact::{
    AudienceGroup, ConsignmentRecorded, Fact, IndexRange, ItemRefusal, MailboxRun, WithdrawalRecorded, WithdrawnBefore,
};
use crate::ledger::{Decision, Ledger};
use crate::permit::Mail;
use crate::withdrawal::{Found, WITHDRAWN_AHEAD_MAX, look_again};

impl Ledger {
    pub(crate) fn decide_consignment(&self, consign: &Consign, at: At) -> Result<Decision, Refusal> {
        if let ChainStep::Repeat { sequence } = self.chains().check(self.registry(), self.epochs(), consign)? {
            return Ok(Decision::Repeat { sequence, refusal: None });
        }
        self.check_targets(consign)?;
        let duplicates = repeated_ids(&consign.exchanges);
        let mut grouping = Grouping::new(self, consign, at);
        let mut refused = Vec::new();
        for (index, candidate) in (0_u32..).zip(&consign.exchanges) {
            let outcome = match candidate {
                Candidate::Unfit(refusal) => Err(refusal.reason),
                Candidate::Fit(_) if duplicates.binary_search(&index).is_ok() => Err(Reason::HeaderMalformed),
                Candidate::Fit(item) => match consign.stood.as_ref().map(|stood| stood.get(index as usize)) {
                    None => match item.header.withdraws {
                        Some(withdrawal) => grouping.place_withdrawal(item, index, withdrawal, &refused),
                        None => grouping.place_unless_withdrawn(item, index),
                    },
                    Some(Some(stood)) => grouping.place_as_it_stood(item, index, stood),
                    // The receipt has one outcome for each exchange: that was checked where it was verified.
                    Some(None) => Err(Reason::ConsignmentMalformed),
                },
            };
            if let Err(reason) = outcome {
                refused.push(ItemRefusal { index, reason });
            }
        }
        let Placed { groups, withdrawals, withdrawn_before } = grouping.finish();
        let fact = Fact::Consignment(ConsignmentRecorded {
            chain: consign.chain.clone(),
            number: consign.number,
            digest: consign.digest,
            count: u32::try_from(consign.exchanges.len()).unwrap_or(u32::MAX),
            mailboxes: self.mailbox_runs(consign, &groups),
            groups,
            refused,
            rehanded: consign.stood.is_some(),
            withdrawals,
            withdrawn_before,
        });
        Ok(Decision::Fact { fact, refusal: None })
    }

    /// What a withdrawal did not find and is here by now has to be looked for again.
    fn check_targets(&self, consign: &Consign) -> Result<(), Refusal> {
        let came = consign.targets.values().any(|target| {
            let is_ahead = matches!(target.found, Found::NotYet { .. } | Found::Forgotten(_));
            is_ahead && self.chains().last(&target.chain) >= target.number
        });
        if came { Err(look_again()) } else { Ok(()) }
    }

    fn mailbox_runs(&self, consign: &Consign, groups: &[AudienceGroup]) -> Vec<MailboxRun> {
        let mut counts: BTreeMap<&ParticipantCode, u32> = BTreeMap::new();
        for group in groups {
            let items: u32 = group.items.iter().map(|range| range.count).sum();
            for recipient in &group.recipients {
                *counts.entry(recipient).or_default() += items;
            }
        }
        counts
            .into_iter()
            .map(|(recipient, count)| MailboxRun {
                recipient: recipient.clone(),
                first: self.mailbox(recipient, consign.chain.lane).next(),
                count,
                feed_number: self.feed().last(recipient),
            })
            .collect()
    }
}

/// What decides an audience, apart from the origin.
#[derive(PartialEq, Eq)]
struct Address<'a> {
    agreement: &'a AgreementRef,
    measure: &'a MeasureCode,
    narrowing: Option<&'a Narrowing>,
}

impl<'a> Address<'a> {
    fn of(header: &'a Header) -> Self {
        Self { agreement: &header.agreement, measure: &header.measure, narrowing: header.narrowing.as_ref() }
    }
}

/// The group of an address, and the versions that decide about what goes there.
type Routed<'a> = Result<(usize, Route<'a>), Reason>;

struct Grouping<'a> {
    ledger: &'a Ledger,
    consign: &'a Consign,
    at: At,
    groups: Vec<AudienceGroup>,
    /// Finds a group again when items of several audiences alternate.
    places: BTreeMap<Audience, usize>,
    previous: Option<(Address<'a>, Routed<'a>)>,
    withdrawals: Vec<WithdrawalRecorded>,
    withdrawn_before: Vec<WithdrawnBefore>,
    /// Ids that this consignment withdraws.
    withdrawn: BTreeSet<ExchangeId>,
}

/// What became of a consignment's exchanges.
struct Placed {
    groups: Vec<AudienceGroup>,
    withdrawals: Vec<WithdrawalRecorded>,
    withdrawn_before: Vec<WithdrawnBefore>,
}

impl<'a> Grouping<'a> {
    fn new(ledger: &'a Ledger, consign: &'a Consign, at: At) -> Self {
        Self {
            ledger,
            consign,
            at,
            groups: Vec::new(),
            places: BTreeMap::new(),
            previous: None,
            withdrawals: Vec::new(),
            withdrawn_before: Vec::new(),
            withdrawn: BTreeSet::new(),
        }
    }

    /// The groups in order of their first items; one of whose items none was accepted is none.
    fn finish(self) -> Placed {
        let mut groups = self.groups;
        groups.retain(|group| !group.items.is_empty());
        groups.sort_by_key(|group| group.items.first().copied());
        Placed { groups, withdrawals: self.withdrawals, withdrawn_before: self.withdrawn_before }
    }

    /// What a receipt of this hub says stands, for those who have the right still.
    ///
    /// It is recorded now, but it was before: a version that came since, and does not amend what it was recorded under, began a
    /// membership anew, and gives no right to what is older.
    fn place_as_it_stood(&mut self, item: &Item, index: u32, stood: &Stood) -> Result<(), Reason> {
        self.check_chain(&item.header)?;
        // Noted whatever becomes of it here. It stands as it stood, and nobody gets it.
        if item.header.withdraws.is_none() {
            self.is_withdrawn_before(item, index);
        }
        match stood {
            Stood::Refused(reason) => Err(*reason),
            Stood::Recorded(audience) if item.header.withdraws.is_some() => {
                self.add_withdrawal(item, index);
                let place = self.place_of(audience.clone());
                self.add_to(place, index);
                Ok(())
            }
            Stood::Recorded(audience) => {
                // Whose proposal did not come back, nothing says that nobody has the right any more.
                let (agreements, named) = (self.ledger.agreements(), &audience.agreement);
                if agreements.version(named).is_none() {
                    return Err(Reason::AgreementUnknown);
                }
                let mut audience = audience.clone();
                let mut is_unknown = false;
                audience.recipients.retain(|recipient| {
                    let goes_on = agreements.goes_on(named, recipient);
                    is_unknown |= goes_on == GoesOn::Unknown;
                    goes_on == GoesOn::Yes
                });
                if is_unknown {
                    return Err(Reason::AgreementUnknown);
                }
                let place = self.group_of(audience)?;
                self.add_to(place, index);
                Ok(())
            }
        }
    }

    fn add_to(&mut self, place: usize, index: u32) {
        if let Some(group) = self.groups.get_mut(place) {
            IndexRange::push(&mut group.items, index);
        }
    }

    /// Whether its origin withdrew an exchange before it came; noted, so that the withdrawal is known to have met it.
    fn is_withdrawn_before(&mut self, item: &Item, index: u32) -> bool {
        let is_withdrawn = self.consign.withdrawn_before.contains(&index)
            || self.ledger.withdrawals().is_withdrawn(&self.consign.chain.origin, &item.id);
        if is_withdrawn {
            self.withdrawn_before.push(WithdrawnBefore { index, exchange: item.id });
        }
        is_withdrawn
    }

    fn place_unless_withdrawn(&mut self, item: &'a Item, index: u32) -> Result<(), Reason> {
        self.check_chain(&item.header)?;
        if self.is_withdrawn_before(item, index) {
            return Err(Reason::ExchangeWithdrawn);
        }
        self.place(item, index)
    }

    /// A withdrawal goes to everybody for whom what it withdraws was recorded, whoever of them is a member still, and to nobody else; to
    /// nobody where that has yet to come, since it never goes to anybody then. Where it was queued before this hub lost data, it may have
    /// come all the same, and nothing says so: the withdrawal goes to those to whom it would go now, since nobody knows better.
    fn place_withdrawal(
        &mut self,
        item: &Item,
        index: u32,
        withdrawal: Withdrawal,
        refused: &[ItemRefusal],
    ) -> Result<(), Reason> {
        self.check_chain(&item.header)?;
        let (origin, id) = (&self.consign.chain.origin, withdrawal.exchange);
        if self.ledger.withdrawals().is_withdrawn(origin, &id) || self.withdrawn.contains(&id) {
            return Err(Reason::ExchangeWithdrawn);
        }
        if withdrawal.kind == WithdrawalKind::Superseded {
            self.check_superseding(item, index, id, refused)?;
        }
        let target = self.consign.targets.get(&index).ok_or(Reason::ExchangeUnknown)?;
        let audience = match &target.found {
            // Beside itself nothing is withdrawn: whoever packs a consignment leaves it out.
            _ if target.chain == self.consign.chain && target.number >= self.consign.number => {
                return Err(Reason::ExchangeUnknown);
            }
            Found::Recorded(_, audience) => audience.clone(),
            Found::NotYet { queued_in } => {
                self.check_ahead(origin)?;
                let nobody = Audience { agreement: item.header.agreement.clone(), recipients: Vec::new() };
                match self.ledger.histories().may_have_lost(*queued_in) {
                    true => self.audience_now(&item.header).unwrap_or(nobody),
                    false => nobody,
                }
            }
            // Whoever has it from before must hear of it, and when it is handed in again it goes to nobody.
            Found::Forgotten(audience) => {
                self.check_ahead(origin)?;
                audience.clone()
            }
            Found::Refused | Found::Other => return Err(Reason::ExchangeUnknown),
        };
        self.add_withdrawal(item, index);
        let place = self.place_of(audience);
        self.add_to(place, index);
        Ok(())
    }

    fn check_ahead(&self, origin: &ParticipantCode) -> Result<(), Reason> {
        let here = self.withdrawals.iter().filter(|one| one.target.is_none()).count() as u64;
        let ahead = self.ledger.withdrawals().ahead(origin).saturating_add(here);
        if ahead >= WITHDRAWN_AHEAD_MAX { Err(Reason::QuotaExceeded) } else { Ok(()) }
    }

    /// What takes the place of something stands right before the withdrawal and was accepted, so that nothing goes without it.
    fn check_superseding(
        &self,
        item: &Item,
        index: u32,
        id: ExchangeId,
        refused: &[ItemRefusal],
    ) -> Result<(), Reason> {
        let before = index.checked_sub(1).and_then(|before| self.consign.exchanges.get(before as usize));
        let is_successor = |one: &Item| {
            let (one, by) = (&one.header, &item.header);
            one.supersedes == Some(id) && one.agreement.id == by.agreement.id && one.exercise == by.exercise
        };
        let stands = matches!(before, Some(Candidate::Fit(one)) if is_successor(one));
        let is_refused = refused.last().is_some_and(|refusal| Some(refusal.index) == index.checked_sub(1));
        if stands && !is_refused { Ok(()) } else { Err(Reason::SupersedingRefused) }
    }

    fn add_withdrawal(&mut self, item: &Item, index: u32) {
        let Some(withdrawal) = item.header.withdraws else { return };
        let target = match self.consign.targets.get(&index).map(|target| &target.found) {
            Some(Found::Recorded(place, _)) => Some(*place),
            _ => None,
        };
        self.withdrawn.insert(withdrawal.exchange);
        self.withdrawals.push(WithdrawalRecorded { index, exchange: withdrawal.exchange, target });
    }

    fn check_chain(&self, header: &Header) -> Result<(), Reason> {
        let chain = &self.consign.chain;
        if header.origin != chain.origin || header.node != chain.node || header.lane != chain.lane {
            return Err(Reason::HeaderChainMismatch);
        }
        Ok(())
    }

    fn place(&mut self, item: &'a Item, index: u32) -> Result<(), Reason> {
        let header = &item.header;
        self.check_chain(header)?;
        let address = Address::of(header);
        let (place, route) = match &self.previous {
            Some((previous, found)) if *previous == address => *found,
            _ => {
                let found = self.find_group(header);
                self.previous = Some((address, found));
                found
            }
        }?;
        route.check(&self.consign.chain.origin, header, self.now()).map_err(|refusal| refusal.reason)?;
        self.add_to(place, index);
        Ok(())
    }

    fn find_group(&mut self, header: &Header) -> Routed<'a> {
        let (ledger, origin) = (self.ledger, &self.consign.chain.origin);
        let route = Route::find(ledger.agreements(), ledger.registry(), origin, header, self.now());
        let route = route.map_err(|refusal| refusal.reason)?;
        let audience = route.audience(origin, header).map_err(|refusal| refusal.reason)?;
        Ok((self.group_of(audience)?, route))
    }

    /// Who would be sent this, or what says the same of agreement, measure and narrowing, if it were recorded now.
    fn audience_now(&self, header: &Header) -> Result<Audience, Reason> {
        let (ledger, origin) = (self.ledger, &self.consign.chain.origin);
        let audience = audience(ledger.agreements(), ledger.registry(), origin, header, self.now());
        self.permitted(audience.map_err(|refusal| refusal.reason)?)
    }

    fn now(&self) -> Timestamp {
        self.ledger.recorded_at(self.at.now)
    }

    fn group_of(&mut self, audience: Audience) -> Result<usize, Reason> {
        let audience = self.permitted(audience)?;
        Ok(self.place_of(audience))
    }

    fn permitted(&self, mut audience: Audience) -> Result<Audience, Reason> {
        let ledger = self.ledger;
        // The same question as at sending, so that nothing is recorded that could not be delivered at once. Whether it expired is asked
        // for each exchange; what stood stands, and is withheld.
        let mail = Mail {
            recorded: self.at.sequence,
            agreement: &audience.agreement,
            expires_at: None,
            exchange: None,
            withdraws: false,
        };
        let now = self.now();
        audience.recipients.retain(|recipient| ledger.permit(recipient, &mail, now).is_ok());
        if audience.recipients.is_empty() {
            return Err(Reason::AudienceEmpty);
        }
        Ok(audience)
    }

    fn place_of(&mut self, audience: Audience) -> usize {
        if let Some(place) = self.places.get(&audience) {
            return *place;
        }
        let place = self.groups.len();
        self.groups.push(AudienceGroup {
            agreement: audience.agreement.clone(),
            recipients: audience.recipients.clone(),
            items: Vec::new(),
        });
        self.places.insert(audience, place);
        place
    }
}

/// The indices of exchanges whose id stands before them in the same consignment, sorted.
fn repeated_ids(exchanges: &[Candidate]) -> Vec<u32> {
    let mut ids: Vec<_> = (0_u32..)
        .zip(exchanges)
        .filter_map(|(index, candidate)| match candidate {
            Candidate::Fit(item) => Some((&item.id, index)),
            Candidate::Unfit(_) => None,
        })
        .collect();
    ids.sort_unstable();
    let mut repeated: Vec<u32> = ids
        .iter()
        .zip(ids.iter().skip(1))
        .filter(|((one, _), (next, _))| one == next)
        .map(|(_, (_, index))| *index)
        .collect();
    repeated.sort_unstable();
    repeated
}
