//! Binding a listener. A configured port 0 means: any port, but the same one again after a restart.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody has it.
    #[error("the {listener} address {address} is in use by another process; stop that one or configure another port")]
    InUse {
        /// Which listener, in the words of the configuration.
        listener: &'static str,
        /// Which address.
        address: SocketAddr,
    },
    /// Anything else, such as an address that this machine does not have.
    #[error("cannot listen on the {listener} address {address}: {source}")]
    Other {
        /// Which listener, in the words of the configuration.
        listener: &'static str,
        /// Which address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// Binds `configured`. Where its port is 0 and `remembered` is an address that was used before, that port is asked for
/// again, so that clients find the server after a restart; if it is taken, a fresh one is.
pub async fn bind(
    listener: &'static str,
    configured: SocketAddr,
    remembered: Option<SocketAddr>,
) -> Result<TcpListener, BindError> {
    if configured.port() == 0
        && let Some(remembered) = remembered.filter(|address| address.port() != 0)
    {
        let again = SocketAddr::new(configured.ip(), remembered.port());
        match TcpListener::bind(again).await {
            Ok(bound) => return Ok(bound),
            Err(error) => tracing::warn!(
                listener,
                address = %again,
                %error,
                "the port of the last start cannot be had again; taking a fresh one"
            ),
        }
    }
    TcpListener::bind(configured).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { listener, address: configured },
        _ => BindError::Other { listener, address: configured, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: &str = "127.0.0.1:0";

    #[tokio::test]
    async fn the_port_of_the_last_start_is_asked_for_again() {
        let any = ANY.parse().unwrap();
        let first = bind("listen", any, None).await.unwrap();
        let address = first.local_addr().unwrap();
        drop(first);
        let second = bind("listen", any, Some(address)).await.unwrap();
        assert_eq!(second.local_addr().unwrap(), address);

        let third = bind("listen", any, Some(address)).await.unwrap();
        assert_ne!(third.local_addr().unwrap(), address, "the port was taken");
    }

    #[tokio::test]
    async fn a_configured_port_that_is_in_use_is_an_error_that_names_it() {
        let taken = bind("admin", ANY.parse().unwrap(), None).await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind("admin", address, Some(ANY.parse().unwrap())).await.unwrap_err();
        assert!(error.to_string().contains(&format!("the admin address {address} is in use")), "{error}");
    }
}
