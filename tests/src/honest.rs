//! An honest agency beside an attack: its exchanges go through the whole of the forum, and each is timed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use concord_identity::Profile;
use concord_model::Lane;
use concord_wire::convert;
use concord_wire::proto::agency::v1::agency_service_client::AgencyServiceClient;
use concord_wire::proto::agency::v1::{SubmitRequest, TrackRequest, TrackState, TrackUntil};
use tonic::Status;

use crate::command::DEADLINE;

/// An agency that submits one exchange after the other, each over a connection of its own, and waits until it is delivered.
pub struct Honest {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    rounds: Mutex<Vec<Result<Duration, String>>>,
    came: Condvar,
    stop: AtomicBool,
}

impl Honest {
    /// Starts: the agency of this profile submits under this agreement.
    pub fn start(profile: PathBuf, agreement: &str, measure: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let (own, agreement, measure) = (Arc::clone(&shared), agreement.to_owned(), measure.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let mut number = 0;
            while !own.stop.load(Ordering::Relaxed) {
                number += 1;
                let began = Instant::now();
                let round = async {
                    let round = round(&profile, &agreement, &measure, number);
                    tokio::time::timeout(DEADLINE, round)
                        .await
                        .map_err(|_| "it was not delivered in time".to_owned())?
                };
                let ended = runtime.block_on(round).map(|()| began.elapsed());
                let failed = ended.is_err();
                own.rounds.lock().unwrap_or_else(PoisonError::into_inner).push(ended);
                own.came.notify_all();
                if failed {
                    return;
                }
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Waits until so many exchanges that began after this call were delivered; the longest that one of them took.
    #[track_caller]
    pub fn await_rounds(&self, count: usize) -> Duration {
        let rounds = self.shared.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        // The one under way had begun before.
        let first = rounds.len() + 1;
        let enough = |rounds: &mut Vec<Result<Duration, String>>| {
            rounds.len() < first + count && rounds.last().is_none_or(Result::is_ok)
        };
        let (rounds, late) = self.shared.came.wait_timeout_while(rounds, DEADLINE, enough).unwrap();
        assert!(!late.timed_out(), "an honest agency was not served for {DEADLINE:?}");
        let of_now = rounds.iter().skip(first).map(|round| match round {
            Ok(took) => *took,
            Err(why) => panic!("an honest agency was not served: {why}"),
        });
        of_now.max().expect("an honest agency was not served: it ended before")
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn round(profile: &Path, agreement: &str, measure: &str, number: u64) -> Result<(), String> {
    let profile = Profile::load(profile).map_err(|error| error.to_string())?;
    let address = profile.address().map_err(|error| error.to_string())?;
    let tls = profile.client_config().map_err(|error| error.to_string())?;
    let channel = concord_server::connect(&address, tls).await.map_err(|error| error.to_string())?;
    let mut client = AgencyServiceClient::new(channel);
    let said = |status: Status| format!("{status:?}");
    let request = SubmitRequest {
        request_id: format!("honest-{number}"),
        agreement_id: agreement.to_owned(),
        measure: measure.to_owned(),
        lane: convert::lane(Lane::Routine).into(),
        title: "T".to_owned(),
        media_type: "text/plain".to_owned(),
        body: Bytes::from(format!("honest {number}")),
        ..SubmitRequest::default()
    };
    let answer = client.submit(request).await.map_err(said)?.into_inner();
    let exchange_id = answer.exchange_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let request = TrackRequest { exchange_id, until: TrackUntil::Delivered.into() };
    let mut track = client.track(request).await.map_err(said)?.into_inner();
    let mut last = None;
    while let Some(told) = track.message().await.map_err(said)? {
        last = Some(told);
    }
    match last {
        Some(told) if told.recipients.iter().all(|one| one.state() >= TrackState::Delivered) => Ok(()),
        other => Err(format!("it was not delivered: {other:?}")),
    }
}
