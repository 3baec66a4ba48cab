//! What must hold in a data folder whatever is carried into it, fails, or is cut off in the midst.

use std::fs;
use std::path::Path;

use concord_identity::{
    Anchor, AnchorFolder, CertificateFacts, CertificateRequest, Profile, certificates_from_pem, certificates_to_pem,
    read_text, revoked_in,
};
use concord_model::{Fingerprint, Identity, ParticipantCode, Role, Timestamp};

use super::{Holders, HoldersError, Lifetime, read_requests};

const NOW: Timestamp = Timestamp::from_micros(1_795_521_600_000_000);

fn named(end: &str) -> Identity {
    format!("spiffe://kaz.concord/{end}").parse().unwrap()
}

fn holders(dir: &Path) -> Holders {
    Holders::of(dir, named("node/main"))
}

fn anchor_in(dir: &Path, code: &str) -> AnchorFolder {
    AnchorFolder::create(dir, &ParticipantCode::parse(code).unwrap(), NOW).unwrap()
}

fn life() -> Lifetime {
    Lifetime { days: 30, now: NOW }
}

/// A node's folder with its anchor, its own certificate and one officer.
fn whole(dir: &Path) -> (Holders, AnchorFolder, Identity) {
    let (holders, anchor, officer) = (holders(dir), anchor_in(&dir.join("anchor"), "KAZ"), named("officer/first"));
    holders.add_server(&anchor, Vec::new(), life()).unwrap();
    fs::write(dir.join("tls/anchor.pem"), anchor.anchor().to_pem()).unwrap();
    holders.add(&anchor, &officer, None, life()).unwrap();
    (holders, anchor, officer)
}

/// What an anchor makes of the file of requests, with its own certificate behind.
fn sign(anchor: &AnchorFolder, request: &Path, now: Timestamp) -> String {
    let mut made = Vec::new();
    for requested in read_requests(request).unwrap() {
        let holder = requested.identity().unwrap();
        let request = CertificateRequest::leaf(&holder, requested.key.clone(), now).lasting(now, 30);
        made.push(anchor.issue(&request).unwrap());
    }
    made.push(anchor.anchor().der().clone());
    certificates_to_pem(&made)
}

fn names(list: &Path, anchor: &Anchor) -> Vec<String> {
    revoked_in([fs::read(list).unwrap().as_slice()], anchor).into_keys().collect()
}

#[test]
fn no_anchor_comes_in_by_a_file_alone() {
    let (folder, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let holders = holders(folder.path());
    let who = [named("node/main"), named("officer/officer"), named("operator/operator")];
    let asked = holders.request(&who, None, false, NOW).unwrap();
    // Somebody has the file on its way back, and makes an anchor of the same name: all leaves are for the keys that were made here.
    let theirs = anchor_in(theirs.path(), "KAZ");
    let swapped = sign(&theirs, &asked.path, NOW);
    assert_eq!(holders.anchor_to_come(&swapped, None).unwrap().as_ref(), Some(theirs.anchor()));
    let untouched = || {
        assert!(holders.anchor().unwrap().is_none());
        assert_eq!(holders.missing(), who);
    };
    let refused = holders.install(&swapped, None, None, NOW).unwrap_err();
    assert!(matches!(refused, HoldersError::AnchorUncompared { .. }), "{refused}");
    assert!(refused.to_string().contains(&theirs.anchor().fingerprint().grouped()), "{refused}");
    untouched();
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, theirs.anchor().to_pem()).unwrap();
    let refused = holders.install(&swapped, Some(&ca), None, NOW).unwrap_err();
    assert!(
        matches!(refused, HoldersError::AnchorUncompared { .. }),
        "an option names a file, which was carried too: {refused}"
    );
    untouched();

    let other = tempfile::tempdir().unwrap();
    let ours = anchor_in(other.path(), "KAZ");
    let said: Option<Fingerprint> = Some(ours.anchor().fingerprint());
    let refused = holders.install(&swapped, None, said, NOW).unwrap_err();
    assert!(matches!(refused, HoldersError::FingerprintMismatch { .. }), "{refused}");
    untouched();
    let installed = holders.install(&sign(&ours, &asked.path, NOW), None, said, NOW).unwrap();
    assert_eq!((installed.missing, installed.certificates.len()), (Vec::new(), 3));
    // From then on the folder goes by it: nobody is asked again.
    let later = Timestamp::from_micros(NOW.as_micros() + 5_000_000);
    holders.install(&sign(&ours, &asked.path, later), None, None, later).unwrap();
    assert!(matches!(holders.install(&swapped, None, None, NOW).unwrap_err(), HoldersError::Unfit(_)));
    // An older one for the same key would shorten what is there.
    let older = holders.install(&sign(&ours, &asked.path, NOW), None, None, later).unwrap_err();
    assert!(older.to_string().contains("the one that is here, for the same key"), "{older}");
}

