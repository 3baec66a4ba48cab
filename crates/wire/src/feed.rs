//! The feed: receipts in a sender's feed, and the digests by which two feeds are compared.

use concord_journal::Digest as JournalDigest;
use concord_ledger::{NoticeOutcome, ReceiptNotice};
use concord_model::{Digest, Name, Reason, Refusal, SetAsideReason, WithheldReason};
use prost::Message as _;

use crate::convert::{lane, parse_lane, parse_ranges, ranges, refuse, required};
use crate::proto::exchange::v1::ChainKey;
use crate::proto::feed::v1 as pb;

const ITEM_DOMAIN: &str = "concord feed item v1";
const RESUME_DOMAIN: &str = "concord feed resume v1";

/// What a node shows of the last item that it has, and what the hub makes anew of the entry that it told: two pasts in which
/// something else stands under the same number are told apart by it.
pub fn item_digest(item: &pb::FeedItem) -> Digest {
    Digest(JournalDigest::of(ITEM_DOMAIN, &[&item.encode_to_vec()]).0)
}

/// What a node shows where its feed was resumed and no item came since: `number` of `history` is where it stood before, `at`
/// where it goes on.
pub fn resume_digest(history: &[u8], number: u64, digest: &[u8], at: u64) -> Digest {
    let parts = [history, &number.to_be_bytes(), digest, &at.to_be_bytes()];
    Digest(JournalDigest::of(RESUME_DOMAIN, &parts).0)
}

/// A notice as a message; `hub` completes its chain.
pub fn receipt(hub: &Name, notice: &ReceiptNotice) -> pb::Receipt {
    let (state, reason) = match notice.outcome {
        NoticeOutcome::Delivered => (pb::ReceiptState::Delivered, ""),
        NoticeOutcome::Taken => (pb::ReceiptState::Taken, ""),
        NoticeOutcome::Withheld(reason) => (pb::ReceiptState::Withheld, reason.as_str()),
        NoticeOutcome::SetAside(reason) => (pb::ReceiptState::SetAside, reason.as_str()),
    };
    pb::Receipt {
        chain: Some(ChainKey {
            hub: hub.to_string(),
            node: notice.node.to_string(),
            epoch: notice.epoch,
            lane: lane(notice.lane).into(),
        }),
        number: notice.number,
        items: ranges(&notice.items),
        state: state.into(),
        reason: reason.to_owned(),
    }
}

/// Reads a notice.
pub fn parse_receipt(message: &pb::Receipt) -> Result<ReceiptNotice, Refusal> {
    let malformed = Reason::ConsignmentMalformed;
    let wrong = refuse(malformed);
    let chain = required(malformed, "the chain of a receipt", message.chain.as_ref())?;
    let outcome = match message.state() {
        pb::ReceiptState::Delivered => NoticeOutcome::Delivered,
        pb::ReceiptState::Taken => NoticeOutcome::Taken,
        pb::ReceiptState::Withheld => {
            NoticeOutcome::Withheld(WithheldReason::from_code(&message.reason).unwrap_or(WithheldReason::Left))
        }
        pb::ReceiptState::SetAside => {
            let known = SetAsideReason::from_code(&message.reason);
            NoticeOutcome::SetAside(known.unwrap_or(SetAsideReason::SignatureInvalid))
        }
        pb::ReceiptState::Unspecified => {
            return Err(Refusal::new(malformed, format!("receipt state {} is not known here", message.state)));
        }
    };
    Ok(ReceiptNotice {
        node: Name::parse(&chain.node).map_err(&wrong)?,
        epoch: chain.epoch,
        lane: parse_lane(chain.lane).map_err(&wrong)?,
        number: message.number,
        items: parse_ranges(&message.items).map_err(&wrong)?,
        outcome,
    })
}
