//! `concord hub serve`: configuration, journal, ledger, views, then a port.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use concord_backup::{Owner, StandingError, refuse_if_interrupted};
use concord_identity::{Admission, Anchors, Application, Caller, Credentials, SigningKeys, server_config};
use concord_journal::{FileJournal, Journal, Opened};
use concord_ledger::Ledger;
use concord_model::{Identity, ParticipantCode, Role};
use concord_server::audit::{Audit, Event, Object};
use concord_server::traces::Traces;
use concord_server::{
    Addresses, AdminListener, Certificates, DiskRoom, Folder, FolderKind, Hangup, JOURNAL_BEHIND_VIEWS_ALARM,
    JOURNAL_CUT_ALARM, MetricAt, OwnCertificates, OwnFiles, Readiness, RevocationFolder, Shares, Shutdown, Supervisor,
    bind, metrics_recorder, scrub,
};
use concord_snapshots::{Restored, Snapshots};
use concord_views::{Views, told_on_log};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::approvals;
use crate::config::Config;
use crate::damaged::Damaged;
use crate::error::HubError;
use crate::explain::Lookups;
use crate::feeds::FeedsShown;
use crate::fencing::RunsSeen;
use crate::fleet::Fleet;
use crate::follow::follow;
use crate::init::{files, of_name, open_journal};
use crate::lags;
use crate::lapses;
use crate::losses::{self, Losses};
use crate::node_clocks::NodeClocks;
use crate::probes::Probes;
use crate::projection::HubProjection;
use crate::retention::Keeper;
use crate::sequencer::{Published, SequencerTask};
use crate::services;
use crate::shared::{Shared, all_anchors_of, anchors_of};
use crate::snapshot;
use crate::streams::Streams;
use crate::withdrawals;
use concord_server::{Clock, ClockTrust, SystemClock, lost_before};

