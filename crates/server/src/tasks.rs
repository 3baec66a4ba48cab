//! The seam of threads and tasks: work that blocks, and work that outlives its caller. A simulation does both on its own thread.

use tokio::task::JoinError;

/// Does work that may block, on a thread for it. Once begun it is done even where nobody waits for it any more.
///
/// An error means that the work panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    #[cfg(any(debug_assertions, feature = "simulation"))]
    if crate::simulation::is_on() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

/// Starts work that goes on whatever becomes of its caller.
pub fn detach(work: impl Future<Output = ()> + Send + 'static) {
    #[cfg(any(debug_assertions, feature = "simulation"))]
    if crate::simulation::is_on() {
        crate::simulation::detach(Box::pin(work));
        return;
    }
    tokio::spawn(work);
}
