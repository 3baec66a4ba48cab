//! Explaining an exchange to the secretariat: to whom it went, by which version and rule, and what became of it; never what is in it.
//!
//! The hub keeps no index by exchange id, so that its journal is looked through from the newest entry back. Invariant: one lookup reads at most
//! [`LOOKED_THROUGH_MAX`] entries in each direction and not much more than [`LOOKED_THROUGH_MAX_BYTES`], without bodies, beside no other lookup.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use concord_journal::{Entry, ReadError};
use concord_ledger::{
    AudienceRule, ConsignmentRecorded, Fact, Ledger, MailAcknowledged, NoticeOutcome, why_not_in_audience,
};
use concord_model::{ExchangeId, Header, ParticipantCode, Reason, Refusal, SetAsideReason, Timestamp, WithheldReason};
use concord_server::Whereabouts;
use concord_wire::convert::{digest_bytes, optional_timestamp, timestamp};
use concord_wire::header::{agreement_ref, exchange_id, parse};
use concord_wire::proto::operations::v1 as pb;
use concord_wire::stored::hub::{HubEntry, KIND_ACKNOWLEDGED, KIND_CONSIGNMENT, read};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::shared::{Shared, internal};

/// Entries that one lookup looks through for an exchange, and again for what became of it.
pub const LOOKED_THROUGH_MAX: u64 = 100_000;
/// What the entries may have that are looked through in one direction: where many of them are large, they are fewer.
pub const LOOKED_THROUGH_MAX_BYTES: u64 = 1 << 30;
/// Entries that are read, and held in memory, at once.
const READ_TOGETHER: u64 = 32;

/// Lets one lookup in at a time. Clones share it.
#[derive(Clone)]
pub struct Lookups(Arc<Semaphore>);

