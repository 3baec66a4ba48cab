//! The export: spans wait in a queue with an end, and go in batches as OTLP's JSON over HTTP. A collector that is slow or away costs the
//! service nothing: what finds no room, or is not taken, is counted and forgotten.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{SPANS, Span, Step, TraceSettings, hex, span_id, trace_id};

/// Spans that wait for the export. One more is dropped (`concord_spans_dropped_total`).
pub const SPANS_WAITING_MAX: usize = 2048;
const SPANS_PER_BATCH_MAX: usize = 512;
/// Spans that come one by one are gathered for so long.
const GATHERED_MILLISECONDS: u64 = 500;
/// The time for one batch, from the connection to the answer.
const EXPORT_TIMEOUT_SECONDS: u64 = 5;

/// The export of this process. Nothing, where no collector is named.
#[derive(Debug, Default)]
pub struct Traces(Option<(JoinHandle<()>, CancellationToken)>);

impl Traces {
    /// Begins by the environment. What is wrong there is said in the log and switches traces off: the service matters more.
    pub fn begin(service: &str) -> Self {
        Self::by_environment(service).unwrap_or_else(|what| {
            tracing::warn!(what, "traces are off");
            Self::default()
        })
    }

    /// The same for a process that has no log: what is wrong with which variable comes back, in words.
    pub fn by_environment(service: &str) -> Result<Self, String> {
        let settings = TraceSettings::from(|name| std::env::var(name).ok(), service)?;
        Ok(settings.map(Self::to).unwrap_or_default())
    }

    fn to(settings: TraceSettings) -> Self {
        let (sender, spans) = mpsc::channel(SPANS_WAITING_MAX);
        if SPANS.set(sender).is_err() {
            return Self::default();
        }
        tracing::info!(endpoint = %settings.endpoint, "traces go to a collector");
        let end = CancellationToken::new();
        Self(Some((tokio::spawn(export(spans, settings, end.clone())), end)))
    }

    /// Sends what waits, and ends.
    pub async fn end(self) {
        if let Some((task, end)) = self.0 {
            end.cancel();
            // It ends by itself, at the latest by the time of its batches.
            let _ended = task.await;
        }
    }
}

async fn export(mut spans: mpsc::Receiver<Span>, settings: TraceSettings, end: CancellationToken) {
    let mut taken = Vec::new();
    loop {
        let first = tokio::select! {
            biased;
            first = spans.recv() => first,
            () = end.cancelled() => None,
        };
        // At the end what waits goes at once, in one batch.
        match first {
            Some(first) => taken.push((first, SystemTime::now())),
            None => break,
        }
        let gathering = async {
            while taken.len() < SPANS_PER_BATCH_MAX {
                let Some(span) = spans.recv().await else { return };
                taken.push((span, SystemTime::now()));
            }
        };
        tokio::select! {
            () = gathering => {}
            () = sleep(Duration::from_millis(GATHERED_MILLISECONDS)) => {}
            () = end.cancelled() => {}
        }
        while taken.len() < SPANS_PER_BATCH_MAX
            && let Ok(span) = spans.try_recv()
        {
            taken.push((span, SystemTime::now()));
        }
        send(&settings, std::mem::take(&mut taken)).await;
    }
}

async fn send(settings: &TraceSettings, spans: Vec<(Span, SystemTime)>) {
    let count = spans.len() as u64;
    let body = batch(settings, &spans).to_string();
    let posted = timeout(Duration::from_secs(EXPORT_TIMEOUT_SECONDS), post(settings, body)).await;
    let outcome = posted.unwrap_or_else(|_| Err("it did not answer in time".to_owned()));
    if let Err(why) = outcome {
        metrics::counter!("concord_spans_dropped_total").increment(count);
        tracing::debug!(why, count, "the collector did not take spans");
    }
}

async fn post(settings: &TraceSettings, body: String) -> Result<(), String> {
    let words = |error: &dyn std::error::Error| error.to_string();
    let (host, port) = (settings.endpoint.host().unwrap_or_default(), settings.endpoint.port_u16().unwrap_or(80));
    let host = host.trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, port)).await.map_err(|error| words(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| words(&error))?;
    let path = settings.endpoint.path_and_query().map_or("/", |path| path.as_str());
    let authority = settings.endpoint.authority().map_or(host, |authority| authority.as_str());
    let mut request =
        Request::post(path).header(header::HOST, authority).header(header::CONTENT_TYPE, "application/json");
    for (name, value) in &settings.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| words(&error))?;
    // The connection is for this one request, and ends with it.
    let mut connected = JoinSet::new();
    connected.spawn(connection);
    let status = sender.send_request(request).await.map_err(|error| words(&error))?.status();
    if status == StatusCode::OK { Ok(()) } else { Err(format!("it answered {status}")) }
}

/// A batch as OTLP writes it in JSON: ids in hex, times in nanoseconds as text.
fn batch(settings: &TraceSettings, spans: &[(Span, SystemTime)]) -> Value {
    let mut resource =
        vec![("service.name", settings.service.as_str()), ("service.version", env!("CARGO_PKG_VERSION"))];
    resource.extend(settings.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let spans: Vec<Value> = spans.iter().map(|(span, ended)| span_in_json(span, *ended)).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": attributes(&resource) },
        "scopeSpans": [{ "scope": { "name": "concord" }, "spans": spans }],
    }] })
}

fn span_in_json(span: &Span, ended: SystemTime) -> Value {
    const INTERNAL: u8 = 1;
    const SERVER: u8 = 2;
    const CLIENT: u8 = 3;
    let kind = match span.step {
        Step::Call(_) => CLIENT,
        Step::Submit => SERVER,
        Step::Record | Step::Deliver(_) | Step::Receive(_) | Step::HandOver(..) => INTERNAL,
    };
    let mut attributes_of =
        vec![("concord.participant", span.participant.as_str()), ("concord.lane", span.lane.as_str())];
    if let Step::Deliver(to) = &span.step {
        attributes_of.push(("concord.recipient", to));
    }
    if let Step::HandOver(_, agency) = &span.step {
        attributes_of.push(("concord.agency", agency));
    }
    let before = span.step.before(span.caller).map(|step| hex(&span_id(&span.exchange, &step)));
    // The agency's own trace, which goes on in this one.
    let links = span.caller.map(|caller| json!({ "traceId": hex(&caller.trace), "spanId": hex(&caller.span) }));
    json!({
        "traceId": hex(&trace_id(&span.exchange)),
        "spanId": hex(&span_id(&span.exchange, &span.step)),
        "parentSpanId": before.unwrap_or_default(),
        "name": span.step.name(),
        "kind": kind,
        "startTimeUnixNano": nanoseconds(span.begun),
        "endTimeUnixNano": nanoseconds(ended.max(span.begun)),
        "attributes": attributes(&attributes_of),
        "links": links.into_iter().collect::<Vec<_>>(),
        "status": {},
    })
}

fn attributes(pairs: &[(&str, &str)]) -> Vec<Value> {
    pairs.iter().map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } })).collect()
}

fn nanoseconds(at: SystemTime) -> String {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}
