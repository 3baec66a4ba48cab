//! What the agencies of the demo received, and whether it is what was agreed: judged by their lines and their files alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::cast::{Item, STATES};
use super::stage::Line;
use super::tell::{Cell, Grid};

/// An exchange that an agency received.
pub(super) struct Receipt {
    value: Value,
    pub(super) at: jiff::Timestamp,
}

/// All receipts, by state, in the order in which they came.
#[derive(Default)]
pub(super) struct Receipts {
    by_state: BTreeMap<&'static str, Vec<Receipt>>,
}

/// An item of the cast as it was sent.
pub(super) struct Sent {
    pub(super) item: &'static Item,
    pub(super) exchange_id: String,
    pub(super) queued_at: jiff::Timestamp,
}

impl Receipt {
    pub(super) fn is(&self, exchange_id: &str) -> bool {
        self.text("exchange_id") == exchange_id
    }

    fn text(&self, field: &str) -> &str {
        self.value[field].as_str().unwrap_or_default()
    }
}

impl Receipts {
    pub(super) fn add(&mut self, line: Line) {
        self.by_state.entry(line.code).or_default().push(Receipt { value: line.value, at: line.at });
    }

    /// The receipt of an exchange by a state's agency.
    pub(super) fn find(&self, code: &str, exchange_id: &str) -> Option<&Receipt> {
        self.of(code).iter().find(|receipt| receipt.is(exchange_id))
    }

    /// Whether every agency that is to have this exchange has it.
    pub(super) fn are_complete(&self, sent: &Sent) -> bool {
        STATES
            .iter()
            .filter(|state| sent.item.is_for(state.code))
            .all(|state| self.find(state.code, &sent.exchange_id).is_some())
    }

    fn of(&self, code: &str) -> &[Receipt] {
        self.by_state.get(code).map(Vec::as_slice).unwrap_or_default()
    }

    /// Everything that is not as agreed, in words; `folder` has what each state's agency kept, by its code.
    pub(super) fn check(&self, all: &[Sent], folder: &Path) -> Vec<String> {
        let mut wrong = Vec::new();
        for state in &STATES {
            let code = state.code;
            let expected: Vec<&Sent> = all.iter().filter(|sent| sent.item.is_for(code)).collect();
            let received: Vec<&str> = self.of(code).iter().map(|receipt| receipt.text("exchange_id")).collect();
            let wanted: Vec<&str> = expected.iter().map(|sent| sent.exchange_id.as_str()).collect();
            if received != wanted {
                wrong.push(format!(
                    "{code} should have received {}, and received {}",
                    named(all, &wanted),
                    named(all, &received)
                ));
            }
            for sent in expected {
                if let Some(receipt) = self.find(code, &sent.exchange_id) {
                    wrong.extend(check_one(code, sent, receipt));
                }
            }
            wrong.extend(check_files(code, &folder.join(code), wanted.len()));
        }
        wrong
    }

    pub(super) fn grid(&self, all: &[Sent]) -> Grid {
        let row = |sent: &Sent| {
            std::array::from_fn(|index| {
                let code = STATES[index].code;
                match (self.find(code, &sent.exchange_id), sent.item.is_for(code)) {
                    (Some(receipt), _) => Cell::Received(since(sent.queued_at, receipt.at)),
                    (None, true) => Cell::Missing,
                    (None, false) if code == sent.item.from => Cell::Sent,
                    (None, false) => Cell::NotAgreed,
                }
            })
        };
        all.iter().map(row).collect()
    }
}

fn check_one(code: &str, sent: &Sent, receipt: &Receipt) -> Option<String> {
    let Item { name, from, accord, measure, lane, sample, .. } = sent.item;
    let words =
        [("origin", *from), ("agreement", accord.id), ("measure", *measure), ("lane", *lane), ("title", sample.title)];
    if let Some((field, expected)) = words.into_iter().find(|(field, expected)| receipt.text(field) != *expected) {
        return Some(format!("{code}: the {field} of the {name} is '{}', not '{expected}'", receipt.text(field)));
    }
    let path = receipt.text("file");
    match fs::read(path) {
        Err(error) => Some(format!("{code}: the file {path} of the {name} cannot be read: {error}")),
        Ok(body) if body != sample.content.as_bytes() => Some(format!("{code}: the {name} is not as it was sent")),
        Ok(_) => None,
    }
}

