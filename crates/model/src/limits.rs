//! The limits that hub and nodes announce in their hellos and never lower (DESIGN, sections 5 and 8).

/// One part of an exchange on lanes priority and routine. Over it: `BODY_TOO_LARGE`.
pub const BODY_SIZE_MAX_BYTES: usize = 4 * 1024 * 1024;
/// One part of an exchange on lane flash. Over it: `BODY_TOO_LARGE`.
pub const FLASH_BODY_SIZE_MAX_BYTES: usize = 64 * 1024;
/// One consignment as it stands on the wire. Over it: `CONSIGNMENT_TOO_LARGE`; a node closes it before.
pub const CONSIGNMENT_SIZE_MAX_BYTES: usize = 5 * 1024 * 1024;
/// Exchanges in one consignment: the slots of a tree of depth 10. Over it: `CONSIGNMENT_MALFORMED`.
pub const CONSIGNMENT_EXCHANGES_MAX: usize = 1024;
/// Entries of one durable write. A single entry may be this large.
pub const COMMIT_SIZE_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Consignments of one lane that a node may have on the wire without a receipt. The uplink waits beyond it.
pub const CONSIGN_UNRECEIPTED_MAX: usize = 32;
/// Receipts of one chain that the hub gives again word for word. Older ones answer `ALREADY_RECORDED`.
pub const RECEIPTS_KEPT_PER_CHAIN: usize = 32;
/// Chain epochs of one node. Over it: `EPOCH_OUT_OF_ORDER`.
pub const EPOCHS_MAX: u32 = 1024;
/// A title, in bytes of UTF-8. Over it: `TITLE_INVALID`.
pub const TITLE_SIZE_MAX_BYTES: usize = 1024;
/// A line that everybody may read, such as an office, in bytes of UTF-8.
pub const SHORT_LINE_SIZE_MAX_BYTES: usize = 256;
/// One serialised header. Over it: `HEADER_MALFORMED`.
pub const HEADER_SIZE_MAX_BYTES: usize = 16 * 1024;
/// Participants on one agreement. Over it: `AGREEMENT_MALFORMED`.
pub const AGREEMENT_PARTIES_MAX: usize = 256;
/// Measures of one agreement. Over it: `AGREEMENT_MALFORMED`.
pub const AGREEMENT_MEASURES_MAX: usize = 256;
/// Media types and ranges in the terms of an agreement. Over it: `AGREEMENT_MALFORMED`.
pub const AGREEMENT_MEDIA_MAX: usize = 64;
/// Agencies named in a header. Over it: `HEADER_MALFORMED`.
pub const HEADER_AGENCIES_MAX: usize = 64;
/// One signed statement with its certificates. Over it: `STATEMENT_MALFORMED`.
pub const STATEMENT_SIZE_MAX_BYTES: usize = 256 * 1024;