/// Serves the hub of this folder until SIGTERM or SIGINT. Tells its addresses on standard output once it is ready.
pub async fn serve(dir: &Path) -> Result<(), HubError> {
    let folder = Folder::open(dir, FolderKind::Hub)?;
    let config = Config::load(dir)?;
    let _lock = folder.lock()?;
    refuse_if_interrupted(dir)?;
    let metrics = metrics_recorder(MetricAt::Hub)?;
    let readiness = Readiness::new();
    let shutdown = Shutdown::new();
    shutdown.on_signals().map_err(HubError::Signals)?;
    let hangup = Hangup::on_signal().map_err(HubError::Signals)?;
    let supervisor = Supervisor::from_environment();
    let traces = Traces::begin("concord-hub");
    if concord_faults::planted("ready-before-the-ports") {
        supervisor.ready();
    }
    let opening_told = supervisor.not_serving_yet("opening");

    let opening = (dir.to_owned(), config.clone(), readiness.clone());
    let opened = blocking(move || Opening::open(&opening.0, &opening.1, &opening.2)).await?;
    let Opening { journal, restored, snapshots, views, signing_keys, credentials, caller, was_cut } = opened;
    let audit = Audit::begin(dir, ParticipantCode::secretariat(), readiness.clone());
    note_start(&audit, journal.as_ref(), was_cut);
    let Restored { state: ledger, snapshot, .. } = restored;
    let anchors = Anchors::none();
    anchors.replace(anchors_of(&ledger));
    // A hub that nobody has joined has no peer that could agree with its clock, and nothing that could lapse.
    let has_peers = ledger.registry().enrolments().next().is_some();
    let last_recorded = has_peers.then(|| ledger.last_recorded_at());
    let trust = Arc::new(ClockTrust::system(Arc::new(SystemClock), last_recorded, readiness.clone()));
    concord_server::detach(Arc::clone(&trust).watch());
    let clock: Arc<dyn Clock> = trust;
    let opening = (dir.to_owned(), vec![anchors.clone()], readiness.clone(), Arc::clone(&clock));
    let lapsing = config.revocation;
    let revocations = blocking(move || {
        let (dir, anchors, readiness, clock) = opening;
        Ok(RevocationFolder::open(&dir, anchors, readiness, lapsing, clock))
    });
    let revocations = revocations.await?;
    let certificates = Certificates::new();
    let opening = (own_files(dir, &caller), credentials.clone(), anchors.clone(), certificates.clone());
    let (told, judged_by) = (readiness.clone(), Arc::clone(&clock));
    let known_by = of_name(dir, &config.name);
    let own = blocking(move || {
        let (files, credentials, anchors, certificates) = opening;
        // The folder of an older version has no other word of it than the anchor's own folder, which is to be in a safe.
        if let Err(error) = known_by.keep_anchors(&anchors.get(&ParticipantCode::secretariat())) {
            tracing::warn!(%error, "by which anchors this hub is known could not be kept beside its certificate");
        }
        Ok(OwnCertificates::open(files, credentials, anchors, certificates, told, judged_by))
    });
    let own = own.await?;
    let tls = server_config(&credentials, &anchors, Admission::hub(), Application::Grpc)?;

    let before = folder.addresses()?;
    let listener = bind("listen", config.listen, before.as_ref().map(|before| before.listen)).await?;
    let admin = bind("admin", config.admin, before.as_ref().map(|before| before.admin)).await?;
    let addresses = Addresses {
        listen: listener.local_addr().map_err(HubError::Output)?,
        admin: admin.local_addr().map_err(HubError::Output)?,
    };
    let admin = AdminListener::new(admin, &credentials, &anchors, &ParticipantCode::secretariat(), audit.clone())?;

    let dyn_journal: Arc<dyn Journal> = Arc::clone(&journal) as Arc<dyn Journal>;
    let (task, sequencer) =
        SequencerTask::new(Arc::clone(&dyn_journal), Arc::clone(&clock), config.name.clone(), ledger);
    let room = DiskRoom::new(config.disk_reserve_bytes, readiness.clone());
    let task = task.with_room(room.clone()).with_quorum(config.quorum);
    let shared = Arc::new(Shared {
        hub: config.name.clone(),
        sequencer: sequencer.clone(),
        journal: Arc::clone(&dyn_journal),
        views: views.clone(),
        signing_keys,
        anchors,
        clock: Arc::clone(&clock),
        streams: Streams::default(),
        feeds: FeedsShown::default(),
        readiness: readiness.clone(),
        room: room.clone(),
        shares: Shares::new(config.quotas),
        runs: RunsSeen::default(),
        fleet: Fleet::default(),
        probes: Probes::default(),
        losses: Losses::default(),
        node_clocks: NodeClocks::default(),
        damaged: Damaged::default(),
        audit: audit.clone(),
        shutdown: shutdown.clone(),
        announce: announced(&config, addresses.listen),
        quorum: config.quorum,
        refreshing: Mutex::default(),
    });
    let mut server = services::server(&shared).await?;
    let source = concord_backup::Source {
        folder: dir.to_owned(),
        owner: concord_backup::Owner::Hub,
        participant: ParticipantCode::secretariat(),
        name: config.name.clone(),
        public_files: files::PUBLIC,
    };
    let signing = Arc::clone(&shared);
    let keeper = Arc::new(Keeper::new(Arc::clone(&shared), config.retention));
    let keeping = tokio::spawn(Arc::clone(&keeper).keep());
    let operations = services::operations::Operations {
        shared: Arc::clone(&shared),
        keeper,
        backups: concord_backup::Backups::new(source, Arc::clone(&journal), move || signing.signing_key()),
        lookups: Lookups::default(),
        connections: server.connections.clone(),
        readiness: readiness.clone(),
        started_at: clock.now(),
        certificates: certificates.clone(),
    };
    server.routes = server.routes.add_service(services::operations::server(operations));
    let mut sequencing = tokio::spawn(task.run());
    let listening = vec![server.connections.clone(), admin.connections()];
    let known = sequencer.watch();
    let revocations = revocations.knowing_past(move || all_anchors_of(&known.borrow().ledger));
    let revoking = tokio::spawn(revocations.watch(listening.clone(), None, hangup.clone()));
    let renewing = tokio::spawn(own.watch(listening, hangup));
    let enrolled = sequencer.watch();
    let is_node = move |identity: &Identity| {
        let published = Arc::clone(&enrolled.borrow());
        let enrolment = published.ledger.registry().enrolment(&identity.participant);
        identity.role == Role::Node && enrolment.is_some_and(|enrolment| enrolment.node == identity.name)
    };
    let warning =
        certificates.clone().watch(server.connections.clone(), is_node, readiness.clone(), Arc::clone(&clock));
    let warning = tokio::spawn(warning);
    let listing = tokio::spawn(certificates.keep_issued(of_name(dir, &config.name), |_| false));
    let measured = Arc::clone(&journal);
    let measuring = tokio::spawn(room.watch(move || measured.available_bytes()));
    let projecting = tokio::spawn(follow(views, Arc::clone(&dyn_journal), sequencer.watch(), sequencer.recent()));
    let published = sequencer.watch();
    tokio::spawn(concord_snapshots::keep(snapshots.clone(), sequencer.watch(), snapshot, snapshot::of));
    tokio::spawn(lapses::keep_lapsing(Arc::downgrade(&shared)));
    let limits = (config.overdue, config.nodes);
    tokio::spawn(lags::keep_measured(Arc::downgrade(&shared), server.connections.clone(), limits));
    tokio::spawn(withdrawals::keep_redacting(Arc::downgrade(&shared)));
    tokio::spawn(approvals::keep_told(Arc::clone(&clock), readiness.clone(), sequencer.watch()));
    tokio::spawn(note_histories(audit.clone(), sequencer.watch()));
    tokio::spawn(losses::keep_told(Arc::downgrade(&shared), readiness.clone(), sequencer.watch()));
    folder.write_addresses(&addresses)?;
    addresses.announce().map_err(HubError::Output)?;
    let mended = shared.damaged.watch();
    let asked = sequencer.clone();
    drop((sequencer, shared));
    concord_faults::point("hub.serving");
    drop(opening_told);
    supervisor.ready();
    // Ends with the request for the end, and gives its handle of the sequencer back then.
    tokio::spawn(supervisor.keep_told(readiness.clone(), shutdown, move || {
        let asked = asked.clone();
        async move { asked.ask().await }
    }));

    // Whatever ends first ends the hub: a failed write or view must not go on being served.
    let admin_end = CancellationToken::new();
    let scrubbed = Arc::clone(&journal);
    let scrubbing = scrub(
        move |between| scrubbed.scrub(|_| between()).map(drop).map_err(|found| found.to_string()),
        readiness.clone(),
        mended,
        admin_end.clone(),
    );
    let scrubbing = tokio::spawn(scrubbing);
    let watched = tokio::spawn(admin.serve(readiness, metrics, admin_end.clone().cancelled_owned()));
    let ended = tokio::select! {
        served = server.serve(listener, tls) => served.map_err(HubError::from),
        sequenced = &mut sequencing => flatten(sequenced).and_then(|result| result.map_err(HubError::from)),
        projected = projecting => match flatten(projected).and_then(|result| result) {
            // The views end because the sequencer did, and may be seen to end first: what it ended by is the reason.
            Ok(()) => flatten(sequencing.await).and_then(|result| result.map_err(HubError::from)),
            failed => failed,
        },
    };
    measuring.abort();
    revoking.abort();
    renewing.abort();
    warning.abort();
    listing.abort();
    keeping.abort();
    // The admin listener tells of the drain to its end.
    admin_end.cancel();
    flatten(watched.await)?;
    flatten(scrubbing.await)?;
    concord_faults::point("hub.close");
    audit.flush().await;
    traces.end().await;
    journal.close();
    let (ledger, tail) = snapshot::of(&published.borrow());
    blocking(move || {
        snapshots.write_last(&ledger, tail);
        Ok(())
    })
    .await?;
    ended
}

