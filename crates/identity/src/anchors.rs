//! Which anchors are trusted for whom, and what they have taken back, shared with every verifier so that both are live at once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use concord_model::ParticipantCode;

use crate::anchor::Anchor;
use crate::revocation::{ChainNumbers, Revocations, Unfit};

/// Participant → its trusted anchors.
pub type AnchorTable = BTreeMap<ParticipantCode, Vec<Anchor>>;

/// The trusted anchors, and the revocation lists that count. Clones share both: what one replaces, all see from the next handshake on.
///
/// The table is as large as its owner makes it: the hub's ledger bounds it, a node pins one or two.
#[derive(Clone, Default)]
pub struct Anchors(Arc<Shared>);

#[derive(Default)]
struct Shared {
    table: ArcSwap<AnchorTable>,
    revocations: ArcSwap<Revocations>,
}

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
    pub fn replace(&self, table: AnchorTable) {
        self.0.table.store(Arc::new(table));
    }

    /// Lets these lists count in place of the present ones, from the next handshake on.
    pub fn replace_revocations(&self, revocations: Arc<Revocations>) {
        self.0.revocations.store(revocations);
    }

    /// The present table. It is another one after each [`Anchors::replace`].
    pub fn table(&self) -> Arc<AnchorTable> {
        self.0.table.load_full()
    }

    /// Whether lists that count let a certificate of this chain not count, and why not.
    pub fn refuse(&self, chain: &ChainNumbers) -> Option<Unfit> {
        self.0.revocations.load().refuse(chain)
    }

    /// The anchors of a participant; empty for one who is not enrolled.
    pub fn get(&self, participant: &ParticipantCode) -> Vec<Anchor> {
        self.0.table.load().get(participant).cloned().unwrap_or_default()
    }
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Anchors").field(&self.0.table.load()).finish()
    }
}
