//! The agencies let in: what each may send and get, and how far each has acknowledged.
//!
//! Invariant: in a journal that was put back or made anew no agency has anything before an officer confirmed it behind that. What was
//! taken from one, or that it was ended, may be lost; so those of before, and whoever is added since, stand in a list of their own, in
//! which nothing looks that gives or takes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use concord_ledger::Agreement;
use concord_model::{AgreementId, Lane, MeasureCode, Name, ParticipantCode, Reason, Refusal, Right, Scope};
use concord_wire::stored::node::RightsChange;
use serde::{Deserialize, Serialize};

use super::NodeState;
use super::decide::agency_unknown;
use super::rights::{About, Rules, owed};

/// One agency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agency {
    /// Its state.
    pub participant: ParticipantCode,
    /// Its name.
    pub name: Name,
    /// The measures that it was added with: what a repeat of that names. None means all.
    pub added_with: BTreeSet<MeasureCode>,
    /// What it may send.
    pub send: Rules,
    /// What it may receive.
    pub receive: Rules,
    /// The entry of the journal that last changed what it may.
    pub rights_at: u64,
    /// The entry of the journal that added it.
    added_at: u64,
    /// Per lane, how far it has ever acknowledged, or what was there before the agency was added.
    through: [u64; Lane::ALL.len()],
    /// Of one that was added behind a restore, per lane: up to here it is given nothing, not even what nobody collected. Whether anybody
    /// had the right to that in the lost time is not known.
    nothing_up_to: Option<[u64; Lane::ALL.len()]>,
}

impl NodeState {
    /// The agencies let in.
    pub fn agencies(&self) -> &BTreeMap<Name, Agency> {
        &self.agencies
    }

    /// Those of before a restore, and those added since, that no officer has confirmed: they may send and receive nothing.
    pub fn unconfirmed(&self) -> &Arc<BTreeMap<Name, Agency>> {
        &self.unconfirmed
    }

    /// The names of agencies that were ended: none of them is let in again.
    pub fn ended_agencies(&self) -> &Arc<BTreeSet<Name>> {
        &self.ended_agencies
    }

    /// The entry of the journal that last changed what some agency may have of what is there; 0 before the first.
    pub fn rights_at(&self) -> u64 {
        self.rights_at
    }

    /// One that may act now.
    ///
    /// Refuses with `AGENCY_UNKNOWN` and `AGENCY_UNCONFIRMED`.
    pub fn agency(&self, name: &Name) -> Result<&Agency, Refusal> {
        self.agencies.get(name).ok_or_else(|| match self.unconfirmed.contains_key(name) {
            true => agency_unconfirmed(name),
            false => agency_unknown(name),
        })
    }

    /// The confirmed and the unconfirmed.
    pub fn all_agencies(&self) -> impl Iterator<Item = &Agency> {
        self.agencies.values().chain(self.unconfirmed.values())
    }

    /// Whether an exchange is to be given to some agency, be it once it is confirmed.
    pub fn is_awaited(&self, about: &About, lane: Lane, number: u64) -> bool {
        match self.late_one(lane, number) {
            Some(late) => self.all_agencies().any(|agency| late.is_owed_to(agency, lane, number)),
            None => self.all_agencies().any(|agency| owed(agency, about, lane, number).is_some()),
        }
    }

    /// It begins behind what came, and behind what the hub delivers again.
    pub(super) fn agency_added(&mut self, name: &Name, measures: &[MeasureCode], sequence: u64) {
        let from = self.mailboxes.each_ref().map(|mailbox| mailbox.received_through.max(mailbox.acknowledged_through));
        let Some((own, _)) = self.founded.clone() else { return };
        if self.all_agencies().any(|known| known.name == *name) {
            return;
        }
        let mut agency = Agency::added(own, name, measures, sequence, from);
        if self.restoration.is_some() && !concord_faults::planted("trust-the-restored") {
            agency.nothing_up_to = Some(from);
            Arc::make_mut(&mut self.unconfirmed).insert(name.clone(), agency);
            return;
        }
        Arc::make_mut(&mut self.agencies).insert(name.clone(), agency);
        // It may have what came before it and nobody collected.
        if from != [0; Lane::ALL.len()] {
            self.rights_at = sequence;
        }
    }

    pub(super) fn rights_changed(&mut self, name: &Name, change: &RightsChange, sequence: u64) {
        let (agencies, unconfirmed) = (Arc::make_mut(&mut self.agencies), Arc::make_mut(&mut self.unconfirmed));
        match change {
            RightsChange::Ended => {
                agencies.remove(name);
                unconfirmed.remove(name);
                Arc::make_mut(&mut self.ended_agencies).insert(name.clone());
            }
            RightsChange::Confirmed { with_past } => {
                if let Some(mut agency) = unconfirmed.remove(name) {
                    if *with_past {
                        agency.begin_from(self.restoration.map_or([0; _], |restoration| restoration.received_through));
                    }
                    agency.rights_at = sequence;
                    agencies.insert(name.clone(), agency);
                }
            }
            RightsChange::Granted(_) | RightsChange::Revoked(_) => {
                if let Some(agency) = agencies.get_mut(name).or_else(|| unconfirmed.get_mut(name)) {
                    agency.changed(change, sequence);
                }
            }
        }
        self.rights_at = sequence;
        self.settle_late();
    }

    /// The journal was put back, or made anew.
    pub(super) fn suspend_agencies(&mut self, sequence: u64) {
        if concord_faults::planted("trust-the-restored") {
            return;
        }
        let known = std::mem::take(Arc::make_mut(&mut self.agencies));
        Arc::make_mut(&mut self.unconfirmed).extend(known);
        self.rights_at = sequence;
    }

