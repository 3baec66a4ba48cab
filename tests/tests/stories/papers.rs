//! The secretariat as an origin: through a node of its own, to those who agreed, by the rules of everybody.

use std::time::Instant;

use concord_tests::{Agency, DEADLINE, Forum, concord, exchange_ids, text_of, words};

const PAPERS: &str = "SEC/papers";
const DIALOGUE: &str = "KAZ/dialogue";
const MEASURE: &str = "human.1";

/// A forum whose secretariat runs a node beside its hub.
fn with_secretariats_node() -> Forum {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.join("SEC");
    forum.start_node("SEC");
    forum
}

/// Nothing calls a command that asks: it is asked again.
#[track_caller]
fn await_members(agency: &Agency, id: &str, expected: &[&str]) {
    let since = Instant::now();
    loop {
        let shown = concord(words!["agreement", "show", id, "--profile", agency.profile]).ok().json();
        let parties = shown["participants"].as_array().unwrap().iter();
        let members = parties.filter(|party| party["state"] == "consented").map(|party| text_of(party, "participant"));
        let members: Vec<String> = members.collect();
        if members == expected {
            return;
        }
        assert!(since.elapsed() < DEADLINE, "the members of {id} are {members:?}, and never {expected:?}");
    }
}

#[test]
fn the_secretariats_papers_go_to_those_members_who_agreed_and_to_nobody_else() {
    let forum = with_secretariats_node();
    let mut line = words!["agreement", "propose", PAPERS, "--title", "Papers", "--measure", MEASURE];
    line.extend(words!["--all-members=receive", "--in-force", "each", "--profile", forum.officer("SEC")]);
    concord(line).ok();
    for code in ["KAZ", "IRN"] {
        forum.consent(PAPERS, code);
    }
    let (sec, kaz, irn, tur) = (forum.agency("SEC"), forum.agency("KAZ"), forum.agency("IRN"), forum.agency("TUR"));
    for code in ["KAZ", "IRN"] {
        forum.await_in_force(PAPERS, code);
    }
    // Its node hears of the consents by its own feed.
    await_members(&sec, PAPERS, &["IRN", "KAZ", "SEC"]);
    let first = sec.submit("a concept paper", &format!("--agreement {PAPERS}"));
    assert_eq!(sec.settled(&first.id), ["IRN delivered", "KAZ delivered"]);
    let received = kaz.receive(1);
    assert_eq!(exchange_ids(&received), [first.id.clone()]);
    assert_eq!(text_of(&received[0], "origin"), "SEC");
    // A member receives, and sends nothing to the others by it.
    kaz.try_submit("an answer", &format!("--agreement {PAPERS}")).refused(3, "ROLE_NOT_ALLOWED");

    // TUR joins, KAZ leaves: what is sent from then on is the one's and not the other's.
    forum.consent(PAPERS, "TUR");
    forum.leave(PAPERS, "KAZ");
    await_members(&sec, PAPERS, &["IRN", "SEC", "TUR"]);
    let second = sec.submit("another paper", &format!("--agreement {PAPERS}"));
    assert_eq!(sec.settled(&second.id), ["IRN delivered", "TUR delivered"]);
    assert_eq!(exchange_ids(&tur.receive(1)), [second.id.clone()], "nothing of before");
    assert_eq!(exchange_ids(&irn.receive(2)), [first.id, second.id]);
    assert!(kaz.receive_rest().is_empty());

    // The secretariat leaves and comes back like a state, by its officer's words at the hub.
    forum.leave(PAPERS, "SEC");
    let returned = forum.as_officer("SEC", &format!("agreement consent {PAPERS}")).ok();
    assert_eq!(returned.lines().last().unwrap()["said"], "return");
    await_members(&sec, PAPERS, &["IRN", "SEC", "TUR"]);
    let third = sec.submit("after the return", &format!("--agreement {PAPERS}"));
    assert_eq!(sec.settled(&third.id), ["IRN delivered", "TUR delivered"]);
    for code in ["KAZ", "IRN", "TUR"] {
        let mailboxes = forum.status(&forum.node_dir(code))["mailboxes"].to_string();
        assert_eq!(mailboxes.matches("\"set_aside\":0").count(), 3, "{code}: {mailboxes}");
    }
}

