//! The way to a server, step by step: where it ends, why, and what to do.

use std::sync::Arc;
use std::time::Duration;

use concord_identity::{CertificateFacts, CertificateRefusal, ExpectedServer, HandshakeRefusal, HybridKey};
use concord_model::Timestamp;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tonic::transport::Channel;

use super::{Check, days_left, lasting};
use crate::clock::{Clock as _, SystemClock};
use crate::clock_offset::ClockOffset;
use crate::connect::{CONNECT_TIMEOUT_SECONDS, ConnectError, Io, Target, answered_at, clock_offset_at, key_exchange};
use crate::proxy::Proxy;
use crate::sockets::Tcp;

const ROUND_TRIPS: usize = 5;
/// A median above it is a warning.
const SLOW: Duration = Duration::from_secs(2);
const STEP_TIMEOUT_SECONDS: u64 = 10;
/// What is tried when a connection came about, in their order.
const BEHIND: [&str; 4] = ["hub-certificate", "hybrid-key", "clock", "round-trip"];

/// The hub as a node means to reach it.
pub struct WayToServer {
    /// `host:port`, the best first.
    pub addresses: Vec<String>,
    /// By way of it, where one is set.
    pub proxy: Option<Arc<Proxy>>,
    /// Whether the hybrid key exchange is to be offered, as it is configured.
    pub hybrid: HybridKey,
    /// TLS with it, and without.
    pub with_hybrid: Arc<ClientConfig>,
    /// The other.
    pub without_hybrid: Arc<ClientConfig>,
    /// Whether these know the hub, and show it who this is. Where no bundle is there yet they do not: each handshake then goes as far as
    /// the hub's certificate, and that it came shows that the way is open.
    pub knows_server: bool,
}

/// What was found on the way.
pub struct Reached {
    /// name, tcp, proxy, tls, hub-certificate, hybrid-key, clock, round-trip.
    pub checks: Vec<Check>,
    /// The connection, if one stands.
    pub channel: Option<Channel>,
    /// The server does not accept the certificate that it was shown.
    pub refused_by_server: bool,
}

impl WayToServer {
    /// All steps as far as they go; the rest could not be tried for the same cause.
    pub async fn walk(&self) -> Reached {
        let mut found = Vec::new();
        let mut last = None;
        for address in &self.addresses {
            let (checks, outcome) = self.reach(address).await;
            let has_come_through = outcome.is_some();
            if has_come_through || last.is_none() {
                found = checks;
            }
            last = Some(address);
            if let Some((target, socket)) = outcome {
                return self.secure(target, socket, address, found).await;
            }
        }
        let why = match last {
            Some(_) => "the hub was not reached",
            None => "no address of the hub is known: the bundle names none",
        };
        let missing = ["name", "tcp", "proxy", "tls"].into_iter().chain(BEHIND);
        let missing = missing.filter(|name| !found.iter().any(|check: &Check| check.check == *name));
        let untried: Vec<Check> = missing.map(|name| Check::untried(name, why)).collect();
        found.extend(untried);
        Reached { checks: found, channel: None, refused_by_server: false }
    }

    fn tls(&self, hybrid: HybridKey) -> Arc<ClientConfig> {
        Arc::clone(match hybrid {
            HybridKey::Prefer => &self.with_hybrid,
            HybridKey::Off => &self.without_hybrid,
        })
    }

