//! Batches and reads against a plain sorted map.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use concord_journal::Journal;
use concord_views::{Opened, Row, Table, Views};
use proptest::{collection::vec, prelude::*};
use support::{VERSION, journal, open, open_unchecked};

const TABLE: Table = Table::new(255).grouped_by_first_bits(9);

/// Keys near each other, with the highest byte among them: prefixes, neighbours and the end of the table.
fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0_u8), Just(1), Just(255)], 0..4)
}

fn last(model: &BTreeMap<Vec<u8>, Vec<u8>>, prefix: &[u8], up_to: Option<&[u8]>) -> Option<Row> {
    let within = |key: &[u8]| key.starts_with(prefix) && up_to.is_none_or(|up_to| key <= up_to);
    model.iter().rev().find(|(key, _)| within(key)).map(|(key, value)| (key.clone(), value.clone()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pending_and_applied_rows_read_as_a_sorted_map_does(
        batches in vec(vec((key(), proptest::option::of(any::<u8>())), 0..12), 1..4),
        asked in vec((key(), key()), 1..8),
    ) {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("views");
        let (views, _) = open(&folder, &journal("past", 1));
        reads_as_a_sorted_map(&Views::in_memory(VERSION), &mut Model::default(), 1, &batches, &asked)?;
        let mut model = Model::default();
        reads_as_a_sorted_map(&views, &mut model, 1, &batches, &asked)?;
        // The rows and the watermark must also agree when they are read back, by who reads and writes before all is checked too.
        drop(views);
        let at = journal("past", batches.len() as u64);
        let (views, opened) = open_unchecked(&folder, &at);
        prop_assert_eq!(opened, Opened::Resumed { at: at.tail() });
        reads_as_a_sorted_map(&views, &mut model, batches.len() as u64 + 1, &batches, &asked)?;
        drop(views);
        let at = journal("past", 2 * batches.len() as u64);
        let (_, opened) = open(&folder, &at);
        prop_assert_eq!(opened, Opened::Resumed { at: at.tail() });
    }
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn reads_as_a_sorted_map(
    views: &Views,
    model: &mut Model,
    first: u64,
    batches: &[Vec<(Vec<u8>, Option<u8>)>],
    asked: &[(Vec<u8>, Vec<u8>)],
) -> Result<(), TestCaseError> {
    for (number, changes) in (first..).zip(batches) {
        let mut batch = views.batch();
        for (key, value) in changes {
            match value {
                Some(value) => {
                    batch.put(TABLE, key, &[*value]).unwrap();
                    model.insert(key.clone(), vec![*value]);
                }
                None => {
                    batch.remove(TABLE, key);
                    model.remove(key);
                }
            }
        }
        for (prefix, key) in asked {
            prop_assert_eq!(batch.get(TABLE, key).unwrap(), model.get(key).cloned());
            prop_assert_eq!(batch.last(TABLE, prefix).unwrap(), last(model, prefix, None));
            let found = batch.last_at_or_before(TABLE, prefix, key).unwrap();
            prop_assert_eq!(found, last(model, prefix, Some(key)));
        }
        views.apply(batch, journal("past", number).tail()).unwrap();
    }
    for (prefix, key) in asked {
        prop_assert_eq!(views.get(TABLE, key).unwrap(), model.get(key).cloned());
        prop_assert_eq!(views.last(TABLE, prefix).unwrap(), last(model, prefix, None));
        let found = views.last_at_or_before(TABLE, prefix, key).unwrap();
        prop_assert_eq!(found, last(model, prefix, Some(key)));
        let scanned = views.scan(TABLE, key, prefix, 5).unwrap();
        let expected: Vec<Row> =
            model.clone().into_iter().filter(|(row, _)| row >= key && row.starts_with(prefix)).take(5).collect();
        prop_assert_eq!(scanned, expected);
    }
    Ok(())
}
