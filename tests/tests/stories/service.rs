//! Hub and node as services: what their supervisor hears, and what it must not hear.

use std::net::TcpStream;
use std::time::Duration;

use concord_faults::{CRASH_VARIABLE, FAIL_VARIABLE};
use concord_tests::{Forum, Supervisor, get};

/// The watchdog of these stories bites after this; a sign comes every third of it.
const WATCHDOG_MICROSECONDS: &str = "150000";
/// Thirty signs missing in a row: silence.
const SILENCE: Duration = Duration::from_millis(1500);
/// More than is said before the writer hangs.
const HEARD_MAX: usize = 100;

#[test]
fn the_supervisor_hears_ready_when_the_ports_are_open_and_stopping_at_the_end() {
    let mut forum = Forum::of(&["KAZ"]);
    for name in ["hub", "KAZ"] {
        let (dir, by_path) = if name == "hub" { (forum.hub_dir(), true) } else { (forum.node_dir(name), false) };
        let supervisor = if by_path { Supervisor::at(forum.path()) } else { Supervisor::abstracted(name) };
        // The ports are those of before, so that they can be knocked at in the moment of the word.
        let addresses = ["listen", "admin"].map(|which| forum.address(&dir, which));
        let variables = supervisor.variables();
        if name == "hub" {
            forum.stop_hub();
            forum.start_hub_unawaited(&variables);
        } else {
            forum.stop_node(name);
            forum.start_node_unawaited(name, &variables);
        }
        supervisor.await_line("READY=1");
        for address in &addresses {
            assert!(TcpStream::connect(address).is_ok(), "{name}: ready, and nobody answers at {address}");
        }
        assert_eq!(get(&addresses[1], "/healthz").status, 200);
        if name == "hub" {
            forum.stop_hub()
        } else {
            forum.stop_node(name)
        }
        let told = supervisor.told_so_far();
        assert!(told.iter().any(|line| line == "STOPPING=1"), "{name}: {told:?}");
        assert!(!told.iter().any(|line| line == "READY=1"), "{name} said it twice: {told:?}");
        if name == "hub" {
            forum.start_hub();
        }
    }
}

#[test]
fn a_server_that_never_came_to_serve_never_said_that_it_does() {
    let mut forum = Forum::of(&["KAZ"]);
    forum.stop_node("KAZ");
    forum.stop_hub();
    for (name, point) in [("hub", "hub.serving"), ("KAZ", "node.serving")] {
        let supervisor = Supervisor::abstracted(point);
        let mut variables = supervisor.variables();
        variables.insert(CRASH_VARIABLE, point);
        if name == "hub" {
            forum.start_hub_unawaited(&variables);
            forum.await_end_of_hub();
        } else {
            forum.start_node_unawaited(name, &variables);
            forum.await_end_of_node(name);
        }
        let told = supervisor.told_so_far();
        assert!(told.iter().any(|line| line == "STATUS=opening"), "{name}: {told:?}");
        assert!(!told.iter().any(|line| line == "READY=1"), "{name}: {told:?}");
    }
}

#[test]
fn the_watchdog_hears_of_a_server_whose_writer_goes_on_and_not_of_one_whose_writer_hangs() {
    let mut forum = Forum::of(&["KAZ"]);
    for (name, hangs) in [("hub", "hub.sequencer.goes-on:12"), ("KAZ", "node.writer.goes-on:30")] {
        let supervisor = Supervisor::abstracted(hangs);
        let mut variables = supervisor.variables();
        variables.extend([("WATCHDOG_USEC", WATCHDOG_MICROSECONDS), (FAIL_VARIABLE, hangs)]);
        if name == "hub" {
            forum.stop_hub();
            forum.start_hub_with(&variables);
        } else {
            forum.stop_node(name);
            forum.start_node_with(name, &variables);
        }
        supervisor.await_line("READY=1");
        supervisor.await_line("WATCHDOG=1");
        let heard = std::iter::from_fn(|| supervisor.told_within(SILENCE)).take(HEARD_MAX).count();
        assert!(heard < HEARD_MAX, "{name}: its writer hangs, and the watchdog goes on hearing of it");
        // It lives, and answers; nothing but the missing sign tells that it is stuck.
        let dir = if name == "hub" { forum.hub_dir() } else { forum.node_dir(name) };
        assert_eq!(get(&forum.address(&dir, "admin"), "/healthz").status, 200, "{name}");
        if name == "hub" {
            forum.kill_hub();
            forum.start_hub();
        } else {
            forum.kill_node(name);
        }
    }
}

#[test]
fn a_watchdog_of_another_process_is_not_answered_and_the_state_is_told_all_the_same() {
    let forum = Forum::empty();
    let dir = forum.path().join("node-alone");
    let supervisor = Supervisor::abstracted("another");
    concord_tests::concord(concord_tests::words!["node", "init", "--dir", dir, "--participant", "TUR"]).ok();
    let mut variables = supervisor.variables();
    variables.extend([("WATCHDOG_USEC", WATCHDOG_MICROSECONDS), ("WATCHDOG_PID", "1")]);
    let serve = concord_tests::words!["node", "serve", "--dir", dir];
    let node = concord_tests::Process::start_with(&forum.log("alone"), &variables, serve);
    supervisor.await_line("READY=1");
    assert_eq!(supervisor.await_line("STATUS=not"), "STATUS=not ready: not-joined");
    assert_eq!(node.terminate().code(), Some(0));
}
