//! Serving: everything is read and opened before a port is bound, and closed in the opposite order.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use concord_backup::{Backups, Owner, Source, StandingError, refuse_if_interrupted};
use concord_identity::{Admission, Anchor, Anchors, Application, Barred, Credentials, read_text, server_config};
use concord_journal::{FileJournal, Journal, Tail};
use concord_model::{Identity, Lane, Name, ParticipantCode, Role};
use concord_server::audit::{Audit, Event, Object};
use concord_server::traces::Traces;
use concord_server::{
    Addresses, AdminListener, Certificates, Cut, DiskRoom, Folder, FolderKind, Hangup, JOURNAL_BEHIND_VIEWS_ALARM,
    JOURNAL_CUT_ALARM, MetricAt, OwnCertificates, OwnFiles, PrometheusHandle, Readiness, RevocationFolder, Shares,
    Shutdown, Supervisor, Tcp, bind, metrics_recorder, scrub,
};
use concord_snapshots::{Restored, Snapshots};
use concord_views::{Views, told_on_log};
use concord_wire::proto::operations::v1::operations_service_server::OperationsServiceServer;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::backlog::Backlog;
use crate::config::NodeConfig;
use crate::context::{Contact, Context};
use crate::error::NodeError;
use crate::folders::{PUBLIC_FILES, Paths};
use crate::hub_link::{Way, hub_anchors, hub_link_under, keep_hub_anchors, seen_by};
use crate::index::Index;
use crate::open::{fold, last_recorded, open_journal, snapshots};
use crate::projection::NodeProjection;
use crate::reminding::keep_reminding;
use crate::retention::Keeper;
use crate::services::{self, OperationsApi, Started};
use crate::signing::{self, NodeKeys};
use crate::state::NodeState;
use crate::withdrawals;
use crate::writer::{Writer, WriterError};
use crate::{confirming, pinning};
use crate::{downlink, uplink};
use crate::{overdue, probe, reporting};
use concord_server::{Clock, ClockTrust, SystemClock, lost_before};

const NOT_JOINED_ALARM: &str = "not-joined";

/// Runs a node until SIGTERM or SIGINT. Prints each bound address on a line of its own, and writes `addresses.json`, once ready.
pub async fn serve(dir: &Path) -> Result<(), NodeError> {
    let folder = Folder::open(dir, FolderKind::Node)?;
    let config = NodeConfig::load(dir)?;
    let lock = folder.lock()?;
    refuse_if_interrupted(dir)?;
    let shutdown = Shutdown::new();
    let signals = |source| NodeError::System { doing: "listening to signals", source };
    shutdown.on_signals().map_err(signals)?;
    let hangup = Hangup::on_signal().map_err(signals)?;
    let supervisor = Supervisor::from_environment();
    let opening_told = supervisor.not_serving_yet("opening");
    // Before anything is opened, so that what the opening finds is counted too.
    let recorder = metrics_recorder(MetricAt::Node)?;
    let node = Node::build(dir, config, shutdown).await?;
    let traces = Traces::begin("concord-node");
    let ended = node.serve(&folder, recorder, hangup, (supervisor, opening_told)).await;
    traces.end().await;
    drop(lock);
    ended
}

/// A node that is read and opened, and has no port yet.
struct Node {
    config: NodeConfig,
    credentials: Credentials,
    own: Anchors,
    own_files: OwnFiles,
    started: Started,
    journal: Arc<FileJournal>,
    snapshots: Snapshots,
    snapshot: Option<Tail>,
    writer: Writer,
    context: Context,
    backups: Backups,
}

