//! Joining a hub: the bundle is checked against this node's own keys, then journaled.

use std::path::Path;

use concord_identity::{Anchor, SigningKey, SigningKeys, enrolment_fingerprint, read_text};
use concord_journal::SEGMENT_SIZE_DEFAULT_BYTES;
use concord_model::{Fingerprint, Name, ParticipantCode};
use concord_server::audit::{Event, Object};
use concord_server::{FileMode, Folder, FolderKind, write_durably};
use concord_wire::stored::node::{self as stored, Restored};

use crate::config::NodeConfig;
use crate::error::NodeError;
use crate::folders::Paths;
use crate::open::{append, fold, open_journal, snapshots};
use crate::paper::{BundlePaper, bundle_from_json};
use crate::restore::note;
use crate::state::HubKeys;
use concord_server::{Clock as _, SystemClock};

/// A node that joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The hub's name.
    pub hub: Name,
    /// Over the hub's name, anchor and key: what both sides compare by telephone.
    pub fingerprint: Fingerprint,
}

/// Joins the hub of a bundle. The node must not run. The same bundle again is harmless; new addresses of the same hub are
/// taken, and the anchors by which it is known now: those that it was founded with stay what they are.
pub fn join(dir: &Path, bundle: &str) -> Result<Joined, NodeError> {
    let folder = Folder::open(dir, FolderKind::Node)?;
    let _lock = folder.lock()?;
    let config = NodeConfig::load(dir)?;
    crate::init::refuse_if_awaited(dir, &config)?;
    let paths = Paths::of(dir);
    let anchors = Anchor::several_from_pem(&read_text(&paths.tls_anchor())?)?;
    let signing = SigningKeys::load(&paths.signing_key())?;
    let paper = check_bundle(bundle, &config, &anchors, &signing)?;
    let hub = HubKeys::from_bundle(&paper.bundle)?;

    let (journal, _) = open_journal(&paths.journal(), &SystemClock, SEGMENT_SIZE_DEFAULT_BYTES)?;
    let state = fold(&snapshots(paths.snapshots()), journal.as_ref())?.state;
    let joined = Joined { hub: hub.name.clone(), fingerprint: paper.fingerprint };
    if let Some(known) = state.hub() {
        let same_hub = known.name == hub.name && known.anchor == hub.anchor && known.signing_key == hub.signing_key;
        if !same_hub {
            return Err(NodeError::JoinedBefore { hub: known.name.to_string() });
        }
        if known.addresses == hub.addresses && known.present_anchors == hub.present_anchors {
            write_durably(&paths.hub(), bundle.as_bytes(), FileMode::Public)?;
            return Ok(joined);
        }
    }
    // A node that takes the place of another has everything to fetch back before it numbers anything: that stands first, so that it does
    // not join without it.
    if state.hub().is_none() && paper.bundle.replaces {
        append(&journal, stored::restored(Restored::Rebuilt, SystemClock.now()))?;
    }
    // commit point: before it the node has not joined, and the same command joins it; after it only the paper for people may lack.
    append(&journal, stored::joined(paper.bundle, SystemClock.now()))?;
    journal.close();
    note(dir, &Event::local("join", Object::words("a hub, by its bundle")));
    write_durably(&paths.hub(), bundle.as_bytes(), FileMode::Public)?;
    Ok(joined)
}

/// Reads a bundle and checks that it is for this node and names the keys that it has.
pub(crate) fn check_bundle(
    bundle: &str,
    config: &NodeConfig,
    anchors: &[Anchor],
    signing: &SigningKeys,
) -> Result<BundlePaper, NodeError> {
    let paper = bundle_from_json(bundle)?;
    let unusable = |error: concord_model::ParseError| NodeError::Paper(format!("the bundle cannot be used: {error}"));
    let wanted = ParticipantCode::parse(&paper.bundle.participant).map_err(unusable)?;
    if wanted != config.participant {
        return Err(NodeError::OtherParticipant { bundle: wanted, own: config.participant.clone() });
    }
    Anchor::from_der(&HubKeys::from_bundle(&paper.bundle)?.anchor)?;
    let enrolled = concord_model::Digest::from_slice(&paper.bundle.enrolment_fingerprint).map_err(unusable)?;
    let held = signing.held();
    let of =
        |anchor: &Anchor, key: &SigningKey| enrolment_fingerprint(&config.participant, anchor.der(), &key.public());
    // The bundle may be older than the present keys: what it names then is of before.
    let mut own = anchors
        .iter()
        .flat_map(|anchor| held.iter().map(move |key| (anchor, key)))
        .map(|(anchor, key)| of(anchor, key));
    if let Some(first) = own.next().filter(|first| *first != Fingerprint(enrolled))
        && !own.any(|one| one == Fingerprint(enrolled))
    {
        return Err(NodeError::OtherEnrolment { bundle: Fingerprint(enrolled), own: first });
    }
    Ok(paper)
}
