//! What the hub notes in its audit log beside what the server itself does: acts of people, and what was refused whole.

use concord_ledger::{Ledger, Statement, StatementContent};
use concord_model::{Identity, Refusal};
use concord_server::audit::{Event, Object, is_by_rule};

use crate::shared::Shared;

impl Shared {
    /// Notes that a rule refused a caller; what passes as it is a moment later is not noted.
    pub(crate) fn note_refusal(&self, by: &Identity, method: &'static str, about: Object, refusal: &Refusal) {
        if is_by_rule(refusal.reason) {
            self.audit.note(Event::of_call(by, method, about, Err(refusal.reason)));
        }
    }

    /// Notes an act, or that a rule refused it.
    pub(crate) fn note_act<T>(&self, by: &Identity, method: &'static str, about: Object, done: &Result<T, Refusal>) {
        match done {
            Ok(_) => self.audit.note(Event::of_call(by, method, about, Ok(()))),
            Err(refusal) => self.note_refusal(by, method, about, refusal),
        }
    }
}

/// A statement, in names; the ledger is that of before it.
pub(crate) fn about_statement(statement: &Statement, before: &Ledger) -> Object {
    let Statement { participant, officer, number, content, .. } = statement;
    let holds = before.registry().holds();
    let mut words = content.in_names(holds);
    // What is approved or rejected, beside the id by which it is.
    if let StatementContent::Approve(about) | StatementContent::Reject(about) = content
        && let Some(waiting) = before.approvals().get(about)
    {
        words = format!("{words}, {}", waiting.statement.content.in_names(holds));
    }
    Object::statement(participant, officer, *number, &words)
}
