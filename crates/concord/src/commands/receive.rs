//! `concord receive`: keep each body durably, print it, then acknowledge it; in this order, whatever happens.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use concord_model::{Digest, Header};
use concord_wire::proto::agency::v1::{AcknowledgeRequest, ReceiveRequest, ReceiveResponse};
use serde::Serialize;
use sha2::Digest as _;
use tonic::Request;

use super::keep::Shelf;
use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::media;
use crate::output::{self, Output, hex, safe, short_time};
use crate::signals::Stop;

/// After a lost connection a following command tries again, the longer the more often it failed.
const RECONNECT_AFTER_MIN: Duration = Duration::from_millis(100);
const RECONNECT_AFTER_MAX: Duration = Duration::from_secs(5);

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord receive --profile /srv/concord/node/agencies/cert --out received --follow\n\nWithout --out it lists what waits and acknowledges nothing."
)]
pub(crate) struct ReceiveArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Where bodies go, each as `<exchange_id>.<ext>`; '-' writes one body to stdout.
    #[arg(long, value_name = "DIR|-")]
    out: Option<PathBuf>,
    /// Go on as more comes, until Ctrl-C.
    #[arg(long)]
    follow: bool,
    /// End after that many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

#[derive(Serialize)]
struct ReceiveLine {
    exchange_id: String,
    origin: String,
    agreement: String,
    measure: String,
    lane: &'static str,
    handling: &'static str,
    title: String,
    caveats: Vec<String>,
    media_type: String,
    size_bytes: u64,
    digest: String,
    expires_at: Option<String>,
    /// It has no body: an earlier exchange is not current any more.
    withdraws: Option<Withdraws>,
    supersedes: Option<String>,
    /// It is an exercise: what it says is not so.
    exercise: bool,
    recorded_at: Option<String>,
    file: Option<String>,
}

#[derive(Serialize)]
struct Withdraws {
    exchange_id: String,
    kind: &'static str,
}

/// What happens to a body.
enum Place {
    /// Nothing: it is not even asked for.
    Nowhere,
    Shelf(Shelf),
    Stdout,
}

struct Receiver {
    args: ReceiveArgs,
    place: Place,
    left: Option<u64>,
    output: Output,
    /// Since the last connection something came: the server is well.
    is_moving: bool,
    /// Once it was let in, a following command outlives a restart of the node.
    was_connected: bool,
    received: u64,
}

pub(crate) async fn run(args: ReceiveArgs, output: Output) -> Result<(), Failure> {
    let (place, output) = match args.out.as_deref() {
        None => (Place::Nowhere, output),
        Some(path) if path == Path::new("-") => (Place::Stdout, output.beside_a_body()),
        Some(path) => (Place::Shelf(Shelf::open(path)?), output),
    };
    let mut left = args.limit;
    if matches!(place, Place::Stdout) {
        if args.limit.is_some_and(|limit| limit > 1) {
            return Err(
                Failure::usage("stdout takes exactly one body").help("leave --limit out, or give --out a folder")
            );
        }
        left = Some(1);
    }
    let mut stop = Stop::listen()?;
    let mut receiver = Receiver { args, place, left, output, is_moving: false, was_connected: false, received: 0 };
    tokio::select! {
        result = receiver.run() => result,
        // What was written and not acknowledged comes again.
        () = stop.wait() => Ok(()),
    }
}

impl Receiver {
    async fn run(&mut self) -> Result<(), Failure> {
        let mut pause = RECONNECT_AFTER_MIN;
        loop {
            self.is_moving = false;
            let failure = match self.receive().await {
                Ok(()) => return self.ended(),
                Err(failure) => failure,
            };
            if !(self.args.follow && self.was_connected && failure.is_unavailable()) {
                return Err(failure);
            }
            pause = if self.is_moving { RECONNECT_AFTER_MIN } else { (pause * 2).min(RECONNECT_AFTER_MAX) };
            self.output.say(&format!("the node is away ({}); trying again", safe(&failure.message)));
            tokio::time::sleep(pause).await;
        }
    }

