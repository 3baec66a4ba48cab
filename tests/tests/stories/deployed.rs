//! What `deploy/` says is what the program does: settings, metrics, alerts, dashboard, runbook.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use concord_server::{METRICS, Metric, MetricAt, MetricKind};
use concord_tests::{Forum, concord, get, words};

use crate::servers::{first_cells, sources};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `CONCORD_BLESS=1` writes them anew: whoever adds a setting runs it once.
#[test]
fn the_settings_that_are_shown_are_those_that_init_writes() {
    let forum = Forum::empty();
    let (hub, node) = (forum.path().join("shown-hub"), forum.path().join("shown-node"));
    let listen = words!["--listen", "0.0.0.0:7443", "--admin", "127.0.0.1:9443"];
    let mut init = words!["hub", "init", "--dir", hub, "--announce", "hub.example.org:7443"];
    init.extend(listen);
    concord(init).ok();
    let mut init = words!["node", "init", "--dir", node, "--participant", "KAZ", "--dns", "node.example.kz"];
    init.extend(words!["--listen", "0.0.0.0:7444", "--admin", "127.0.0.1:9444"]);
    concord(init).ok();
    for (folder, file) in [(hub, "hub.toml"), (node, "node.toml")] {
        let (written, shown) = (std::fs::read_to_string(folder.join(file)).unwrap(), root().join("deploy").join(file));
        if std::env::var_os("CONCORD_BLESS").is_some() {
            std::fs::write(&shown, &written).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&shown).unwrap_or_default(), written, "{}", shown.display());
    }
}

/// A metric in a source: its kind and name, and the line with its labels.
fn metrics_used() -> Vec<(String, String, String)> {
    let mut used = Vec::new();
    for text in sources() {
        for kind in ["counter", "gauge", "histogram"] {
            for call in text.split(&format!("metrics::{kind}!(")).skip(1) {
                let line = call.split(';').next().unwrap_or_default();
                if let Some(name) = line.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next()) {
                    used.push((kind.to_owned(), name.to_owned(), line.to_owned()));
                }
            }
        }
        for call in text.split("shown_as(\"").skip(1) {
            used.push(("gauge".to_owned(), call.split('"').next().unwrap().to_owned(), String::new()));
        }
    }
    assert!(used.len() > 40, "only {} uses were found", used.len());
    used
}

#[test]
fn every_metric_of_the_sources_is_described_as_it_is_and_no_other() {
    let described: BTreeMap<&str, &Metric> = METRICS.iter().map(|metric| (metric.name, metric)).collect();
    assert_eq!(described.len(), METRICS.len());
    let used = metrics_used();
    for (kind, name, line) in &used {
        let metric = described.get(name.as_str()).unwrap_or_else(|| panic!("{name} is not described"));
        assert_eq!(format!("{:?}", metric.kind).to_lowercase(), *kind, "{name}");
        let labels = line.split("=>").filter_map(|before| before.trim_end().strip_suffix('"')?.rsplit('"').next());
        let labels: Vec<_> = labels.collect();
        // Labels in a list of their own stand on another line.
        assert!(
            line.contains("&labels") || labels == metric.labels,
            "{name}: {labels:?}, described: {:?}",
            metric.labels
        );
    }
    let used: BTreeSet<_> = used.into_iter().map(|(_, name, _)| name).collect();
    assert_eq!(used, described.into_keys().map(str::to_owned).collect());
}

#[test]
fn the_names_of_metrics_keep_to_the_convention() {
    for Metric { name, kind, help, .. } in METRICS {
        let is_counter = *kind == MetricKind::Counter;
        assert_eq!(name.ends_with("_total"), is_counter, "{name}");
        assert!(
            *kind != MetricKind::Histogram
                || ["_seconds", "_bytes", "_entries"].iter().any(|unit| name.ends_with(unit))
        );
        for other in ["milli", "micro", "_ms", "_minutes", "_days", "_kib", "_mib", "percent"] {
            assert!(!name.contains(other), "{name} is not in a base unit");
        }
        assert!(name.starts_with("concord_") || name.starts_with("process_"), "{name}");
        assert!(name.chars().all(|character| character.is_ascii_lowercase() || character == '_'), "{name}");
        assert!(help.ends_with('.') || help.ends_with("says."), "{name}: {help}");
    }
}

#[test]
fn the_table_of_metrics_is_the_programs() {
    let rows = METRICS.iter().map(|metric| {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
        let (kind, at) = (format!("{:?}", metric.kind).to_lowercase(), format!("{:?}", metric.at).to_lowercase());
        format!("| `{}` | {kind} | {at} | {labels} | {} |", metric.name, metric.help)
    });
    let readme = read("deploy/README.md");
    let (_, table) =
        readme.split_once("| metric | kind | at | labels | what it says |\n|---|---|---|---|---|\n").unwrap();
    assert_eq!(table.lines().take_while(|line| line.starts_with('|')).collect::<Vec<_>>(), rows.collect::<Vec<_>>());
}

