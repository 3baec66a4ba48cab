//! What of an exchange commands on the hub's folder show: nothing of its content, unless the agreement says that the secretariat reads.
//!
//! Invariant: content is shown only where the very version that the exchange names, by the digest of its text, is known to say so; a
//! version that is not in the journal says nothing, and nothing is shown.

use std::collections::BTreeMap;

use concord_journal::Entry;
use concord_ledger::StatementContent;
use concord_model::{AgreementRef, Reason, SecretariatAccess};
use concord_wire::stored::hub::{self, HubEntry, KIND_STATEMENT};

/// The version says that the secretariat only carries.
const CARRIES: &str = "SECRETARIAT_CARRIES";

/// What the versions say that were proposed in the entries of a hub's journal so far.
#[derive(Default)]
pub(super) struct Agreed(BTreeMap<AgreementRef, SecretariatAccess>);

impl Agreed {
    /// Takes in an entry. Versions that never came into force are taken in as well: no exchange names them.
    pub(super) fn learn(&mut self, entry: &Entry) {
        if entry.kind != KIND_STATEMENT {
            return;
        }
        if let Ok(HubEntry::Statement(decided, ..)) = hub::read(entry)
            && let StatementContent::Propose { text, digest } = &decided.statement.content
        {
            let version = AgreementRef { id: text.id.clone(), version: text.version, digest: *digest };
            self.0.insert(version, text.terms.secretariat);
        }
    }

    /// Refuses with the reason why content of what names this version is not shown.
    pub(super) fn allow(&self, version: &AgreementRef) -> Result<(), &'static str> {
        match self.0.get(version) {
            Some(SecretariatAccess::Reads) => Ok(()),
            Some(SecretariatAccess::Carries) => Err(CARRIES),
            None => Err(Reason::AgreementUnknown.code()),
        }
    }
}

#[cfg(test)]
mod tests {
    use concord_model::{AgreementDigest, Digest};

    use super::*;

    #[test]
    fn only_the_very_version_that_says_so_is_read() {
        let version = |number, digest| AgreementRef {
            id: "KAZ/x".parse().unwrap(),
            version: number,
            digest: AgreementDigest(Digest([digest; 32])),
        };
        let known = [(version(1, 1), SecretariatAccess::Reads), (version(2, 2), SecretariatAccess::Carries)];
        let agreed = Agreed(known.into());
        assert_eq!(agreed.allow(&version(1, 1)), Ok(()));
        assert_eq!(agreed.allow(&version(2, 2)), Err("SECRETARIAT_CARRIES"));
        for unknown in [version(3, 1), version(1, 2), version(2, 1)] {
            assert_eq!(agreed.allow(&unknown), Err("AGREEMENT_UNKNOWN"));
        }
        assert_eq!(Agreed::default().allow(&version(1, 1)), Err("AGREEMENT_UNKNOWN"));
    }
}
