//! Retention: the bodies of what is settled go for good, and nothing else changes.

use std::fs;
use std::path::Path;

use concord_tests::{
    Agency, DEADLINE, Ended, Forum, concord, exchange_ids, remove_views, replace_line, text_of, words,
};

const AGREEMENT: &str = "KAZ/warnings";

fn forum() -> Forum {
    let forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN", "TUR"]);
    forum
}

fn retention(kind: &str, what: &str, dir: &Path, who: &str, options: &[&str]) -> Ended {
    let mut all = words![kind, "retention", what, "--profile", dir.join(who)];
    all.extend(options.iter().map(Into::into));
    concord(all)
}

/// Whether these bytes are in any file of the folder.
fn holds(dir: &Path, wanted: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().map(Result::unwrap).any(|item| {
        let path = item.path();
        if path.is_dir() {
            return holds(&path, wanted);
        }
        fs::read(&path).is_ok_and(|bytes| bytes.windows(wanted.len()).any(|window| window == wanted))
    })
}

/// Waits until the sender knows that this recipient has it; others may be away.
fn await_delivered(agency: &Agency, id: &str, by: &str) {
    let since = std::time::Instant::now();
    loop {
        let tracked = agency.track(id);
        let mut recipients = tracked["recipients"].as_array().unwrap().iter();
        if recipients.any(|one| one["participant"] == by && one["state"] == "delivered") {
            return;
        }
        assert!(since.elapsed() < DEADLINE, "{by} does not have {id}: {tracked}");
    }
}

const SETTLED: &[u8] = b"the-settled-body-that-goes";
const TITLE: &str = "the-settled-title-that-goes";
const WAITING: &[u8] = b"the-body-that-somebody-waits-for";

#[test]
fn what_is_settled_goes_for_good_and_nothing_else_changes() {
    let mut forum = forum();
    let (kaz, irn, tur) = (forum.agency("KAZ"), forum.agency("IRN"), forum.agency("TUR"));
    let settled = kaz.submit(SETTLED, &format!("--title {TITLE} --request-id first --wait delivered"));
    assert_eq!(exchange_ids(&irn.receive(1)), [settled.id.clone()]);
    assert_eq!(exchange_ids(&tur.receive(1)), [settled.id.clone()]);
    kaz.await_taken(&settled.id, "IRN");
    kaz.await_taken(&settled.id, "TUR");
    // IRN's node is away, so that the hub keeps it; TUR's agency has not acknowledged it, so that its node keeps it.
    forum.stop_node("IRN");
    let waiting = kaz.submit(WAITING, "--wait recorded");
    await_delivered(&kaz, &waiting.id, "TUR");

    let dirs = [("hub", forum.hub_dir()), ("node", forum.node_dir("KAZ")), ("node", forum.node_dir("TUR"))];
    for (kind, dir) in &dirs {
        retention(kind, "preview", dir, "officer", &[]).refused(3, "ARGUMENT_INVALID");
        retention(kind, "run", dir, "operator", &["--days", "0"]).refused(3, "CALLER_NOT_ALLOWED");
        let young = retention(kind, "run", dir, "officer", &["--days", "1"]).ok().json();
        assert_eq!((&young["exchanges"], &young["done"]), (&0.into(), &true.into()), "{young}");
        let preview = retention(kind, "preview", dir, "operator", &["--days", "0"]).ok().json();
        assert_eq!(
            (&preview["exchanges"], &preview["unsettled_exchanges"]),
            (&1.into(), &1.into()),
            "{kind}: {preview}"
        );
        assert_eq!(preview["rows"][0]["agreement"], AGREEMENT);
        assert!(preview["bytes"].as_u64().unwrap() >= SETTLED.len() as u64, "{preview}");
        assert!(holds(dir, SETTLED) && holds(dir, TITLE.as_bytes()), "a preview takes nothing away");

        let done = retention(kind, "run", dir, "officer", &["--days", "0"]).ok().json();
        assert_eq!((&done["rows"], &done["done"]), (&preview["rows"], &true.into()));
        assert!(!holds(dir, SETTLED) && !holds(dir, TITLE.as_bytes()), "no byte of it is left in {}", dir.display());
        assert!(holds(dir, WAITING), "what somebody waits for stays");
        let again = retention(kind, "run", dir, "officer", &["--days", "0"]).ok().json();
        assert_eq!((&again["exchanges"], &again["unsettled_exchanges"]), (&0.into(), &1.into()), "{again}");
        concord(words!["verify", dir]).ok();
        let out = forum.path().join(format!("{}.backup", dir.file_name().unwrap().to_string_lossy()));
        concord(words![kind, "backup", "--profile", dir.join("officer"), "--out", out]).ok();
        concord(words!["verify", out]).ok();
    }

    // All is as before, also when views and snapshots are made anew.
    let check = |forum: &Forum| {
        let repeated = kaz.submit(SETTLED, &format!("--title {TITLE} --request-id first --wait delivered"));
        assert_eq!(repeated.id, settled.id, "a repeat gets the first answer");
        kaz.await_taken(&settled.id, "TUR");
        assert!(!holds(&forum.hub_dir(), SETTLED));
    };
    check(&forum);
    forum.stop_hub();
    forum.stop_node("KAZ");
    forum.stop_node("TUR");
    for (_, dir) in &dirs {
        remove_views(dir);
        fs::remove_dir_all(dir.join("snapshots")).unwrap();
    }
    forum.start_hub();
    for code in ["KAZ", "TUR", "IRN"] {
        forum.start_node(code);
    }
    check(&forum);
    assert_eq!(exchange_ids(&irn.receive(1)), [waiting.id.clone()]);
    assert_eq!(exchange_ids(&tur.receive(1)), [waiting.id.clone()]);
    assert!(irn.receive_rest().is_empty() && tur.receive_rest().is_empty(), "nothing comes twice");
    kaz.await_taken(&waiting.id, "IRN");
    kaz.await_taken(&waiting.id, "TUR");
    let hub = retention("hub", "run", &dirs[0].1, "officer", &["--days", "0"]).ok().json();
    assert_eq!((&hub["exchanges"], &hub["unsettled_exchanges"]), (&1.into(), &0.into()));
    assert!(!holds(&dirs[0].1, WAITING));
}

