//! A profile folder is used whole or refused in words, and a key in it is readable by its owner alone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use concord_identity::{
    Admission, Anchor, AnchorKeys, Anchors, Application, CertificateRequest, LeafKey, LeafKeyKind, Profile,
    ProfileError, ProfileSettings, StatementError, server_config, verify_statement,
};
use tempfile::TempDir;

use crate::support::{NODE, anchor_keys, code, connect, identity, leaf, now};

const AGENCY: &str = "spiffe://kaz.concord/agency/cert";
const OFFICER: &str = "spiffe://kaz.concord/officer/first";

fn create(folder: &TempDir, kaz: &AnchorKeys, uri: &str, settings: ProfileSettings) -> Result<Profile, ProfileError> {
    let identity = identity(uri);
    let key = LeafKey::generate(LeafKeyKind::for_role(identity.role)).unwrap();
    let request = CertificateRequest::leaf(&identity, key.public(), now());
    let chain = [kaz.issue(&request).unwrap()];
    Profile::create(folder.path(), &settings, &chain, &key, kaz.anchor())
}

fn settings(uri: &str) -> ProfileSettings {
    ProfileSettings {
        identity: identity(uri),
        server: identity(NODE),
        address: Some("127.0.0.1:1".to_owned()),
        addresses_file: Some(PathBuf::from("addresses.json")),
    }
}

#[tokio::test]
async fn a_profile_reaches_its_server_and_is_known_there() {
    let (kaz, folder) = (anchor_keys("KAZ"), TempDir::new().unwrap());
    create(&folder, &kaz, AGENCY, settings(AGENCY)).unwrap();
    let profile = Profile::load(folder.path()).unwrap();
    assert_eq!(profile.settings(), &settings(AGENCY));

    let anchors = Anchors::pinned(code("KAZ"), kaz.anchor().clone());
    let admission = Admission::node(&code("KAZ"));
    let server = server_config(&leaf(&kaz, NODE, |_| {}), &anchors, admission, Application::Grpc).unwrap();
    let outcome = connect(server, profile.client_config().unwrap()).await;
    assert_eq!(&outcome.server.unwrap().caller, profile.own());
    assert_eq!(outcome.client.unwrap(), b"answer");
}

#[test]
fn key_files_have_mode_0600_and_nothing_else_is_left() {
    let (kaz, folder) = (anchor_keys("KAZ"), TempDir::new().unwrap());
    create(&folder, &kaz, AGENCY, settings(AGENCY)).unwrap();
    kaz.save(&folder.path().join("anchor.pem"), &folder.path().join("anchor-key.pem")).unwrap();
    let mut found: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            (entry.file_name().into_string().unwrap(), mode & 0o077 == 0)
        })
        .collect();
    found.sort();
    let expected = [
        ("anchor-key.pem", true),
        ("anchor.pem", false),
        ("certificate.pem", false),
        ("key.pem", true),
        ("profile.toml", false),
        ("server-anchor.pem", false),
    ];
    assert_eq!(found, expected.map(|(name, private)| (name.to_owned(), private)));
}