impl Default for Lookups {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Lookups {
    /// Refuses with `QUEUE_FULL` while another one goes on.
    fn begin(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let busy = |_| Refusal::new(Reason::QueueFull, "the hub looks for another exchange");
        Arc::clone(&self.0).try_acquire_owned().map_err(busy)
    }
}

/// What is looked for.
pub struct Asked {
    /// The exchange.
    pub id: ExchangeId,
    /// Only what became of it there.
    pub participant: Option<ParticipantCode>,
    /// Looks only through what is before this entry; 0: from the newest on.
    pub before: u64,
}

/// Looks for an exchange and explains it.
pub async fn explain(
    shared: &Arc<Shared>,
    lookups: &Lookups,
    asked: Asked,
    connected: BTreeSet<ParticipantCode>,
) -> Result<pb::ExplainExchangeResponse, Refusal> {
    let alone = lookups.begin()?;
    shared
        .blocking(move |shared| {
            // For as long as it reads, also where its caller is gone.
            let _alone = alone;
            explain_now(shared, &asked, &connected)
        })
        .await
}

fn explain_now(
    shared: &Shared,
    asked: &Asked,
    connected: &BTreeSet<ParticipantCode>,
) -> Result<pb::ExplainExchangeResponse, Refusal> {
    let published = shared.published();
    let ledger = &published.ledger;
    if let Some(code) = asked.participant.as_ref().filter(|code| ledger.registry().participant(code).is_none()) {
        let what = format!("there is no participant {code} in the registry");
        return Err(Refusal::new(Reason::ParticipantUnknown, what));
    }
    let tail = published.tail.sequence;
    let found = find(shared, asked, tail)?;
    let mut parties = found.parties(ledger, asked.participant.as_ref());
    found.tell_what_became(shared, &mut parties, tail)?;
    let is_for_nobody = !parties.values().any(|party| party.in_audience) && asked.participant.is_none();
    let whole = match found.refused() {
        Some(reason) => Some(Whereabouts::Refused(reason)),
        None => is_for_nobody.then_some(Whereabouts::ForNobody),
    };
    found.tell_where(ledger, &mut parties, connected, shared.clock.now());
    Ok(pb::ExplainExchangeResponse {
        exchange_id: digest_bytes(&asked.id.0),
        origin: found.header.origin.to_string(),
        agreement: Some(agreement_ref(&found.header.agreement)),
        recorded_at: Some(timestamp(found.recorded_at)),
        refused: found.refused().map(|reason| reason.code().to_owned()).unwrap_or_default(),
        withdraws: found.header.withdraws.map(|withdrawal| digest_bytes(&withdrawal.exchange.0)).unwrap_or_default(),
        parties: parties.into_values().collect(),
        exercise: found.header.exercise,
        whereabouts: whole.map(|at| at.told(None, Some(found.recorded_at))),
    })
}

/// An exchange in the entry that recorded or refused it.
struct Found {
    sequence: u64,
    recorded_at: Timestamp,
    index: u32,
    fact: ConsignmentRecorded,
    header: Header,
}

/// Looks from the newest entry back.
fn find(shared: &Shared, asked: &Asked, tail: u64) -> Result<Found, Refusal> {
    let end = if asked.before == 0 { tail.saturating_add(1) } else { asked.before.min(tail.saturating_add(1)) };
    let first = end.saturating_sub(LOOKED_THROUGH_MAX).max(1);
    let (mut high, mut unread, mut size) = (end, 0, 0);
    while high > first && size < LOOKED_THROUGH_MAX_BYTES {
        let low = high.saturating_sub(READ_TOGETHER).max(first);
        let (entries, damaged) = entries(shared, low, high)?;
        unread += damaged;
        size += size_of_all(&entries);
        for entry in entries.iter().rev().filter(|entry| entry.kind == KIND_CONSIGNMENT) {
            if let Some(found) = in_entry(entry, &asked.id)? {
                return Ok(found);
            }
        }
        high = low;
    }
    Err(not_found(&asked.id, high, end, unread))
}

fn not_found(id: &ExchangeId, first: u64, end: u64, unread: u64) -> Refusal {
    let last = end.saturating_sub(1);
    let mut what = format!("none of the entries {first} to {last} of the journal has the exchange {id}");
    if unread > 0 {
        what += &format!(", as far as they can be read: {unread} are damaged");
    }
    if first > 1 {
        what += &format!("; an older one is looked for with `--before {first}`");
    }
    Refusal::new(Reason::ExchangeUnknown, what)
}

fn size_of_all(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| entry.payload.len() as u64).sum()
}

/// The entries of `low..high` that are there, and how many of them cannot be read.
fn entries(shared: &Shared, low: u64, high: u64) -> Result<(Vec<Entry>, u64), Refusal> {
    if shared.shutdown.is_requested() {
        return Err(Refusal::new(Reason::ShuttingDown, "this server is ending"));
    }
    let (mut found, mut from, mut damaged) = (Vec::new(), low, 0);
    while from < high {
        let most = usize::try_from(high - from).unwrap_or(usize::MAX);
        match shared.journal.recall(from, most) {
            Ok(read) => {
                let Some(last) = read.last().map(|entry| entry.sequence) else { break };
                // Beyond what was trimmed it goes on with what is whole.
                found.extend(read.into_iter().filter(|entry| entry.sequence < high));
                from = last.saturating_add(1);
            }
            // One that is damaged hides none of the others.
            Err(_) => match shared.journal.head(from) {
                Ok(entry) => {
                    found.push(entry);
                    from += 1;
                }
                Err(error) => {
                    damaged += u64::from(!matches!(error, ReadError::EntryAbsent { .. }));
                    from += 1;
                }
            },
        }
    }
    Ok((found, damaged))
}

