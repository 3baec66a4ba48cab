//! The salted Merkle tree of one consignment: fixed depth, so that a recipient learns nothing of what else was in it.
//!
//! Everything that could tell something is an HMAC under the consignment's seed: the leaves' salts, which slot an exchange has,
//! and the digest of each empty subtree. With the seed the tree can be made again; without it nothing can be guessed.

use concord_model::{Digest, ExchangeId};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// Depth of the tree.
pub const TREE_DEPTH: usize = 10;
/// Slots of the tree: 1,024.
pub const TREE_SLOTS: usize = 1 << TREE_DEPTH;
/// Length of a seed and of a salt, in bytes.
pub const SEED_SIZE_BYTES: usize = 32;

// One byte before what is hashed: a leaf can never be read as a node.
const LEAF: [u8; 1] = [0];
const NODE: [u8; 1] = [1];

/// The random bytes from which a consignment's salts, slots and empty subtrees come.
#[derive(Clone)]
pub struct Seed {
    bytes: [u8; SEED_SIZE_BYTES],
    keyed: Hmac<Sha256>,
}

impl Seed {
    /// Takes 32 random bytes.
    pub fn new(bytes: [u8; SEED_SIZE_BYTES]) -> Self {
        #[allow(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let keyed = Hmac::new_from_slice(&bytes).expect("HMAC takes keys of any length");
        Self { bytes, keyed }
    }

    /// The bytes, for the hub and the journals only.
    pub fn as_bytes(&self) -> &[u8; SEED_SIZE_BYTES] {
        &self.bytes
    }

    /// The salt of the leaf in a slot.
    pub fn leaf_salt(&self, slot: u16) -> Digest {
        self.derive(b"leaf", &slot.to_be_bytes())
    }

    /// The salt of the head.
    pub fn head_salt(&self) -> Digest {
        self.derive(b"head", &[])
    }

    /// A digest of a request that only holders of the seed can make.
    pub fn request_digest(&self, request: &[u8]) -> Digest {
        self.derive(b"request", request)
    }

    /// The slots of the first `count` exchanges: the start of a random permutation.
    pub fn slots(&self, count: usize) -> Vec<u16> {
        let mut slots: Vec<u16> = (0..TREE_SLOTS as u16).collect();
        let count = count.min(TREE_SLOTS);
        for block in 0..count.div_ceil(4) {
            let random = self.derive(b"slots", &(block as u16).to_be_bytes());
            for (position, draw) in (block * 4..count.min(block * 4 + 4)).zip(random.0.chunks_exact(8)) {
                let draw = draw.iter().fold(0u64, |draw, byte| draw << 8 | u64::from(*byte));
                let left = (TREE_SLOTS - position) as u64;
                slots.swap(position, position + (draw % left) as usize);
            }
        }
        slots.truncate(count);
        slots
    }

    fn empty_subtree(&self, node: usize) -> Digest {
        self.derive(b"empty", &(node as u16).to_be_bytes())
    }

    fn derive(&self, label: &[u8], argument: &[u8]) -> Digest {
        let mut mac = self.keyed.clone();
        mac.update(label);
        mac.update(&[0]);
        mac.update(argument);
        Digest(mac.finalize().into_bytes().into())
    }
}

/// The tree of one consignment, as origin and hub can make it.
pub struct Tree {
    // Heap order: the root is 1, the children of n are 2n and 2n+1, the leaves begin at TREE_SLOTS.
    nodes: Vec<Digest>,
    slots: Vec<u16>,
}

impl Tree {
    /// Builds it for up to 1,024 exchanges in the consignment's order; more are not in the tree.
    pub fn build(seed: &Seed, exchanges: impl ExactSizeIterator<Item = ExchangeId>) -> Self {
        let slots = seed.slots(exchanges.len());
        let mut nodes = vec![Digest::ZERO; 2 * TREE_SLOTS];
        let mut occupied = vec![false; 2 * TREE_SLOTS];
        for (slot, exchange) in slots.iter().zip(exchanges) {
            let node = TREE_SLOTS + usize::from(*slot);
            nodes[node] = leaf(&seed.leaf_salt(*slot), &exchange);
            occupied[node] = true;
        }
        for parent in (1..TREE_SLOTS).rev() {
            let children = [2 * parent, 2 * parent + 1];
            if !children.iter().any(|child| occupied[*child]) {
                continue;
            }
            occupied[parent] = true;
            for child in children.into_iter().filter(|child| !occupied[*child]) {
                nodes[child] = seed.empty_subtree(child);
            }
            nodes[parent] = join(&nodes[children[0]], &nodes[children[1]]);
        }
        Self { nodes, slots }
    }