impl Node {
    async fn build(dir: &Path, config: NodeConfig, shutdown: Shutdown) -> Result<Self, NodeError> {
        let paths = Paths::of(dir);
        crate::init::refuse_if_awaited(dir, &config)?;
        let credentials = Credentials::load(&paths.tls_certificate(), &paths.tls_key())?;
        let caller = credentials.caller()?;
        let expected =
            Identity { participant: config.participant.clone(), role: Role::Node, name: config.name.clone() };
        if caller.identity != expected {
            let what = format!("node.toml is for {expected}, the certificate in tls/ for {}", caller.identity);
            return Err(NodeError::Mismatch(what));
        }
        let anchors = Anchor::several_from_pem(&read_text(&paths.tls_anchor())?)?;
        let keys = Arc::new(NodeKeys::load(&paths.signing_key())?);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let readiness = Readiness::new();
        let started = Started { at: clock.now(), certificates: Certificates::new() };
        let own_files = own_files(&paths, expected);

        // Verifying a journal and rebuilding views take as long as there is to read.
        let opening = (Arc::clone(&clock), readiness.clone(), paths);
        let segment_size = config.journal_segment_size_bytes;
        let opened = concord_server::blocking(move || open(&opening.2, opening.0.as_ref(), &opening.1, segment_size));
        let Opening { journal, index, restored, snapshots, was_cut } = opened.await.map_err(WriterError::from)??;
        let Restored { state, snapshot, .. } = restored;
        check_founded(&state, &config.participant, &config.name)?;

        let audit = Audit::begin(dir, config.participant.clone(), readiness.clone());
        note_start(&audit, journal.as_ref(), was_cut);
        let last_recorded = last_recorded(journal.as_ref())?;
        let trust = Arc::new(ClockTrust::system(clock, last_recorded, readiness.clone()));
        concord_server::detach(Arc::clone(&trust).watch());
        let clock: Arc<dyn Clock> = trust;
        let (writer, handle, published) = Writer::new(state, index.clone(), Arc::clone(&keys), Arc::clone(&clock));
        let room = DiskRoom::new(config.disk_reserve_bytes, readiness.clone());
        let writer = writer.with_room(room.clone()).with_last_recorded(last_recorded.unwrap_or_default());
        let own = Anchors::none();
        own.replace(BTreeMap::from([(config.participant.clone(), anchors)]));
        let context = Context {
            participant: config.participant.clone(),
            node: config.name.clone(),
            own: own.clone(),
            keys,
            writer: handle,
            state: published,
            index,
            clock,
            readiness,
            shutdown,
            contact: Arc::new(Contact::default()),
            probes: Arc::default(),
            audit,
            room,
            shares: Arc::new(Shares::new(config.quotas)),
            overdue: config.overdue,
            backlog: Arc::new(Backlog::new(config.waiting_exchanges_max)),
            run: concord_server::fresh()?,
        };
        let source = Source {
            folder: dir.to_owned(),
            owner: Owner::Node,
            participant: config.participant.clone(),
            name: config.name.clone(),
            public_files: PUBLIC_FILES,
        };
        let signing = context.clone();
        let backups = Backups::new(source, Arc::clone(&journal), move || signing.key());
        Ok(Self {
            config,
            credentials,
            own,
            own_files,
            started,
            journal,
            snapshots,
            snapshot,
            writer,
            context,
            backups,
        })
    }