fn in_entry(entry: &Entry, id: &ExchangeId) -> Result<Option<Found>, Refusal> {
    let HubEntry::Consignment(fact, kept) = read(entry).map_err(internal)? else { return Ok(None) };
    let place = (0_u32..).zip(&kept.sealed.headers).find(|(_, header)| exchange_id(header) == *id);
    // What was refused because it cannot be read names no version that could be told.
    let Some((index, Ok(header))) = place.map(|(index, header)| (index, parse(header))) else { return Ok(None) };
    let recorded_at = Timestamp::from_micros(entry.recorded_at);
    Ok(Some(Found { sequence: entry.sequence, recorded_at, index, fact, header }))
}

impl Found {
    fn refused(&self) -> Option<Reason> {
        self.fact.refused.iter().find(|refusal| refusal.index == self.index).map(|refusal| refusal.reason)
    }

    /// All who are on the version that it names, or the one that was asked for, each with the rule as of then.
    fn parties(
        &self,
        ledger: &Ledger,
        only: Option<&ParticipantCode>,
    ) -> BTreeMap<ParticipantCode, pb::ExplainedParty> {
        let recipients = self.fact.group_of(self.index).map(|group| group.recipients.as_slice()).unwrap_or_default();
        let named = ledger.agreements().version(&self.header.agreement);
        let on_version = named.into_iter().flat_map(|version| version.parties.keys());
        let about: Vec<&ParticipantCode> = match only {
            Some(only) => vec![only],
            None => on_version.chain(recipients).collect(),
        };
        let explained = about.into_iter().map(|code| {
            let in_audience = recipients.contains(code);
            let rule = match in_audience {
                true => AudienceRule::Receives.as_str(),
                false if self.refused().is_some() => "",
                false => why_not_in_audience(ledger.agreements(), &self.header, code, self.recorded_at).as_str(),
            };
            let state = if in_audience { pb::ExplainedState::Waits } else { pb::ExplainedState::Unspecified };
            let party = pb::ExplainedParty {
                participant: code.to_string(),
                in_audience,
                rule: rule.to_owned(),
                state: state.into(),
                ..Default::default()
            };
            (code.clone(), party)
        });
        explained.collect()
    }

    /// What was told to its origin first, from its own entry on. Of whom nothing was told, it waits, where all of the journal was seen.
    fn tell_what_became(
        &self,
        shared: &Shared,
        parties: &mut BTreeMap<ParticipantCode, pb::ExplainedParty>,
        tail: u64,
    ) -> Result<(), Refusal> {
        let waits = |party: &pb::ExplainedParty| party.state() == pb::ExplainedState::Waits;
        // What was set aside may hold later, or be discarded: as far as it was looked through.
        let may_change = |party: &pb::ExplainedParty| {
            waits(party)
                || party.state() == pb::ExplainedState::SetAside && party.reason != SetAsideReason::Discarded.as_str()
        };
        let last = tail.min(self.sequence.saturating_add(LOOKED_THROUGH_MAX));
        let (mut low, mut size) = (self.sequence.saturating_add(1), 0);
        while low <= last && size < LOOKED_THROUGH_MAX_BYTES && parties.values().any(may_change) {
            let high = low.saturating_add(READ_TOGETHER).min(last.saturating_add(1));
            let (entries, _) = entries(shared, low, high)?;
            for entry in entries.iter().filter(|entry| entry.kind == KIND_ACKNOWLEDGED) {
                let Fact::Acknowledged(fact) = read(entry).map_err(internal)?.into_fact() else { continue };
                let party = parties.get_mut(&fact.recipient).filter(|party| may_change(party));
                if let Some((party, (state, reason))) = party.zip(self.told_in(&fact)) {
                    party.set_state(state);
                    party.reason = reason.to_owned();
                    party.at = Some(timestamp(Timestamp::from_micros(entry.recorded_at)));
                }
            }
            low = high;
            size += size_of_all(&entries);
        }
        if low <= tail {
            parties.values_mut().filter(|party| waits(party)).for_each(|party| {
                party.set_state(pb::ExplainedState::Unspecified);
            });
        }
        Ok(())
    }

