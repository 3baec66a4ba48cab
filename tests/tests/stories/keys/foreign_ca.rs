//! An existing authority, of other software, that signs from the same requests: what it has to put into its certificates, and what is said
//! where it did not.

use std::fs;
use std::path::{Path, PathBuf};

use concord_tests::forge::Authority;
use concord_tests::{concord, words};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType, date_time_ymd};

const NODE: &str = "spiffe://kaz.concord/node/main";

struct Place {
    folder: tempfile::TempDir,
    ca: Authority,
}

impl Place {
    fn dir(&self) -> PathBuf {
        self.folder.path().join("node")
    }

    /// The certificate for a key of the folder, with what has to be in it, after a change.
    fn leaf(&self, ca: &Authority, key: &str, uri: &str, change: impl FnOnce(&mut CertificateParams)) -> String {
        let key = KeyPair::from_pem(&fs::read_to_string(self.dir().join(key)).unwrap()).unwrap();
        let made = ca.leaf_with(key, uri, |params| {
            if uri == NODE {
                params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            }
            change(params);
        });
        concord_identity::certificates_to_pem(&made.chain[..1])
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::namesake("root").below("National CA", |_| {});
    let place = Place { folder, ca };
    concord(words!["node", "init", "--csr", "--dir", place.dir(), "--participant", "KAZ"]).ok();
    place
}

fn is_untouched(dir: &Path) {
    for file in ["tls/certificate.pem", "tls/anchor.pem", "anchor", "officer/profile.toml", "join-request.json"] {
        assert!(!dir.join(file).exists(), "{file} was put in");
    }
}

#[test]
fn certificates_of_an_existing_authority_are_put_in_if_they_are_fit_and_else_everything_that_is_missing_is_said() {
    let place = place();
    let (dir, anchor) = (place.dir(), place.file("ca.pem", &place.ca.certificates()));
    let other = Authority::namesake("root").below("National CA", |_| {});
    type Change = fn(&mut CertificateParams);
    let cases: [(&str, Change); 9] = [
        ("it has no URI name; it needs exactly one, URI:spiffe://kaz.concord/node/main", |params| {
            params.subject_alt_names.clear();
        }),
        ("it has 2 URI names", |params| {
            params.subject_alt_names.push(SanType::URI("spiffe://kaz.concord/node/two".try_into().unwrap()));
        }),
        ("its URI name is spiffe://irn.concord/node/main", |params| {
            params.subject_alt_names = vec![SanType::URI("spiffe://irn.concord/node/main".try_into().unwrap())];
        }),
        ("its extended key usage lacks serverAuth", |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }),
        ("its extended key usage lacks clientAuth", |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }),
        ("its key usage lacks digitalSignature", |params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
        ("it ended on 2021-01-01", |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }),
        ("it is not valid before 2090-01-01", |params| params.not_before = date_time_ymd(2090, 1, 1)),
        ("its extended key usage lacks clientAuth", |params| params.extended_key_usages.clear()),
    ];
    let install = |file: &Path| concord(words!["node", "install-cert", file, "--anchor", anchor, "--dir", dir]);
    for (words, change) in cases {
        let file = place.file("bad.pem", &place.leaf(&place.ca, "tls/key.pem", NODE, change));
        let refused = install(&file);
        assert!(refused.message().contains(words), "{words}: {refused}");
        refused.refused(3, "CERTIFICATE_UNFIT");
        is_untouched(&dir);
    }
    // All that is wrong is said at once, and one bad certificate keeps the good ones out too.
    let officer = "spiffe://kaz.concord/officer/officer";
    let good = place.leaf(&place.ca, "tls/key.pem", NODE, |_| {});
    let foreign = place.leaf(&other, "officer/key.pem", officer, |params| params.subject_alt_names.clear());
    let both = place.file("both.pem", &format!("{good}{foreign}"));
    let refused = install(&both);
    let words = "certificate 2, for spiffe://kaz.concord/officer/officer: it has no URI name";
    assert!(refused.message().contains(words), "{refused}");
    assert!(!refused.message().contains("certificate 1"), "{refused}");
    is_untouched(&dir);
    // Of a namesake with another key; for a key that is none of this folder; without any anchor; and an anchor that is none.
    let forged = place.file("forged.pem", &place.leaf(&other, "tls/key.pem", NODE, |_| {}));
    assert!(install(&forged).message().contains("it does not verify under the anchor"), "{}", install(&forged));
    let stray = place.ca.leaf(NODE, |_| {});
    let stray = place.file("stray.pem", &concord_identity::certificates_to_pem(&stray.chain[..1]));
    assert!(install(&stray).message().contains("is none that was made here"), "{}", install(&stray));
    let good_file = place.file("good.pem", &good);
    concord(words!["node", "install-cert", good_file, "--dir", dir]).refused(2, "ANCHOR_UNKNOWN");
    let none = concord(words!["node", "install-cert", good_file, "--anchor", good_file, "--dir", dir]);
    assert!(none.message().contains("it is not the certificate of a CA"), "{none}");
    is_untouched(&dir);

    let operator = place.leaf(&place.ca, "operator/key.pem", "spiffe://kaz.concord/operator/operator", |_| {});
    let officer = place.leaf(&place.ca, "officer/key.pem", officer, |_| {});
    let all = place.file("all.pem", &format!("{operator}{good}{officer}"));
    install(&all).refused(3, "ANCHOR_UNCOMPARED");
    is_untouched(&dir);
    let said = concord_identity::Anchor::from_pem(&place.ca.certificates()).unwrap().fingerprint().to_string();
    let with_said = words!["node", "install-cert", all, "--anchor", anchor, "--dir", dir, "--fingerprint", said];
    let installed = concord(with_said).ok().lines();
    assert_eq!(installed[0]["missing"], serde_json::json!([]), "{installed:?}");
    assert_eq!(installed[1]["participant"], "KAZ");
    assert!(dir.join("join-request.json").exists());
    // From now on another anchor is not taken, not even with good certificates.
    let theirs = place.file("other.pem", &other.certificates());
    concord(words!["node", "install-cert", all, "--anchor", theirs, "--dir", dir]).refused(3, "ANCHOR_OTHER");
}
