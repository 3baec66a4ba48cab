//! Names of the alarms and notes that hub and node both raise. README says of each what it means and when it goes; a test compares.

/// A check found something in the journal that does not verify.
pub const JOURNAL_DAMAGED_ALARM: &str = "journal-damaged";
/// The end of the last commit was damaged when the process began, and was cut; an alarm where no whole entry was left, else a note.
pub const JOURNAL_CUT_ALARM: &str = "journal-cut";
/// Views or snapshots knew entries that the journal does not have; a note at later starts.
pub const JOURNAL_BEHIND_VIEWS_ALARM: &str = "journal-behind-views";
/// Content that somebody waits for is damaged, and a peer is asked for it.
pub const BODY_DAMAGED_ALARM: &str = "body-damaged";
/// What is lost for good, by exchange or statement and party.
pub const NOT_HEALED_NOTE: &str = "not-healed";
/// The peer takes less than this side would give.
pub const LOWER_LIMITS_NOTE: &str = "lower-limits";
/// Lines of the audit log were lost.
pub(crate) const AUDIT_LOST_NOTE: &str = "audit-lost";
/// The process is ending.
pub(crate) const DRAINING_ALARM: &str = "draining";
/// The disk leaves no more than the reserve.
pub(crate) const DISK_FULL_ALARM: &str = "disk-full";
/// The machine's clock is not believed.
pub(crate) const CLOCK_SUSPECT_NOTE: &str = "clock-suspect";
/// A file in the folder of revocation lists does not count as it is.
pub(crate) const REVOCATION_INVALID_ALARM: &str = "revocation-invalid";
/// A list in that folder is of an anchor that counts no more.
pub(crate) const REVOCATION_PAST_NOTE: &str = "revocation-past";
/// A revocation list is soon to be followed by another, or was before now.
pub(crate) const REVOCATION_OUTDATED_ALARM: &str = "revocation-outdated";
/// A new certificate, key or anchor of this server's own is not taken.
pub(crate) const CERTIFICATE_INVALID_ALARM: &str = "certificate-invalid";
/// A certificate that this server knows ends soon, or has; an alarm where it is its own and the last step has come.
pub(crate) const CERTIFICATE_ENDS_NOTE: &str = "certificate-ends";
