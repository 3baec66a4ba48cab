//! Groups of rows, each with the sum of its rows: so that a store of any size serves at once, and still answers nothing from rows
//! that were not checked.
//!
//! Invariant: no read is answered, by a row or by the absence of one, before the groups that its answer lies in were found to have
//! exactly the rows that were written. The groups' own rows are few, are read at the opening, and are bound by the watermark.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use crate::{
    Table,
    fingerprint::Fingerprint,
    range::RowRange,
    rows::Change,
    table::Grouping,
    watermark::{self, Watermark},
};

/// What the keys of the groups' own rows begin with, before the group's name.
const GROUP: &[u8] = b"group";
/// In place of a group's last bits: it has no row but the one of its name.
const ONE_ROW: u16 = u16::MAX;
const SIZE: usize = 2 + 8 + 16;

/// What does not agree, in the words of the log.
pub(crate) const OTHER_ROWS: &str = "its rows are not those of its watermark";

/// The rows between a group's name and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    /// The rows' keys are those of the name's length that differ from it in so many last bits, and what begins with them.
    last_bits: u16,
    rows: u64,
    sum: Fingerprint,
    checked: bool,
}

/// The groups of one store, as written with its watermark.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    by_name: BTreeMap<Vec<u8>, Group>,
    unchecked: BTreeSet<Vec<u8>>,
    /// Nothing between the groups was found either.
    all_checked: bool,
}

/// Groups as a batch leaves them, and the watermark's fingerprint of their rows.
#[derive(Debug)]
pub(crate) struct Changed {
    groups: BTreeMap<Vec<u8>, Group>,
    pub(crate) fingerprint: Fingerprint,
}

impl Groups {
    /// Those of a store without rows.
    pub(crate) fn none() -> Self {
        Self { all_checked: true, ..Self::default() }
    }

    /// Reads watermark and groups from the rows of their table, which come in their order.
    pub(crate) fn read(
        rows: impl Iterator<Item = Result<(sled::IVec, sled::IVec), String>>,
    ) -> Result<(Watermark, Self), String> {
        let (mut groups, mut watermark, mut fingerprint) = (Self::default(), None, Fingerprint::default());
        let (watermark_row, prefix) = (watermark::row(), Table::WATERMARK.row(GROUP));
        for row in rows {
            let (row, value) = row?;
            if *row == *watermark_row {
                let decoded = Watermark::decode(&value);
                watermark = Some(decoded.ok_or("its watermark is damaged or of another layout")?);
                continue;
            }
            fingerprint.add(&row, &value);
            let (Some(name), Some(group)) = (row.strip_prefix(prefix.as_slice()), Group::decode(&value)) else {
                return Err(OTHER_ROWS.to_owned());
            };
            groups.unchecked.insert(name.to_vec());
            groups.by_name.insert(name.to_vec(), group);
        }
        let watermark = watermark.ok_or("it has no watermark")?;
        if watermark.rows != fingerprint {
            return Err(OTHER_ROWS.to_owned());
        }
        Ok((watermark, groups))
    }

    /// How many rows there are, the groups' own not counted.
    pub(crate) fn rows(&self) -> u64 {
        self.by_name.values().fold(0, |sum, group| sum.wrapping_add(group.rows))
    }

    pub(crate) fn all_checked(&self) -> bool {
        self.all_checked
    }

    /// A group that has yet to be checked.
    pub(crate) fn any_unchecked(&self) -> Option<Vec<u8>> {
        self.unchecked.first().cloned()
    }

    /// The first group whose name is `from` or greater, and whether it was checked.
    pub(crate) fn next(&self, from: &[u8]) -> Option<(Vec<u8>, bool)> {
        let mut groups = self.by_name.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        groups.next().map(|(name, group)| (name.clone(), group.checked))
    }

    /// Says that there is no row outside the groups, and none in them that was not checked.
    pub(crate) fn set_all_checked(&mut self) {
        self.all_checked = self.unchecked.is_empty();
    }

