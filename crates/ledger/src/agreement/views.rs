//! What is asked of agreements: which version counts, who is a member, and what whom may be shown.

use super::*;
use concord_model::PartyRole;

/// Whether an agreement goes on for a participant from a version on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoesOn {
    /// It was on every version since, and never left.
    Yes,
    /// It is over, or it is on it no more.
    No,
    /// It is a member, and left and came back since then, or before.
    SinceAReturn,
    /// A version between them is not known.
    Unknown,
}

impl Agreements {
    /// The latest version of an agreement. Do not answer a participant from this one: see [`Self::seen_by`].
    pub fn get(&self, id: &AgreementId) -> Option<&Agreement> {
        self.by_id.get(id).map(|versions| versions.latest.as_ref())
    }

    /// The version that is in force, if one is: no other than the last that ever was.
    pub fn in_force(&self, id: &AgreementId) -> Option<&Agreement> {
        let last = self.versions(id).find(|agreement| agreement.in_force_since.is_some());
        last.filter(|agreement| agreement.state == AgreementState::InForce)
    }

    /// All versions of one agreement, the latest first.
    pub fn versions(&self, id: &AgreementId) -> impl Iterator<Item = &Agreement> {
        self.by_id.get(id).into_iter().flat_map(|versions| {
            std::iter::once(&versions.latest).chain(versions.earlier.iter().rev()).map(Arc::as_ref)
        })
    }

    /// Exactly the version named, by number and digest.
    pub fn version(&self, reference: &AgreementRef) -> Option<&Agreement> {
        self.versions(&reference.id).find(|agreement| agreement.is(reference))
    }

    /// The latest version that concerns this participant. A later one without it does not exist as far as it can tell.
    pub fn seen_by(&self, participant: &ParticipantCode, id: &AgreementId) -> Option<&Agreement> {
        self.versions(id).find(|agreement| agreement.concerns(participant))
    }

    /// The version that counts for this participant: the one in force that it is a member of, else one that waits for consents, else the one
    /// in force among others that waits for its own, else the latest that concerns it. `None` where it left, or went off by declining what is in
    /// force among others: what becomes of that is not its matter.
    pub fn counting_for(&self, participant: &ParticipantCode, id: &AgreementId) -> Option<&Agreement> {
        let member_of = self.in_force(id).filter(|agreement| agreement.is_member(participant));
        member_of.or_else(|| {
            let seen = self.seen_by(participant, id)?;
            let open = self.in_force(id).filter(|agreement| agreement.waits_for(participant));
            let is_off = match seen.party_state(participant) {
                Some(PartyState::Left) => true,
                Some(PartyState::Declined) => seen.text.in_force == InForceAmong::Each,
                _ => false,
            };
            match seen.state {
                AgreementState::Proposed if !is_off => Some(seen),
                _ => open.or(Some(seen).filter(|_| !is_off)),
            }
        })
    }

    /// The version that this participant left and that it knows as in force, to which it may try to come back.
    pub fn left_by(&self, participant: &ParticipantCode, id: &AgreementId) -> Option<&Agreement> {
        self.in_force(id).filter(|agreement| agreement.left_by(participant).is_some())
    }

    /// What this participant is off, by a leave or by declining: the last version that was in force with it, else the last that it knew. For its
    /// own node, as [`Self::past_of`] is.
    pub fn gone_from(&self, participant: &ParticipantCode, id: &AgreementId) -> Option<&Agreement> {
        if self.counting_for(participant, id).is_some() {
            return None;
        }
        let began = |one: &&Agreement| one.in_force_since.is_some() && one.has_consented(participant);
        self.versions(id).find(began).or_else(|| self.seen_by(participant, id))
    }

    /// Where those on a version said something of it since this participant left: what it has to be told when it comes back. Sorted.
    pub fn missed(&self, reference: &AgreementRef, participant: &ParticipantCode) -> Vec<u64> {
        let Some(version) = self.version(reference) else { return Vec::new() };
        // Of what is over it hears nothing more; what ended by leaves goes on with this return.
        if !matches!(version.state, AgreementState::InForce | AgreementState::Ended) {
            return Vec::new();
        }
        let Some(left) = version.parties.get(participant).and_then(|record| record.left_at) else { return Vec::new() };
        // Of an amendment too that it knows of, since that waited when it left.
        let known = self.versions(&reference.id).filter(|one| one.record(participant).is_some());
        let records = known.flat_map(|one| one.parties.iter().chain(&one.outgoing));
        let others = records.filter(|(code, _)| *code != participant);
        let said = others.flat_map(|(_, record)| record.said.iter().copied());
        let mut missed: Vec<u64> = said.filter(|position| *position > left).collect();
        missed.sort_unstable();
        missed.dedup();
        missed
    }

    /// The amendment of the version in force that waits for consents, if one concerns this participant.
    pub fn amendment_for(&self, participant: &ParticipantCode, id: &AgreementId) -> Option<&Agreement> {
        self.in_force(id).filter(|agreement| agreement.is_member(participant))?;
        self.get(id).filter(|latest| latest.state == AgreementState::Proposed && latest.concerns(participant))
    }