    /// Name, TCP and the proxy, to one address.
    async fn reach(&self, address: &str) -> (Vec<Check>, Option<(Target<Tcp>, TcpStream)>) {
        let target = match Target::new(Tcp, self.proxy.clone(), address, self.tls(self.hybrid)) {
            Ok(target) => target,
            Err(error) => return (vec![Check::failed("name", error.to_string(), "ask the secretariat")], None),
        };
        let hop = target.first_hop().to_owned();
        let step = Duration::from_secs(STEP_TIMEOUT_SECONDS);
        // The first hop is the proxy, where one is set: what is behind it is not to blame yet.
        let network = if self.proxy.is_some() { TO_PROXY } else { NETWORK };
        let late = |name| Check::failed(name, format!("{hop}: no answer within {STEP_TIMEOUT_SECONDS} s"), network);
        let mut checks = Vec::new();
        let addresses = match tokio::time::timeout(step, target.resolve()).await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => {
                checks.push(Check::failed(
                    "name",
                    error.to_string(),
                    match &self.proxy {
                        Some(_) => {
                            "correct `proxy` under [uplink] in node.toml, or ask whoever runs this network's DNS"
                        }
                        None => "correct the address, or ask whoever runs this network's DNS",
                    },
                ));
                return (checks, None);
            }
            Err(_) => return (vec![late("name")], None),
        };
        let listed = addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ");
        checks.push(Check::ok("name", format!("{hop} is {listed}")));
        let mut socket = match tokio::time::timeout(step, target.reach(addresses)).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => {
                checks.push(Check::failed("tcp", error.to_string(), network));
                return (checks, None);
            }
            Err(_) => {
                checks.push(late("tcp"));
                return (checks, None);
            }
        };
        checks.push(Check::ok("tcp", format!("{hop} takes connections")));
        match (target.tunnel(&mut socket).await, &self.proxy) {
            (Ok(()), None) => checks.push(Check::ok("proxy", "none is configured, and none is needed")),
            (Ok(()), Some(proxy)) => {
                checks.push(Check::ok("proxy", format!("{} connects to {address}", proxy.address())));
            }
            (Err(error), _) => {
                let next = "correct [uplink] in node.toml, or ask whoever runs the proxy";
                checks.push(Check::failed("proxy", error.to_string(), next));
                return (checks, None);
            }
        }
        (checks, Some((target, socket)))
    }

    /// TLS and all behind it, over a connection that leads to the server.
    async fn secure(&self, target: Target<Tcp>, socket: TcpStream, address: &str, mut checks: Vec<Check>) -> Reached {
        let time = Duration::from_secs(CONNECT_TIMEOUT_SECONDS);
        let secured = match tokio::time::timeout(time, target.secure(socket)).await {
            Ok(secured) => secured,
            Err(_) => Err(ConnectError::TimedOut { address: address.to_owned() }),
        };
        if !self.knows_server {
            return self.as_far_as_the_certificate(address, &secured, checks).await;
        }
        let refused_by_server =
            matches!(&secured, Err(ConnectError::TlsRefused { refusal: HandshakeRefusal::RefusedByPeer(_), .. }));
        checks.push(tls(&secured));
        checks.push(certificate(&secured));
        let other = match self.hybrid {
            HybridKey::Prefer => HybridKey::Off,
            HybridKey::Off => HybridKey::Prefer,
        };
        let by_other = self.try_once(address, other).await;
        checks.push(hybrid_key(self.hybrid, passes(&secured), by_other));
        match secured {
            Ok(stream) => {
                let channel = target.channel(stream).await;
                let channel = match channel {
                    Ok(channel) => channel,
                    Err(error) => {
                        checks.push(Check::untried("clock", "the hub did not answer"));
                        checks.push(Check::failed(
                            "round-trip",
                            error.to_string(),
                            "see whether the address is a hub's",
                        ));
                        return Reached { checks, channel: None, refused_by_server };
                    }
                };
                checks.extend(answers(&channel).await);
                Reached { checks, channel: Some(channel), refused_by_server }
            }
            Err(error) => {
                checks.push(self.clock_without_trust(address, &error).await);
                checks.push(Check::untried("round-trip", "there is no secure connection to the hub"));
                Reached { checks, channel: None, refused_by_server }
            }
        }
    }

    /// What a handshake shows that ends at the server's certificate, since nothing here knows whose it is to be.
    async fn as_far_as_the_certificate(
        &self,
        address: &str,
        secured: &Result<Io<Tcp>, ConnectError>,
        mut checks: Vec<Check>,
    ) -> Reached {
        let tls = match secured {
            Err(ConnectError::TlsRefused { refusal: HandshakeRefusal::Certificate(refusal), .. }) => shown(refusal),
            secured => tls(secured),
        };
        checks.push(tls);
        checks.push(Check::untried("hub-certificate", WITH_BUNDLE));
        let other = match self.hybrid {
            HybridKey::Prefer => HybridKey::Off,
            HybridKey::Off => HybridKey::Prefer,
        };
        let by_other = self.try_once(address, other).await;
        checks.push(hybrid_key(self.hybrid, passes(secured), by_other));
        checks.extend(["clock", "round-trip"].map(|name| Check::untried(name, WITH_BUNDLE)));
        Reached { checks, channel: None, refused_by_server: false }
    }

    /// Whether a handshake of this kind gets through to the server's word, whatever that is.
    async fn try_once(&self, address: &str, hybrid: HybridKey) -> bool {
        let Ok(target) = Target::new(Tcp, self.proxy.clone(), address, self.tls(hybrid)) else { return false };
        let tried = async {
            let mut socket = target.reach(target.resolve().await?).await?;
            target.tunnel(&mut socket).await?;
            target.secure(socket).await
        };
        let time = Duration::from_secs(2 * CONNECT_TIMEOUT_SECONDS);
        tokio::time::timeout(time, tried).await.is_ok_and(|outcome| passes(&outcome))
    }

    /// Where a certificate does not hold by this machine's clock: whether that is the clock.
    async fn clock_without_trust(&self, address: &str, error: &ConnectError) -> Check {
        let ConnectError::TlsRefused { refusal: HandshakeRefusal::Certificate(refusal), .. } = error else {
            return Check::untried(
                "clock",
                "there is no secure connection to the hub, whose time is asked for over it",
            );
        };
        let moment = match refusal {
            CertificateRefusal::Expired { not_after, .. } => moved(*not_after, -1_000_000),
            CertificateRefusal::NotYetValid { not_before, .. } => moved(*not_before, 1_000_000),
            _ => {
                return Check::untried(
                    "clock",
                    "the hub's certificate is not the pinned anchor's, so that its time is not asked for",
                );
            }
        };
        match clock_offset_at(self.proxy.clone(), address, &self.tls(self.hybrid), moment).await {
            Some(offset) => clock(offset),
            None => {
                Check::untried("clock", "the hub says no time to a node with whose certificates something is wrong")
            }
        }
    }
}

