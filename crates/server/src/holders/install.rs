//! Certificates that were made elsewhere, from requests of this folder: all are checked before any is put in.

use std::fs;
use std::path::Path;

use concord_identity::{
    Anchor, AnchorFolder, CertificateFacts, LeafPublicKey, Profile, certificates_from_pem, is_authority, key_of,
    keys_in, read_text, unfit_for, write_public,
};
use concord_model::{Fingerprint, Identity, Timestamp};
use rustls::pki_types::CertificateDer;

use super::taken_back::TakenBack;
use super::{Holders, HoldersError, Place, TLS_ANCHOR_FILE, make_folder};

/// What was put in, and what is still missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Those that were put in.
    pub certificates: Vec<CertificateFacts>,
    /// Those whose key is here and whose certificate is not.
    pub missing: Vec<Identity>,
    /// The anchor that all are under.
    pub anchor: Anchor,
}

impl Holders {
    /// Puts the certificates of a PEM text in, each beside the key that is here, under the anchor that this folder goes by, or, in a
    /// folder that has none yet, under the given one, or the one CA of the text. Nothing is put in unless all of them are fit.
    ///
    /// Invariant: no anchor comes into a folder by a file alone. Whoever changes the file on its way back can put a CA of their own there,
    /// with leaves for the keys of the requests; all that this folder then says of itself would be theirs. So the fingerprint has to be
    /// `said`, from where the anchor is kept.
    pub fn install(
        &self,
        text: &str,
        anchor: Option<&Path>,
        said: Option<Fingerprint>,
        now: Timestamp,
    ) -> Result<Installed, HoldersError> {
        let certificates = certificates_from_pem(text).map_err(|why| HoldersError::Unfit(vec![why]))?;
        let leaves: Vec<_> = certificates.iter().filter(|der| !is_authority(der)).collect();
        if leaves.is_empty() {
            return Err(HoldersError::NoLeaf);
        }
        let known = self.anchors()?;
        let is_new_anchor = known.is_empty();
        let anchor = self.anchor_for(&certificates, anchor)?;
        let follows = !is_new_anchor && !known.contains(&anchor);
        let taken_back = self.taken_back()?;

        let (mut fit, mut wrong) = (Vec::<(Identity, Place, &CertificateDer<'static>)>::new(), Vec::new());
        for (number, leaf) in leaves.into_iter().enumerate() {
            let which = format!("certificate {}", number + 1);
            match self.judge(leaf, &anchor, &taken_back, now) {
                Ok((holder, _)) if fit.iter().any(|(other, ..)| *other == holder) => {
                    wrong.push(format!("{which}, for {holder}: there are two of it"));
                }
                Ok((holder, place)) => fit.push((holder, place, leaf)),
                Err((Some(holder), why)) => wrong.extend(why.iter().map(|why| format!("{which}, for {holder}: {why}"))),
                Err((None, why)) => wrong.extend(why.iter().map(|why| format!("{which}: {why}"))),
            }
        }
        if !wrong.is_empty() {
            return Err(HoldersError::Unfit(wrong));
        }
        compare(&anchor, is_new_anchor || follows, said)?;
        if is_new_anchor {
            self.write_anchor(&anchor)?;
        } else if follows {
            self.know_by(&[std::slice::from_ref(&anchor), known.as_slice()].concat())?;
        }
        // The server's own comes last: with it the folder serves.
        fit.sort_by_key(|(holder, ..)| *holder == self.server);
        for (holder, place, leaf) in &fit {
            if *holder != self.server && !place.is_whole() {
                let settings = self.settings(holder, place, None);
                Profile::lay_out(&place.folder, &settings, std::slice::from_ref(leaf), None, &anchor)?;
            }
            self.put(place, leaf)?;
        }
        let read = |(_, _, leaf): &(Identity, Place, &CertificateDer<'static>)| CertificateFacts::read(leaf);
        let certificates = fit.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Installed { certificates, missing: self.missing(), anchor })
    }

    /// The anchor that these certificates would bring into a folder that has none yet: what is to be compared before [`Self::install`].
    pub fn anchor_to_come(&self, text: &str, anchor: Option<&Path>) -> Result<Option<Anchor>, HoldersError> {
        let known = self.anchors()?;
        if !known.is_empty() && !self.has_anchor_of_hub() {
            return Ok(None);
        }
        let certificates = certificates_from_pem(text).map_err(|why| HoldersError::Unfit(vec![why]))?;
        self.anchor_for(&certificates, anchor).map(|comes| Some(comes).filter(|comes| !known.contains(comes)))
    }

    fn anchor_for(
        &self,
        certificates: &[CertificateDer<'static>],
        anchor: Option<&Path>,
    ) -> Result<Anchor, HoldersError> {
        let authorities: Vec<_> = certificates.iter().filter(|der| is_authority(der)).collect();
        let given = anchor.map(|path| Ok::<_, HoldersError>(Anchor::from_pem(&read_text(path)?)?)).transpose()?;
        // The hub's next anchor comes to a node of the secretariat's in the same way as its first one.
        if self.has_anchor_of_hub()
            && let Some(given) = given
        {
            return Ok(given);
        }
        the_anchor(self.anchor()?, given, &authorities)
    }

    /// Those whose certificates have yet to come, by what is here.
    pub fn missing(&self) -> Vec<Identity> {
        let mut all = self.everybody();
        all.retain(|holder| self.place(holder).is_ok_and(|place| !place.is_whole()));
        all
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        anchor: &Anchor,
        taken_back: &TakenBack,
        now: Timestamp,
    ) -> Result<(Identity, Place), (Option<Identity>, Vec<String>)> {
        let key = key_of(leaf).map_err(|why| (None, vec![why]))?;
        let Some((holder, place)) = self.holder_of(&key) else {
            let named =
                CertificateFacts::read(leaf).map_or_else(|_| String::new(), |facts| format!(" ({})", facts.identity));
            let shown = key.fingerprint().grouped();
            return Err((None, vec![format!("its key {shown}{named} is none that was made here")]));
        };
        let mut wrong = unfit_for(leaf, &holder, anchor, now);
        let facts = CertificateFacts::read(leaf);
        if facts.as_ref().is_ok_and(|facts| taken_back.has(facts)) {
            wrong.push("it, or another one for its key, was taken back; make a request with a new key".to_owned());
        }
        let here = self.certificate_in(&holder, &place);
        if let (Ok(new), Ok(here)) = (facts, here)
            && new.key == here.key
            && new.not_before < here.not_before
        {
            wrong.push("it is older than the one that is here, for the same key; give the newest".to_owned());
        }
        if wrong.is_empty() { Ok((holder, place)) } else { Err((Some(holder), wrong)) }
    }

    /// Whose key this is, of those that are here.
    fn holder_of(&self, key: &LeafPublicKey) -> Option<(Identity, Place)> {
        self.everybody().into_iter().find_map(|holder| {
            let place = self.place(&holder).ok()?;
            keys_in(&place.key()).ok()?.contains(key).then_some((holder, place))
        })
    }

    fn write_anchor(&self, anchor: &Anchor) -> Result<(), HoldersError> {
        let text = anchor.to_pem();
        make_folder(&self.anchor_folder())?;
        write_public(&AnchorFolder::certificate_in(&self.anchor_folder()), text.as_bytes())?;
        if fs::exists(self.dir.join("tls")).unwrap_or(false) {
            write_public(&self.dir.join(TLS_ANCHOR_FILE), text.as_bytes())?;
        }
        Ok(())
    }
}

/// What whoever installs said, against what comes.
fn compare(anchor: &Anchor, is_new: bool, said: Option<Fingerprint>) -> Result<(), HoldersError> {
    let given = anchor.fingerprint();
    match said {
        Some(said) if said != given => {
            Err(HoldersError::FingerprintMismatch { given: given.grouped(), said: said.grouped() })
        }
        None if is_new => Err(HoldersError::AnchorUncompared { fingerprint: given.grouped() }),
        _ => Ok(()),
    }
}

fn the_anchor(
    known: Option<Anchor>,
    given: Option<Anchor>,
    authorities: &[&CertificateDer<'static>],
) -> Result<Anchor, HoldersError> {
    match (known, given) {
        (Some(known), Some(given)) if known != given => Err(HoldersError::AnchorOther {
            given: given.fingerprint().grouped(),
            known: known.fingerprint().grouped(),
        }),
        (Some(known), _) => Ok(known),
        (None, Some(given)) => Ok(given),
        (None, None) => match authorities {
            [] => Err(HoldersError::AnchorUnknown),
            [one] => Ok(Anchor::from_der(one)?),
            several => Err(HoldersError::AnchorsSeveral(several.len())),
        },
    }
}