    /// The groups that hold an answer from a range, and were not checked: all whose rows may lie in it, and those of the rows that
    /// were found there. A found row of no group is an error: nobody wrote it.
    pub(crate) fn unchecked_in(&self, range: &RowRange, found: &[&[u8]]) -> Result<Vec<Vec<u8>>, String> {
        if self.all_checked {
            return Ok(Vec::new());
        }
        for row in found {
            if self.at(row).is_none() {
                return Err(OTHER_ROWS.to_owned());
            }
        }
        // The first group may begin before the range.
        let first = self.at(&range.from).map_or_else(|| range.from.clone(), |(name, _)| name.clone());
        let (_, to) = range.bounds();
        let holds = match to {
            Bound::Included(to) => first.as_slice() <= to,
            Bound::Excluded(to) => first.as_slice() < to,
            Bound::Unbounded => true,
        };
        if !holds {
            return Ok(Vec::new());
        }
        Ok(self.unchecked.range::<[u8], _>((Bound::Included(first.as_slice()), to)).cloned().collect())
    }

    /// The range of a group's rows.
    pub(crate) fn range(&self, name: &[u8]) -> Option<RowRange> {
        let group = self.by_name.get(name)?;
        Some(RowRange { from: name.to_vec(), to: end(name, group.last_bits) })
    }

    /// Compares the rows between `from` and the end of a group with what was written: they must all be its own.
    pub(crate) fn check(
        &mut self,
        name: &[u8],
        rows: impl Iterator<Item = Result<(sled::IVec, sled::IVec), String>>,
    ) -> Result<(), String> {
        let Some(group) = self.by_name.get_mut(name) else { return Ok(()) };
        let (mut count, mut sum) = (0_u64, Fingerprint::default());
        let mut previous: Option<sled::IVec> = None;
        for row in rows {
            let (row, value) = row?;
            // Damaged pages could send the iterator round in circles.
            if previous.is_some_and(|previous| previous >= row) {
                return Err("its rows are out of order".to_owned());
            }
            sum.add(&row, &value);
            count += 1;
            previous = Some(row);
        }
        if count != group.rows || sum != group.sum {
            return Err(OTHER_ROWS.to_owned());
        }
        group.checked = true;
        self.unchecked.remove(name);
        Ok(())
    }

    /// What a batch makes of the groups: adds the rows of those that it changes to `changes`, and answers the rest for
    /// [`Groups::apply`]. `replaced` are the values that the changed rows had.
    pub(crate) fn changed(
        &self,
        before: Fingerprint,
        changes: &mut Vec<Change>,
        replaced: &[Option<Vec<u8>>],
        grouping: impl Fn(&[u8]) -> Grouping,
    ) -> Changed {
        let mut groups: BTreeMap<Vec<u8>, Group> = BTreeMap::new();
        for ((row, value), replaced) in changes.iter().zip(replaced) {
            if value.is_none() && replaced.is_none() {
                continue;
            }
            let (name, last_bits) = name(row, grouping(row));
            // Unchecked while others are: a row that nobody wrote may be there already.
            let new = Group { last_bits, rows: 0, sum: Fingerprint::default(), checked: self.all_checked };
            let known = self.by_name.get(&name).copied().unwrap_or(new);
            let group = groups.entry(name).or_insert(known);
            // Wrong only where a damaged row was replaced; then the group's sum does not fit its rows, and its check says so.
            if let Some(replaced) = replaced {
                group.rows = group.rows.wrapping_sub(1);
                group.sum.take(row, replaced);
            }
            if let Some(value) = value {
                group.rows = group.rows.wrapping_add(1);
                group.sum.add(row, value);
            }
        }
        let mut fingerprint = before;
        for (name, group) in &groups {
            let row = group_row(name);
            if let Some(known) = self.by_name.get(name).filter(|known| !known.is_empty()) {
                fingerprint.take(&row, &known.encode());
            }
            let value = (!group.is_empty()).then(|| group.encode());
            if let Some(value) = &value {
                fingerprint.add(&row, value);
            }
            changes.push((row, value));
        }
        Changed { groups, fingerprint }
    }

    /// Once they are written.
    pub(crate) fn apply(&mut self, changed: Changed) {
        for (name, group) in changed.groups {
            // An empty group that was not checked is kept here, since rows that nobody wrote may be in it.
            if group.is_empty() && group.checked {
                self.by_name.remove(&name);
                continue;
            }
            if !group.checked {
                self.unchecked.insert(name.clone());
            }
            self.by_name.insert(name, group);
        }
    }

    /// The group that a row lies in.
    fn at(&self, row: &[u8]) -> Option<(&Vec<u8>, &Group)> {
        let before = self.by_name.range::<[u8], _>((Bound::Unbounded, Bound::Included(row))).next_back();
        before.filter(|(name, group)| match end(name, group.last_bits) {
            Bound::Excluded(end) => row < end.as_slice(),
            _ => true,
        })
    }
}