    /// Up to this number the hub delivers again what this node had before it was restored: nothing of that is for whoever was added since.
    pub(super) fn begin_behind(&mut self, lane: Lane, number: u64) {
        let Some(restoration) = self.restoration else { return };
        let agencies = Arc::make_mut(&mut self.agencies).values_mut();
        let all = agencies.chain(Arc::make_mut(&mut self.unconfirmed).values_mut());
        all.filter(|agency| agency.added_at > restoration.sequence)
            .for_each(|agency| agency.begin_behind(lane, number));
    }
}

/// What an agency hears that waits for an officer's word.
pub(crate) fn agency_unconfirmed(name: &Name) -> Refusal {
    let what = format!(
        "the journal of this node was put back or made anew, and no officer has confirmed the agency {name} since"
    );
    Refusal::new(Reason::AgencyUnconfirmed, what)
}

impl Agency {
    pub(super) fn added(
        participant: ParticipantCode,
        name: &Name,
        measures: &[MeasureCode],
        sequence: u64,
        from: [u64; Lane::ALL.len()],
    ) -> Self {
        let added_with: BTreeSet<MeasureCode> = measures.iter().cloned().collect();
        let of = if added_with.is_empty() { Scope::All } else { Scope::These(added_with.clone()) };
        let right = Right { send: true, receive: true, measures: of, agreements: Scope::All };
        let (send, receive) = (Rules::default(), Rules::default());
        let name = name.clone();
        let (added_at, through) = (sequence, from);
        let nothing_up_to = None;
        let mut added = Self {
            participant,
            name,
            added_with,
            send,
            receive,
            rights_at: sequence,
            added_at,
            through,
            nothing_up_to,
        };
        added.change(true, &right, sequence);
        added
    }

    pub(super) fn changed(&mut self, change: &RightsChange, sequence: u64) {
        match change {
            RightsChange::Granted(right) => self.change(true, right, sequence),
            RightsChange::Revoked(right) => self.change(false, right, sequence),
            RightsChange::Ended | RightsChange::Confirmed { .. } => {}
        }
    }

    /// It was there in the lost time: what came back was given to it, or waited for it.
    fn begin_from(&mut self, numbers: [u64; Lane::ALL.len()]) {
        if self.nothing_up_to.take().is_none() {
            return;
        }
        for (lane, number) in Lane::ALL.into_iter().zip(numbers) {
            self.through[lane.slot()] = number.min(self.through(lane));
            self.receive.begin(lane, |cursor| cursor.min(number));
        }
    }

    fn begin_behind(&mut self, lane: Lane, number: u64) {
        let Some(nothing_up_to) = &mut self.nothing_up_to else { return };
        for cursor in [&mut nothing_up_to[lane.slot()], &mut self.through[lane.slot()]] {
            *cursor = number.max(*cursor);
        }
        self.receive.begin(lane, |cursor| cursor.max(number));
    }

    /// Whether it may be given what lies behind its cursor and nobody collected, where it has the right.
    pub fn collects(&self, lane: Lane, number: u64) -> bool {
        self.nothing_up_to.is_none_or(|numbers| number > numbers[lane.slot()])
    }

    /// Whether it had been added when this entry was appended.
    pub(super) const fn was_there_at(&self, sequence: u64) -> bool {
        self.added_at <= sequence
    }

    /// Whether it has nothing of before it was added, by the word of an officer or for want of it.
    pub(super) fn is_new(&self) -> bool {
        self.nothing_up_to.is_some()
    }

    /// What is granted is given from the agency's cursor on.
    fn change(&mut self, granted: bool, right: &Right, sequence: u64) {
        if right.send {
            self.send.add(granted, right, sequence, [0; Lane::ALL.len()]);
        }
        if right.receive {
            self.receive.add(granted, right, sequence, self.through);
        }
        self.rights_at = sequence;
    }

    pub(super) fn acknowledged(&mut self, lane: Lane, through: u64, rights_at: u64) {
        if concord_faults::planted("forget-cursors") {
            return;
        }
        let cursor = &mut self.through[lane.slot()];
        *cursor = through.max(*cursor);
        self.receive.acknowledged(lane, through, known(rights_at));
    }

    /// Where an acknowledgement up to a number, of what was given under those rights, finds the cursors; none where it moves none.
    pub(super) fn moved_by(&self, lane: Lane, through: u64, rights_at: u64) -> Option<u64> {
        let lowest = self.receive.lowest(lane, known(rights_at)).unwrap_or(u64::MAX).min(self.through(lane));
        (lowest < through).then_some(lowest)
    }

    /// The last number of a lane that it has acknowledged or passed.
    pub fn through(&self, lane: Lane) -> u64 {
        self.through[lane.slot()]
    }

    /// What it is to be given in a lane comes after this number, but for what nobody collected.
    pub fn from(&self, lane: Lane) -> u64 {
        self.receive.lowest(lane, u64::MAX).unwrap_or(u64::MAX).min(self.through(lane))
    }

    /// Whether it may send something of this measure under this agreement.
    pub fn may_send(&self, measure: &MeasureCode, agreement: &AgreementId) -> bool {
        self.send.allows(measure, agreement)
    }

    /// Whether it may see an agreement: where it may send or receive under it.
    pub fn sees(&self, agreement: &Agreement) -> bool {
        let (id, mut measures) = (&agreement.text.id, agreement.text.measures.iter());
        measures.any(|measure| self.send.allows(measure, id) || self.receive.allows(measure, id))
    }
}

/// Before rights could change everything was given under those that there were.
const fn known(rights_at: u64) -> u64 {
    if rights_at == 0 { u64::MAX } else { rights_at }
}
