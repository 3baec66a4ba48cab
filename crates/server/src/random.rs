//! Randomness from the system: nonces, seeds and ids. Drawn in the shell, never in the state.

/// The system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no randomness; nothing was made. Check /dev/urandom and start again")]
pub struct NoRandomness;

/// Fresh random bytes: the system's, or the seed's where a simulation stands.
pub fn fresh<const LENGTH: usize>() -> Result<[u8; LENGTH], NoRandomness> {
    let mut bytes = [0; LENGTH];
    #[cfg(any(debug_assertions, feature = "simulation"))]
    if crate::simulation::fill(&mut bytes) {
        return Ok(bytes);
    }
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}