/// What stands on the disk, opened, verified and folded.
struct Opening {
    journal: Arc<FileJournal>,
    restored: Restored<Ledger>,
    snapshots: Snapshots,
    views: Views,
    signing_keys: Arc<SigningKeys>,
    credentials: Credentials,
    caller: Caller,
    /// The end of the journal was cut, and a new history began.
    was_cut: bool,
}

impl Opening {
    fn open(dir: &Path, config: &Config, readiness: &Readiness) -> Result<Self, HubError> {
        concord_faults::point("hub.open.begin");
        crate::init::refuse_if_awaited(dir)?;
        let credentials = Credentials::load(&dir.join(files::TLS_CERTIFICATE), &dir.join(files::TLS_KEY))?;
        let caller = credentials.caller()?;
        let signing_keys = Arc::new(SigningKeys::load(&dir.join(files::SIGNING_KEY))?);
        let path = dir.join(files::JOURNAL);
        if !FileJournal::is_in_folder(&path)? {
            return Err(StandingError::Absent { owner: Owner::Hub, path }.into());
        }
        let (journal, opened) = open_journal(&path, SystemClock.now(), config.journal_segment_size_bytes)?;
        concord_faults::point("hub.open.journal");
        report(&opened, readiness);
        let snapshots = snapshot::in_folder(dir);
        let restored = snapshot::restore(&snapshots, &journal)?;
        if let Some(lost) = restored.lost {
            let what = format!(
                "a snapshot knew entry {}, which the journal does not have: acknowledged data was lost",
                lost.sequence
            );
            readiness.raise(JOURNAL_BEHIND_VIEWS_ALARM, what);
        }
        if let Some(proof) = snapshots.proof_of_loss().filter(|_| restored.lost.is_none()) {
            readiness.note(JOURNAL_BEHIND_VIEWS_ALARM, lost_before(&proof));
        }
        let ledger = &restored.state;
        concord_faults::point("hub.open.folded");
        check_owner(ledger, config, &caller, &signing_keys, &path)?;
        if let Err(error) = settle_keys(ledger, &signing_keys) {
            tracing::warn!(%error, "the signing keys could not be put in order, and are used as they stand");
        }
        let views = open_views(dir, &journal, readiness)?;
        concord_faults::point("hub.open.views");
        let was_cut = opened.cut.is_some();
        Ok(Self { journal: Arc::new(journal), restored, snapshots, views, signing_keys, credentials, caller, was_cut })
    }
}

