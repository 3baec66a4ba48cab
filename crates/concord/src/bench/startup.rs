//! How soon a hub and a node serve that have a long past. The past is made in process, by the ledger and the formats that
//! hub and node use; what is timed is the real process, from its start to the line with its address.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use concord_journal::{Draft, FileJournal, FrameMark, HistoryId, Journal as _, OpenOptions};
use concord_ledger::{At, Candidate, Command, Consign, Decision, Fact, Item, Ledger};
use concord_model::{ConsignmentDigest, Digest, Lane, Name, ParticipantCode, Timestamp};
use concord_wire::consignment::blob_to_bytes;
use concord_wire::stored::{hub, node};
use futures::executor::block_on;
use serde::Serialize;

use super::forum::{Forum, State, chain, consignment};
use super::ingest::{Server, found_hub, place_in};
use crate::output::{Output, table};

/// What one commit of the made journal takes at most, in bytes.
const COMMIT_SIZE_BYTES: u64 = 4 * 1024 * 1024;
/// An agency acknowledges so many deliveries at once; the last ones of the node are not acknowledged.
const ACKNOWLEDGED_AT_ONCE: u64 = 1_000;
/// The time of the first entry made.
const BEGUN: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

#[derive(Args, Clone)]
pub(crate) struct StartupArgs {
    /// Exchanges of 1 KiB that the hub has recorded, and the node received.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    exchanges: u64,
    /// Exchanges of each consignment, and of each entry of the node. One is the longest past for so many exchanges.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    per_entry: u64,
    /// Where the files go, about 4 KB for each exchange; a temporary folder if not given.
    #[arg(long, value_name = "DIR")]
    dir: Option<std::path::PathBuf>,
}

/// One start.
#[derive(Debug, Serialize)]
struct Started {
    bench: &'static str,
    /// `hub` or `node`.
    process: &'static str,
    /// What the start found.
    after: &'static str,
    exchanges: u64,
    journal_entries: u64,
    journal_bytes: u64,
    views_bytes: u64,
    /// From the start of the process to the line with its address.
    serving_within_seconds: f64,
}

/// Runs the benchmark.
pub(crate) async fn run(args: &StartupArgs, output: Output) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("concord-startup-").tempdir_in(place_in(args.dir.as_ref())?)?;
    let (hub_dir, node_dir) = (folder.path().join("hub"), folder.path().join("node"));
    let forum = found(&hub_dir, &node_dir).await?;
    output.say("making the past of the hub and of a node");
    let (hub_dir_made, node_dir_made, made) = (hub_dir.clone(), node_dir.clone(), args.clone());
    let entries = tokio::task::spawn_blocking(move || make(&forum, &hub_dir_made, &node_dir_made, &made)).await??;
    let mut started = Vec::new();
    for (process, dir, entries) in [("hub", &hub_dir, entries.0), ("node", &node_dir, entries.1)] {
        for after in ["no snapshots, no views", "a clean end", "kill -9", "no snapshots", "no views"] {
            let measured = measure(process, dir, after).await?;
            let one = Started {
                bench: "startup",
                process,
                after,
                exchanges: args.exchanges,
                journal_entries: entries,
                journal_bytes: size_of(&dir.join("journal"))?,
                views_bytes: size_of(&dir.join("views"))?,
                serving_within_seconds: measured,
            };
            output.say(&format!("{process} after {after}: serving within {measured:.2} s"));
            started.push(one);
        }
    }
    let shown = || {
        let header = ["process", "after", "entries", "journal MB", "views MB", "serving within"];
        let rows = started.iter().map(|one| {
            vec![
                one.process.to_owned(),
                one.after.to_owned(),
                one.journal_entries.to_string(),
                (one.journal_bytes / 1_000_000).to_string(),
                (one.views_bytes / 1_000_000).to_string(),
                format!("{:.2} s", one.serving_within_seconds),
            ]
        });
        table(&header, rows)
    };
    output.results(&started, shown).map_err(|failure| anyhow::anyhow!("{failure:?}"))
}

/// A hub with four enrolled states in one agreement, and the folder of a node.
async fn found(hub_dir: &Path, node_dir: &Path) -> Result<Forum> {
    let (server, forum) = found_hub(hub_dir).await?;
    server.stop().await?;
    let (participant, name) = (ParticipantCode::parse("IRN")?, Name::parse("main")?);
    concord_node::init(concord_node::InitOptions::usual(node_dir.to_owned(), participant, name))?;
    Ok(forum)
}

/// A journal that is made longer, commit by commit.
struct Past {
    journal: FileJournal,
    batch: Vec<Draft>,
    size_bytes: u64,
}

impl Past {
    fn open(dir: &Path) -> Result<Self> {
        // Nothing is cut in a journal that was closed, so that neither value is used.
        let options = OpenOptions::new(BEGUN.as_micros(), HistoryId([1; 16]), FrameMark([1; 8]));
        let (journal, _) = FileJournal::open_folder(&dir.join("journal"), &options)?;
        Ok(Self { journal, batch: Vec::new(), size_bytes: 0 })
    }

    fn push(&mut self, draft: Draft) -> Result<()> {
        if self.size_bytes + draft.size_bytes() > COMMIT_SIZE_BYTES {
            self.commit()?;
        }
        self.size_bytes += draft.size_bytes();
        self.batch.push(draft);
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.size_bytes = 0;
        if !batch.is_empty() {
            block_on(self.journal.append(self.journal.tail(), batch))?;
        }
        Ok(())
    }

    fn end(mut self) -> Result<u64> {
        self.commit()?;
        let last = self.journal.tail().sequence;
        self.journal.close();
        Ok(last)
    }
}