    async fn serve(
        self,
        folder: &Folder,
        recorder: PrometheusHandle,
        hangup: Hangup,
        (supervisor, opening_told): (Supervisor, DropGuard),
    ) -> Result<(), NodeError> {
        let Self {
            config,
            credentials,
            own,
            own_files,
            started,
            journal,
            snapshots,
            snapshot,
            writer,
            context,
            backups,
        } = self;
        let barred = Barred::default();
        bar_ended(&context, &barred);
        let admission = Admission::node(&config.participant).except(barred.clone());
        let tls = server_config(&credentials, &own, admission, Application::Grpc)?;
        let keeper = Arc::new(Keeper::new(context.clone(), config.retention));
        let mut server = services::server(&context).await?;
        let operations = OperationsApi::new(context.clone(), started.clone(), backups, Arc::clone(&keeper));
        server.routes = server.routes.add_service(OperationsServiceServer::new(operations));
        let hubs = hub_anchors(&context)?;
        let opening = (folder.path().to_owned(), own.clone(), hubs.clone(), context.clone(), config.revocation);
        let revocations = concord_server::blocking(move || {
            let (dir, own, hubs, context, lapsing) = opening;
            let anchors = std::iter::once(own).chain(hubs).collect();
            RevocationFolder::open(&dir, anchors, context.readiness, lapsing, context.clock)
        });
        let revocations = revocations.await.map_err(WriterError::from)?;
        let known = context.clone();
        let revocations = revocations.knowing_past(move || {
            let state = known.now_state();
            let registry = &state.directory().registry;
            let of = |code: &ParticipantCode| {
                registry.anchors_of(code).filter_map(|der| Anchor::from_der(der).ok()).collect::<Vec<_>>()
            };
            [known.participant.clone(), ParticipantCode::secretariat()].map(|code| (code.clone(), of(&code))).into()
        });
        let certificates = started.certificates.clone();
        let opening = (own_files, credentials.clone(), own.clone(), certificates.clone(), context.clone());
        let renewed = concord_server::blocking(move || {
            let (files, credentials, own, certificates, context) = opening;
            OwnCertificates::open(files, credentials, own, certificates, context.readiness, context.clock)
        });
        let renewed = renewed.await.map_err(WriterError::from)?;
        let dialled = Cut::default();
        let way = Way { reached: Some(seen_by(&certificates)), uplink: &config.uplink, folder: folder.path() };
        let known_hub = hubs.clone();
        let link = hub_link_under(hubs, dialled.over(Tcp), &context, &credentials, way)?;

        let remembered = folder.addresses()?;
        let listener = bind("listen", config.listen, remembered.map(|addresses| addresses.listen)).await?;
        let admin = bind("admin", config.admin, remembered.map(|addresses| addresses.admin)).await?;
        let system = |doing| move |source| NodeError::System { doing, source };
        let addresses = Addresses {
            listen: listener.local_addr().map_err(system("asking for the bound address"))?,
            admin: admin.local_addr().map_err(system("asking for the bound address"))?,
        };
        let admin = AdminListener::new(admin, &credentials, &own, &config.participant, context.audit.clone())?;

        let writer_stop = CancellationToken::new();
        let durable = writer.durable();
        tokio::spawn(concord_snapshots::keep(snapshots.clone(), durable.clone(), snapshot, Clone::clone));
        let writing = tokio::spawn(writer.run(writer_stop.clone()));
        let mut links = JoinSet::new();
        match &link {
            Some(link) => {
                uplink::start(&mut links, &context, link);
                downlink::start(&mut links, &context, link);
                links.spawn(reporting::keep_telling(context.clone(), Arc::clone(link)));
                links.spawn(probe::keep_probing(context.clone(), config.probe));
                let (contact, readiness) = (Arc::clone(&context.contact), context.readiness.clone());
                links.spawn(async move { contact.watch(&readiness).await });
                let clocks = context.clone();
                links.spawn(async move { clocks.contact.watch_clock(clocks.clock.as_ref(), &clocks.readiness).await });
            }
            None => context.readiness.raise(NOT_JOINED_ALARM, "this node has not joined a hub: `concord node join`"),
        }
        let listening = vec![server.connections.clone(), admin.connections()];
        links.spawn(revocations.watch(listening.clone(), Some(dialled), hangup.clone()));
        links.spawn(renewed.watch(listening, hangup));
        let (told, clock) = (context.readiness.clone(), Arc::clone(&context.clock));
        let (holders, asked) = (crate::init::of_config(folder.path(), &config), context.clone());
        let is_ended = move |one: &Identity| {
            one.role == Role::Agency && asked.now_state().ended_agencies().iter().any(|name| *name == one.name)
        };
        links.spawn(certificates.clone().keep_issued(holders, is_ended));
        links.spawn(certificates.watch(server.connections.clone(), |_| false, told, clock));
        links.spawn(measure(context.clone()));
        links.spawn(services::keep_measured(context.clone()));
        links.spawn(keep_barred(context.clone(), barred));
        links.spawn(confirming::keep_told(context.clone()));
        links.spawn(pinning::keep_told(context.clone()));
        if let Some(anchors) = known_hub {
            links.spawn(keep_hub_anchors(context.clone(), anchors, folder.path().to_owned()));
        }
        links.spawn(signing::keep_settled(context.clone(), folder.path().to_owned()));
        links.spawn(overdue::keep_noted(context.clone()));
        links.spawn(keeper.keep());
        links.spawn(keep_reminding(context.clone()));
        if !config.keep_withdrawn {
            links.spawn(withdrawals::keep_redacting(context.clone()));
        }
        let measured = Arc::clone(&journal);
        links.spawn(context.room.clone().watch(move || measured.available_bytes()));

        let admin_end = CancellationToken::new();
        let scrubbed = Arc::clone(&journal);
        let scrubbing = tokio::spawn(scrub(
            move |between| scrubbed.scrub(|_| between()).map(drop).map_err(|found| found.to_string()),
            context.readiness.clone(),
            context.index.damaged().watch_settled(),
            admin_end.clone(),
        ));
        let admin_task =
            tokio::spawn(admin.serve(context.readiness.clone(), recorder, admin_end.clone().cancelled_owned()));
        folder.write_addresses(&addresses)?;
        addresses.announce().map_err(NodeError::Output)?;
        tracing::info!(listen = %addresses.listen, admin = %addresses.admin, "the node serves");
        concord_faults::point("node.serving");
        drop(opening_told);
        supervisor.ready();
        let asked = context.writer.clone();
        tokio::spawn(supervisor.keep_told(context.readiness.clone(), context.shutdown.clone(), move || {
            let asked = asked.clone();
            async move { asked.asked().await }
        }));

        let shutdown = context.shutdown.clone();
        let views = context.index.views().clone();
        let serving = server.serve(listener, tls);
        let audit = context.audit.clone();
        let outcome = run(serving, writing, links, &writer_stop, &shutdown, &journal, views).await;
        audit.flush().await;
        admin_end.cancel();
        admin_task.await.map_err(WriterError::from)?;
        scrubbing.await.map_err(WriterError::from)?;
        let (state, tail) = durable.borrow().clone();
        tokio::task::spawn_blocking(move || snapshots.write_last(&state, tail)).await.map_err(WriterError::from)?;
        outcome
    }
}