#[test]
fn a_removal_that_was_cut_off_is_done_again_and_names_all() {
    let folder = tempfile::tempdir().unwrap();
    let (holders, anchor, officer) = whole(folder.path());
    let serial = holders.certificate_of(&officer).unwrap().serial;
    // As far as the register, and no list: a full disk, or a crash.
    drop(anchor.revoke(&mut anchor.hold().unwrap(), &[(Some(officer.clone()), serial.clone())], &[], NOW, 30).unwrap());
    fs::remove_dir_all(holders.folder_of(&officer).unwrap()).unwrap();
    let removed = holders.remove(&officer, NOW, 30).unwrap();
    assert_eq!(names(&removed.list, anchor.anchor()), std::slice::from_ref(&serial));
    assert_eq!(holders.remove(&officer, NOW, 30).unwrap().serials, std::slice::from_ref(&serial), "again does no harm");
    assert!(matches!(holders.remove(&named("officer/nobody"), NOW, 30), Err(HoldersError::Unknown(_))));
    let (list, made) = holders.renew_list(NOW, 60).unwrap();
    assert_eq!((names(&list, anchor.anchor()), made.named), (vec![serial], 1), "the list anew says the same");
}

#[test]
fn who_was_taken_back_is_not_certified_again_and_what_is_left_of_it_can_be_put_away() {
    let folder = tempfile::tempdir().unwrap();
    let (holders, anchor, officer) = whole(folder.path());
    let place = holders.folder_of(&officer).unwrap();
    let removed = holders.remove(&officer, NOW, 30).unwrap();
    // The profile is put away: it is out all the same, and no stranger.
    assert!(matches!(holders.renew(&anchor, &officer, false, life()), Err(HoldersError::TakenBack(_))));
    // The profile was left, or put back.
    fs::rename(removed.aside.unwrap(), &place).unwrap();
    let here = holders.certificate_of(&officer).unwrap();
    assert!(holders.taken_back().unwrap().has(&here));
    let is_out = |result: Result<_, HoldersError>| {
        let refused = result.map(|_: CertificateFacts| ()).unwrap_err();
        assert!(matches!(refused, HoldersError::TakenBack(_)), "{refused}");
    };
    is_out(holders.renew(&anchor, &officer, false, life()));
    is_out(holders.renew(&anchor, &officer, true, life()));
    assert!(matches!(
        holders.request(std::slice::from_ref(&officer), None, false, NOW),
        Err(HoldersError::TakenBack(_))
    ));
    let text = read_text(&place.join("certificate.pem")).unwrap();
    let refused = holders.install(&text, None, None, NOW).unwrap_err();
    assert!(refused.to_string().contains("was taken back"), "{refused}");
    // The same without the register and the anchor's key: the list says it.
    for file in ["anchor/issued.jsonl", "anchor/key.pem"] {
        fs::remove_file(folder.path().join(file)).unwrap();
    }
    assert!(holders.taken_back().unwrap().has(&here));
    assert!(holders.remove(&officer, NOW, 30).unwrap().aside.is_some());
    assert!(!place.exists(), "the name is free");
    assert!(matches!(holders.remove(&officer, NOW, 30), Err(HoldersError::AnchorKey { .. })));
}