/// Records the exchanges of one state at the hub, and takes in those for another at its node; answers both journals' lengths.
fn make(forum: &Forum, hub_dir: &Path, node_dir: &Path, args: &StartupArgs) -> Result<(u64, u64)> {
    let (mut hub_past, mut node_past) = (Past::open(hub_dir)?, Past::open(node_dir)?);
    let mut ledger = fold(&hub_past.journal)?;
    let (agency, recipient) = (Name::parse("drug-control")?, ParticipantCode::parse("IRN")?);
    node_past.push(node::agency_added(&agency, &[], BEGUN))?;
    let state = forum.states.first().context("a forum has states")?;
    let hub_history = hub_past.journal.tail().history;
    let (mut previous, mut received, mut acknowledged) = (ConsignmentDigest(Digest::ZERO), 0, 0);
    for number in 1..=args.exchanges.div_ceil(args.per_entry) {
        let left = args.exchanges - (number - 1) * args.per_entry;
        let count = usize::try_from(args.per_entry.min(left))?;
        let (draft, mail) = record(forum, state, &mut ledger, number, previous, count)?;
        previous = mail.digest;
        hub_past.push(draft)?;
        let items = mail.deliveries(&recipient)?;
        received += items.len() as u64;
        node_past.push(node::mail(Lane::Routine, hub_history.as_bytes(), items, BEGUN))?;
        if received >= acknowledged + ACKNOWLEDGED_AT_ONCE && received < args.exchanges {
            let taken = (acknowledged + 1..=received).collect();
            acknowledged = received;
            let agency = agency.clone();
            let lane = Lane::Routine;
            let fact = node::Acknowledged { agency, lane, through: received, taken, taken_as: None, rights_at: 0 };
            node_past.push(node::agency_acknowledged(&fact, BEGUN))?;
        }
    }
    Ok((hub_past.end()?, node_past.end()?))
}

fn fold(journal: &FileJournal) -> Result<Ledger> {
    let mut ledger = Ledger::default();
    for sequence in 1..=journal.tail().sequence {
        let entry = journal.entry(sequence)?;
        let at = At { sequence, now: Timestamp::from_micros(entry.recorded_at) };
        ledger.apply(&hub::read(&entry)?.into_fact(), at);
    }
    Ok(ledger)
}

/// A recorded consignment, from which deliveries are made.
struct Mail {
    sealed: concord_wire::consignment::Sealed,
    blobs: Vec<Vec<concord_journal::Blob>>,
    fact: concord_ledger::ConsignmentRecorded,
    digest: ConsignmentDigest,
}

impl Mail {
    fn deliveries(&self, recipient: &ParticipantCode) -> Result<Vec<(node::Verdict, Vec<concord_journal::Blob>)>> {
        let run = self.fact.recipients().find(|one| one.run.recipient == *recipient).context("nothing for the node")?;
        let indices = run.items.iter().flat_map(|range| range.indices());
        let tree = self.sealed.tree();
        let mut deliveries = Vec::new();
        for (number, index) in (run.run.first..).zip(indices) {
            let index = index as usize;
            let own = self.blobs.get(index).context("an exchange without blobs")?;
            let feed = run.run.feed_number;
            let bytes = own.iter().map(blob_to_bytes).collect();
            let delivery = concord_wire::delivery::delivery(&self.sealed, &tree, index, number, bytes, BEGUN, feed);
            let mut delivery = delivery.context("an exchange without a place")?;
            // At rest the blobs stand beside the entry.
            delivery.blobs.clear();
            deliveries.push((node::Verdict::Accepted(delivery), own.clone()));
        }
        Ok(deliveries)
    }
}

fn record(
    forum: &Forum,
    state: &State,
    ledger: &mut Ledger,
    number: u64,
    previous: ConsignmentDigest,
    count: usize,
) -> Result<(Draft, Mail)> {
    let chain = chain(state)?;
    let (sealed, blobs) = consignment(state, &forum.agreement, &chain, number, previous, count)?;
    let mut exchanges = Vec::with_capacity(count);
    for bytes in &sealed.headers {
        let (id, header) = (concord_wire::header::exchange_id(bytes), concord_wire::header::parse(bytes)?);
        exchanges.push(Candidate::Fit(Box::new(Item { id, header })));
    }
    let consign = Consign {
        chain,
        number,
        previous,
        digest: sealed.digest,
        key: sealed.key,
        exchanges,
        stood: None,
        targets: std::collections::BTreeMap::new(),
        withdrawn_before: std::collections::BTreeSet::new(),
        begins_after: None,
    };
    let at = At { sequence: ledger.sequence() + 1, now: BEGUN };
    let Decision::Fact { fact, .. } = ledger.decide(&Command::Consign(consign), at)? else {
        bail!("consignment {number} was not recorded");
    };
    ledger.apply(&fact, at);
    let Fact::Consignment(fact) = fact else { bail!("a consignment became another fact") };
    let draft = hub::consignment(&fact, &sealed, blobs.clone(), ledger.recorded_at(BEGUN));
    let digest = sealed.digest;
    Ok((draft, Mail { sealed, blobs, fact, digest }))
}

/// Starts the process on what the name says that it finds, in seconds; and leaves behind what the next measurement needs.
async fn measure(process: &str, dir: &Path, after: &str) -> Result<f64> {
    if after.contains("no snapshots") {
        remove(&dir.join("snapshots"))?;
    }
    if after.contains("no views") {
        remove(&dir.join("views"))?;
    }
    let begun = Instant::now();
    let server = Server::start(&[process, "serve"], dir).await?;
    let serving = begun.elapsed().as_secs_f64();
    // The start that follows a clean end is the one that finds it.
    match after {
        "a clean end" => server.kill().await?,
        _ => server.stop().await?,
    }
    Ok(serving)
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The bytes of a folder's files.
fn size_of(folder: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        size += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(size)
}