impl Group {
    fn is_empty(&self) -> bool {
        self.rows == 0 && self.sum == Fingerprint::default()
    }

    fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(SIZE);
        value.extend_from_slice(&self.last_bits.to_be_bytes());
        value.extend_from_slice(&self.rows.to_be_bytes());
        value.extend_from_slice(&self.sum.to_bytes());
        value
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (last_bits, rest) = value.split_first_chunk::<2>()?;
        let (rows, rest) = rest.split_first_chunk::<8>()?;
        let sum = <[u8; 16]>::try_from(rest).ok()?;
        let (last_bits, rows) = (u16::from_be_bytes(*last_bits), u64::from_be_bytes(*rows));
        Some(Self { last_bits, rows, sum: Fingerprint::from_bytes(sum), checked: false })
    }
}

fn group_row(name: &[u8]) -> Vec<u8> {
    Table::WATERMARK.row(&[GROUP, name].concat())
}

/// The name of a row's group, and in how many last bits its rows differ from it.
fn name(row: &[u8], grouping: Grouping) -> (Vec<u8>, u16) {
    let (size, last_bits) = match grouping {
        Grouping::FirstBits(bits) => {
            let bits = 8 + usize::from(bits);
            (bits.div_ceil(8), bits.div_ceil(8) * 8 - bits)
        }
        Grouping::LastBits(bits) => (row.len(), usize::from(bits)),
    };
    // The table's number is never among the last bits.
    if row.len() < size || last_bits > (row.len() - 1) * 8 {
        return (row.to_vec(), ONE_ROW);
    }
    let mut name: Vec<u8> = row[..size].to_vec();
    let (bytes, bits) = (last_bits / 8, last_bits % 8);
    let whole = size - bytes;
    name[whole..].fill(0);
    if bits > 0 {
        name[whole - 1] &= 0xFF << bits;
    }
    (name, last_bits as u16)
}

/// Where a group ends.
fn end(name: &[u8], last_bits: u16) -> Bound<Vec<u8>> {
    if last_bits == ONE_ROW {
        return Bound::Excluded([name, &[0]].concat());
    }
    let (bytes, bits) = (usize::from(last_bits / 8), last_bits % 8);
    let mut end = name.to_vec();
    let mut carried = 1_u16 << bits;
    for byte in end.iter_mut().rev().skip(bytes) {
        let sum = u16::from(*byte) + carried;
        *byte = (sum & 0xFF) as u8;
        carried = sum >> 8;
        if carried == 0 {
            // A row that is shorter than the names comes before them, and is in no group that ends there.
            let used = end.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            end.truncate(used);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holds(name: &[u8], last_bits: u16, row: &[u8]) -> bool {
        let after_start = name <= row;
        after_start
            && match end(name, last_bits) {
                Bound::Excluded(end) => row < end.as_slice(),
                _ => true,
            }
    }

    proptest! {
        #[test]
        fn two_rows_are_in_one_group_exactly_if_their_first_bits_are_the_same(
            one in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(127), Just(128), Just(255)], 0..4),
            other in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(127), Just(128), Just(255)], 0..4),
            bits in 0_u16..20,
        ) {
            let table = Table::new(255);
            let (one, other) = (table.row(&one), table.row(&other));
            let (name_of_one, last_bits) = name(&one, Grouping::FirstBits(bits));
            prop_assert!(holds(&name_of_one, last_bits, &one));
            let same = name(&other, Grouping::FirstBits(bits)) == (name_of_one.clone(), last_bits);
            prop_assert_eq!(holds(&name_of_one, last_bits, &other), same);
        }

        #[test]
        fn two_numbers_are_in_one_group_exactly_if_they_differ_in_their_last_bits_only(
            one in prop_oneof![0_u64..5_000, Just(u64::MAX), any::<u64>()],
            other in prop_oneof![0_u64..5_000, Just(u64::MAX), any::<u64>()],
            lanes in (0_u8..2, 0_u8..2),
            bits in 0_u16..17,
        ) {
            let row = |lane: u8, number: u64| Table::new(3).row(&[&[lane], number.to_be_bytes().as_slice()].concat());
            let (name, last_bits) = name(&row(lanes.0, one), Grouping::LastBits(bits));
            prop_assert!(holds(&name, last_bits, &row(lanes.0, one)));
            let same = lanes.0 == lanes.1 && one >> bits == other >> bits;
            prop_assert_eq!(holds(&name, last_bits, &row(lanes.1, other)), same);
        }
    }
}