    fn ended(&self) -> Result<(), Failure> {
        match (self.received, &self.place) {
            (0, Place::Stdout) => Err(Failure::failed("NOTHING_RECEIVED", "nothing waits for this agency")
                .help("use --follow to wait for it")),
            (0, _) => {
                self.output.say("nothing waits for this agency");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn receive(&mut self) -> Result<(), Failure> {
        let client = Client::connect(&self.args.client).await?;
        let without_bodies = matches!(self.place, Place::Nowhere);
        // No deadline: a following stream lasts; the connection's own keep-alive finds a server that is gone.
        let request = Request::new(ReceiveRequest { follow: self.args.follow, without_bodies });
        let mut stream = client.agency().receive(request).await?.into_inner();
        self.was_connected = true;
        while self.left != Some(0) {
            let Some(exchange) = stream.message().await? else {
                break;
            };
            self.is_moving = true;
            self.take(&client, exchange).await?;
            self.received += 1;
            self.left = self.left.map(|left| left - 1);
        }
        Ok(())
    }

    async fn take(&self, client: &Client, exchange: ReceiveResponse) -> Result<(), Failure> {
        let header = concord_wire::header::parse(&exchange.header).map_err(Failure::answer)?;
        let mut line = read(&exchange, &header)?;
        if !matches!(self.place, Place::Nowhere) {
            check_body(&exchange, line.size_bytes)?;
        }
        match &self.place {
            Place::Nowhere => {}
            // A withdrawal has no body.
            Place::Shelf(_) if header.parts.is_empty() => {}
            Place::Shelf(shelf) => {
                let extension = header.parts.first().map_or("bin", |part| media::extension(&part.media_type));
                let path = shelf.put(&format!("{}.{extension}", line.exchange_id), &exchange.body)?;
                line.file = Some(path.display().to_string());
            }
            Place::Stdout => self.output.body(&exchange.body)?,
        }
        self.output.result(&line, || shown(&line))?;
        if !matches!(self.place, Place::Nowhere) {
            client.agency().acknowledge(call(AcknowledgeRequest { cursor: exchange.cursor })).await?;
        }
        Ok(())
    }
}

/// The body is the one that its digest names: else nothing is kept and nothing acknowledged.
fn check_body(exchange: &ReceiveResponse, size_bytes: u64) -> Result<(), Failure> {
    let digest: [u8; 32] = sha2::Sha256::digest(&exchange.body).into();
    if exchange.body.len() as u64 == size_bytes && exchange.body_digest == digest[..] {
        return Ok(());
    }
    Err(Failure::answer(format!("the body of {} is not the one that its digest names", hex(&exchange.exchange_id))))
}

fn read(exchange: &ReceiveResponse, header: &Header) -> Result<ReceiveLine, Failure> {
    // The id becomes a file's name: it is 64 hexadecimal digits or nothing.
    let id = Digest::from_slice(&exchange.exchange_id).map_err(Failure::answer)?;
    if concord_wire::header::exchange_id(&exchange.header).0 != id {
        return Err(Failure::answer(format!("the header of {id} is not the one that its id names")));
    }
    let description = exchange.description.as_ref().ok_or_else(|| Failure::answer("the description is missing"))?;
    Ok(ReceiveLine {
        exchange_id: id.to_string(),
        origin: header.origin.to_string(),
        agreement: header.agreement.id.to_string(),
        measure: header.measure.to_string(),
        lane: header.lane.as_str(),
        handling: header.handling.as_str(),
        title: description.title.clone(),
        caveats: description.caveats.clone(),
        expires_at: header.expires_at.map(output::time),
        withdraws: header.withdraws.map(|withdrawal| Withdraws {
            exchange_id: withdrawal.exchange.to_string(),
            kind: withdrawal.kind.as_str(),
        }),
        supersedes: header.supersedes.map(|id| id.to_string()),
        exercise: header.exercise,
        media_type: header.parts.first().map(|part| part.media_type.to_string()).unwrap_or_default(),
        size_bytes: header.parts.first().map_or(0, |part| part.size_bytes),
        digest: hex(&exchange.body_digest),
        recorded_at: output::optional_time(exchange.recorded_at.as_ref()),
        file: None,
    })
}

fn shown(line: &ReceiveLine) -> String {
    let ReceiveLine { origin, agreement, measure, lane, handling, title, media_type, size_bytes, .. } = line;
    let at = short_time(line.recorded_at.as_deref());
    let place = line.file.as_deref().unwrap_or(&line.exchange_id);
    let mark = if line.exercise { "EXERCISE  " } else { "" };
    let about = format!("{mark}{at}  {origin:<4}  {lane:<8}  {agreement}  {measure}  TLP:{handling}  {}", safe(title));
    let mut shown = match &line.withdraws {
        Some(Withdraws { exchange_id, kind }) => format!("{about}  withdraws {exchange_id} ({kind})"),
        None => format!("{about}  {media_type}  {size_bytes} bytes  {place}"),
    };
    if let Some(id) = &line.supersedes {
        shown.push_str(&format!("  supersedes {id}"));
    }
    // What binds whoever reads it stands right below.
    for caveat in &line.caveats {
        shown.push_str(&format!("\n    {}", safe(caveat)));
    }
    shown
}