#[test]
fn a_kill_at_any_step_of_a_run_leaves_nothing_half_done() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let steps = ["recorded", "begun", "overwritten", "synced", "done"];
    for (round, step) in steps.iter().enumerate() {
        let body = format!("the-body-of-round-{round}-that-goes");
        let sent = kaz.submit(&body, "--wait delivered");
        assert_eq!(exchange_ids(&irn.receive(1)), [sent.id.clone()]);
        kaz.await_taken(&sent.id, "IRN");
        let point = format!("journal.redact.{step}:1");
        forum.stop_hub();
        forum.start_hub_with(&[("CONCORD_CRASH_AT", point.as_str())].into());
        let killed = retention("hub", "run", &forum.hub_dir(), "officer", &["--days", "0"]);
        assert_ne!(killed.code, Some(0), "{step}");
        forum.await_end_of_hub();
        concord(words!["verify", forum.hub_dir()]).ok();
        forum.start_hub();
        assert!(!holds(&forum.hub_dir(), body.as_bytes()), "the start finishes what was begun: {step}");
        concord(words!["verify", forum.hub_dir()]).ok();
    }
    let after = kaz.submit("all goes on", "--wait delivered");
    assert_eq!(exchange_ids(&irn.receive(1)), [after.id]);
}

#[test]
fn a_configured_retention_runs_by_itself_and_a_wrong_one_stops_the_start() {
    let mut forum = Forum::of(&["KAZ"]);
    forum.configure_hub(|settings| settings.replace("# bodies_days = 365", "bodies_days = 30"));
    let preview = retention("hub", "preview", &forum.hub_dir(), "operator", &[]).ok().json();
    assert!(!text_of(&preview, "before").is_empty());
    let since = std::time::Instant::now();
    while !fs::read_to_string(forum.log("hub")).unwrap().contains("the retention ran") {
        assert!(since.elapsed() < DEADLINE, "it did not run by itself");
        std::thread::yield_now();
    }
    forum.stop_hub();
    let path = forum.hub_dir().join("hub.toml");
    let wrong = replace_line(&fs::read_to_string(&path).unwrap(), "bodies_days", "0");
    fs::write(&path, wrong).unwrap();
    let refused = concord(words!["hub", "serve", "--dir", forum.hub_dir()]);
    assert!(refused.code != Some(0) && refused.stderr.contains("bodies_days"), "{refused}");
}