/// Serves until the end, or until the writer is no longer certain; then closes links, writer and journal in this order.
async fn run(
    serving: impl Future<Output = Result<(), concord_server::ServeError>>,
    mut writing: tokio::task::JoinHandle<Result<(), WriterError>>,
    mut links: JoinSet<()>,
    writer_stop: &CancellationToken,
    shutdown: &Shutdown,
    journal: &Arc<FileJournal>,
    views: Views,
) -> Result<(), NodeError> {
    let mut serving = std::pin::pin!(serving);
    let written = tokio::select! {
        served = &mut serving => {
            links.shutdown().await;
            writer_stop.cancel();
            let written = writing.await.map_err(WriterError::from)?;
            served?;
            written
        }
        written = &mut writing => {
            // Nobody may be answered any more on what is not certain: no drain, the process ends.
            shutdown.request();
            links.abort_all();
            written.map_err(WriterError::from)?
        }
        failed = views.failed() => {
            // Nor on views that are found to be damaged.
            shutdown.request();
            links.abort_all();
            writer_stop.cancel();
            writing.await.map_err(WriterError::from)??;
            return Err(failed.into());
        }
    };
    written?;
    concord_faults::point("node.close");
    let closing = Arc::clone(journal);
    concord_server::blocking(move || closing.close()).await.map_err(WriterError::from)?;
    Ok(())
}

/// Journal, views and state, brought up to the journal's tail.
struct Opening {
    journal: Arc<FileJournal>,
    index: Index,
    restored: Restored<NodeState>,
    snapshots: Snapshots,
    /// The end of the journal was cut, and a new history began.
    was_cut: bool,
}

