//! Probing the way to the hub and back: what is silent is not well for that.
//!
//! A probe goes the way of an exchange, by the streams of its lane, and is recorded nowhere. It does not show that agencies take what comes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use concord_model::{Lane, Refusal, Timestamp};
use serde::Deserialize;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::context::Context;

/// After so long a probe is lost. A hub that is busy takes a second or two.
const PROBE_MAX_SECONDS: u64 = 20;
/// So many lost in a row, on one lane of a hub that is connected, are an alarm.
const LOST_ALARM_MIN: u32 = 3;
const SILENT_ALARM: &str = "probe-silent";
const EVERY_DEFAULT_SECONDS: u64 = 60;

/// What tells a probe from another.
pub type Nonce = [u8; 16];

/// `[probe]` in `node.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeSettings {
    /// From one probe to the next; 0: only when asked.
    pub every_seconds: u64,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self { every_seconds: EVERY_DEFAULT_SECONDS }
    }
}

impl ProbeSettings {
    pub(crate) fn checked(self) -> Result<Self, String> {
        match self.every_seconds {
            0 | 10..=86_400 => Ok(self),
            other => Err(format!("[probe] every_seconds = {other} is neither 0 nor 10 to 86400")),
        }
    }

    pub(crate) fn to_toml(self) -> String {
        let every = self.every_seconds;
        format!(
            "
[probe]
# From one probe of the way to the hub and back to the next, in seconds: 10 to 86400; 0: only by `concord node probe`.
every_seconds = {every}
"
        )
    }
}

/// The probes of this process, one at a time on each lane.
#[derive(Default)]
pub struct Probes([OfLane; Lane::ALL.len()]);

struct OfLane {
    /// Held while one is on its way.
    one: AsyncMutex<()>,
    /// What is to go out.
    asked: watch::Sender<Option<Nonce>>,
    /// What went out.
    sent: watch::Sender<Option<Nonce>>,
    /// What came back.
    came: watch::Sender<Option<Nonce>>,
    last: Mutex<Option<Probed>>,
}

impl Default for OfLane {
    fn default() -> Self {
        let none = || watch::Sender::new(None);
        Self { one: AsyncMutex::new(()), asked: none(), sent: none(), came: none(), last: Mutex::default() }
    }
}

/// What became of a probe.
#[derive(Debug, Clone, PartialEq)]
pub struct Probed {
    /// When it began.
    pub at: Timestamp,
    /// How long it took; or how far it came.
    pub took: Result<Duration, Lost>,
}

/// How far a probe came that did not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The uplink of the lane does not stand, or its connection takes nothing.
    NotSent,
    /// It went out, and nothing came back by the lane's mailbox.
    NotBack,
}

impl Lost {
    /// What that means, for a person.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::NotSent => "it could not be sent: the stream to the hub does not stand, or takes nothing",
            Self::NotBack => "it was sent and did not come back: the hub takes it in no more, or gives nothing out",
        }
    }
}

impl Probes {
    /// What the uplink of a lane is to send.
    pub(crate) fn asked(&self, lane: Lane) -> watch::Receiver<Option<Nonce>> {
        self.of(lane).asked.subscribe()
    }

    /// The uplink handed a probe to its connection.
    pub(crate) fn sent(&self, lane: Lane, nonce: Nonce) {
        self.of(lane).sent.send_replace(Some(nonce));
    }

    /// A probe came by the mailbox of a lane. One that is not waited for is none of this process, or came too late.
    pub(crate) fn came(&self, lane: Lane, nonce: &[u8]) {
        if let Ok(nonce) = Nonce::try_from(nonce) {
            self.of(lane).came.send_replace(Some(nonce));
        }
    }