fn moved(moment: Timestamp, micros: i64) -> Timestamp {
    Timestamp::from_micros(moment.as_micros().saturating_add(micros))
}

const WITH_BUNDLE: &str = "only the hub's bundle says by which anchor it is known: give it with --bundle FILE once this node is enrolled, or join";

/// How TLS stands where the server was known by nothing, and showed a certificate.
fn shown(refusal: &CertificateRefusal) -> Check {
    match refusal {
        CertificateRefusal::UnknownIssuer { identity } if ExpectedServer::AnyHub.is(identity) => Check::ok(
            "tls",
            format!(
                "reached, not known yet: what answers says it is {identity}, and handshakes get through; the bundle will tell whether it is"
            ),
        ),
        refusal => Check::failed(
            "tls",
            format!("what answers there is no hub: {refusal}"),
            "correct the address; or ask whoever runs this network what answers in the hub's place",
        ),
    }
}

const NETWORK: &str =
    "see whether the hub runs, and whether this network's firewall lets this machine out to that host and port";

const TO_PROXY: &str =
    "see whether the proxy runs, and whether `proxy` under [uplink] in node.toml names it; or ask whoever runs it";

/// Whether messages of the handshake pass both ways: an accepted or refused certificate shows that they do.
fn passes(secured: &Result<Io<Tcp>, ConnectError>) -> bool {
    match secured {
        Ok(_) => true,
        Err(ConnectError::TlsRefused { refusal, .. }) => matches!(
            refusal,
            HandshakeRefusal::Certificate(_) | HandshakeRefusal::RefusedByPeer(_) | HandshakeRefusal::NoCertificate
        ),
        Err(_) => false,
    }
}

fn tls(secured: &Result<Io<Tcp>, ConnectError>) -> Check {
    match secured {
        Ok(stream) => {
            let group = key_exchange(stream.inner().inner());
            Check::ok("tls", format!("the hub lets this node in; key exchange {group}")).with("key_exchange", group)
        }
        Err(ConnectError::TlsRefused { refusal: HandshakeRefusal::RefusedByPeer(_), .. }) => Check::failed(
            "tls",
            "the hub does not let this node in: it has other keys enrolled, has taken this certificate back, a revocation list of its \
             anchor has lapsed there, or it does not hold by the hub's clock",
            "compare fingerprints with the secretariat (line registry), whose `concord audit --refused` has the reason",
        ),
        Err(error @ ConnectError::TlsRefused { refusal: HandshakeRefusal::Certificate(_), .. }) => {
            Check::failed("tls", error.to_string(), "see the line hub-certificate")
        }
        Err(error) => {
            Check::failed("tls", error.to_string(), "see the line hybrid-key, and ask whoever runs what is between")
        }
    }
}

fn certificate(secured: &Result<Io<Tcp>, ConnectError>) -> Check {
    const NAME: &str = "hub-certificate";
    match secured {
        Ok(stream) => {
            let chain = stream.inner().inner().get_ref().1.peer_certificates().unwrap_or_default();
            let Some(leaf) = chain.first().and_then(|leaf| CertificateFacts::read(leaf).ok()) else {
                return Check::failed(NAME, "the hub's certificate says no validity", "tell the secretariat");
            };
            let days = days_left(leaf.not_after, SystemClock.now());
            let message = format!("the hub's name, under the anchor of the bundle, {days} days left");
            lasting(NAME, message, days, "tell the secretariat that it has to renew it")
        }
        Err(ConnectError::TlsRefused { refusal: HandshakeRefusal::Certificate(refusal), .. }) => {
            let next = match refusal {
                CertificateRefusal::Expired { .. } | CertificateRefusal::NotYetValid { .. } => {
                    "see the line clock; if the clocks agree, the secretariat has to renew it"
                }
                CertificateRefusal::OtherServer { .. } => {
                    "ask the secretariat for the hub's address, and join with a new bundle"
                }
                CertificateRefusal::Revoked { .. } => {
                    "the secretariat took it back; ask it by telephone before anything else"
                }
                _ => {
                    "something between answers in the hub's place, or the hub was made anew: compare its fingerprint with the \
                     secretariat by telephone"
                }
            };
            Check::failed(NAME, refusal.to_string(), next)
        }
        Err(_) => Check::untried(NAME, "there is no secure connection to the hub"),
    }
}