    /// The root that the origin signs.
    pub fn root(&self) -> Digest {
        self.nodes[1]
    }

    /// The slot of the exchange with this index, and the ten siblings from its leaf up.
    pub fn path(&self, index: usize) -> Option<(u16, [Digest; TREE_DEPTH])> {
        let slot = *self.slots.get(index)?;
        let mut node = TREE_SLOTS + usize::from(slot);
        let path = std::array::from_fn(|_| {
            let sibling = self.nodes[node ^ 1];
            node /= 2;
            sibling
        });
        Some((slot, path))
    }
}

/// The root that a leaf with its path leads to, as a recipient computes it; `None` where the slot is outside the tree.
pub fn root_from_path(salt: &Digest, exchange: &ExchangeId, slot: u32, path: &[Digest; TREE_DEPTH]) -> Option<Digest> {
    let slot = usize::try_from(slot).ok().filter(|slot| *slot < TREE_SLOTS)?;
    let start = (TREE_SLOTS + slot, leaf(salt, exchange));
    let (_, root) = path.iter().fold(start, |(node, digest), sibling| {
        let parent = if node % 2 == 0 { join(&digest, sibling) } else { join(sibling, &digest) };
        (node / 2, parent)
    });
    Some(root)
}

fn leaf(salt: &Digest, exchange: &ExchangeId) -> Digest {
    hash(LEAF, salt, &exchange.0)
}

fn join(left: &Digest, right: &Digest) -> Digest {
    hash(NODE, left, right)
}

fn hash(kind: [u8; 1], first: &Digest, second: &Digest) -> Digest {
    let mut hash = Sha256::new();
    hash.update(kind);
    hash.update(first.0);
    hash.update(second.0);
    Digest(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(index: usize) -> ExchangeId {
        ExchangeId(Digest([index as u8; 32]))
    }

    #[test]
    fn every_leaf_leads_to_the_root_by_its_path_and_no_other_leaf_does() {
        for count in [1, 2, 3, 64, 1023, 1024] {
            let seed = Seed::new([count as u8; 32]);
            let tree = Tree::build(&seed, (0..count).map(exchange));
            for index in (0..count).step_by(1 + count / 7) {
                let (slot, path) = tree.path(index).unwrap();
                let salt = seed.leaf_salt(slot);
                let root = |id, slot| root_from_path(&salt, &id, slot, &path);
                assert_eq!(root(exchange(index), slot.into()), Some(tree.root()));
                assert_ne!(root(exchange(index + 1), slot.into()), Some(tree.root()));
                assert_ne!(root(exchange(index), u32::from(slot) ^ 1), Some(tree.root()));
                assert_eq!(root(exchange(index), TREE_SLOTS as u32), None);
            }
            assert_eq!(tree.path(count), None);
        }
    }

    #[test]
    fn slots_are_a_permutation_that_another_seed_makes_otherwise() {
        let slots = Seed::new([1; 32]).slots(TREE_SLOTS);
        let mut sorted = slots.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..TREE_SLOTS as u16).collect::<Vec<_>>());
        assert_ne!(slots, Seed::new([2; 32]).slots(TREE_SLOTS));
        assert_eq!(slots[..64], Seed::new([1; 32]).slots(64));
    }

    #[test]
    fn the_root_depends_on_every_exchange_and_on_the_seed() {
        let build = |seed, count| Tree::build(&Seed::new([seed; 32]), (0..count).map(exchange)).root();
        assert_ne!(build(1, 3), build(1, 4));
        assert_ne!(build(1, 3), build(2, 3));
    }
}