/// Its anchors are those of the registry, not of a file.
fn own_files(dir: &Path, caller: &Caller) -> OwnFiles {
    OwnFiles {
        identity: caller.identity.clone(),
        certificate: dir.join(files::TLS_CERTIFICATE),
        key: dir.join(files::TLS_KEY),
        anchors: None,
    }
}

fn note_start(audit: &Audit, journal: &dyn Journal, was_cut: bool) {
    let history = journal.tail().history;
    audit.note(Event::local("start", Object::history(history)));
    if was_cut {
        audit.note(Event::local("history begins behind a cut", Object::history(history)));
    }
}

/// Notes histories that begin while the hub runs.
async fn note_histories(audit: Audit, mut published: watch::Receiver<Arc<Published>>) {
    let mut known = published.borrow_and_update().tail.history;
    while published.changed().await.is_ok() {
        let history = published.borrow_and_update().tail.history;
        if history != known {
            audit.note(Event::local("history begins", Object::history(history)));
            known = history;
        }
    }
}

/// The journal is of the hub that configuration, certificate and key are of.
pub(crate) fn check_owner(
    ledger: &Ledger,
    config: &Config,
    caller: &Caller,
    signing_keys: &SigningKeys,
    path: &Path,
) -> Result<(), HubError> {
    let other = |what: String| HubError::OtherHub { path: path.to_owned(), what };
    match ledger.hub() {
        Some(hub) if *hub == config.name && *hub == caller.identity.name => {}
        Some(hub) => return Err(other(format!("it is of hub {hub}, hub.toml names {}", config.name))),
        None => return Err(StandingError::Absent { owner: Owner::Hub, path: path.to_owned() }.into()),
    }
    if ledger.registry().hub_keys().is_none_or(|keys| signing_keys.named(&keys.signing_key.fingerprint).is_none()) {
        return Err(other("it names a signing key that signing/key.pem does not have".to_owned()));
    }
    Ok(())
}

/// Puts the key that the registry names first in the file of the signing keys.
pub(crate) fn settle_keys(ledger: &Ledger, signing_keys: &SigningKeys) -> Result<(), concord_identity::KeyError> {
    let keys = ledger.registry().hub_keys();
    let succession: Vec<_> = keys.into_iter().flat_map(|keys| keys.succession().map(|(key, _)| key)).collect();
    signing_keys.settle(&succession)
}

/// Damage of the last commit was cut: said aloud, since the peers' receipts decide whether something acknowledged was in it.
fn report(opened: &Opened, readiness: &Readiness) {
    if let Some(cut) = &opened.cut {
        tracing::warn!(file = %cut.file, offset = cut.offset, bytes = cut.bytes, "the journal's last commit was damaged or unfinished and was cut");
        metrics::counter!("concord_journal_cuts_total").increment(1);
        let what = format!(
            "the journal's last commit was damaged or unfinished: {} bytes were cut off the end of {}",
            cut.bytes, cut.file
        );
        match cut.parent {
            Some(_) => readiness.note(JOURNAL_CUT_ALARM, what),
            None => readiness.raise(JOURNAL_CUT_ALARM, format!("{what}. No whole entry was left")),
        }
    }
}

fn open_views(dir: &Path, journal: &dyn Journal, readiness: &Readiness) -> Result<Views, HubError> {
    let mut projection = HubProjection;
    let version = concord_views::Projection::version(&projection);
    let begun = Instant::now();
    let (views, opened) = Views::open(&dir.join(files::VIEWS), version, journal)?;
    if opened.shows_lost_entries() {
        readiness.raise(
            JOURNAL_BEHIND_VIEWS_ALARM,
            "the views knew entries that the journal does not have: acknowledged data was lost",
        );
    } else if let Some(proof) = Views::proof_of_loss(&dir.join(files::VIEWS))? {
        readiness.note(JOURNAL_BEHIND_VIEWS_ALARM, lost_before(&proof));
    }
    tracing::info!(
        ?opened,
        milliseconds = begun.elapsed().as_millis(),
        is_checked = views.is_checked(),
        "views opened"
    );
    let tail = journal.tail();
    views.catch_up(journal, &mut projection, tail, told_on_log(tail))?;
    Ok(views)
}

/// The addresses for bundles: as configured, else the one that is bound.
fn announced(config: &Config, bound: SocketAddr) -> Vec<String> {
    if config.announce.is_empty() { vec![bound.to_string()] } else { config.announce.clone() }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HubError> + Send + 'static,
) -> Result<T, HubError> {
    flatten(concord_server::blocking(work).await)?
}

fn flatten<T>(joined: Result<T, tokio::task::JoinError>) -> Result<T, HubError> {
    joined.map_err(|error| HubError::Task(error.to_string()))
}