fn hybrid_key(configured: HybridKey, by_configured: bool, by_other: bool) -> Check {
    const NAME: &str = "hybrid-key";
    let (with, without) = match configured {
        HybridKey::Prefer => (by_configured, by_other),
        HybridKey::Off => (by_other, by_configured),
    };
    let check = match (with, without, configured) {
        (true, true, HybridKey::Prefer) => Check::ok(NAME, "handshakes pass with it and without it; it is preferred"),
        (true, true, HybridKey::Off) => {
            let what = "handshakes pass with it and without it, and hybrid_key = \"off\" is set";
            Check::warning(NAME, what, "set hybrid_key = \"prefer\" under [uplink] in node.toml")
        }
        (true, false, HybridKey::Prefer) => Check::ok(NAME, "handshakes pass with it"),
        (true, false, HybridKey::Off) => {
            let what = "handshakes pass with it only, and hybrid_key = \"off\" is set";
            Check::failed(NAME, what, "set hybrid_key = \"prefer\" under [uplink] in node.toml")
        }
        (false, true, HybridKey::Prefer) => {
            let what = "something between drops the larger first message of it; without it handshakes pass";
            Check::failed(NAME, what, "set hybrid_key = \"off\" under [uplink] in node.toml, or have it let pass")
        }
        (false, true, HybridKey::Off) => Check::ok(
            NAME,
            "handshakes pass without it only; it is off. What is recorded now a quantum computer may open one day",
        ),
        (false, false, _) => Check::failed(
            NAME,
            "no handshake gets through, with it or without it",
            "see whether a hub answers at that address, and what is between",
        ),
    };
    check.with("with", with).with("without", without)
}

/// Clock and round trip.
async fn answers(channel: &Channel) -> [Check; 2] {
    let (mut times, mut offset) = (Vec::new(), None);
    for _ in 0..ROUND_TRIPS {
        match answered_at(channel.clone()).await {
            Ok(answered) => {
                times.push(answered.took);
                offset = answered.offset.or(offset);
            }
            Err(status) => {
                let what = format!("the hub answers with an error: {}", status.message());
                let failed = Check::failed("round-trip", what, "try again, and tell the secretariat if it stays");
                return [Check::untried("clock", "the hub did not answer"), failed];
            }
        }
    }
    let clock = offset.map_or_else(|| Check::untried("clock", "the hub's answer says no time"), clock);
    [clock, round_trip(times)]
}

fn clock(offset: ClockOffset) -> Check {
    let check = if offset.is_wrong() {
        let what = format!("this machine's clock is {offset} the hub's");
        Check::failed(
            "clock",
            what,
            "set the clock of this machine (`timedatectl`); if it is right, tell the secretariat",
        )
    } else {
        Check::ok("clock", "this machine's clock and the hub's agree")
    };
    check.with("offset_seconds", offset.seconds())
}

fn round_trip(mut times: Vec<Duration>) -> Check {
    times.sort_unstable();
    let (median, worst) =
        (times.get(times.len() / 2).copied().unwrap_or_default(), times.last().copied().unwrap_or_default());
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let words = format!(
        "the hub answers in {:.1} ms (median of {}), {:.1} ms at worst",
        milliseconds(median),
        times.len(),
        milliseconds(worst)
    );
    let check = if median > SLOW {
        Check::warning("round-trip", words, "ask whoever runs the network between")
    } else {
        Check::ok("round-trip", words)
    };
    check.with("median_milliseconds", milliseconds(median)).with("worst_milliseconds", milliseconds(worst))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn of_both_key_exchanges_it_is_said_what_to_set() {
        use HybridKey::{Off, Prefer};
        for (configured, by_configured, by_other, verdict, next) in [
            (Prefer, true, true, Verdict::Ok, ""),
            (Prefer, false, true, Verdict::Failed, "hybrid_key = \"off\""),
            (Off, true, false, Verdict::Ok, ""),
            (Off, true, true, Verdict::Warning, "hybrid_key = \"prefer\""),
            (Off, false, true, Verdict::Failed, "hybrid_key = \"prefer\""),
            (Prefer, false, false, Verdict::Failed, "what is between"),
        ] {
            let check = hybrid_key(configured, by_configured, by_other);
            assert_eq!(check.result, verdict, "{check:?}");
            assert!(check.next.contains(next), "{check:?}");
        }
    }
}
