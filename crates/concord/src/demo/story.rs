//! What happens in the demo, step by step, each by the command that a person would type.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use futures::future::try_join_all;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::cast::{ACCORDS, Accord, ITEMS, Item, STATES, State, state};
use super::receipts::{Receipts, Sent, since};
use super::stage::{Line, STEP_TIMEOUT, Stage, words};
use super::tell::{Event, Step, Teller};
use crate::exit::Failure;

/// How long to wait before asking again whether a proposal has come.
const PENDING_AGAIN_AFTER: std::time::Duration = std::time::Duration::from_millis(20);

/// The folders of everything.
pub(super) struct Places {
    pub(super) root: PathBuf,
}

impl Places {
    pub(super) fn hub(&self) -> PathBuf {
        self.root.join("hub")
    }

    pub(super) fn node(&self, code: &str) -> PathBuf {
        self.root.join(format!("node-{}", code.to_lowercase()))
    }

    pub(super) fn officer(&self, code: &str) -> PathBuf {
        self.node(code).join("officer")
    }

    pub(super) fn agency(&self, state: &State) -> PathBuf {
        self.node(state.code).join("agencies").join(state.agency)
    }

    /// What the agencies of all states received, by code.
    pub(super) fn received(&self) -> PathBuf {
        self.root.join("received")
    }

    pub(super) fn sample(&self, item: &Item) -> PathBuf {
        self.root.join("samples").join(item.sample.file)
    }
}

/// What the story left behind.
pub(super) struct Told {
    pub(super) sent: Vec<Sent>,
}

/// Everything from empty folders to the outcome; fails if a step fails or an expectation does not hold.
pub(super) async fn play(
    stage: &mut Stage,
    lines: &mut mpsc::Receiver<Line>,
    places: &Places,
    teller: &Teller,
) -> Result<Told, Failure> {
    let begun = Instant::now();
    write_samples(places)?;
    teller.tell(&Event::Begun { folder: &places.root })?;

    teller.heading("The hub and the nodes start, each with keys of its own")?;
    start_hub(stage, places, teller).await?;
    try_join_all(STATES.iter().map(|state| make_node(stage, places, state))).await?;
    for state in &STATES {
        start_node(stage, places, state, teller).await?;
    }

    teller.heading("The states agree")?;
    for accord in ACCORDS {
        agree(stage, places, accord).await?;
        teller.tell(&Event::AgreementInForce { agreement: accord.id, title: accord.title, participants: accord.on })?;
    }

    teller.heading("The agencies exchange")?;
    for state in &STATES {
        let out = places.received().join(state.code);
        stage.follow(
            state.code,
            words([&"receive", &"--follow", &"--profile", &places.agency(state), &"--out", &out]),
        )?;
    }
    let mut receipts = Receipts::default();
    let mut sent = Vec::new();
    for item in &ITEMS {
        sent.push(exchange(stage, lines, places, item, &mut receipts, teller).await?);
    }

    stage.end_followers().await;
    // Whatever came after the closing exchange, to anybody, is an exchange too many.
    while let Ok(line) = lines.try_recv() {
        receipts.add(line);
    }
    teller.heading("Who received what")?;
    teller.grid(&receipts.grid(&sent))?;
    let failed = receipts.check(&sent, &places.received());
    let milliseconds = begun.elapsed().as_millis();
    teller.text("")?;
    teller.tell(&Event::Outcome { held: failed.is_empty(), failed: &failed, milliseconds })?;
    if failed.is_empty() {
        return Ok(Told { sent });
    }
    Err(Failure::failed("DEMO_EXPECTATION", format!("{} expectations did not hold", failed.len()))
        .help(format!("see the logs in {}", places.root.join("logs").display())))
}

fn write_samples(places: &Places) -> Result<(), Failure> {
    for item in &ITEMS {
        let path = places.sample(item);
        let folder = path.parent().unwrap_or(&places.root);
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, item.sample.content))
            .map_err(|error| Failure::failed("FILE", format!("cannot write {}: {error}", path.display())))?;
    }
    Ok(())
}

async fn start_hub(stage: &mut Stage, places: &Places, teller: &Teller) -> Result<(), Failure> {
    let hub = places.hub();
    stage.run("hub", words([&"hub", &"init", &"--dir", &hub, &"--quorum", &"1"])).await?;
    let address = stage.serve("hub", words([&"hub", &"serve", &"--dir", &hub])).await?;
    teller.tell(&Event::HubReady { address: &address })
}

/// Keys and a request to join; independent of all other nodes.
async fn make_node(stage: &Stage, places: &Places, state: &State) -> Result<(), Failure> {
    let node = places.node(state.code);
    let init = words([&"node", &"init", &"--dir", &node, &"--participant", &state.code]);
    stage.run(state.code, init).await.map(drop)
}

/// The secretariat enrols it, it joins, its agency is let in, it runs.
async fn start_node(stage: &mut Stage, places: &Places, state: &State, teller: &Teller) -> Result<(), Failure> {
    let (code, node) = (state.code, places.node(state.code));
    let (request, bundle) = (node.join("join-request.json"), node.join("bundle.json"));
    let secretariat = places.hub().join("officer");
    let enrol = words([&"participant", &"enrol", &request, &"--profile", &secretariat, &"--out", &bundle]);
    stage.run(code, enrol).await?;
    stage.run(code, words([&"node", &"join", &bundle, &"--dir", &node])).await?;
    stage.run(code, words([&"agency", &"add", &state.agency, &"--dir", &node])).await?;
    let address = stage.serve(code, words([&"node", &"serve", &"--dir", &node])).await?;
    teller.tell(&Event::NodeReady { participant: code, name: state.name, agency: state.agency, address: &address })
}

