//! Decides a consignment: the hot path. Its exchanges mostly go to the same audience, which is then computed once.

use std::collections::BTreeMap;

use concord_model::{AgreementRef, Header, MeasureCode, Narrowing, ParticipantCode, Reason, Refusal, Timestamp};

use crate::audience::{Audience, Route};
use crate::chain::ChainStep;
use crate::command::{At, Candidate, Consign, Item, Stood};
use crate::fact::{AudienceGroup, ConsignmentRecorded, Fact, IndexRange, ItemRefusal, MailboxRun};
use crate::ledger::{Decision, Ledger};
use crate::permit::Mail;

impl Ledger {
    pub(crate) fn decide_consignment(&self, consign: &Consign, at: At) -> Result<Decision, Refusal> {
        if let ChainStep::Repeat { sequence } = self.chains().check(self.registry(), self.epochs(), consign)? {
            return Ok(Decision::Repeat { sequence, refusal: None });
        }
        let duplicates = repeated_ids(&consign.exchanges);
        let mut grouping = Grouping::new(self, consign, at);
        let mut refused = Vec::new();
        for (index, candidate) in (0_u32..).zip(&consign.exchanges) {
            let outcome = match candidate {
                Candidate::Unfit(refusal) => Err(refusal.reason),
                Candidate::Fit(_) if duplicates.binary_search(&index).is_ok() => Err(Reason::HeaderMalformed),
                Candidate::Fit(item) => match consign.stood.as_ref().map(|stood| stood.get(index as usize)) {
                    None => grouping.place(item, index),
                    Some(Some(stood)) => grouping.place_as_it_stood(item, index, stood),
                    // The receipt has one outcome for each exchange: that was checked where it was verified.
                    Some(None) => Err(Reason::ConsignmentMalformed),
                },
            };
            if let Err(reason) = outcome {
                refused.push(ItemRefusal { index, reason });
            }
        }
        let groups = grouping.finish();
        let fact = Fact::Consignment(ConsignmentRecorded {
            chain: consign.chain.clone(),
            number: consign.number,
            digest: consign.digest,
            count: u32::try_from(consign.exchanges.len()).unwrap_or(u32::MAX),
            mailboxes: self.mailbox_runs(consign, &groups),
            groups,
            refused,
            rehanded: consign.stood.is_some(),
        });
        Ok(Decision::Fact { fact, refusal: None })
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
type Found<'a> = Result<(usize, Route<'a>), Reason>;

struct Grouping<'a> {
    ledger: &'a Ledger,
    consign: &'a Consign,
    at: At,
    groups: Vec<AudienceGroup>,
    /// Finds a group again when items of several audiences alternate.
    places: BTreeMap<Audience, usize>,
    previous: Option<(Address<'a>, Found<'a>)>,
}

impl<'a> Grouping<'a> {
    fn new(ledger: &'a Ledger, consign: &'a Consign, at: At) -> Self {
        Self { ledger, consign, at, groups: Vec::new(), places: BTreeMap::new(), previous: None }
    }

    /// The groups in order of their first items; one of whose items none was accepted is none.
    fn finish(self) -> Vec<AudienceGroup> {
        let mut groups = self.groups;
        groups.retain(|group| !group.items.is_empty());
        groups.sort_by_key(|group| group.items.first().copied());
        groups
    }

    /// What a receipt of this hub says stands, for those who have the right still.
    ///
    /// It is recorded now, but it was before: a version that came since, and does not amend what it was recorded under, began a
    /// membership anew, and gives no right to what is older.
    fn place_as_it_stood(&mut self, item: &Item, index: u32, stood: &Stood) -> Result<(), Reason> {
        self.check_chain(&item.header)?;
        match stood {
            Stood::Refused(reason) => Err(*reason),
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
                    is_unknown |= goes_on.is_none();
                    goes_on == Some(true)
                });
                if is_unknown {
                    return Err(Reason::AgreementUnknown);
                }
                let place = self.group_of(audience)?;
                if let Some(group) = self.groups.get_mut(place) {
                    IndexRange::push(&mut group.items, index);
                }
                Ok(())
            }
        }
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
        if let Some(group) = self.groups.get_mut(place) {
            IndexRange::push(&mut group.items, index);
        }
        Ok(())
    }

    fn find_group(&mut self, header: &Header) -> Found<'a> {
        let (ledger, origin) = (self.ledger, &self.consign.chain.origin);
        let route = Route::find(ledger.agreements(), ledger.registry(), origin, header, self.now());
        let route = route.map_err(|refusal| refusal.reason)?;
        let audience = route.audience(origin, header).map_err(|refusal| refusal.reason)?;
        Ok((self.group_of(audience)?, route))
    }

    fn now(&self) -> Timestamp {
        self.ledger.recorded_at(self.at.now)
    }

    fn group_of(&mut self, mut audience: Audience) -> Result<usize, Reason> {
        let ledger = self.ledger;
        // The same question as at sending, so that nothing is recorded that could not be delivered at once. Whether it expired is asked
        // for each exchange; what stood stands, and is withheld.
        let mail = Mail { recorded: self.at.sequence, agreement: &audience.agreement, expires_at: None };
        let now = self.now();
        audience.recipients.retain(|recipient| ledger.permit(recipient, &mail, now).is_ok());
        if audience.recipients.is_empty() {
            return Err(Reason::AudienceEmpty);
        }
        if let Some(place) = self.places.get(&audience) {
            return Ok(*place);
        }
        let place = self.groups.len();
        self.groups.push(AudienceGroup {
            agreement: audience.agreement.clone(),
            recipients: audience.recipients.clone(),
            items: Vec::new(),
        });
        self.places.insert(audience, place);
        Ok(place)
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