#[test]
fn a_profile_that_a_crash_left_in_part_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (holders, anchor, officer) = whole(folder.path());
    let place = holders.folder_of(&officer).unwrap();
    let in_part = || fs::remove_file(place.join("profile.toml")).unwrap();
    assert!(matches!(holders.add(&anchor, &officer, None, life()), Err(HoldersError::Known(_))));
    in_part();
    assert_eq!(holders.missing(), std::slice::from_ref(&officer));
    holders.add(&anchor, &officer, None, life()).unwrap();
    Profile::load(&place).unwrap();
    // The same where the certificate comes from elsewhere.
    let asked = holders.request(std::slice::from_ref(&officer), None, true, NOW).unwrap();
    in_part();
    holders.install(&sign(&anchor, &asked.path, NOW), None, None, NOW).unwrap();
    Profile::load(&place).unwrap();
}

#[test]
fn a_file_of_requests_still_asks_for_what_has_not_come() {
    let folder = tempfile::tempdir().unwrap();
    let (holders, anchor) = (holders(folder.path()), anchor_in(&folder.path().join("elsewhere"), "KAZ"));
    let node = named("node/main");
    let hosts = Some(vec!["node.example.kz".to_owned()]);
    let asked = holders.request(&[node.clone(), named("officer/a")], hosts, false, NOW).unwrap();
    holders.request(&[named("officer/b")], None, false, NOW).unwrap();
    // Asked again before it came: for the same hosts.
    holders.request(std::slice::from_ref(&node), None, false, NOW).unwrap();
    let read = read_requests(&asked.path).unwrap();
    let names: Vec<Identity> = read.iter().map(|one| one.identity().unwrap()).collect();
    assert_eq!(names, [node, named("officer/b"), named("officer/a")]);
    assert_eq!(read[0].hosts, ["node.example.kz"]);
    let said = Some(anchor.anchor().fingerprint());
    holders.install(&sign(&anchor, &asked.path, NOW), None, said, NOW).unwrap();
    let asked = holders.request(&[named("officer/c")], None, false, NOW).unwrap();
    assert_eq!(asked.requests.len(), 1, "what came is not asked for again");
    assert_eq!(read_requests(&asked.path).unwrap().len(), 1);
}

#[test]
fn with_another_anchor_in_the_folder_nobody_is_certified_or_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let (holders, _, officer) = whole(folder.path());
    let swap = |code: &str| {
        fs::rename(folder.path().join("anchor"), folder.path().join(format!("away-{code}"))).unwrap();
        anchor_in(&folder.path().join("anchor"), code);
        let refused = holders.open_anchor().map(drop).unwrap_err();
        assert!(matches!(refused, HoldersError::AnchorOther { .. }), "{refused}");
        assert!(matches!(holders.remove(&officer, NOW, 30), Err(HoldersError::AnchorOther { .. })));
    };
    swap("KAZ");
    // A folder without another word of its anchor still has its participant.
    fs::remove_file(folder.path().join("tls/anchor.pem")).unwrap();
    swap("IRN");
    assert_eq!(
        certificates_from_pem(&read_text(&folder.path().join("tls/certificate.pem")).unwrap()).unwrap().len(),
        1
    );
}

#[test]
fn whoever_is_named_twice_is_one() {
    let holders = holders(Path::new("nowhere"));
    let [a, b] = ["a", "b"].map(|name| concord_model::Name::parse(name).unwrap());
    let people = holders.first_people(&[a.clone(), b, a]).unwrap();
    let roles: Vec<Role> = people.iter().map(|one| one.role).collect();
    assert_eq!(roles, [Role::Officer, Role::Officer, Role::Operator]);
}

#[test]
fn a_profile_that_is_moved_to_its_person_still_knows_where_its_server_is() {
    let folder = tempfile::tempdir().unwrap();
    let (holders, anchor, _) = whole(folder.path());
    let (holders, officer) = (holders.reached_at(Some("hub.example.org:7443".to_owned())), named("officer/second"));
    holders.add(&anchor, &officer, None, life()).unwrap();
    let (place, away) = (holders.folder_of(&officer).unwrap(), folder.path().join("stick"));
    let address = |place: &Path| concord_identity::Profile::load(place).unwrap().address().unwrap();
    fs::write(folder.path().join("addresses.json"), r#"{"listen": "127.0.0.1:7443"}"#).unwrap();
    assert_eq!(address(&place), "127.0.0.1:7443", "beside its server");
    fs::rename(&place, &away).unwrap();
    assert_eq!(address(&away), "hub.example.org:7443");
}
