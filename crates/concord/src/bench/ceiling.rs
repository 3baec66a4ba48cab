//! What this machine could do at all: the same bytes over the same mutual TLS, hashed and appended with fdatasync in group commit.
//!
//! No gRPC, no signatures, no trees, no ledger, no views: whatever a hub does beyond this costs part of the ratio.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use concord_identity::{
    Admission, Anchor, AnchorKeys, Anchors, Application, CertificateRequest, Credentials, ExpectedServer, LeafKey,
    LeafKeyKind, client_config, server_config, server_name,
};
use concord_model::limits::CONSIGN_UNRECEIPTED_MAX;
use concord_model::{AgreementDigest, AgreementId, AgreementRef, Digest, Identity, Name, ParticipantCode, Role};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::forum::{State, consignments};
use super::ingest::{Server, place};
use super::load::{Driven, Stream, drive};
use super::{BenchArgs, Measured, STREAMS};

/// Bytes that one durable write takes, as the hub's commit does.
const COMMIT_SIZE_MAX_BYTES: usize = 8 * 1024 * 1024;
const DIGEST_SIZE_BYTES: usize = 32;

/// Runs the benchmark.
pub(crate) async fn run(args: &BenchArgs) -> Result<Measured> {
    let folder = tempfile::Builder::new().prefix("concord-ceiling-").tempdir_in(place(args)?)?;
    let dir = folder.path();
    let secretariat = ParticipantCode::secretariat();
    let now = crate::output::now();
    let anchor = AnchorKeys::create(&secretariat, now)?;
    std::fs::write(dir.join("anchor.pem"), anchor.anchor().to_pem())?;
    for (role, file) in [(Role::Hub, "server"), (Role::Operator, "client")] {
        let identity = Identity { participant: secretariat.clone(), role, name: Name::parse("main")? };
        let key = LeafKey::generate(LeafKeyKind::EcdsaP256)?;
        let certificate = anchor.issue(&CertificateRequest::leaf(&identity, key.public(), now))?;
        let chain = concord_identity::certificates_to_pem(&[certificate]);
        std::fs::write(dir.join(format!("{file}.pem")), chain)?;
        key.save(&dir.join(format!("{file}.key")))?;
    }
    let server = Server::start(&["bench", "ceiling-serve"], dir).await?;

    let anchors = Anchors::pinned(secretariat, anchor.anchor().clone());
    let credentials = Credentials::load(&dir.join("client.pem"), &dir.join("client.key"))?;
    let tls = client_config(&credentials, &anchors, ExpectedServer::AnyHub, Application::Grpc)?;
    // The bytes are real consignments; who signed them does not matter to somebody who only hashes.
    let agreement =
        AgreementRef { id: AgreementId::parse("KAZ/bench")?, version: 1, digest: AgreementDigest(Digest::ZERO) };
    let (gate, opened) = watch::channel(false);
    let mut streams = Vec::with_capacity(STREAMS);
    for _ in 0..STREAMS {
        let signed = consignments(&State::new("KAZ")?, &agreement, args.consignments)?;
        let frames = signed.iter().map(|consignment| Bytes::from(consignment.encode_to_vec())).collect();
        streams.push(stream(&server.listen, TlsConnector::from(Arc::clone(&tls)), frames, opened.clone()).await?);
    }
    let before = server.cpu_time();
    let driven: Driven = drive(streams, gate).await?;
    let cpu = server.cpu_time().saturating_sub(before);
    Ok(Measured::new("ceiling", &driven, cpu.as_secs_f64(), 0))
}