/// The names in an expression that are metrics of ours, without what a histogram adds.
fn metrics_named(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    let names = words.filter(|word| word.starts_with("concord_") || word.starts_with("process_"));
    let base = |name: &str| {
        let bases = ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end));
        let histogram = bases.into_iter().find(|base| METRICS.iter().any(|metric| metric.name == *base));
        histogram.unwrap_or(name).to_owned()
    };
    names.map(base).collect()
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_exist_and_every_alert_is_tested_and_in_the_runbook() {
    let known: BTreeSet<_> = METRICS.iter().map(|metric| metric.name.to_owned()).collect();
    let rules = read("deploy/prometheus/concord.rules.yml");
    let expressions: String = rules.lines().filter(|line| line.trim_start().starts_with("expr:")).collect();
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana/concord.json")).unwrap();
    for (what, text) in [("the rules", expressions), ("the dashboard", dashboard.to_string())] {
        let named = metrics_named(&text);
        assert!(named.len() > 10, "{what}: {named:?}");
        assert!(named.is_subset(&known), "{what}: {:?}", named.difference(&known).collect::<Vec<_>>());
    }
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let (tests, runbook) = (read("deploy/prometheus/concord.rules.test.yml"), read("deploy/RUNBOOK.md"));
    assert!(alerts.len() > 15);
    for alert in alerts {
        assert!(tests.contains(&format!("- name: {alert}\n")), "{alert} has no test");
        assert!(runbook.contains(&format!("`{alert}`")), "the runbook does not know {alert}");
    }
    // An alarm that a rule names by itself is one.
    let alarms = first_cells(&read("README.md"), "### Alarms and notes");
    let named = rules.split("alarm=~\"").skip(1).flat_map(|rest| rest.split('"').next().unwrap().split('|'));
    let named: BTreeSet<_> = named.map(str::to_owned).collect();
    assert!(!named.is_empty() && named.is_subset(&alarms), "{named:?}");
}

#[test]
fn every_alarm_has_its_line_in_the_runbook_in_both_languages() {
    let alarms = first_cells(&read("README.md"), "### Alarms and notes");
    assert_eq!(first_cells(&read("deploy/RUNBOOK.md"), "## At 3 a.m."), alarms);
    assert_eq!(first_cells(&read("deploy/RUNBOOK.ru.md"), "# Что делать в три часа ночи"), alarms);
}

#[test]
fn what_a_server_shows_is_described_and_names_no_exchange() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    let sent = forum.agency("KAZ").submit("the-body", "--title the-title --wait delivered");
    for (dir, other) in [(forum.hub_dir(), MetricAt::Node), (forum.node_dir("IRN"), MetricAt::Hub)] {
        let page = get(&forum.address(&dir, "admin"), "/metrics").body;
        let helped: BTreeSet<_> =
            page.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
        let shown = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        for name in shown {
            let metric = METRICS.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name}"));
            assert!(helped.contains(name) && metric.at != other, "{name} at {}", dir.display());
        }
        assert!(page.lines().any(|line| line == "concord_ready 1"), "{page}");
        // A counter that has counted nothing is there all the same: an alert on its growth would miss the first.
        assert!(page.lines().any(|line| line == "concord_calls_denied_total 0"), "{page}");
        let words = page.split(|character: char| !character.is_ascii_alphanumeric());
        let id = |word: &&str| {
            word.len() >= 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) && sent.id.starts_with(*word)
        };
        assert_eq!(words.filter(id).count(), 0, "{page}");
        assert!(!page.contains("the-body") && !page.contains("the-title"), "{page}");
    }
}

/// Where a shell is here: it reads the script as it would at its start.
fn parses(shell: &str, options: &[&str], script: &Path) {
    let mut command = std::process::Command::new(shell);
    command.args(options).arg(script);
    match command.output() {
        Ok(ended) => assert!(ended.status.success(), "{shell}: {}", String::from_utf8_lossy(&ended.stderr)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => println!("skipped: there is no {shell} here"),
        Err(error) => panic!("{shell}: {error}"),
    }
}

#[test]
fn shells_read_the_completions_and_each_command_has_a_page_of_the_manual() {
    let place = tempfile::tempdir().unwrap();
    let said = |line: Vec<std::ffi::OsString>| {
        let mut command = std::process::Command::new(concord_tests::executable());
        command.args(line);
        concord_tests::run(command).ok().text()
    };
    for (shell, begins) in [("bash", "_concord()"), ("zsh", "#compdef concord"), ("fish", "complete -c concord")] {
        let script = place.path().join(shell);
        let text = said(words!["completions", shell]);
        assert!(text.contains(begins), "{shell}: {text}");
        std::fs::write(&script, &text).unwrap();
        parses(shell, if shell == "fish" { &["--no-execute"] } else { &["-n"] }, &script);
    }
    // Bash has it, once the script was read.
    let sourced = format!("source {}; complete -p concord", place.path().join("bash").display());
    let ended = std::process::Command::new("bash").args(["--norc", "-c", &sourced]).output().unwrap();
    assert!(String::from_utf8_lossy(&ended.stdout).contains("_concord"), "{ended:?}");

    let first = said(words!["man"]);
    assert!(first.contains(".TH concord 1") && first.contains(".SH SYNOPSIS"), "{first}");
    let pages = place.path().join("man1");
    let written = concord(words!["man", "--dir", pages]).ok().json();
    let names: Vec<String> =
        std::fs::read_dir(&pages).unwrap().map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(written["pages"].as_u64().unwrap(), names.len() as u64);
    for page in ["concord.1", "concord-node-check.1", "concord-agreement-leave.1"] {
        assert!(names.iter().any(|name| name == page), "{page}: {names:?}");
    }
    let check = std::fs::read_to_string(pages.join("concord-node-check.1")).unwrap();
    assert!(check.contains("\\-\\-bundle") && check.contains("Example:"), "{check}");
    assert_eq!(std::fs::read_to_string(pages.join("concord.1")).unwrap(), first);
}

#[test]
fn what_an_image_is_made_of_leaves_out_builds_and_histories() {
    let file = read(".dockerignore");
    for line in ["/target", "/.git", "/.venv"] {
        assert!(file.lines().any(|one| one == line), "{line}: {file}");
    }
}