#[test]
fn the_addresses_file_wins_while_it_can_be_read() {
    let (kaz, folder) = (anchor_keys("KAZ"), TempDir::new().unwrap());
    let profile = create(&folder, &kaz, AGENCY, settings(AGENCY)).unwrap();
    let file = folder.path().join("addresses.json");
    assert_eq!(profile.address().unwrap(), "127.0.0.1:1");
    fs::write(&file, r#"{"listen": "127.0.0.1:4711", "admin": "127.0.0.1:4712"}"#).unwrap();
    assert_eq!(profile.address().unwrap(), "127.0.0.1:4711");
    fs::write(&file, "{").unwrap();
    assert_eq!(profile.address().unwrap(), "127.0.0.1:1");
}

#[test]
fn an_address_that_nobody_knows_yet_is_explained() {
    let (kaz, folder) = (anchor_keys("KAZ"), TempDir::new().unwrap());
    let settings = ProfileSettings { address: None, ..settings(AGENCY) };
    let profile = create(&folder, &kaz, AGENCY, settings).unwrap();
    let message = || profile.address().unwrap_err().to_string();
    assert!(message().contains("is not in its server's folder any more"), "{}", message());
    fs::write(folder.path().join("concord.json"), "{}").unwrap();
    assert!(message().contains("has not been started yet"), "{}", message());
    assert!(message().contains("addresses.json"), "{}", message());
}

#[test]
fn an_officers_profile_signs_for_its_state_and_an_agencys_does_not() {
    let (kaz, folder) = (anchor_keys("KAZ"), TempDir::new().unwrap());
    let profile = create(&folder, &kaz, OFFICER, settings(OFFICER)).unwrap();
    let signer = profile.statement_signer().unwrap();
    let signature = signer.sign_statement(b"statement");
    let anchors = [kaz.anchor().clone()];
    let officer = verify_statement(&code("KAZ"), &anchors, signer.chain(), b"statement", &signature, now());
    assert_eq!(officer.unwrap(), identity(OFFICER));

    let folder = TempDir::new().unwrap();
    let agency = create(&folder, &kaz, AGENCY, settings(AGENCY)).unwrap();
    assert!(matches!(agency.statement_signer(), Err(ProfileError::Statement(StatementError::NotAnOfficer(_)))));
}

#[test]
fn what_is_no_profile_or_not_all_of_one_piece_is_refused_in_words() {
    let check = |damage: fn(&TempDir), expected: &str| {
        let (kaz, folder) = (anchor_keys("KAZ"), TempDir::new().unwrap());
        create(&folder, &kaz, AGENCY, settings(AGENCY)).unwrap();
        damage(&folder);
        let message = Profile::load(folder.path()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    let rewrite = |folder: &TempDir, from: &str, to: &str| {
        let path = folder.path().join("profile.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replace(from, to)).unwrap();
    };
    check(|it| fs::remove_file(it.path().join("profile.toml")).unwrap(), "is not a Concord profile");
    check(|it| fs::remove_file(it.path().join("key.pem")).unwrap(), "key.pem");
    check(|it| fs::write(it.path().join("certificate.pem"), "x").unwrap(), "certificate.pem");
    check(
        |it| {
            fs::copy(it.path().join("certificate.pem"), it.path().join("server-anchor.pem")).unwrap();
        },
        "not the certificate of a CA",
    );
    let (kaz, folder) = (anchor_keys("KAZ"), TempDir::new().unwrap());
    create(&folder, &kaz, AGENCY, settings(AGENCY)).unwrap();
    rewrite(&folder, "\"cert\"", "\"police\"");
    let error = Profile::load(folder.path()).unwrap_err();
    assert!(matches!(error, ProfileError::OtherCertificate { .. }), "{error}");
    rewrite(&folder, "name", "nom");
    let error = Profile::load(folder.path()).unwrap_err();
    assert!(error.to_string().contains("nom"), "{error}");
}

#[test]
fn a_profile_is_never_written_over() {
    let (kaz, folder) = (anchor_keys("KAZ"), TempDir::new().unwrap());
    create(&folder, &kaz, AGENCY, settings(AGENCY)).unwrap();
    let before = fs::read(folder.path().join("key.pem")).unwrap();
    let again = create(&folder, &kaz, AGENCY, settings(AGENCY));
    assert!(matches!(again, Err(ProfileError::Exists(_))));
    assert_eq!(fs::read(folder.path().join("key.pem")).unwrap(), before);
}

#[test]
fn an_anchor_file_with_two_certificates_is_refused() {
    let (one, two) = (anchor_keys("KAZ"), anchor_keys("UZB"));
    let text = one.anchor().to_pem() + &two.anchor().to_pem();
    assert!(Anchor::from_pem(&text).unwrap_err().to_string().contains("2 certificates"));
}