    /// What became of the last probe of a lane.
    pub(crate) fn last(&self, lane: Lane) -> Option<Probed> {
        self.of(lane).last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn of(&self, lane: Lane) -> &OfLane {
        let [flash, priority, routine] = &self.0;
        match lane {
            Lane::Flash => flash,
            Lane::Priority => priority,
            Lane::Routine => routine,
        }
    }
}

/// Sends a probe on one lane, behind one that is on its way, and waits until it is back, or lost.
pub(crate) async fn probe(context: &Context, lane: Lane) -> Result<Probed, Refusal> {
    let of = context.probes.of(lane);
    let _one = of.one.lock().await;
    let nonce: Nonce = concord_server::fresh().map_err(|error| crate::submit::internal(&error))?;
    let (at, begun) = (context.clock.now(), Instant::now());
    let mut came = of.came.subscribe();
    of.asked.send_replace(Some(nonce));
    let back = timeout(Duration::from_secs(PROBE_MAX_SECONDS), came.wait_for(|came| *came == Some(nonce))).await;
    let took = match back {
        Ok(_) => Ok(begun.elapsed()),
        Err(_) if *of.sent.borrow() == Some(nonce) => Err(Lost::NotBack),
        Err(_) => Err(Lost::NotSent),
    };
    of.asked.send_replace(None);
    let probed = Probed { at, took };
    *of.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(probed.clone());
    let label = lane.as_str();
    if let Ok(took) = took {
        metrics::histogram!("concord_probe_duration_seconds", "lane" => label).record(took.as_secs_f64());
    } else {
        metrics::counter!("concord_probes_lost_total", "lane" => label).increment(1);
    }
    Ok(probed)
}

/// Probes all lanes again and again. Runs until its task is dropped.
pub(crate) async fn keep_probing(context: Context, settings: ProbeSettings) {
    if settings.every_seconds == 0 {
        return;
    }
    let mut tick = interval(Duration::from_secs(settings.every_seconds));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lost = [0; Lane::ALL.len()];
    loop {
        tick.tick().await;
        // A hub that is away has an alarm of its own, and of a held node nothing goes out.
        context.contact.until_connected().await;
        let probed = futures::future::join_all(Lane::ALL.map(|lane| probe(&context, lane))).await;
        let is_held = context.now_state().directory().registry.holds().is_held(&context.participant);
        if is_held || !context.contact.is_connected() {
            continue;
        }
        for (lost, probed) in lost.iter_mut().zip(&probed) {
            match probed.as_ref().map(|probed| probed.took) {
                Ok(Ok(_)) => *lost = 0,
                Ok(Err(_)) => *lost += 1,
                // No word of chance was to be had: nothing is known of the way.
                Err(_) => {}
            }
        }
        tell(&context, &lost);
    }
}

fn tell(context: &Context, lost: &[u32; Lane::ALL.len()]) {
    let silent: Vec<&str> = Lane::ALL
        .iter()
        .zip(lost)
        .filter(|(_, lost)| **lost >= LOST_ALARM_MIN)
        .map(|(lane, _)| lane.as_str())
        .collect();
    if silent.is_empty() {
        return context.readiness.clear(SILENT_ALARM);
    }
    let what = format!(
        "the hub is connected, and {LOST_ALARM_MIN} probes in a row did not come back on lane {}: `concord node probe` says how \
         far they come; restart this node, and tell the secretariat",
        silent.join(", ")
    );
    context.readiness.raise(SILENT_ALARM, what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_off_or_bounded() {
        let checked = |every_seconds| ProbeSettings { every_seconds }.checked().is_ok();
        assert!(checked(0) && checked(10) && checked(86_400) && !checked(9) && !checked(86_401));
    }

    #[test]
    fn a_probe_is_of_its_lane_and_what_is_none_is_passed_over() {
        let probes = Probes::default();
        let mut flash = probes.of(Lane::Flash).came.subscribe();
        probes.came(Lane::Routine, &[1; 16]);
        probes.came(Lane::Flash, &[1; 15]);
        assert!(!flash.has_changed().unwrap());
        probes.came(Lane::Flash, &[2; 16]);
        assert_eq!(*flash.borrow_and_update(), Some([2; 16]));
    }
}