/// A clock that is eight days on.
const LATER: [(&str, &str); 1] = [("CONCORD_CLOCK_OFFSET_SECONDS", "691200")];
const SHORT: &[u8] = b"the-body-that-may-be-kept-for-a-week";
const LONG: &[u8] = b"the-body-of-which-nothing-was-agreed";
const YOUNG: &[u8] = b"the-body-that-is-not-a-week-old";

fn await_gone(dir: &Path, wanted: &[u8]) {
    let since = std::time::Instant::now();
    while holds(dir, wanted) {
        assert!(since.elapsed() < DEADLINE, "it is still in {}", dir.display());
        std::thread::yield_now();
    }
}

#[test]
fn the_days_that_an_agreement_says_have_its_bodies_go_and_no_others_where_no_retention_is_configured() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/long", "environmental.5", &["KAZ", "IRN"]);
    let propose =
        "agreement propose KAZ/short --title T --measure environmental.5 --participant IRN --retention-days 7";
    forum.as_officer("KAZ", propose).ok();
    forum.consent("KAZ/short", "IRN");
    for code in ["KAZ", "IRN"] {
        forum.await_in_force("KAZ/short", code);
    }
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let send = |agreement: &str, body: &[u8]| {
        let sent = kaz.submit(body, &format!("--agreement {agreement} --wait delivered"));
        assert_eq!(exchange_ids(&irn.receive(1)), [sent.id.clone()]);
        kaz.await_taken(&sent.id, "IRN");
    };
    send("KAZ/short", SHORT);
    send("KAZ/long", LONG);
    let dirs = [forum.hub_dir(), forum.node_dir("KAZ"), forum.node_dir("IRN")];
    let restart = |forum: &mut Forum| {
        for code in ["KAZ", "IRN"] {
            forum.stop_node(code);
        }
        forum.stop_hub();
        forum.start_hub_with(&LATER.into());
        for code in ["KAZ", "IRN"] {
            forum.start_node_with(code, &LATER.into());
        }
    };
    restart(&mut forum);
    // The hub believes the clock once a node agrees with it.
    let since = std::time::Instant::now();
    let preview = loop {
        let preview = retention("hub", "preview", &dirs[0], "operator", &[]);
        if preview.reason().as_deref() != Some("CLOCK_SUSPECT") || since.elapsed() > DEADLINE {
            break preview.ok().json();
        }
    };
    assert_eq!((&preview["exchanges"], &preview["by_term"]), (&1.into(), &1.into()), "{preview}");
    assert_eq!((&preview["rows"][0]["agreement"], &preview["before"]), (&"KAZ/short".into(), &().into()), "{preview}");
    let longer = retention("hub", "preview", &dirs[0], "operator", &["--days", "8"]).ok().json();
    assert_eq!((&longer["exchanges"], &longer["by_term"]), (&2.into(), &0.into()), "the smaller counts: {longer}");
    let longer = retention("hub", "preview", &dirs[0], "operator", &["--days", "300"]).ok().json();
    assert_eq!((&longer["exchanges"], &longer["by_term"]), (&1.into(), &1.into()), "the smaller counts: {longer}");
    send("KAZ/short", YOUNG);
    // The daily run is the first thing after a start whose clock is believed.
    restart(&mut forum);
    for dir in &dirs {
        await_gone(dir, SHORT);
        assert!(holds(dir, LONG) && holds(dir, YOUNG), "nothing else goes from {}", dir.display());
        concord(words!["verify", dir]).ok();
    }
}
