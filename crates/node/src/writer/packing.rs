//! Packing anew what a closed epoch left: the same headers and blobs, in their order, in consignments of the next epoch.
//!
//! Invariant: an exchange is packed anew exactly if the hub has not recorded it. All that the hub has of the closed epoch is known here
//! before the first is packed, nothing more comes to be recorded there, and an exchange that stands elsewhere by now, since the hub had
//! it from another copy of this node, is left there.
//!
//! Invariant: the lane's order is kept, nothing is packed twice and nothing is left. What is queued while this goes on comes behind, in the
//! closed epoch, and is packed in its turn: the step that finds nothing more enters the next epoch in the same commit, in which nothing
//! else is queued. That this comes to an end sees [`ChainEnd::waits_for_packing`] to.
//!
//! An exchange whose body is damaged goes without it: the others do not wait for it, the hub refuses it (`BLOB_MISMATCH`), and so its
//! agency is told. That the rest goes on without it was the officer's word, who opened the epoch.

use bytes::Bytes;
use concord_journal::Blob;
use concord_model::{ChainKey, Lane, Reason, Refusal};
use concord_wire::consignment;
use concord_wire::header::exchange_id;
use concord_wire::stored::node::{self as stored, NodeEntry, Queued};
use concord_wire::tree::{SEED_SIZE_BYTES, Seed};

use super::WriterError;
use super::batch::Batch;
use crate::index::{Index, IndexError};
use crate::projection::Standing;
use crate::state::ChainEnd;

/// What one commit takes; a last consignment may go over it by its own size.
const PACKED_TOGETHER_MAX_BYTES: usize = 1024 * 1024;
/// Consignments of one commit.
const PACKED_TOGETHER_MAX: usize = 256;

/// What is left of one consignment.
#[derive(Default)]
struct Left {
    headers: Vec<Bytes>,
    blobs: Vec<Vec<Blob>>,
    agencies: Vec<String>,
}

impl Batch<'_> {
    /// Packs as much as one commit takes; whether the lane has entered the next epoch with it.
    pub(super) fn pack_anew(&mut self, lane: Lane, hub_last: u64) -> Result<Result<bool, Refusal>, WriterError> {
        let closed = *self.state.chain(lane);
        let next = match self.state.decide_pack_anew(lane, hub_last) {
            Ok(next) => next,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (mut size, mut count) = (0, 0);
        let settled = if concord_faults::planted("pack-what-was-recorded") { 0 } else { closed.settled_through() };
        for number in settled + 1..=closed.last_number {
            if size >= PACKED_TOGETHER_MAX_BYTES || count >= PACKED_TOGETHER_MAX {
                return Ok(Ok(false));
            }
            let left = match left_of(self.index, lane, &closed, number) {
                // The lane waits with an alarm for whoever heals the disk, and the rest of the node goes on.
                Err(IndexError::Journal(unreadable)) => {
                    let what = format!("consignment {number} of lane {lane} cannot be packed anew: {unreadable}");
                    return Ok(Err(Refusal::new(Reason::Internal, what)));
                }
                left => left?,
            };
            if left.headers.is_empty() {
                continue;
            }
            count += 1;
            size += left.headers.iter().map(Bytes::len).sum::<usize>();
            size += left.blobs.iter().flatten().map(|blob| blob.bytes().len()).sum::<usize>();
            if let Err(refusal) = self.seal_anew(&next, (closed.epoch, number), left)? {
                return Ok(Err(refusal));
            }
        }
        concord_faults::point("node.pack.packed");
        self.push(stored::epoch_entered(lane, next.epoch, self.now))?;
        Ok(Ok(true))
    }

    fn seal_anew(
        &mut self,
        chain: &ChainKey,
        from: (u32, u64),
        left: Left,
    ) -> Result<Result<(), Refusal>, WriterError> {
        let Left { headers, blobs, agencies } = left;
        let Some(end) = self.state.chain_in(chain.lane, chain.epoch) else {
            return Ok(Err(Refusal::new(Reason::Internal, "the next epoch has no chain here")));
        };
        // Packed with a key that does not count it would bar the new epoch, too: until the right one is here it waits in the old.
        if let Err(refusal) = self.keys.check_counts(&self.state) {
            return Ok(Err(refusal));
        }
        let seed = Seed::new(concord_server::fresh::<SEED_SIZE_BYTES>()?);
        let key = self.keys.of(&self.state);
        let sealed = consignment::seal(
            chain.clone(),
            end.next_number(),
            end.last_digest,
            seed,
            headers,
            key.public().fingerprint,
            |message| key.sign(message),
        );
        self.push(stored::packed_anew(&sealed, blobs, agencies, from, self.now)).map(Ok)
    }
}

/// The exchanges of a consignment that stand nowhere else. Blocks.
fn left_of(index: &Index, lane: Lane, closed: &ChainEnd, number: u64) -> Result<Left, IndexError> {
    let absent = IndexError::Row("a consignment");
    let sequence = index.consignment(lane, closed.epoch, number)?.ok_or(absent)?;
    let NodeEntry::Queued(queued) = stored::read(&index.journal().head(sequence)?)? else {
        return Err(IndexError::Row("a consignment"));
    };
    let Queued { kept, submissions, .. } = *queued;
    let mut left = Left::default();
    for ((position, header), submission) in kept.sealed.headers.iter().enumerate().zip(submissions) {
        let stands = index.exchange(&exchange_id(header))?.ok_or(IndexError::Row("an exchange"))?;
        if stands.standing != Standing::Here || stands.position() != (lane, closed.epoch, number, position as u64) {
            continue;
        }
        let blobs = index.whole_content(sequence, kept.blob_range(position))?;
        left.headers.push(header.clone());
        left.blobs.push(blobs.unwrap_or_default());
        left.agencies.push(submission.agency);
    }
    Ok(left)
}