async fn agree(stage: &Stage, places: &Places, accord: &Accord) -> Result<(), Failure> {
    let proposer = accord.proposer();
    let on = accord.on.join(",");
    let mut propose = words([&"agreement", &"propose", &accord.id, &"--title", &accord.title, &"--participant", &on]);
    propose.extend(words([&"--measure", &accord.measures, &"--profile", &places.officer(proposer)]));
    stage.run(proposer, propose).await?;
    let consents = accord.others().map(|code| consent(stage, places, accord, code));
    try_join_all(consents).await?;
    // In force for each of them: as its own node knows it.
    let shows = accord.on.iter().map(|code| {
        let mut show = words([&"agreement", &"show", &accord.id, &"--wait", &"in-force", &"--timeout", &"15"]);
        show.extend(words([&"--profile", &places.officer(code)]));
        stage.run(code, show)
    });
    try_join_all(shows).await.map(drop)
}

async fn consent(stage: &Stage, places: &Places, accord: &Accord, code: &str) -> Result<(), Failure> {
    let officer = places.officer(code);
    let has_come = async {
        loop {
            let pending = stage.run_all(code, words([&"agreement", &"pending", &"--profile", &officer])).await?;
            if pending.iter().any(|one| one["id"] == accord.id) {
                return Ok::<(), Failure>(());
            }
            // An officer asks what waits for it; nothing calls it.
            tokio::time::sleep(PENDING_AGAIN_AFTER).await;
        }
    };
    match timeout(STEP_TIMEOUT, has_come).await {
        Ok(result) => result?,
        Err(_) => return Err(stage.failed(code, format!("the proposal {} did not come to the node {code}", accord.id))),
    }
    let consent = words([&"agreement", &"consent", &accord.id, &"--profile", &officer]);
    stage.run(code, consent).await.map(drop)
}

/// One exchange, from its file to the agencies of all whom it concerns.
async fn exchange(
    stage: &Stage,
    lines: &mut mpsc::Receiver<Line>,
    places: &Places,
    item: &'static Item,
    receipts: &mut Receipts,
    teller: &Teller,
) -> Result<Sent, Failure> {
    let Item { name, from, accord, measure, lane, sample } = item;
    let agency = state(from).map_or("", |state| state.agency);
    let profile = places.node(from).join("agencies").join(agency);
    let mut submit = words([&"submit", &places.sample(item), &"--profile", &profile, &"--agreement", &accord.id]);
    submit.extend(words([&"--measure", measure, &"--lane", lane, &"--title", &sample.title]));
    let queued = stage.run(from, submit).await?;
    let exchange_id = queued["exchange_id"].as_str().unwrap_or_default().to_owned();
    let mut sent = Sent { item, exchange_id, queued_at: jiff::Timestamp::now() };
    let exchange_id = sent.exchange_id.as_str();
    teller.tell(&Event::Submitted {
        exchange: name,
        exchange_id,
        title: sample.title,
        participant: from,
        agency,
        agreement: accord.id,
        lane,
    })?;

    let arrived = timeout(STEP_TIMEOUT, async {
        while !receipts.are_complete(&sent) {
            match lines.recv().await {
                Some(line) => receipts.add(line),
                None => return,
            }
        }
    });
    let track = words([&"track", &exchange_id, &"--profile", &profile, &"--wait", &"delivered", &"--timeout", &"15"]);
    let (arrived, tracked) = tokio::join!(arrived, stage.run(from, track));
    let tracked = tracked?;
    if arrived.is_err() {
        return Err(stage.failed(from, format!("the {name} did not reach everybody whom it concerns")));
    }
    let steps = steps(&tracked, &sent, receipts);
    if let Some(first) = steps.first() {
        sent.queued_at = first.at;
    }
    for step in &steps {
        teller.tell(&Event::Reached { exchange_id: &sent.exchange_id, step })?;
    }
    for state in STATES.iter().filter(|state| !item.accord.on.contains(&state.code)) {
        let (participant, agreement) = (state.code, accord.id);
        teller.tell(&Event::NotSent { exchange_id: &sent.exchange_id, participant, agreement })?;
    }
    Ok(sent)
}

/// The way of an exchange in the order of time: as its sender was told, and as the agencies saw it.
fn steps(tracked: &Value, sent: &Sent, receipts: &Receipts) -> Vec<Step> {
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let step = |state, participant: Option<&str>, agency, at| Step {
        state,
        participant: participant.map(ToOwned::to_owned),
        agency,
        at,
        milliseconds: 0.0,
    };
    let mut steps = Vec::new();
    steps.extend(time(&tracked["queued_at"]).map(|at| step("queued", Some(sent.item.from), None, at)));
    steps.extend(time(&tracked["recorded_at"]).map(|at| step("recorded", None, None, at)));
    for recipient in tracked["recipients"].as_array().into_iter().flatten() {
        let state = if recipient["state"] == "taken" { "taken" } else { "delivered" };
        let at = time(&recipient["at"]);
        steps.extend(at.map(|at| step(state, recipient["participant"].as_str(), None, at)));
    }
    for state in &STATES {
        let receipt = receipts.find(state.code, &sent.exchange_id);
        steps.extend(receipt.map(|receipt| step("received", Some(state.code), Some(state.agency), receipt.at)));
    }
    steps.sort_by_key(|step| step.at);
    let first = steps.first().map_or(sent.queued_at, |step| step.at);
    steps.iter_mut().for_each(|step| step.milliseconds = since(first, step.at));
    steps
}