/// Blocks for as long as there is to read.
fn open(paths: &Paths, clock: &dyn Clock, readiness: &Readiness, segment_size: u64) -> Result<Opening, NodeError> {
    if !FileJournal::is_in_folder(&paths.journal())? {
        return Err(StandingError::Absent { owner: Owner::Node, path: paths.journal() }.into());
    }
    let (journal, opened) = open_journal(&paths.journal(), clock, segment_size)?;
    if let Some(cut) = &opened.cut {
        // Mostly a commit that a kill or a power cut left unfinished: nobody was answered on it.
        let what = format!(
            "the end of the journal was damaged or unfinished and {} bytes of {} were cut; what was answered before that stands, \
             unless the disk lost it. If this node was not killed, check the disk",
            cut.bytes, cut.file
        );
        match cut.parent {
            Some(_) => readiness.note(JOURNAL_CUT_ALARM, what),
            None => readiness.raise(JOURNAL_CUT_ALARM, format!("{what}. No whole entry was left")),
        }
    }
    concord_faults::point("node.open.journal");
    let snapshots = snapshots(paths.snapshots());
    let restored = fold(&snapshots, journal.as_ref())?;
    if let Some(lost) = restored.lost {
        let what = format!(
            "a snapshot knew entry {}, which the journal no longer has: acknowledged data was lost. Keep the folder and call \
             the secretariat",
            lost.sequence
        );
        readiness.raise(JOURNAL_BEHIND_VIEWS_ALARM, what);
    } else if let Some(proof) = snapshots.proof_of_loss() {
        readiness.note(JOURNAL_BEHIND_VIEWS_ALARM, lost_before(&proof));
    }
    concord_faults::point("node.open.folded");
    let begun = Instant::now();
    let (views, how) = Views::open(&paths.views(), NodeProjection::VERSION, journal.as_ref())?;
    let milliseconds = begun.elapsed().as_millis();
    tracing::info!(opened = ?how, milliseconds, is_checked = views.is_checked(), "views opened");
    if how.shows_lost_entries() {
        let what = "the views knew entries that the journal no longer has: acknowledged data was lost. Keep the folder and call \
                    the secretariat";
        readiness.raise(JOURNAL_BEHIND_VIEWS_ALARM, what);
    } else if let Some(proof) = Views::proof_of_loss(&paths.views())? {
        readiness.note(JOURNAL_BEHIND_VIEWS_ALARM, lost_before(&proof));
    }
    let tail = journal.tail();
    views.catch_up(journal.as_ref(), &mut NodeProjection, tail, told_on_log(tail))?;
    concord_faults::point("node.open.views");
    let as_journal: Arc<dyn Journal> = Arc::clone(&journal) as Arc<dyn Journal>;
    let index = Index::new(views, as_journal);
    Ok(Opening { journal, index, restored, snapshots, was_cut: opened.cut.is_some() })
}

pub(crate) fn check_founded(state: &NodeState, participant: &ParticipantCode, name: &Name) -> Result<(), NodeError> {
    match state.identity() {
        Some((founded, node)) if founded == participant && node == name => Ok(()),
        Some((founded, node)) => Err(NodeError::Mismatch(format!(
            "node.toml is for {participant}'s node {name}, the journal for {founded}'s node {node}"
        ))),
        None => Err(NodeError::Mismatch(
            "the journal says nothing of a node: it was lost, or `concord node init` did not end. Put it back from a backup (`concord \
             node restore`), or make it anew (`concord node rebuild`); where nothing was set up yet, remove the folder and run init again"
                .to_owned(),
        )),
    }
}

fn own_files(paths: &Paths, identity: Identity) -> OwnFiles {
    OwnFiles { identity, certificate: paths.tls_certificate(), key: paths.tls_key(), anchors: Some(paths.tls_anchor()) }
}

fn note_start(audit: &Audit, journal: &dyn Journal, was_cut: bool) {
    let history = journal.tail().history;
    audit.note(Event::local("start", Object::history(history)));
    if was_cut {
        audit.note(Event::local("history begins behind a cut", Object::history(history)));
    }
}

/// Lets no certificate of an agency in that was ended.
fn bar_ended(context: &Context, barred: &Barred) {
    let identity =
        |name: &Name| Identity { participant: context.participant.clone(), role: Role::Agency, name: name.clone() };
    barred.replace(context.now_state().ended_agencies().iter().map(identity).collect());
}

async fn keep_barred(context: Context, barred: Barred) {
    let mut published = context.state.clone();
    loop {
        let known = Arc::clone(published.borrow_and_update().ended_agencies());
        bar_ended(&context, &barred);
        // Names are only added.
        if published.wait_for(|state| state.ended_agencies().len() > known.len()).await.is_err() {
            return;
        }
    }
}

/// Keeps the gauges at what the published state says.
async fn measure(context: Context) {
    let mut published = context.state.clone();
    loop {
        let state = Arc::clone(&published.borrow_and_update());
        for lane in Lane::ALL {
            let label = lane.as_str();
            let outbox = state.unrecorded_exchanges(lane);
            metrics::gauge!("concord_outbox_exchanges", "lane" => label).set(outbox as f64);
            let received = state.mailbox(lane).received_through;
            metrics::gauge!("concord_mailbox_received_number", "lane" => label).set(received as f64);
        }
        metrics::gauge!("concord_feed_applied_number").set(state.feed().number as f64);
        if published.changed().await.is_err() {
            return;
        }
    }
}