    /// What this participant may be shown, by id: the version that counts for it, then an amendment that waits; all to the
    /// secretariat.
    pub fn visible_to(&self, participant: &ParticipantCode) -> impl Iterator<Item = &Agreement> {
        let sees_all = *participant == ParticipantCode::secretariat();
        let participant = participant.clone();
        self.by_id.keys().flat_map(move |id| {
            let (counting, waiting) = match sees_all {
                true => {
                    let latest = self.get(id);
                    let counting = self.in_force(id).or(latest);
                    let is_other = |one: &&Agreement| counting.is_some_and(|counting| !std::ptr::eq(counting, *one));
                    let waits = latest.filter(|latest| latest.state == AgreementState::Proposed);
                    (counting, waits.filter(is_other))
                }
                false => (self.counting_for(&participant, id), self.amendment_for(&participant, id)),
            };
            counting.into_iter().chain(waiting)
        })
    }

    /// What this participant may be shown of the past of an agreement: every version that it was on, the latest first. Nothing where it
    /// left; all to the secretariat.
    pub fn history_for(&self, participant: &ParticipantCode, id: &AgreementId) -> impl Iterator<Item = &Agreement> {
        let sees_all = *participant == ParticipantCode::secretariat();
        let may_see = sees_all || self.counting_for(participant, id).is_some();
        let participant = participant.clone();
        self.versions(id).filter(move |one| may_see && (sees_all || one.record(&participant).is_some()))
    }

    /// Every version that this participant was on, the latest first, whatever it said since. For its own node, which was told of nothing that
    /// came after it left; of a hub's agreements it would show that, too.
    pub fn past_of(&self, participant: &ParticipantCode, id: &AgreementId) -> impl Iterator<Item = &Agreement> {
        let participant = participant.clone();
        self.versions(id).filter(move |one| one.record(&participant).is_some())
    }

    /// The version in force of every agreement, else its latest, by id; at a node, of all that it was ever told of.
    pub fn all(&self) -> impl Iterator<Item = &Agreement> {
        self.by_id.keys().filter_map(|id| self.in_force(id).or_else(|| self.get(id)))
    }

    /// After how many days the bodies of what names this version go at the latest, if it says so; also once it is not in force any more.
    pub fn retention_days(&self, named: &AgreementRef) -> Option<u32> {
        self.version(named)?.text.terms.retention_days
    }

    /// The fewest days that any version of any agreement says.
    pub fn retention_days_min(&self) -> Option<u32> {
        self.by_id.keys().flat_map(|id| self.versions(id)).filter_map(|version| version.text.terms.retention_days).min()
    }

    /// The members of an agreement now: none unless a version is in force. Sorted.
    pub fn members(&self, id: &AgreementId) -> impl Iterator<Item = &ParticipantCode> {
        self.in_force(id).into_iter().flat_map(Agreement::members)
    }

    /// Whether this participant is a member of the agreement now.
    pub fn is_member(&self, id: &AgreementId, participant: &ParticipantCode) -> bool {
        self.in_force(id).is_some_and(|agreement| agreement.is_member(participant))
    }

    /// The position from which this participant is a member of the agreement without a break.
    pub fn member_since(&self, id: &AgreementId, participant: &ParticipantCode) -> Option<u64> {
        self.in_force(id)?.membership(participant)?.member_since
    }

    /// Whether this participant was a member when something stood at this position, by whichever version.
    pub fn was_member_at(&self, id: &AgreementId, participant: &ParticipantCode, position: u64) -> bool {
        self.versions(id).any(|agreement| agreement.was_member_at(participant, position))
    }

    /// Whether this participant was a member from this position on or before, whatever it did since, and the agreement goes on.
    pub fn was_member_before(&self, id: &AgreementId, participant: &ParticipantCode, position: u64) -> bool {
        let records = || self.versions(id).filter_map(|one| one.parties.get(participant));
        let earlier = || records().flat_map(|record| record.earlier.iter().map(|earlier| earlier.since));
        let mut since = records().filter_map(|record| record.member_since).chain(earlier());
        self.in_force(id).is_some() && since.any(|since| since <= position)
    }

    /// Whether this participant is a member by the version named or by what that was amended to, or was one to the last, when it ended.
    pub fn was_member_to_the_last(&self, named: &AgreementRef, participant: &ParticipantCode) -> bool {
        let since = self.versions(&named.id).take_while(|version| version.text.version >= named.version);
        let began: Vec<&Agreement> = since.filter(|version| version.in_force_since.is_some()).collect();
        let last = began.into_iter().rev().find(|version| version.state != AgreementState::Amended);
        last.and_then(|last| last.parties.get(participant)).is_some_and(|record| record.state == PartyState::Consented)
    }

    /// Whether this participant left after this position, by whichever version.
    pub fn left_after(&self, id: &AgreementId, participant: &ParticipantCode, position: u64) -> bool {
        let records = self.versions(id).filter_map(|one| one.parties.get(participant));
        records.into_iter().any(|record| {
            let earlier = record.earlier.iter().map(|earlier| earlier.left);
            record.left_at.into_iter().chain(earlier).any(|left| left > position)
        })
    }

