//! The node's signing keys while one follows another: which of them signs, the registry says, as the feed told it.
//!
//! Invariant: nothing is signed with a new key before the hub has recorded that it follows, nor with the one before afterwards. So whatever
//! becomes of the officer's statement, what is packed here holds under the key that counts for its epoch.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use concord_identity::{KeyError, SigningKey, SigningKeys};
use concord_ledger::Enrolment;
use concord_model::{Fingerprint, Reason, Refusal};

use crate::context::Context;
use crate::folders::Paths;
use crate::state::NodeState;

const ALARM: &str = "signing-key";

/// The keys of `signing/key.pem`.
pub struct NodeKeys(SigningKeys);

impl NodeKeys {
    /// Reads the file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        SigningKeys::load(path).map(Self)
    }

    /// One key that stands in no file.
    pub fn only(key: SigningKey) -> Self {
        Self(SigningKeys::only(key))
    }

    /// The key that counts in this state.
    pub fn of(&self, state: &NodeState) -> Arc<SigningKey> {
        self.0.named_or_first(own_keys(state).map(|keys| &keys.signing_key.fingerprint))
    }

    /// All that are here.
    pub fn held(&self) -> Vec<Arc<SigningKey>> {
        self.0.held()
    }

    /// Whether the feed has told of the keys that are here: by it a node that was made anew knows its own.
    pub fn are_known(&self, state: &NodeState) -> bool {
        own_keys(state).is_some_and(|keys| self.has(&keys.signing_key.fingerprint))
    }
}

impl NodeKeys {
    /// Whether this key is here.
    pub fn has(&self, fingerprint: &Fingerprint) -> bool {
        self.0.named(fingerprint).is_some()
    }

    /// Refuses what would be signed with a key that does not count: the hub would take neither it nor what waits behind it.
    ///
    /// Refuses with `SIGNING_KEY_UNKNOWN`.
    pub fn check_counts(&self, state: &NodeState) -> Result<(), Refusal> {
        match own_keys(state).map(|keys| keys.signing_key.fingerprint) {
            Some(present) if !self.has(&present) => {
                let what = format!(
                    "the registry knows this node by the signing key {}, which is not here: what is signed without it no hub takes, so nothing is queued",
                    present.grouped()
                );
                Err(Refusal::new(Reason::SigningKeyUnknown, what))
            }
            _ => Ok(()),
        }
    }
}

fn own_keys(state: &NodeState) -> Option<&Enrolment> {
    let (own, _) = state.identity()?;
    state.directory().registry.enrolment(own)
}

/// Puts the key that counts first in the file as the registry changes, and says so where it is not there.
pub(crate) async fn keep_settled(context: Context, folder: PathBuf) {
    let path = Paths::of(&folder).signing_key();
    let mut published = context.state.clone();
    let mut settled = Vec::new();
    loop {
        let succession: Vec<_> = {
            let state = published.borrow_and_update();
            own_keys(&state).map(|keys| keys.succession().map(|(key, _)| key).collect()).unwrap_or_default()
        };
        if succession != settled {
            let (keys, of) = (Arc::clone(&context.keys), succession.clone());
            let done = concord_server::blocking(move || {
                let is_here = of.last().is_none_or(|present| keys.has(present));
                keys.0.settle(&of).map(|()| is_here)
            });
            match done.await {
                Ok(Ok(true)) => context.readiness.clear(ALARM),
                Ok(Ok(false)) => {
                    let present = succession.last().map(|key| key.grouped()).unwrap_or_default();
                    let what = format!(
                        "the registry knows this node by the signing key {present}, which {} does not have: what is signed here the hub refuses, and \
                         nothing is queued. Put the file of the last rotation back and start the node anew; where the key is lost, have the node replaced",
                        path.display()
                    );
                    context.readiness.raise(ALARM, what);
                }
                Ok(Err(error)) => {
                    let what = format!("{} could not be put in order, and stays as it is: {error}", path.display());
                    context.readiness.note(ALARM, what);
                }
                Err(error) => tracing::warn!(%error, "the signing keys could not be put in order"),
            }
            settled = succession;
        }
        // Keys change with the feed only, and that changes the directory.
        let before = Arc::clone(published.borrow().directory());
        if published.wait_for(|state| !Arc::ptr_eq(state.directory(), &before)).await.is_err() {
            return;
        }
    }
}
