//! Which anchors are trusted for whom, shared with every verifier so that an enrolment is live at once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use concord_model::ParticipantCode;

use crate::anchor::Anchor;

/// Participant → its trusted anchors. Clones share one table: what one replaces, all see from the next handshake on.
///
/// The table is as large as its owner makes it: the hub's ledger bounds it, a node pins one or two.
#[derive(Clone, Default)]
pub struct Anchors(Arc<ArcSwap<BTreeMap<ParticipantCode, Vec<Anchor>>>>);

impl Anchors {
    /// Trusts nobody yet.
    pub fn none() -> Self {
        Self::default()
    }

    /// Trusts one anchor for one participant, as a client does that pinned its server's.
    pub fn pinned(participant: ParticipantCode, anchor: Anchor) -> Self {
        let anchors = Self::none();
        anchors.replace(BTreeMap::from([(participant, vec![anchor])]));
        anchors
    }

    /// Puts another table in place of the present one. Handshakes that are under way keep the one they began with.
    pub fn replace(&self, table: BTreeMap<ParticipantCode, Vec<Anchor>>) {
        self.0.store(Arc::new(table));
    }

    /// The anchors of a participant; empty for one who is not enrolled.
    pub fn get(&self, participant: &ParticipantCode) -> Vec<Anchor> {
        self.0.load().get(participant).cloned().unwrap_or_default()
    }
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Anchors").field(&self.0.load()).finish()
    }
}
