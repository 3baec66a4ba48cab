//! What the pure crates must never depend on.

use std::collections::BTreeSet;
use std::path::Path;

const FORBIDDEN: [&str; 10] =
    ["tokio", "tonic", "prost", "sled", "rand", "jiff", "time", "chrono", "getrandom", "fastrand"];

/// The package names of all dependency sections, renamed ones under their real names, too.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies");
            if let Some((before, name)) = section.rsplit_once('.')
                && before.ends_with("dependencies")
            {
                found.insert(name.to_owned());
            }
        } else if inside && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            found.insert(name.trim_matches('"').to_owned());
        }
        if let Some((_, rest)) = line.split_once("package = \"") {
            found.extend(rest.split('"').next().map(str::to_owned));
        }
    }
    found.remove("");
    found
}

fn is_forbidden(name: &str) -> bool {
    FORBIDDEN.iter().any(|forbidden| name == *forbidden || name.starts_with(&format!("{forbidden}-")))
}

#[test]
fn model_and_ledger_know_no_clock_network_disk_randomness_or_encoding() {
    let ledger = Path::new(env!("CARGO_MANIFEST_DIR"));
    for manifest in [ledger.join("Cargo.toml"), ledger.join("../model/Cargo.toml")] {
        let text = std::fs::read_to_string(&manifest).unwrap();
        let dependencies = dependencies(&text);
        assert!(dependencies.contains("thiserror"), "{manifest:?} was not understood");
        let wrong: Vec<_> = dependencies.iter().filter(|name| is_forbidden(name)).collect();
        assert_eq!(wrong, [""; 0], "in {manifest:?}");
    }
}

#[test]
fn a_forbidden_dependency_is_found_however_it_is_written() {
    for manifest in [
        "[dependencies]\ntokio.workspace = true",
        "[dependencies]\nprost-types = \"1\"",
        "[dev-dependencies]\nrand = { version = \"1\" }",
        "[dependencies.sled]\nversion = \"1\"",
        "[target.'cfg(unix)'.dependencies]\njiff = \"1\"",
        "[dependencies]\nclock = { package = \"time\", version = \"1\" }",
    ] {
        assert!(dependencies(manifest).iter().any(|name| is_forbidden(name)), "{manifest}");
    }
    assert!(!dependencies("[package]\nname = \"time\"").iter().any(|name| is_forbidden(name)));
}
