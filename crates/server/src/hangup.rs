//! SIGHUP: files that are looked at now and then are read again at once, changed or not.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Tells of each SIGHUP. Each clone hears all of them.
#[derive(Debug, Clone)]
pub struct Hangup(watch::Receiver<u64>);

impl Hangup {
    /// Listens from now on. Before, the signal ends the process.
    pub fn on_signal() -> io::Result<Self> {
        let mut signals = signal(SignalKind::hangup())?;
        let (told, heard) = watch::channel(0);
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                tracing::info!("SIGHUP: certificates, anchors and revocation lists are read again");
                told.send_modify(|count| *count += 1);
            }
        });
        Ok(Self(heard))
    }

    /// Waits for a while, and less if the signal comes; whether it came.
    pub(crate) async fn within(&mut self, time: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => false,
            Ok(()) = self.0.changed() => true,
        }
    }
}