    /// Whether the version in force is the one named or goes on from it by amendments, all of which have this participant, and whether it
    /// ever left one of them: what is handed in again does not tell whether it was recorded before it came back.
    pub fn goes_on(&self, named: &AgreementRef, participant: &ParticipantCode) -> GoesOn {
        let Some(mut version) = self.in_force(&named.id) else { return GoesOn::No };
        let is_member = version.is_member(participant);
        let mut came_back = false;
        loop {
            let Some(record) = version.parties.get(participant) else { return GoesOn::No };
            came_back |= !record.returned_from.is_empty();
            if version.is(named) {
                return match came_back {
                    false => GoesOn::Yes,
                    true if is_member => GoesOn::SinceAReturn,
                    true => GoesOn::No,
                };
            }
            match &version.text.amends {
                // Amendments go down in number, so that this ends.
                Some(before) if before.version < version.text.version && named.version <= before.version => {
                    let Some(before) = self.version(before) else { return GoesOn::Unknown };
                    version = before;
                }
                _ => return GoesOn::No,
            }
        }
    }

    /// The version that was in force at this position.
    pub fn in_force_at(&self, id: &AgreementId, position: u64) -> Option<&Agreement> {
        let was = |one: &&Agreement| {
            one.in_force_since.is_some_and(|since| since <= position)
                && one.ended_since.is_none_or(|ended| position < ended)
        };
        self.versions(id).find(was)
    }

    /// Whether by every version that was in force from this position on this participant receives.
    pub fn receives_since(&self, id: &AgreementId, participant: &ParticipantCode, position: u64) -> bool {
        for version in self.versions(id).filter(|one| one.in_force_since.is_some()) {
            if !version.role(participant).is_some_and(PartyRole::receives) {
                return false;
            }
            if version.in_force_since.is_some_and(|since| since <= position) {
                break;
            }
        }
        true
    }

    /// What a leave is of: the version named, known or not, and the amendments that rest on it by versions which all have the leaver.
    /// Where one of them does not, whoever comes back by a later one does so by a consent of its own.
    /// So also what it came back to from this leave, and what rests on that.
    pub fn left_with(&self, reference: &AgreementRef, leaver: &ParticipantCode, leave: &Digest) -> Vec<AgreementRef> {
        let came_back = |reference: &AgreementRef| {
            let record = self.version(reference).and_then(|version| version.parties.get(leaver));
            record.is_some_and(|record| record.returned_from.contains(leave))
        };
        if came_back(reference) {
            return Vec::new();
        }
        let mut left = vec![reference.clone()];
        // Amendments go up in number, so that this ends.
        let mut next = 0;
        while let Some(reference) = left.get(next).cloned() {
            next += 1;
            if self.version(&reference).is_some_and(|version| !version.parties.contains_key(leaver)) {
                continue;
            }
            let rests =
                |one: &&Agreement| one.text.amends.as_ref() == Some(&reference) && one.text.version > reference.version;
            let resting = self.versions(&reference.id).filter(rests).map(Agreement::reference);
            left.extend(resting.filter(|resting| !came_back(resting)));
        }
        left
    }

    /// Those whom it concerns what becomes of these versions: on one that waits or is in force, without those who left or declined.
    pub fn concerned<'a>(&self, meant: impl IntoIterator<Item = &'a AgreementRef>) -> BTreeSet<&ParticipantCode> {
        let mut concerned = BTreeSet::new();
        for version in meant.into_iter().filter_map(|reference| self.version(reference)) {
            let waits = version.state == AgreementState::Proposed;
            if !waits && version.state != AgreementState::InForce {
                continue;
            }
            let outgoing = version.outgoing.iter().filter(|_| waits);
            let still_on = version
                .parties
                .iter()
                .chain(outgoing)
                .filter(|(_, record)| !matches!(record.state, PartyState::Left | PartyState::Declined));
            concerned.extend(still_on.map(|(participant, _)| participant));
        }
        concerned
    }

    /// The versions whose time is over at this moment.
    pub fn due_to_lapse(&self, now: Timestamp) -> impl Iterator<Item = &Agreement> {
        self.with_an_end().filter(move |(until, _)| *until <= now).map(|(_, agreement)| agreement)
    }

    /// When the next version lapses.
    pub fn next_lapse(&self) -> Option<Timestamp> {
        self.with_an_end().map(|(until, _)| until).min()
    }

    fn with_an_end(&self) -> impl Iterator<Item = (Timestamp, &Agreement)> {
        self.by_id.keys().flat_map(|id| self.versions(id)).filter_map(|agreement| {
            let is_alive = matches!(agreement.state, AgreementState::Proposed | AgreementState::InForce);
            agreement.text.valid_until.filter(|_| is_alive).map(|until| (until, agreement))
        })
    }
}

impl Agreement {
    /// The role of a participant by this version's text, if it is on it.
    pub fn role(&self, participant: &ParticipantCode) -> Option<PartyRole> {
        self.text.party(participant).map(|party| party.role)
    }
}
