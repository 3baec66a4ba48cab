//! One file of the crash disk: every version since it was last durable.

use std::collections::BTreeSet;

use super::choices::Choices;

/// What is known or lost at once at the least.
const SECTOR_SIZE_BYTES: usize = 512;

/// The versions of a file, the durable one first and the visible one last.
pub(super) struct Inode {
    versions: Vec<Vec<u8>>,
    /// The sectors written since the last sync.
    dirty: BTreeSet<usize>,
    /// The sectors that a failed sync left clean and not durable: of these a later sync makes none durable unless they
    /// are written again.
    stuck: BTreeSet<usize>,
}

impl Inode {
    pub(super) fn durable(bytes: Vec<u8>) -> Inode {
        Inode { versions: vec![bytes], dirty: BTreeSet::new(), stuck: BTreeSet::new() }
    }

    pub(super) fn visible(&self) -> &[u8] {
        self.versions.last().map_or(&[], Vec::as_slice)
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut version = self.visible().to_vec();
        let end = offset.saturating_add(bytes.len());
        version.resize(version.len().max(end), 0);
        version[offset..end].copy_from_slice(bytes);
        self.versions.push(version);
        self.touch(offset, end);
    }

    pub(super) fn truncate(&mut self, length: u64) {
        let before = self.visible().len();
        let mut version = self.visible().to_vec();
        version.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        let length = version.len();
        self.versions.push(version);
        self.touch(length, before);
    }

    fn touch(&mut self, from: usize, to: usize) {
        for sector in from / SECTOR_SIZE_BYTES..to.div_ceil(SECTOR_SIZE_BYTES) {
            self.dirty.insert(sector);
            self.stuck.remove(&sector);
        }
    }

    pub(super) fn sync(&mut self) {
        let visible = self.visible().to_vec();
        if self.stuck.is_empty() {
            self.versions = vec![visible];
        } else {
            // Whatever may stand in a stuck sector may still stand there; the rest is durable.
            let stuck = std::mem::take(&mut self.stuck);
            for version in &mut self.versions {
                let older = std::mem::replace(version, visible.clone());
                for sector in &stuck {
                    let range = (sector * SECTOR_SIZE_BYTES).min(visible.len())
                        ..((sector + 1) * SECTOR_SIZE_BYTES).min(visible.len());
                    for place in range {
                        version[place] = older.get(place).copied().unwrap_or(0);
                    }
                }
            }
            self.versions.push(visible);
            self.stuck = stuck;
        }
        self.dirty.clear();
    }

    pub(super) fn fail_sync(&mut self) {
        self.stuck.append(&mut self.dirty);
    }

    /// What a power cut may leave: of each sector any version, and of the length too.
    pub(super) fn image(&self, sector_size: usize, choices: &mut dyn Choices) -> Vec<u8> {
        let lengths: BTreeSet<usize> = self.versions.iter().map(Vec::len).collect();
        let lengths: Vec<usize> = lengths.into_iter().collect();
        let length = lengths[choices.choose(lengths.len())];
        let mut image = Vec::with_capacity(length);
        while image.len() < length {
            let range = image.len()..(image.len() + sector_size).min(length);
            let mut candidates: Vec<Vec<u8>> = Vec::new();
            for version in &self.versions {
                let held = version.get(range.start..version.len().min(range.end)).unwrap_or_default();
                // What a version does not reach was never written: zeros.
                let mut bytes = held.to_vec();
                bytes.resize(range.len(), 0);
                if !candidates.contains(&bytes) {
                    candidates.push(bytes);
                }
            }
            image.append(&mut candidates.swap_remove(choices.choose(candidates.len())));
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use super::super::choices::Exhaustive;
    use super::*;

    fn images(inode: &Inode) -> BTreeSet<Vec<u8>> {
        let (mut choices, mut images) = (Exhaustive::default(), BTreeSet::new());
        loop {
            images.insert(inode.image(SECTOR_SIZE_BYTES, &mut choices));
            if !choices.advance() {
                return images;
            }
        }
    }

    #[test]
    fn what_was_not_synced_may_be_there_in_any_part_and_what_was_is() {
        let mut inode = Inode::durable(vec![1; 600]);
        inode.write(600, &[2; 500]);
        // Two lengths; of the longer: the second sector old or new, the third written or zero.
        assert_eq!(images(&inode).len(), 2 + 4 - 1, "the second sector's old and new beginnings are alike");
        inode.sync();
        let whole = [vec![1; 600], vec![2; 500]].concat();
        assert_eq!(images(&inode), BTreeSet::from([whole]));
    }

    #[test]
    fn what_a_failed_sync_left_is_only_durable_once_it_is_written_again() {
        let mut inode = Inode::durable(vec![1; 512]);
        inode.write(512, &[2; 512]);
        inode.fail_sync();
        inode.sync();
        assert_eq!(images(&inode).len(), 2);
        inode.write(1024, &[3; 10]);
        inode.sync();
        assert_eq!(images(&inode).len(), 2);
        let again = inode.visible()[512..1024].to_vec();
        inode.write(512, &again);
        inode.sync();
        assert_eq!(images(&inode).len(), 1);
    }
}