    /// Where it is for each of its audience, as the hub sees it: what a node's agencies do with it is not told to the secretariat.
    fn tell_where(
        &self,
        ledger: &Ledger,
        parties: &mut BTreeMap<ParticipantCode, pb::ExplainedParty>,
        connected: &BTreeSet<ParticipantCode>,
        now: Timestamp,
    ) {
        let id = exchange_id(&concord_wire::header::encode(&self.header));
        let is_taken_back = ledger.withdrawals().is_withdrawn(&self.header.origin, &id);
        let is_expired = self.header.expires_at.is_some_and(|until| until <= now);
        for (code, party) in parties.iter_mut().filter(|(_, party)| party.in_audience) {
            let at = match party.state() {
                pb::ExplainedState::Delivered => Whereabouts::Delivered,
                pb::ExplainedState::Withheld => {
                    Whereabouts::Withheld(WithheldReason::from_code(&party.reason).unwrap_or(WithheldReason::Left))
                }
                pb::ExplainedState::SetAside => {
                    let reason = SetAsideReason::from_code(&party.reason);
                    Whereabouts::SetAside(reason.unwrap_or(SetAsideReason::SignatureInvalid))
                }
                pb::ExplainedState::Unspecified => Whereabouts::NotSeen,
                pb::ExplainedState::Waits if is_taken_back => Whereabouts::TakenBack,
                pb::ExplainedState::Waits if is_expired => Whereabouts::Expired,
                pb::ExplainedState::Waits if ledger.registry().holds().is_held(code) => Whereabouts::RecipientHeld,
                pb::ExplainedState::Waits if !connected.contains(code) => Whereabouts::NodeAway,
                pb::ExplainedState::Waits => Whereabouts::OnItsWay,
            };
            let since = optional_timestamp(party.at.as_ref()).unwrap_or(self.recorded_at);
            party.whereabouts = Some(at.told(Some(code), Some(since)));
        }
    }

    fn told_in(&self, fact: &MailAcknowledged) -> Option<(pb::ExplainedState, &'static str)> {
        let chain = &self.fact.chain;
        let to_origin = fact.told.iter().filter(|told| told.told.participant == chain.origin);
        let notices = to_origin.flat_map(|told| &told.notices).filter(|notice| {
            (notice.lane, notice.epoch, notice.number) == (chain.lane, chain.epoch, self.fact.number)
                && notice.node == chain.node
                && notice.items.iter().any(|range| range.indices().contains(&self.index))
        });
        // That it was set aside and how that ended may stand in one fact.
        let notice = notices.max_by_key(|notice| match notice.outcome {
            NoticeOutcome::SetAside(reason) => u8::from(reason == SetAsideReason::Discarded),
            _ => 2,
        })?;
        Some(match notice.outcome {
            NoticeOutcome::Delivered | NoticeOutcome::Taken => (pb::ExplainedState::Delivered, ""),
            NoticeOutcome::Withheld(reason) => (pb::ExplainedState::Withheld, reason.as_str()),
            NoticeOutcome::SetAside(reason) => (pb::ExplainedState::SetAside, reason.as_str()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_looks_at_a_time_and_whoever_asks_meanwhile_is_told_so() {
        let lookups = Lookups::default();
        let first = lookups.clone().begin().unwrap();
        assert_eq!(lookups.begin().map(drop).unwrap_err().reason, Reason::QueueFull);
        drop(first);
        assert!(lookups.begin().is_ok());
    }

    #[test]
    fn what_was_not_found_says_where_it_was_looked_for_and_how_to_go_on() {
        let id = ExchangeId(concord_model::Digest::ZERO);
        let all = not_found(&id, 1, 8, 0).message;
        assert!(all.contains("entries 1 to 7") && !all.contains("--before") && !all.contains("damaged"), "{all}");
        let some = not_found(&id, 5, 8, 2).message;
        assert!(some.contains("entries 5 to 7") && some.contains("--before 5") && some.contains("2 are damaged"));
    }
}
