//! Officers' statements on their way to the hub.

use std::sync::Arc;

use concord_model::{Reason, Refusal};
use concord_wire::agreement::{DraftContent, parse_statement};
use concord_wire::proto::agreement::v1::SignedStatement;
use tokio::task::JoinSet;

use super::fencing::welcome;
use super::links::ScriptedHub;
use super::support::{Forum, HISTORY, Running, founded, name, reference, until};
use super::uplink::context;
use crate::context::Context;
use crate::link::{HubLink, LinkEnd};
use concord_server::{Clock as _, SystemClock};

/// Two officers with a statement each, the first of which waits longest, and a hub that answers so.
async fn forward(
    forum: &Forum,
    node: &Running,
    submit: fn(&SignedStatement) -> Result<(), LinkEnd>,
) -> (Context, JoinSet<()>) {
    node.writer.feed(HISTORY, forum.feed(), 0).await.unwrap();
    let consent = || DraftContent::Consent(reference(&forum.text("IRN/other")));
    for signed in [forum.kaz.says(2, consent()), forum.kaz.says_as("another", 1, consent())] {
        let statement = parse_statement(&signed).unwrap();
        node.writer.statement(signed, statement).await.unwrap();
    }
    let hub = Arc::new(ScriptedHub { submit, ..ScriptedHub::new(Vec::new()) });
    let context = context(forum, node);
    context.contact.connected(SystemClock.now());
    let mut tasks = JoinSet::new();
    crate::uplink::start(&mut tasks, &context, &(Arc::new(hub) as Arc<dyn HubLink>));
    (context, tasks)
}

fn is_first(signed: &SignedStatement) -> bool {
    parse_statement(signed).unwrap().officer == name("officer")
}

fn waits(node: &Running, officer: &str) -> bool {
    node.now().officers()[&name(officer)].first_waiting().is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_of_the_hub_leaves_the_statement_waiting_and_others_go_on() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let (context, _tasks) = forward(&forum, &node, |signed| {
        if is_first(signed) { Err(LinkEnd::from_status(&tonic::Status::permission_denied("no"))) } else { Ok(()) }
    })
    .await;
    until(|| !waits(&node, "another")).await;
    assert!(waits(&node, "officer"), "a statement was given up that the hub never decided");
    assert_eq!(context.readiness.list()[0].name, "statements");
    assert!(!context.readiness.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_fault_inside_the_hub_is_tried_again_and_alarmed_when_it_repeats() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let (context, _tasks) = forward(&forum, &node, |signed| {
        let fault = concord_wire::status::to_status(&Refusal::new(Reason::Internal, "see the log"));
        if is_first(signed) { Err(LinkEnd::from_status(&fault)) } else { Ok(()) }
    })
    .await;
    until(|| !waits(&node, "another")).await;
    until(|| context.readiness.list().iter().any(|alarm| alarm.name == "statements")).await;
    assert!(waits(&node, "officer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_hub_will_never_take_is_answered_and_the_node_stays_ready() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let (context, _tasks) = forward(&forum, &node, |signed| {
        let reason = if is_first(signed) { Reason::AgreementNotPending } else { Reason::StatementMalformed };
        Err(LinkEnd::Refused(Refusal::new(reason, "why")))
    })
    .await;
    until(|| !waits(&node, "officer") && !waits(&node, "another")).await;
    let state = node.now();
    let answer = |officer: &str, number| state.officers()[&name(officer)].statement(number).unwrap().answer.clone();
    let (recorded, whole) = (answer("officer", 2).unwrap(), answer("another", 1).unwrap());
    assert_eq!((recorded.refused.unwrap().reason, recorded.whole), (Reason::AgreementNotPending, false));
    assert_eq!((whole.refused.unwrap().reason, whole.whole), (Reason::StatementMalformed, true));
    assert!(context.readiness.is_ready(), "{:?}", context.readiness.list());
    assert_eq!(context.readiness.list()[0].name, "statement-refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_hears_of_another_copy_waits_and_nothing_more_is_numbered() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let refused = |_: &SignedStatement| Err(LinkEnd::Refused(Refusal::new(Reason::NodeSuperseded, "why")));
    let (context, _tasks) = forward(&forum, &node, refused).await;
    until(|| node.now().fence().is_some()).await;
    assert_eq!(context.check_fence().unwrap_err().reason, Reason::NodeSuperseded);
    assert!(waits(&node, "officer") && waits(&node, "another"), "the copy that is served may yet say it");
    welcome(&context).await.unwrap();
    context.check_fence().unwrap();
    assert!(node.now().fence().is_none());
}
