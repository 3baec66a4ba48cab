//! An exercise goes the way of any other exchange, signed as one, and everybody is shown that it is one.

use concord_tests::{Forum, concord, executable, text_of, words};
use serde_json::Value;

/// What a person is shown.
fn in_words(line: Vec<std::ffi::OsString>) -> String {
    let ended = std::process::Command::new(executable()).args(line).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

#[test]
fn everybody_is_shown_an_exercise_as_one_and_what_is_none_as_none() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    let (sender, recipient) = (forum.agency("KAZ"), forum.agency("IRN"));
    let real = sender.submit("a flood", "--wait delivered");
    let drill = sender.submit("a drill", "--exercise --wait delivered");
    assert_eq!((&real.answer["exercise"], &drill.answer["exercise"]), (&Value::from(false), &Value::from(true)));
    // The same request again, and as what it was not.
    let named = sender.submit("a drill, named", "--exercise --title same --request-id r-1");
    assert_eq!(named.answer["exercise"], true);
    sender.try_submit("a drill, named", "--title same --request-id r-1").refused(3, "REQUEST_ID_CONFLICT");

    let marks = |lines: Vec<Value>| -> Vec<bool> { lines.iter().map(|line| line["exercise"] == true).collect() };
    sender.track_delivered(&named.id);
    assert_eq!(marks(recipient.list()), [false, true, true]);
    let shown = in_words(words!["receive", "--profile", recipient.profile]);
    let begin: Vec<bool> =
        shown.lines().filter(|line| line.contains("KAZ ")).map(|line| line.starts_with("EXERCISE ")).collect();
    assert_eq!(begin, [false, true, true], "{shown}");
    assert_eq!(marks(recipient.receive(3)), [false, true, true]);

    let secretariat = forum.hub_dir().join("officer");
    let asked = [
        (words!["track"], sender.profile.clone()),
        (words!["explain"], recipient.profile.clone()),
        (words!["explain"], secretariat.clone()),
        (words!["why"], sender.profile.clone()),
        (words!["why"], recipient.profile.clone()),
        (words!["why"], secretariat.clone()),
    ];
    for (command, profile) in asked {
        for (id, is_drill) in [(&real.id, false), (&drill.id, true)] {
            let mut line = command.clone();
            line.extend(words![id, "--profile", profile]);
            assert_eq!(concord(line.clone()).ok().json()["exercise"], is_drill, "{line:?}");
            assert_eq!(in_words(line.clone()).contains("EXERCISE"), is_drill, "{line:?}");
        }
    }
    let audit = concord(words!["audit", "--profile", secretariat]).ok().lines();
    let about = |id: &str| {
        audit
            .iter()
            .filter(|line| text_of(line, "about").contains(id))
            .map(|line| text_of(line, "about"))
            .collect::<Vec<_>>()
    };
    assert!(about(&drill.id).iter().all(|about| about.ends_with("EXERCISE")) && !about(&drill.id).is_empty());
    assert!(about(&real.id).iter().all(|about| !about.contains("EXERCISE")) && !about(&real.id).is_empty());

    // What takes its place says the same, and so does what withdraws it.
    for (id, options) in [(&real.id, "--exercise"), (&drill.id, "")] {
        sender.try_submit("better", &format!("{options} --supersedes {id}")).refused(3, "EXERCISE_MISMATCH");
    }
    let better = sender.submit("better", &format!("--exercise --supersedes {}", drill.id));
    concord(words!["withdraw", named.id, "--yes", "--profile", sender.profile]).ok();
    sender.track_delivered(&better.id);
    let told = recipient.receive(3);
    assert_eq!(marks(told.clone()), [true, true, true], "{told:?}");
    let withdrawn: Vec<bool> = told.iter().map(|line| line["withdraws"].is_object()).collect();
    assert_eq!(withdrawn.iter().filter(|is_one| **is_one).count(), 2, "{told:?}");

    forum.stop_node("IRN");
    let journal = in_words(words!["journal", "show", forum.node_dir("IRN")]);
    let of = |id: &str| journal.lines().find(|line| line.contains(&id[..16])).unwrap_or_default().to_owned();
    assert!(of(&drill.id).contains("EXERCISE"), "{journal}");
}
