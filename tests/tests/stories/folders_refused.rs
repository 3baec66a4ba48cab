//! Bad folders, settings and ports: the start stops before a port opens and says what to do.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use concord_tests::{Ended, Forum, concord, words};

/// Both servers with their folders.
fn stage() -> Forum {
    let forum = Forum::empty();
    forum.join("KAZ");
    forum
}

fn serve(kind: &str, dir: &Path) -> Ended {
    concord(words![kind, "serve", "--dir", dir])
}

#[test]
fn a_second_process_on_one_folder_is_refused_and_the_first_goes_on() {
    let mut forum = stage();
    forum.start_node("KAZ");
    for (kind, dir) in [("hub", forum.hub_dir()), ("node", forum.node_dir("KAZ"))] {
        let second = serve(kind, &dir);
        second.refused(1, "FOLDER_IN_USE");
        assert!(second.message().contains("process with id"), "{second}");
        assert_eq!(forum.status(&dir)["role"], kind);
    }
    let bundle = forum.node_dir("KAZ").join("bundle.json");
    concord(words!["node", "join", bundle, "--dir", forum.node_dir("KAZ")]).refused(1, "FOLDER_IN_USE");
}

#[test]
fn a_folder_that_is_not_concords_or_of_the_other_kind_is_left_alone() {
    let forum = stage();
    let other = forum.path().join("letters");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("letter.txt"), "x").unwrap();
    for kind in ["hub", "node"] {
        serve(kind, &other).refused(1, "FOLDER_NOT_CONCORDS");
        serve(kind, &other.join("letter.txt")).refused(1, "FOLDER_NOT_CONCORDS");
        serve(kind, &forum.path().join("nowhere")).refused(1, "FOLDER_ABSENT");
    }
    serve("hub", &forum.node_dir("KAZ")).refused(1, "FOLDER_NOT_CONCORDS");
    serve("node", &forum.hub_dir()).refused(1, "FOLDER_NOT_CONCORDS");
    concord(words!["hub", "init", "--dir", other]).refused(1, "FOLDER_NOT_EMPTY");
    concord(words!["node", "init", "--dir", other, "--participant", "KAZ"]).refused(1, "FOLDER_NOT_EMPTY");
    concord(words!["hub", "init", "--dir", forum.hub_dir()]).refused(1, "FOLDER_NOT_EMPTY");
    concord(words!["agency", "add", "x", "--dir", other]).refused(1, "FOLDER_NOT_CONCORDS");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
}

#[test]
fn an_unknown_key_in_the_settings_stops_the_start_before_a_port_opens() {
    let mut forum = stage();
    forum.stop_hub();
    for (kind, dir) in [("hub", forum.hub_dir()), ("node", forum.node_dir("KAZ"))] {
        let path = dir.join(format!("{kind}.toml"));
        let good = fs::read_to_string(&path).unwrap();
        for (bad, names) in [
            (format!("{good}\nlisten_on = \"127.0.0.1:0\"\n"), "listen_on"),
            (good.replace("listen = \"127.0.0.1:0\"", "listen = \"localhost\""), "listen"),
            (good.replace("listen = \"127.0.0.1:0\"", "listen = 7"), "line "),
            (format!("{good}\n[["), "line "),
        ] {
            fs::write(&path, bad).unwrap();
            let started = serve(kind, &dir);
            // The one that the units do not start again: it would come to the same.
            started.refused(2, "CONFIG_INVALID");
            let unit = include_str!("../../../deploy/systemd/concord-hub.service");
            assert!(unit.contains("RestartPreventExitStatus=2\n"), "{unit}");
            assert!(started.message().contains(names), "{names}: {started}");
            let has_next = started.help().starts_with("correct what is named");
            assert!(has_next && !started.stderr.contains("\\u{a}") && !started.message().contains('\n'), "{started}");
            assert!(started.stdout.is_empty(), "{started}");
        }
        fs::write(&path, good.replace("name = \"main\"", "name = \"other\"")).unwrap();
        let started = serve(kind, &dir);
        assert!(started.code == Some(1) && started.message().contains("other"), "{started}");
        fs::write(&path, good).unwrap();
    }
    forum.start_hub();
    forum.start_node("KAZ");
}

#[test]
fn a_port_in_use_is_named() {
    let mut forum = stage();
    forum.stop_hub();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (kind, dir) in [("hub", forum.hub_dir()), ("node", forum.node_dir("KAZ"))] {
        let path = dir.join(format!("{kind}.toml"));
        let good = fs::read_to_string(&path).unwrap();
        for which in ["listen", "admin"] {
            fs::write(&path, good.replace(&format!("{which} = \"127.0.0.1:0\""), &format!("{which} = \"{address}\"")))
                .unwrap();
            let started = serve(kind, &dir);
            started.refused(1, "ADDRESS_UNUSABLE");
            assert!(started.message().contains(&address) && started.message().contains(which), "{started}");
        }
        fs::write(&path, good).unwrap();
    }
    forum.start_hub();
    forum.start_node("KAZ");
}

#[test]
fn set_up_ends_with_the_command_to_run_next_and_secrets_are_the_owners_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let forum = stage();
    let next = |line| concord(line).ok().stderr;
    let dir = forum.path().join("second hub's");
    assert!(
        next(words!["hub", "init", "--dir", dir])
            .contains(&format!("hub serve --dir '{}'", dir.display().to_string().replace('\'', r"'\''")))
    );
    let node = forum.path().join("node");
    assert!(next(words!["node", "init", "--dir", node, "--participant", "TUR"]).contains("participant enrol"));
    let bundle = forum.path().join("bundle.json");
    let enrol = words![
        "participant",
        "enrol",
        node.join("join-request.json"),
        "--profile",
        forum.hub_dir().join("officer"),
        "--out",
        bundle
    ];
    assert!(next(enrol).contains("node join"));
    assert!(next(words!["node", "join", bundle, "--dir", node]).contains("node serve --dir"));
    assert!(next(words!["agency", "add", "customs", "--dir", node]).contains("submit FILE --profile"));
    for secret in ["anchor/key.pem", "tls/key.pem", "signing/key.pem", "officer/key.pem", "agencies/customs/key.pem"] {
        let mode = fs::metadata(node.join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    for folder in [node.clone(), node.join("revocation"), dir.join("revocation")] {
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700, "{}", folder.display());
    }
}

#[test]
fn a_hub_of_another_forum_is_made_from_a_seed_file_and_a_wrong_one_is_refused() {
    let forum = Forum::empty();
    let seed = forum.path().join("seed.toml");
    fs::write(&seed, "nonsense = true\n").unwrap();
    concord(words!["hub", "init", "--dir", forum.path().join("other"), "--seed", seed]).refused(2, "USAGE");
    let built_in = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/hub/seed/cica-2007.toml");
    concord(words!["hub", "init", "--dir", forum.path().join("other"), "--seed", built_in]).ok();
    assert_eq!(
        concord(words!["hub", "init", "--dir", forum.path().join("third"), "--listen", "nowhere"]).code,
        Some(2)
    );
}