#[test]
fn the_secretariat_is_on_an_agreement_like_a_state_where_it_runs_a_node_and_speaks_at_its_hub() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    // Without a node it can be on none: its hub's keys sign receipts and nothing else.
    let mut line = words!["agreement", "propose", DIALOGUE, "--title", "Dialogue", "--measure", MEASURE];
    line.extend(words!["--participant", "SEC", "--profile", forum.officer("KAZ")]);
    concord(line).refused(3, "PARTICIPANT_NOT_ENROLLED");
    // Nor is there a second trust anchor of the secretariat's.
    let dir = forum.path().join("other");
    concord(words!["node", "init", "--dir", dir, "--participant", "SEC"]).refused(2, "USAGE");
    forum.join("SEC");
    forum.start_node("SEC");
    // Nobody has a name that the hub's anchor has given: two keys of one name could not be told apart.
    let own_officer = forum.node_dir("SEC").join("officers/officer-2");
    assert!(!forum.node_dir("SEC").join("officer").exists());
    let issued = concord(words!["anchor", "list", "--dir", forum.hub_dir().join("anchor")]).ok().lines();
    let mut names: Vec<_> = issued.iter().map(|one| one["name"].to_string()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "{issued:?}");
    let second = words!["node", "init", "--dir", dir, "--participant", "SEC", "--officer", "officer", "--anchor"];
    concord([second, words![forum.hub_dir().join("anchor")]].concat()).refused(3, "HOLDER_KNOWN");
    assert!(!dir.exists(), "nothing was made");
    let mut line = words!["contact", "set", "--office", "x", "--telephone", "+41 22 9171234", "--hours", "always"];
    line.extend(words!["--language", "en", "--profile", own_officer]);
    concord(line).refused(3, "CALLER_NOT_ALLOWED");

    forum.propose(DIALOGUE, MEASURE, &["KAZ", "SEC"]);
    forum.consent(DIALOGUE, "SEC");
    forum.await_in_force(DIALOGUE, "KAZ");
    let (sec, kaz, irn) = (forum.agency("SEC"), forum.agency("KAZ"), forum.agency("IRN"));
    await_members(&sec, DIALOGUE, &["KAZ", "SEC"]);
    let asked = kaz.submit("views of a member", &format!("--agreement {DIALOGUE}"));
    assert_eq!(kaz.settled(&asked.id), ["SEC delivered"]);
    assert_eq!(exchange_ids(&sec.receive(1)), [asked.id]);
    let answered = sec.submit("a compilation", &format!("--agreement {DIALOGUE}"));
    assert_eq!(sec.settled(&answered.id), ["KAZ delivered"]);
    assert_eq!(exchange_ids(&kaz.receive(1)), [answered.id]);
    // A third hears of nothing, and the secretariat's node of nothing that is not its own.
    irn.try_submit("by a third", &format!("--agreement {DIALOGUE}")).refused(3, "AGREEMENT_UNKNOWN");
    forum.agree("IRN/poppies", MEASURE, &["IRN", "KAZ"]);
    sec.try_submit("a paper", "--agreement IRN/poppies").refused(3, "AGREEMENT_UNKNOWN");
    let health = forum.status(&forum.hub_dir())["nodes"].to_string();
    assert!(health.contains("\"participant\":\"SEC\""), "{health}");
}

#[test]
fn a_node_of_the_secretariats_follows_the_anchor_of_its_hub_and_none_that_it_needs_is_ended_before() {
    let mut forum = with_secretariats_node();
    let (hub, dir) = (forum.hub_dir(), forum.node_dir("SEC"));
    forum.propose(DIALOGUE, MEASURE, &["KAZ", "SEC"]);
    forum.consent(DIALOGUE, "SEC");
    forum.await_in_force(DIALOGUE, "KAZ");
    let (sec, kaz) = (forum.agency("SEC"), forum.agency("KAZ"));
    await_members(&sec, DIALOGUE, &["KAZ", "SEC"]);
    let exchange = |what: &str| {
        let sent = sec.submit(what, &format!("--agreement {DIALOGUE} --wait delivered")).id;
        assert_eq!(exchange_ids(&kaz.receive(1)), [sent], "{what}");
    };
    exchange("under the first anchor");

    concord(words!["anchor", "next", "--dir", hub]).ok();
    concord(words!["hub", "renew", "--all", "--dir", hub]).ok();
    exchange("while the hub goes by the next");
    let left = concord(words!["anchor", "end", "--dir", hub]);
    for name in ["spiffe://sec.concord/node/main", "spiffe://sec.concord/agency/agency"] {
        assert!(left.stderr.contains(name), "{left}");
    }
    assert!(left.stderr.contains("node renew --all"), "{left}");
    left.refused(3, "CERTIFICATES_LEFT");
    concord(words!["anchor", "next", "--dir", dir, "--profile", dir.join("officers/officer-2")])
        .refused(3, "ANCHOR_OF_HUB");

    concord(words!["node", "renew", "--all", "--dir", dir, "--anchor", hub.join("anchor")]).ok();
    exchange("with its own certificates under the next");
    concord(words!["anchor", "end", "--dir", hub]).ok();
    forum.stop_hub();
    forum.stop_node("SEC");
    forum.start_hub();
    forum.start_node("SEC");
    concord(words!["node", "check", "--dir", dir]).ok();
    exchange("under the next alone");
}
