//! Golden vectors of what stands in the journals: it must be read for ever.

use concord_journal::Draft;
use concord_model::Reason;
use concord_wire::consignment::blob_to_bytes;
use concord_wire::stored::hub;

use crate::fixtures::{NOW, founding};
use crate::golden::Golden;
use crate::stored_hub::{
    acknowledged_draft, consignment_draft, epoch_closed_draft, feed_resumed_draft, mailbox_resumed_draft,
    node_seen_draft, not_healed_draft, statement_decided,
};
use crate::stored_node;

fn payload(golden: &mut Golden, title: &str, message: &str, draft: &Draft) {
    golden.section(title).text("kind", draft.kind).text("version", draft.version);
    golden.text("recorded at, in microseconds", draft.recorded_at);
    golden.message("payload", &format!("concord.journal.v1.{message}"), &draft.payload);
    for (index, blob) in draft.blobs.iter().enumerate() {
        golden.bytes(&format!("blob {index}, nonce ‖ bytes"), &blob_to_bytes(blob));
    }
}

#[test]
fn every_payload_of_the_hub() {
    let mut golden = Golden::new("hub-journal.txt", "Payloads of the hub's journal with the blobs beside them.");
    payload(&mut golden, "founded", "HubFounded", &hub::founded(&founding(), NOW));
    payload(&mut golden, "statement accepted", "StatementDecided", &statement_decided(None).1);
    let refused = statement_decided(Some(Reason::AgreementExists)).1;
    payload(&mut golden, "statement refused", "StatementDecided", &refused);
    let title = "consignment, its second exchange refused";
    payload(&mut golden, title, "ConsignmentRecorded", &consignment_draft());
    payload(&mut golden, "acknowledged", "MailAcknowledged", &acknowledged_draft());
    payload(&mut golden, "feed resumed", "HubFeedResumed", &feed_resumed_draft());
    payload(&mut golden, "mailbox resumed", "HubMailboxResumed", &mailbox_resumed_draft());
    payload(&mut golden, "node seen", "NodeSeen", &node_seen_draft());
    payload(&mut golden, "not healed", "NotHealed", &not_healed_draft());
    payload(&mut golden, "epoch closed", "StatementDecided", &epoch_closed_draft());
    golden.check();
}

#[test]
fn every_payload_of_a_node() {
    let mut golden = Golden::new("node-journal.txt", "Payloads of a node's journal with the blobs beside them.");
    for (message, draft) in stored_node::drafts() {
        payload(&mut golden, message, message, &draft);
    }
    payload(&mut golden, "packed anew", "ExchangesQueued", &stored_node::packed_anew_draft());
    golden.check();
}
