//! Traces: one for each exchange, in the collectors of those who have it, and of nobody else.

use std::collections::BTreeMap;
use std::process::Command;

use concord_tests::{Collector, Forum, executable, run, spans, words};
use serde_json::Value;

fn variables(collector: &Collector) -> BTreeMap<&str, &str> {
    BTreeMap::from([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=abc"),
    ])
}

fn field<'a>(span: &'a Value, name: &str) -> &'a str {
    span[name].as_str().unwrap()
}

#[test]
fn one_trace_leads_from_an_agencys_call_to_another_states_agency_and_nobody_else_has_it() {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    let names = ["agency", "hub", "KAZ", "IRN", "TUR"];
    let mut collectors: BTreeMap<&str, Collector> = names.into_iter().map(|name| (name, Collector::listen())).collect();
    forum.stop_hub();
    forum.start_hub_with(&variables(&collectors["hub"]));
    for code in ["KAZ", "IRN", "TUR"] {
        forum.stop_node(code);
        forum.start_node_with(code, &variables(&collectors[code]));
    }
    let file = forum.path().join("the-title.txt");
    std::fs::write(&file, "the-body").unwrap();
    let mut submit = Command::new(executable());
    submit.args(["--json", "--with-parent"]).envs(variables(&collectors["agency"]));
    submit.args(words!["submit", file, "--title", "the-title", "--wait", "delivered"]);
    submit.args(words!["--profile", forum.node_dir("KAZ").join("agencies/agency")]);
    let id = run(submit).ok().json()["exchange_id"].as_str().unwrap().to_owned();
    forum.agency("IRN").receive(1);

    // Each by whoever did it, each behind the one before, though nothing of it was sent between states.
    let way = [
        ("agency", "call"),
        ("KAZ", "submit"),
        ("hub", "record"),
        ("hub", "deliver"),
        ("IRN", "receive"),
        ("IRN", "hand over"),
    ];
    let mut before: Option<Value> = None;
    for (who, name) in way {
        let span = collectors.get_mut(who).unwrap().await_span(name);
        let parent = before.as_ref().map_or("", |before| field(before, "spanId"));
        assert_eq!(field(&span, "parentSpanId"), parent, "{name}");
        if let Some(before) = &before {
            assert_eq!(field(&span, "traceId"), field(before, "traceId"), "{name}");
        }
        let time = |name: &str| field(&span, name).parse::<u128>().unwrap();
        assert!(0 < time("startTimeUnixNano") && time("startTimeUnixNano") <= time("endTimeUnixNano"), "{span}");
        before = Some(span);
    }
    let trace = field(before.as_ref().unwrap(), "traceId").to_owned();

    // The agency's own trace is known to its own node, and to nobody else.
    let all = |collectors: &mut BTreeMap<&str, Collector>, who: &str| {
        let posted = collectors.get_mut(who).unwrap().all();
        posted.iter().map(|posted| format!("{}{}", posted.head, posted.body)).collect::<String>()
    };
    let submitted = collectors.get_mut("KAZ").unwrap().all().iter().flat_map(|posted| spans(&posted.body));
    let links: Vec<Value> =
        submitted.filter(|span| span["name"] == "submit").map(|span| span["links"][0].clone()).collect();
    let called = field(&links[0], "traceId").to_owned();
    assert_ne!(called, trace);
    for who in ["hub", "IRN"] {
        let said = all(&mut collectors, who);
        assert!(!said.contains(&called) && !said.contains(field(&links[0], "spanId")), "{who}: {said}");
    }
    // Who is not on the agreement has nothing of it, not even that it was; nor does anybody's collector hear what it was.
    forum.stop_node("TUR");
    assert_eq!(collectors.get_mut("TUR").unwrap().all().len(), 0);
    for who in names {
        let said = all(&mut collectors, who);
        assert!(!said.contains("the-body") && !said.contains("the-title") && !said.contains(&id), "{who}: {said}");
        assert!(who == "TUR" || said.contains("POST /v1/traces") && said.contains("x-token: abc"), "{who}: {said}");
    }
}

#[test]
fn attributes_of_the_environment_go_along_and_what_is_not_spoken_is_said_on_stderr_and_costs_nothing() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    let mut collector = Collector::listen();
    let submit = |collector: &Collector, name: &str, value: &str| {
        let file = forum.path().join("body.txt");
        std::fs::write(&file, name).unwrap();
        let mut submit = Command::new(executable());
        submit.args(["--json", "--with-parent"]).envs(variables(collector)).env(name, value);
        submit.args(words!["submit", file, "--profile", forum.node_dir("KAZ").join("agencies/agency")]);
        run(submit).ok()
    };
    let asked = submit(&collector, "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    assert_eq!(asked.stderr.matches("note: traces are off: ").count(), 1, "{asked}");
    assert!(asked.stderr.contains("OTEL_EXPORTER_OTLP_PROTOCOL=grpc") && asked.stderr.contains("http/json"), "{asked}");
    let with = submit(&collector, "OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=drill%20hall");
    assert!(!with.stderr.contains("traces are off"), "{with}");
    collector.await_span("call");
    let posted = collector.all();
    assert_eq!(posted.len(), 1, "of the first call nothing went out");
    assert!(
        posted[0].body.contains("deployment.environment") && posted[0].body.contains("drill hall"),
        "{}",
        posted[0].body
    );
}

#[test]
fn a_collector_that_is_not_there_costs_the_service_nothing() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    forum.stop_node("KAZ");
    // Nobody listens at this port: it is taken and never accepted from.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", nobody.local_addr().unwrap());
    forum.start_node_with("KAZ", &BTreeMap::from([("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())]));
    forum.agency("KAZ").submit("one", "--wait delivered");
    drop(nobody);
    forum.agency("KAZ").submit("two", "--wait delivered");
    forum.stop_node("KAZ");
}
