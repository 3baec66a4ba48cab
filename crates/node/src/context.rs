//! What every task of a node is handed: the writer, the published state, the reads behind it, and where to say what is wrong.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use concord_identity::{Anchors, SigningKey};
use concord_model::{Name, ParticipantCode, Reason, Refusal, Timestamp};
use concord_server::audit::Audit;
use concord_server::{
    ClockOffset, DiskRoom, KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_TIMEOUT_SECONDS, Overdue, PeerClock, Readiness,
    Shares, Shutdown,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backlog::Backlog;
use crate::index::Index;
use crate::probe::Probes;
use crate::signing::NodeKeys;
use crate::state::NodeState;
use crate::writer::NodeWriter;
use concord_server::Clock;

/// After so long without the hub the node is not ready, and says so.
pub const HUB_SILENT_MAX_SECONDS: u64 = 30;
const HUB_ALARM: &str = "hub-unreachable";
/// This machine's clock and the hub's differ; an alarm while that keeps the two apart, else a note.
pub(crate) const CLOCK_WRONG_NOTE: &str = "clock-wrong";
const FENCE_ALARM: &str = "not-served";
/// What is kept of why the hub was not reached.
const WHY_AWAY_MAX_CHARS: usize = 512;
/// What is kept of the hub's words for why it does not serve this copy.
const FENCE_WORDS_MAX_CHARS: usize = 1024;

/// Handles of one running node. Clones share them.
#[derive(Clone)]
pub struct Context {
    /// Whose node.
    pub participant: ParticipantCode,
    /// Its name.
    pub node: Name,
    /// Own officers and agencies are known by these anchors, and by what lists in the folder take back under them.
    pub own: Anchors,
    /// Sign acknowledgements and consignments: each what the registry names it for.
    pub keys: Arc<NodeKeys>,
    /// Takes what is to be durable.
    pub writer: NodeWriter,
    /// What is durable and applied.
    pub state: watch::Receiver<Arc<NodeState>>,
    /// Reads of views and journal.
    pub index: Index,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Alarms.
    pub readiness: Readiness,
    /// The end of the process.
    pub shutdown: Shutdown,
    /// Whether the hub is there.
    pub contact: Arc<Contact>,
    /// Probes on their way to the hub and back.
    pub probes: Arc<Probes>,
    /// Who did what, and what was refused.
    pub audit: Audit,
    /// Whether the disk takes more than what is under way.
    pub room: DiskRoom,
    /// What each agency may hand in.
    pub shares: Arc<Shares<Name>>,
    /// After which time what waits is overdue.
    pub overdue: Overdue,
    /// What may wait for the hub.
    pub backlog: Arc<Backlog>,
    /// The run of this process: by it the hub tells copies of one journal apart.
    pub run: [u8; 16],
}

impl Context {
    /// The state as it is published now.
    pub fn now_state(&self) -> Arc<NodeState> {
        Arc::clone(&self.state.borrow())
    }

    /// The signing key that counts now.
    pub fn key(&self) -> Arc<SigningKey> {
        self.keys.of(&self.state.borrow())
    }

    /// The hub refused something, on whatever link. Where it does not serve this copy of the node, nothing more is numbered here until
    /// the feed is welcomed, whichever link hears it first; [`Self::keep_fence`] makes that durable.
    pub fn heard_refusal(&self, refusal: &Refusal) {
        if matches!(refusal.reason, Reason::NodeRolledBack | Reason::NodeSuperseded) {
            let words = refusal.message.chars().take(FENCE_WORDS_MAX_CHARS).collect::<String>();
            let refusal = Refusal::new(refusal.reason, words);
            self.readiness.raise(FENCE_ALARM, not_served(&refusal));
            let mut fence = self.contact.fence();
            *fence = Some(refusal);
            self.contact.refusals.send_modify(|count| *count += 1);
        }
    }

    /// Journals that the hub does not serve this copy, if it said so; once, however often this is called. Where the disk has no room
    /// for it the memory goes on to fence, and every link tries again before its next attempt.
    pub async fn keep_fence(&self) {
        if self.contact.fence().is_none() {
            return;
        }
        let _in_order = self.contact.fencing.lock().await;
        let Some(why) = self.contact.fence().clone() else { return };
        if !concord_faults::planted("fence-in-memory-only")
            && let Err(refusal) = self.writer.fence(why).await
        {
            tracing::warn!(%refusal, "that the hub does not serve this copy of the node could not be journaled yet");
        }
    }

    /// The feed was welcomed: it is this copy that is served. Durable when it returns `true`. It is `false` where another link heard
    /// since `heard` was taken that it is not: which of the two is newer the hub alone can say, and has to be asked again.
    ///
    /// Refuses with `DISK_FULL`, and nothing is numbered then.
    pub async fn welcomed(&self, heard: &RefusalsHeard) -> Result<bool, Refusal> {
        let _in_order = self.contact.fencing.lock().await;
        // Also where no fence is to be seen: whoever was to keep one may have been given up on its way, and stands before this.
        self.writer.lift_fence().await?;
        let mut fence = self.contact.fence();
        if heard.0.has_changed().unwrap_or(true) {
            return Ok(false);
        }
        *fence = None;
        self.readiness.clear(FENCE_ALARM);
        Ok(true)
    }

    /// Raises the alarm of a fence that the journal holds.
    pub fn tell_fence(&self) {
        if let Some(why) = self.now_state().fence() {
            self.readiness.raise(FENCE_ALARM, not_served(why));
        }
    }

    /// Refuses what would be numbered, while the hub does not serve this copy. What the journal holds of it the writer refuses by.
    ///
    /// Refuses with `NODE_ROLLED_BACK` or `NODE_SUPERSEDED`.
    pub fn check_fence(&self) -> Result<(), Refusal> {
        self.contact.fence().clone().map_or(Ok(()), Err)
    }
}

fn not_served(why: &Refusal) -> String {
    format!("the hub does not serve this copy of the node, and nothing is queued here until it does: {why}")
}

/// Up to where it was heard that the hub does not serve this copy.
pub struct RefusalsHeard(watch::Receiver<u64>);

impl RefusalsHeard {
    /// Waits until that is heard again.
    pub async fn again(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Whether the hub is there, as the feed's stream tells.
pub struct Contact {
    connected: watch::Sender<bool>,
    last_micros: AtomicI64,
    /// The same by a clock that nobody sets.
    heard_at: Mutex<Option<Instant>>,
    /// Why the hub was not reached last.
    why_away: Mutex<Option<String>>,
    /// What the hub's clock showed when its feed welcomed this node last.
    hub_clock: PeerClock,
    /// By what this machine's clock is wrong, while the hub's certificate does not hold by it.
    kept_out: Mutex<Option<ClockOffset>>,
    /// Why the hub does not serve this copy of the node, if that is how this process heard it last.
    fence: Mutex<Option<Refusal>>,
    /// How often that was heard; it moves only while `fence` is held.
    refusals: watch::Sender<u64>,
    /// Held while that is journaled, or its end: so the journal has them in the order in which they were heard.
    fencing: tokio::sync::Mutex<()>,
}

impl Default for Contact {
    fn default() -> Self {
        Self {
            connected: watch::Sender::new(false),
            last_micros: AtomicI64::new(i64::MIN),
            heard_at: Mutex::default(),
            why_away: Mutex::default(),
            hub_clock: PeerClock::default(),
            kept_out: Mutex::default(),
            fence: Mutex::default(),
            refusals: watch::Sender::new(0),
            fencing: tokio::sync::Mutex::default(),
        }
    }
}

impl Contact {
    /// The hub was heard, on whatever link.
    pub fn heard(&self, at: Timestamp) {
        self.last_micros.fetch_max(at.as_micros(), Ordering::Relaxed);
        *locked(&self.heard_at) = Some(Instant::now());
    }

    /// The feed's stream stands. Only the feed says so: it is what every node has, and what everything else waits for.
    pub fn connected(&self, at: Timestamp) {
        self.heard(at);
        self.connected.send_if_modified(|connected| !std::mem::replace(connected, true));
    }

    /// Waits until the feed's stream stands.
    pub async fn until_connected(&self) {
        if self.connected.subscribe().wait_for(|connected| *connected).await.is_err() {
            std::future::pending().await
        }
    }

    /// The hub said what its clock shows now, over a connection that holds.
    pub fn heard_clock(&self, hub: Timestamp) {
        self.hub_clock.heard(hub);
        *locked(&self.kept_out) = None;
    }

    /// The hub's certificate does not hold by this machine's clock, which is so far from the hub's.
    pub fn clock_keeps_out(&self, offset: ClockOffset) {
        *locked(&self.kept_out) = Some(offset);
    }

    /// How far this machine's clock, which shows `own`, is from the hub's; none where the hub was not heard yet.
    pub fn clock_offset(&self, own: Timestamp) -> Option<ClockOffset> {
        locked(&self.kept_out).or_else(|| self.hub_clock.offset(own))
    }

    /// Raises and clears what is said of a wrong clock, and measures it. Runs until its task is dropped.
    pub async fn watch_clock(&self, clock: &dyn Clock, readiness: &Readiness) {
        loop {
            self.tell_clock(clock.shown(), readiness);
            tokio::time::sleep(PeerClock::CHECK_EVERY).await;
        }
    }

    /// Says what is to be said of the clock, which shows `own`.
    pub fn tell_clock(&self, own: Timestamp, readiness: &Readiness) {
        let Some(offset) = self.clock_offset(own) else { return };
        metrics::gauge!("concord_clock_offset_seconds").set(offset.seconds());
        if !offset.is_wrong() {
            return readiness.clear(CLOCK_WRONG_NOTE);
        }
        if locked(&self.kept_out).is_some() {
            let what = format!(
                "this machine's clock is {offset} the hub's, whose certificate does not hold by it, so that the two do not come \
                 together: set the clock of this machine"
            );
            return readiness.raise(CLOCK_WRONG_NOTE, what);
        }
        let what = format!(
            "this machine's clock is {offset} the hub's: set the clock of this machine; if it is right, tell the secretariat"
        );
        readiness.note(CLOCK_WRONG_NOTE, what);
    }

    /// An attempt to reach the hub came to nothing.
    pub fn lost_for(&self, why: &str) {
        *locked(&self.why_away) = Some(why.chars().take(WHY_AWAY_MAX_CHARS).collect());
    }

    /// The feed's stream ended.
    pub fn lost(&self) {
        self.connected.send_if_modified(|connected| std::mem::replace(connected, false));
    }

    /// What was heard by now of the hub not serving this copy.
    pub fn refusals_heard(&self) -> RefusalsHeard {
        RefusalsHeard(self.refusals.subscribe())
    }

    fn fence(&self) -> MutexGuard<'_, Option<Refusal>> {
        locked(&self.fence)
    }

    /// Whether the feed's stream stands.
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// When the hub was heard last, if ever.
    pub fn last(&self) -> Option<Timestamp> {
        let micros = self.last_micros.load(Ordering::Relaxed);
        (micros != i64::MIN).then(|| Timestamp::from_micros(micros))
    }

    /// Raises and clears the alarm of a hub that is away. Runs until its task is dropped.
    pub async fn watch(&self, readiness: &Readiness) {
        let mut connected = self.connected.subscribe();
        let silent_max = Duration::from_secs(HUB_SILENT_MAX_SECONDS);
        loop {
            // One that hangs is noticed when its connection is found dead. It was silent by then, no longer than that takes.
            let noticed_max = Duration::from_secs(KEEPALIVE_INTERVAL_SECONDS + KEEPALIVE_TIMEOUT_SECONDS);
            let silent = locked(&self.heard_at).map_or(Duration::ZERO, |at| at.elapsed()).min(noticed_max);
            let left = silent_max.saturating_sub(silent);
            let away = tokio::time::timeout(left, connected.wait_for(|connected| *connected));
            if away.await.is_err() {
                let why = locked(&self.why_away).as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
                let what = format!(
                    "the hub was not reached for {HUB_SILENT_MAX_SECONDS} s{why}; submissions wait here. Is the hub running, \
                     and does the network let this node out? `concord node check` says where it ends"
                );
                readiness.raise(HUB_ALARM, what);
            }
            if connected.wait_for(|connected| *connected).await.is_err() {
                return;
            }
            readiness.clear(HUB_ALARM);
            if connected.wait_for(|connected| !*connected).await.is_err() {
                return;
            }
        }
    }
}

fn locked<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_a_note_and_an_alarm_while_it_keeps_the_hub_away() {
        let (contact, readiness) = (Contact::default(), Readiness::new());
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let told = |own| {
            contact.tell_clock(own, &readiness);
            readiness.list().pop().map(|alarm| (alarm.name, alarm.message, alarm.stops))
        };
        assert_eq!(told(at(0)), None, "nothing was heard yet");
        contact.heard_clock(at(1000));
        assert_eq!(told(at(1000)), None);
        let (name, message, stops) = told(at(1000 + 3 * 3600)).unwrap();
        // A moment has passed since, or not yet a whole one.
        let is_said =
            ["2 h 59 min ahead of the hub's", "3 h ahead of the hub's"].iter().any(|words| message.contains(words));
        assert!(name == CLOCK_WRONG_NOTE && is_said, "{message}");
        assert!(!stops);
        contact.clock_keeps_out(ClockOffset::between(at(0), at(900_000)));
        let (_, message, stops) = told(at(1000)).unwrap();
        assert!(stops && message.contains("10 days behind the hub's"), "{message}");
        contact.heard_clock(at(1000));
        assert_eq!(told(at(1000)), None, "the clock was set");
    }

    // The clock of the runtime stands, and goes on when everybody waits.
    #[tokio::test(start_paused = true)]
    async fn a_hub_that_stays_away_is_alarmed_and_the_alarm_goes_when_it_is_back() {
        let (contact, readiness) = (Arc::new(Contact::default()), Readiness::new());
        let watching = {
            let (contact, readiness) = (Arc::clone(&contact), readiness.clone());
            tokio::spawn(async move { contact.watch(&readiness).await })
        };
        let after = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        for _ in 0..2 {
            after(HUB_SILENT_MAX_SECONDS - 1).await;
            assert!(readiness.is_ready(), "too early");
            after(2).await;
            let alarms: Vec<_> = readiness.list().iter().map(|alarm| alarm.name).collect();
            assert!(alarms == [HUB_ALARM] && !readiness.is_ready(), "{alarms:?}");
            contact.connected(Timestamp::from_micros(1));
            after(1).await;
            assert!(readiness.list().is_empty(), "the hub is back");
            contact.heard(Timestamp::from_micros(1));
            contact.lost();
        }
        // One that comes back in time is none.
        after(HUB_SILENT_MAX_SECONDS - 1).await;
        contact.connected(Timestamp::from_micros(2));
        after(2 * HUB_SILENT_MAX_SECONDS).await;
        assert!(readiness.is_ready());
        // One that was silent for a while when that was noticed: the while counts, as far as noticing takes.
        contact.heard(Timestamp::from_micros(3));
        after(20).await;
        contact.lost();
        after(HUB_SILENT_MAX_SECONDS - 21).await;
        assert!(readiness.is_ready(), "too early");
        after(2).await;
        assert!(!readiness.is_ready(), "it was not heard for longer than that");
        watching.abort();
    }
}