async fn stream(
    address: &str,
    tls: TlsConnector,
    frames: Vec<Bytes>,
    mut gate: watch::Receiver<bool>,
) -> Result<tokio::task::JoinHandle<Result<Stream>>> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let (mut reading, mut writing) = tokio::io::split(tls.connect(server_name(address), socket).await?);
    Ok(tokio::spawn(async move {
        gate.wait_for(|open| *open).await?;
        let window = Arc::new(Semaphore::new(CONSIGN_UNRECEIPTED_MAX));
        let expected = frames.len();
        let (sent_in, mut sent) = mpsc::channel(CONSIGN_UNRECEIPTED_MAX);
        let sending = tokio::spawn({
            let window = Arc::clone(&window);
            async move {
                for frame in frames {
                    window.acquire().await?.forget();
                    sent_in.send(Instant::now()).await?;
                    writing.write_u32(u32::try_from(frame.len())?).await?;
                    writing.write_all(&frame).await?;
                }
                writing.flush().await?;
                anyhow::Ok(writing)
            }
        });
        let mut latencies = Vec::with_capacity(expected);
        let mut digest = [0; DIGEST_SIZE_BYTES];
        for _ in 0..expected {
            reading.read_exact(&mut digest).await?;
            let begun = sent.recv().await.context("a receipt for nothing")?;
            latencies.push(begun.elapsed());
            window.add_permits(1);
        }
        drop(sending.await??);
        Ok(Stream { latencies })
    }))
}

/// A frame with its digest, and where to say that it is durable.
struct Hashed {
    frame: Bytes,
    digest: [u8; DIGEST_SIZE_BYTES],
    durable: mpsc::Sender<[u8; DIGEST_SIZE_BYTES]>,
}

/// Serves until it is killed.
pub(crate) async fn serve(dir: &Path) -> Result<()> {
    let anchor = Anchor::from_pem(&std::fs::read_to_string(dir.join("anchor.pem"))?)?;
    let anchors = Anchors::pinned(ParticipantCode::secretariat(), anchor);
    let credentials = Credentials::load(&dir.join("server.pem"), &dir.join("server.key"))?;
    let acceptor = TlsAcceptor::from(server_config(&credentials, &anchors, Admission::hub(), Application::Grpc)?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (hashed, waiting) = mpsc::channel(2 * CONSIGN_UNRECEIPTED_MAX);
    let file = File::create(dir.join("appended"))?;
    std::thread::spawn(move || append(file, waiting));

    println!("listen {}", listener.local_addr()?);
    println!("admin http://");
    std::io::stdout().flush()?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let (acceptor, hashed) = (acceptor.clone(), hashed.clone());
        tokio::spawn(async move {
            let (reading, mut writing) = tokio::io::split(acceptor.accept(socket).await?);
            let (durable, mut answers) = mpsc::channel::<[u8; DIGEST_SIZE_BYTES]>(CONSIGN_UNRECEIPTED_MAX);
            tokio::spawn(read(reading, hashed, durable));
            while let Some(digest) = answers.recv().await {
                writing.write_all(&digest).await?;
                writing.flush().await?;
            }
            anyhow::Ok(())
        });
    }
}

async fn read(
    mut reading: impl tokio::io::AsyncRead + Unpin,
    hashed: mpsc::Sender<Hashed>,
    durable: mpsc::Sender<[u8; DIGEST_SIZE_BYTES]>,
) -> Result<()> {
    loop {
        let length = reading.read_u32().await? as usize;
        let mut frame = BytesMut::zeroed(length);
        reading.read_exact(&mut frame).await?;
        let frame = frame.freeze();
        let digest = Sha256::digest(&frame).into();
        hashed.send(Hashed { frame, digest, durable: durable.clone() }).await?;
    }
}

/// Appends what waits in one write, syncs, and says so.
fn append(mut file: File, mut waiting: mpsc::Receiver<Hashed>) -> Result<()> {
    let mut buffer = Vec::with_capacity(COMMIT_SIZE_MAX_BYTES);
    let mut group = Vec::new();
    while let Some(first) = waiting.blocking_recv() {
        buffer.clear();
        let mut next = Some(first);
        while let Some(hashed) = next {
            buffer.extend_from_slice(&hashed.frame);
            buffer.extend_from_slice(&hashed.digest);
            group.push(hashed);
            next = if buffer.len() < COMMIT_SIZE_MAX_BYTES { waiting.try_recv().ok() } else { None };
        }
        file.write_all(&buffer)?;
        file.sync_data()?;
        for hashed in group.drain(..) {
            // A connection that is gone needs no answer.
            let _gone = hashed.durable.blocking_send(hashed.digest);
        }
    }
    Ok(())
}
