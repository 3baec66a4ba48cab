//! The admin listener, as a probe and a scraper see it.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;

use common::{AGENCY, Forum, OPERATOR, SERVER, in_time, kaz};
use concord_identity::Application;
use concord_server::{ADMIN_CONNECTIONS_MAX, AdminListener, MetricAt, Readiness, metrics_recorder};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

async fn start(forum: &Forum, bind: &str) -> (SocketAddr, Readiness) {
    let listener = TcpListener::bind(bind).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let admin = AdminListener::new(
        listener,
        &forum.credentials(SERVER),
        &forum.anchors,
        &kaz(),
        concord_server::audit::Audit::off(),
    )
    .unwrap();
    let readiness = Readiness::new();
    let metrics = metrics_recorder(MetricAt::Hub).unwrap();
    tokio::spawn(admin.serve(readiness.clone(), metrics, std::future::pending()));
    (SocketAddr::from(([127, 0, 0, 1], port)), readiness)
}

/// The status line's code and the body.
async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> std::io::Result<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    in_time("an answer", stream.read_to_string(&mut answer)).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("no answer"))?;
    Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
}

#[tokio::test]
async fn readyz_gives_the_reasons_and_healthz_only_lives() {
    let forum = Forum::new();
    let (address, readiness) = start(&forum, "127.0.0.1:0").await;
    let get = async |path| get(TcpStream::connect(address).await.unwrap(), path).await.unwrap();
    assert_eq!(get("/readyz").await, (200, "{\"ready\":true,\"reasons\":[]}\n".to_owned()));

    readiness.raise("hub-unreachable", "no contact since 3 minutes");
    let reasons = "[{\"alarm\":\"hub-unreachable\",\"message\":\"no contact since 3 minutes\"}]";
    assert_eq!(get("/readyz").await, (503, format!("{{\"ready\":false,\"reasons\":{reasons}}}\n")));
    assert_eq!(get("/healthz").await.0, 200);
    let (status, metrics) = get("/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.contains("concord_alarm{alarm=\"hub-unreachable\"} 1"), "{metrics}");

    readiness.clear("hub-unreachable");
    assert_eq!(get("/readyz").await.0, 200);
    readiness.note("clock-suspect", "it gained 2 h");
    let notes = "[{\"alarm\":\"clock-suspect\",\"message\":\"it gained 2 h\"}]";
    assert_eq!(get("/readyz").await, (200, format!("{{\"ready\":true,\"reasons\":[],\"notes\":{notes}}}\n")));
    assert!(get("/metrics").await.1.contains("concord_alarm{alarm=\"hub-unreachable\"} 0"));
    assert_eq!(get("/").await.0, 404);
}

#[tokio::test]
async fn elsewhere_than_on_loopback_only_an_operator_of_its_own_participant_gets_in() {
    let forum = Forum::new();
    let (address, _) = start(&forum, "0.0.0.0:0").await;
    let plain = get(TcpStream::connect(address).await.unwrap(), "/healthz").await;
    assert!(plain.is_err(), "{plain:?}");

    let secure = async |identity: &str| {
        let tls = forum.tls_with(&forum.credentials(identity), SERVER, Application::Admin);
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = TlsConnector::from(tls).connect(concord_identity::server_name("x:1"), stream).await?;
        get(stream, "/healthz").await
    };
    for identity in [AGENCY, "spiffe://uzb.concord/operator/ops", "spiffe://kaz.concord/officer/aliya"] {
        let answer = secure(identity).await;
        assert!(answer.is_err(), "{identity}: {answer:?}");
    }
    assert_eq!(secure(OPERATOR).await.unwrap().0, 200);
}

#[tokio::test]
async fn idle_and_overlong_requests_are_ended() {
    let forum = Forum::new();
    let (address, _) = start(&forum, "127.0.0.1:0").await;
    let mut idle = Vec::new();
    for _ in 0..ADMIN_CONNECTIONS_MAX {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let mut first = idle.remove(0);
    in_time("the end of an idle connection", first.read_to_end(&mut Vec::new())).await.unwrap();
    let answer = async || get(TcpStream::connect(address).await.unwrap(), "/healthz").await;
    in_time("a free place", async { while answer().await.is_err() {} }).await;

    let long = format!("/{}", "x".repeat(64 * 1024));
    let answer = get(TcpStream::connect(address).await.unwrap(), &long).await;
    assert!(answer.is_err() || answer.is_ok_and(|(status, _)| status == 431 || status == 414));
}
