//! How much one commit takes: what commands weigh, before they are decided.

use concord_model::limits::{BODY_SIZE_MAX_BYTES, COMMIT_SIZE_MAX_BYTES};
use concord_views::SCAN_ROWS_MAX;
use concord_wire::right::RIGHT_NAMES_MAX;

use super::batch::TAKEN_AGAIN_MAX;
use super::command::{Command, Prepared};

/// What one commit takes of commands; the rest of [`COMMIT_SIZE_MAX_BYTES`] is for what entries add to them. A single command
/// over it is refused with `INTERNAL`: links and services bound what they hand over before.
pub(super) const COMMAND_BYTES_PER_COMMIT_MAX: u64 = COMMIT_SIZE_MAX_BYTES as u64 - 512 * 1024;
/// What lengths, nonces and tables add to one exchange, in the journal and on the wire.
const EXCHANGE_OVERHEAD_BYTES: usize = 512;
/// What a small command takes at most, apart from what it carries.
const COMMAND_OVERHEAD_BYTES: u64 = 1024;
/// Commands of one commit, so that the first answer does not wait for a long queue of small ones.
const COMMANDS_PER_COMMIT_MAX: usize = 4096;

/// What a commit in the making has taken.
#[derive(Default)]
pub(super) struct Room {
    commands: usize,
    size_bytes: u64,
}

impl Room {
    pub(super) fn fits(&self, command: &Command) -> bool {
        self.commands < COMMANDS_PER_COMMIT_MAX && self.size_bytes + size_of(command) <= COMMAND_BYTES_PER_COMMIT_MAX
    }

    pub(super) fn take(&mut self, command: &Command) {
        self.commands += 1;
        self.size_bytes += size_of(command);
    }
}

pub(super) fn exchange_size(prepared: &Prepared) -> usize {
    let size = |header: &bytes::Bytes, blobs: &[concord_journal::Blob]| {
        header.len() + blobs.iter().map(|blob| blob.bytes().len()).sum::<usize>() + EXCHANGE_OVERHEAD_BYTES
    };
    let second = prepared.second.as_ref().map_or(0, |second| size(&second.header, &second.blobs));
    size(&prepared.header, &prepared.blobs) + second
}

pub(super) fn size_of(command: &Command) -> u64 {
    let carried = match command {
        Command::Submit(prepared, _) => exchange_size(prepared) as u64,
        Command::Refused(refused, _) => refused.request.len() as u64,
        Command::ResumeFeed(..)
        | Command::Begin(..)
        | Command::Ask(..)
        | Command::LiftFence(..)
        | Command::ConfirmPin(..)
        | Command::Collect(..)
        | Command::DiscardAside(..)
        | Command::Effect(..)
        | Command::PackAnew(..) => 0,
        // One exchange, which came within its limits.
        Command::RetryAside(..) => BODY_SIZE_MAX_BYTES as u64 + 64 * 1024,
        Command::Fence(why, _) => why.message.len() as u64,
        Command::ResumeMailbox(..) => TAKEN_AGAIN_MAX as u64 * 10,
        Command::Receipts(receipts, _) | Command::Renew(receipts, _) => {
            receipts.iter().map(|(receipt, _)| receipt.statement.len() as u64 + 256).sum()
        }
        Command::Feed(_, _, size_bytes, _) => *size_bytes,
        Command::Mail(_, _, items, _) => items.iter().map(|item| item.size_bytes).sum(),
        Command::Statement(..) => concord_model::limits::STATEMENT_SIZE_MAX_BYTES as u64,
        // At most as many numbers as one scan answers.
        Command::Acknowledge(..) => SCAN_ROWS_MAX as u64 * 10,
        Command::Fetched(fetched, _) => {
            let headers: usize =
                fetched.sealed.headers.iter().map(|header| header.len() + EXCHANGE_OVERHEAD_BYTES).sum();
            let blobs: usize = fetched.blobs.iter().flatten().map(|blob| blob.bytes().len()).sum();
            (headers + blobs + fetched.receipt.statement.len()) as u64
        }
        Command::Taken(_, _, numbers, _) => numbers.len() as u64 * 10,
        Command::Recovered(fact, _) => fact.bodies_lost.len() as u64 * 40,
        Command::Answer(answer, _) => answer.message.len() as u64,
        Command::AddAgency(_, measures, _) => measures.len() as u64 * 70,
        Command::ChangeRights(..) => 2 * RIGHT_NAMES_MAX as u64 * 140,
    };
    carried + COMMAND_OVERHEAD_BYTES
}
