//! Whether an agency may be let in, given or taken a right, or ended.

use concord_model::{MeasureCode, Name, Reason, Refusal, Right, Scope};
use concord_wire::stored::node::RightsChange;

use super::decide::agency_unknown;
use super::rights::RULES_MAX;
use super::{Agency, NodeState, Step};

/// Agencies of one node. Beyond it the operator hears `ARGUMENT_INVALID`.
pub const AGENCIES_MAX: usize = 1024;
/// Names of agencies, of those that were ended too. Beyond it the operator hears `ARGUMENT_INVALID`.
pub const AGENCY_NAMES_MAX: usize = 16_384;

impl NodeState {
    /// Whether an agency may be let in under this name with these measures.
    pub fn decide_agency(&self, name: &Name, measures: &[MeasureCode]) -> Result<Step, Refusal> {
        if let Some(known) = self.all_agencies().find(|known| known.name == *name) {
            let added_with = &known.added_with;
            let same = added_with.len() == measures.len() && measures.iter().all(|code| added_with.contains(code));
            return if same {
                Ok(Step::Repeat)
            } else {
                let other = format!("the agency {name} was added with other measures");
                Err(Refusal::new(Reason::AgencyExists, other))
            };
        }
        if self.ended_agencies().contains(name) {
            // Its certificates are still about, and what it submitted is its own.
            let ended = format!("an agency {name} was ended at this node: its name is not used again");
            return Err(Refusal::new(Reason::AgencyExists, ended));
        }
        let (agencies, ended) = (self.all_agencies().count(), self.ended_agencies().len());
        if agencies >= AGENCIES_MAX || agencies + ended >= AGENCY_NAMES_MAX {
            let full = format!(
                "a node has at most {AGENCIES_MAX} agencies, and {AGENCY_NAMES_MAX} with those that were ended"
            );
            return Err(Refusal::new(Reason::ArgumentInvalid, full));
        }
        self.check_measures(measures)?;
        Ok(Step::Append)
    }

    /// Whether an agency's rights change by this; a repeat is what changes nothing.
    ///
    /// What is taken away need not exist any more. Nothing is given to one that waits for an officer's word: it would not have it.
    /// Refuses with `AGENCY_UNKNOWN`, `AGENCY_UNCONFIRMED`, `MEASURE_UNKNOWN`, `AGREEMENT_UNKNOWN` and `ARGUMENT_INVALID`.
    pub fn decide_rights(&self, name: &Name, change: &RightsChange) -> Result<Step, Refusal> {
        if *change == RightsChange::Ended && self.ended_agencies().contains(name) {
            return Ok(Step::Repeat);
        }
        let confirmed = self.agency(name);
        let known =
            confirmed.clone().ok().or_else(|| self.unconfirmed().get(name)).ok_or_else(|| agency_unknown(name))?;
        match change {
            RightsChange::Ended => return Ok(Step::Append),
            RightsChange::Confirmed { with_past } => return decide_confirm(confirmed.ok(), *with_past),
            RightsChange::Granted(right) => {
                confirmed?;
                self.check_right(right)?;
            }
            RightsChange::Revoked(_) => {}
        }
        let mut after = known.clone();
        after.changed(change, u64::MAX);
        if after.send.is_full() || after.receive.is_full() {
            let full = format!(
                "at most {RULES_MAX} rules tell what an agency may send, and receive; give or take more at once"
            );
            return Err(Refusal::new(Reason::ArgumentInvalid, full));
        }
        after.rights_at = known.rights_at;
        Ok(if after == *known { Step::Repeat } else { Step::Append })
    }

    /// Before the first feed item there is no catalogue to ask; what does not exist then never fits anything.
    fn check_measures<'a>(&self, measures: impl IntoIterator<Item = &'a MeasureCode>) -> Result<(), Refusal> {
        let registry = &self.directory().registry;
        let mut measures = measures.into_iter();
        match measures.find(|code| registry.hub().is_some() && registry.measure(code).is_none()) {
            Some(unknown) => {
                let unknown = format!("there is no measure {unknown} in the catalogue");
                Err(Refusal::new(Reason::MeasureUnknown, unknown))
            }
            None => Ok(()),
        }
    }

    fn check_right(&self, right: &Right) -> Result<(), Refusal> {
        if let Scope::These(measures) = &right.measures {
            self.check_measures(measures)?;
        }
        if let (Scope::These(agreements), Some((own, _))) = (&right.agreements, self.identity()) {
            let known = |id: &&_| self.directory().agreements.seen_by(own, id).is_some();
            if let Some(unknown) = agreements.iter().find(|id| !known(id)) {
                return Err(Refusal::agreement_unknown(unknown));
            }
        }
        Ok(())
    }
}

/// Whether an officer's word about an agency is news. What it begins with is said once: it may have acknowledged since.
fn decide_confirm(confirmed: Option<&Agency>, with_past: bool) -> Result<Step, Refusal> {
    match confirmed {
        None => Ok(Step::Append),
        Some(known) if with_past && known.is_new() => {
            let what = format!("the agency {} was confirmed before, without the past", known.name);
            Err(Refusal::new(Reason::ArgumentInvalid, what))
        }
        Some(_) => Ok(Step::Repeat),
    }
}
