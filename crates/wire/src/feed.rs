//! Receipts in a sender's feed.

use concord_ledger::{NoticeOutcome, ReceiptNotice};
use concord_model::{Name, Reason, Refusal, SetAsideReason, WithheldReason};

use crate::convert::{lane, parse_lane, parse_ranges, ranges, refuse, required};
use crate::proto::exchange::v1::ChainKey;
use crate::proto::feed::v1 as pb;

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