fn check_files(code: &str, folder: &Path, expected: usize) -> Option<String> {
    match fs::read_dir(folder).map(Iterator::count) {
        Ok(found) if found == expected => None,
        Ok(found) => Some(format!("{code}'s agency has {found} files, not {expected}")),
        Err(error) => Some(format!("{code}'s agency: {} cannot be read: {error}", folder.display())),
    }
}

fn named(all: &[Sent], ids: &[&str]) -> String {
    let name = |id: &&str| {
        let sent = all.iter().find(|sent| sent.exchange_id == **id);
        sent.map_or_else(|| format!("something else ({id})"), |sent| format!("the {}", sent.item.name))
    };
    let names: Vec<String> = ids.iter().map(name).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// Milliseconds between two moments of this machine's clock.
pub(super) fn since(earlier: jiff::Timestamp, later: jiff::Timestamp) -> f64 {
    (later.as_microsecond() - earlier.as_microsecond()) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::cast::ITEMS;

    const NOW: jiff::Timestamp = jiff::Timestamp::UNIX_EPOCH;

    /// All four sent, and received by whom they concern, with files as they were sent.
    fn as_agreed(folder: &Path) -> (Vec<Sent>, Receipts) {
        let sent = |(index, item)| Sent { item, exchange_id: format!("{index:064}"), queued_at: NOW };
        let all: Vec<Sent> = ITEMS.iter().enumerate().map(sent).collect();
        let mut receipts = Receipts::default();
        for state in &STATES {
            for sent in all.iter().filter(|sent| sent.item.is_for(state.code)) {
                receipts.add(line(folder, state.code, sent));
            }
        }
        (all, receipts)
    }

    fn line(folder: &Path, code: &'static str, sent: &Sent) -> Line {
        let path = folder.join(code).join(&sent.exchange_id);
        fs::create_dir_all(folder.join(code)).unwrap();
        fs::write(&path, sent.item.sample.content).unwrap();
        let Item { from, accord, measure, lane, sample, .. } = sent.item;
        let value = serde_json::json!({
            "exchange_id": sent.exchange_id, "origin": from, "agreement": accord.id, "measure": measure,
            "lane": lane, "title": sample.title, "file": path,
        });
        Line { code, value, at: NOW }
    }

    #[test]
    fn what_was_agreed_is_found_in_order() {
        let place = tempfile::tempdir().unwrap();
        let (all, receipts) = as_agreed(place.path());
        assert_eq!(receipts.check(&all, place.path()), Vec::<String>::new());
        assert!(all.iter().all(|sent| receipts.are_complete(sent)));
    }

    #[test]
    fn an_exchange_too_many_too_few_or_changed_is_found() {
        let place = tempfile::tempdir().unwrap();
        let check = |change: &dyn Fn(&mut Receipts, &[Sent]), words: &str| {
            let folder = tempfile::tempdir_in(place.path()).unwrap();
            let (all, mut receipts) = as_agreed(folder.path());
            change(&mut receipts, &all);
            let wrong = receipts.check(&all, folder.path()).join("\n");
            assert!(wrong.contains(words), "{words} is not in: {wrong}");
        };
        check(&|receipts, all| receipts.add(line(place.path(), "KAZ", &all[0])), "KAZ should have received");
        check(&|receipts, _| drop(receipts.by_state.remove("KOR")), "received nothing");
        check(&|receipts, _| receipts.by_state.get_mut("IRN").unwrap().reverse(), "IRN should have received");
        check(
            &|receipts, _| receipts.by_state.get_mut("TUR").unwrap()[0].value["title"] = "x".into(),
            "the title of the",
        );
        let spoil = |receipts: &mut Receipts, _: &[Sent]| {
            fs::write(receipts.by_state["TUR"][1].text("file"), "x").unwrap();
        };
        check(&spoil, "the drug seizures is not as it was sent");
        let stray = |receipts: &mut Receipts, _: &[Sent]| {
            let kept = Path::new(receipts.by_state["KOR"][0].text("file")).to_owned();
            fs::write(kept.with_file_name("stray"), "x").unwrap();
        };
        check(&stray, "KOR's agency has 3 files, not 2");
    }
}
