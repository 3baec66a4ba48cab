//! What an agency may send and receive: given and taken while it is at work, and what becomes of what nobody may have.

use std::collections::BTreeSet;

use concord_journal::{Draft, Entry, HistoryId, Journal as _, MemoryJournal};
use concord_model::{AgreementId, Digest, ExchangeId, Lane, Reason, Right, Scope};
use concord_server::{AskedDays, Clock as _, Retention, SystemClock};
use concord_wire::header;
use concord_wire::proto::agency::v1::{ReceiveRequest, ReceiveResponse};
use concord_wire::stored::node::{self as stored, Restored, RightsChange, Verdict};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::recovering::recovered;
use super::support::{
    Forum, HISTORY, MEASURE, OTHER_MEASURE, Running, delivered, founded, measure, name, prepared, until,
};
use super::uplink::context;
use crate::context::Context;
use crate::retention::Keeper;
use crate::services::{acknowledge, give, given};
use crate::writer::Judged;

pub(super) const LANE: Lane = Lane::Routine;

/// To send and receive of some measures, or all, under some agreements, or all.
pub(super) fn right(measures: &[&str], agreements: &[&str]) -> Right {
    fn scope<T: Ord>(these: impl IntoIterator<Item = T>) -> Scope<T> {
        let these: BTreeSet<T> = these.into_iter().collect();
        if these.is_empty() { Scope::All } else { Scope::These(these) }
    }
    Right {
        send: true,
        receive: true,
        measures: scope(measures.iter().map(|text| measure(text))),
        agreements: scope(agreements.iter().map(|text| AgreementId::parse(text).unwrap())),
    }
}

/// A delivery of this measure under `KAZ/drugs`, as it is journaled.
pub(super) fn mail(forum: &Forum, number: u64, of: &str) -> Judged {
    let (mut header, blobs) = forum.exchange(&forum.irn, number as u8);
    header.measure = measure(of);
    let mut delivery = delivered(&forum.irn, &header, &blobs, number);
    delivery.blobs.clear();
    let id = header::exchange_id(&delivery.header);
    Judged { verdict: Verdict::Accepted(delivery), id: Some(id), blobs, size_bytes: 1024 }
}

pub(super) struct Node {
    pub(super) forum: Forum,
    pub(super) running: Running,
    pub(super) context: Context,
    pub(super) place: tempfile::TempDir,
}

impl Node {
    pub(super) async fn new() -> Self {
        let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
        let running = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
        running.writer.feed(HISTORY, forum.feed(), 0).await.unwrap();
        let context = context(&forum, &running);
        Self { forum, running, context, place }
    }

    /// The same journal, in a history that it says was begun by a restore; what was appended behind this one is lost.
    pub(super) async fn restored(self, how: Restored, last: u64) -> Self {
        let Self { forum, running, place, .. } = self;
        let whole = running.stop().await;
        let journal = MemoryJournal::new(HistoryId([1; 16]), 0);
        for sequence in 2..=last {
            let Entry { recorded_at, kind, version, payload, blobs, .. } = whole.entry(sequence).unwrap();
            let blobs = blobs.into_iter().flatten().collect();
            let draft = Draft { recorded_at, kind, version, payload, blobs };
            journal.append(journal.tail(), vec![draft]).await.unwrap();
        }
        let now = SystemClock.now();
        let history = HistoryId(concord_server::fresh().unwrap());
        journal.begin_history(journal.tail(), history, now.as_micros()).await.unwrap();
        journal.append(journal.tail(), vec![stored::restored(how, now)]).await.unwrap();
        let running = Running::start(&forum, journal, &place.path().join(history.to_string()));
        let context = context(&forum, &running);
        Self { forum, running, context, place }
    }

    /// The hub gave back what it knows: the mailbox was acknowledged up to this number.
    pub(super) async fn recovers(&self, delivered_through: u64) {
        for lane in Lane::ALL {
            let delivered_through = if lane == LANE { delivered_through } else { 0 };
            self.running.writer.recovered(recovered(lane, delivered_through)).await.unwrap();
        }
    }

    /// The next numbers of the mailbox, one for each measure.
    pub(super) async fn receives(&self, measures: &[&str]) {
        let next = self.running.now().mailbox(LANE).received_through + 1;
        let mail = (next..).zip(measures).map(|(number, of)| mail(&self.forum, number, of)).collect();
        self.running.writer.mail(LANE, HISTORY, mail).await.unwrap();
    }

    pub(super) async fn change(&self, agency: &str, change: RightsChange) -> Result<(), Reason> {
        self.running.writer.change_rights(name(agency), change).await.map_err(|refusal| refusal.reason)
    }

    /// What the agency is given now, or goes on to be.
    pub(super) fn stream(&self, agency: &str, follow: bool) -> Given {
        let (items, stream) = mpsc::channel(1);
        let stream = given(&self.context, name(agency), ReceiverStream::new(stream));
        let request = ReceiveRequest { follow, ..ReceiveRequest::default() };
        let replaced = CancellationToken::new();
        tokio::spawn(give(self.context.clone(), name(agency), request, items, replaced.clone()));
        Given { stream: stream.boxed(), numbers: self.numbers(), _replaced: replaced.drop_guard() }
    }

    /// The numbers of the mailbox by the exchanges that they stand for.
    fn numbers(&self) -> Vec<(u64, ExchangeId)> {
        let rows = self.running.index.inbox(LANE, 1, 1000).unwrap();
        rows.into_iter().map(|(number, row)| (number, ExchangeId(Digest(row.exchange_id)))).collect()
    }

    /// The numbers that an agency is given now.
    pub(super) async fn now(&self, agency: &str) -> Vec<u64> {
        let (mut given, mut numbers) = (self.stream(agency, false), Vec::new());
        while let Some(item) = given.stream.next().await {
            numbers.push(given.number(&item.unwrap()));
        }
        numbers
    }

    pub(super) async fn acknowledge(&self, agency: &str, item: &ReceiveResponse) -> Result<(), Reason> {
        acknowledge(&self.context, name(agency), &item.cursor).await.map_err(|refusal| refusal.reason)
    }

    pub(super) fn taken(&self) -> Vec<u64> {
        self.running.index.taken_after(LANE, 0, 1000).unwrap()
    }
}

pub(super) struct Given {
    pub(super) stream: futures::stream::BoxStream<'static, Result<ReceiveResponse, Status>>,
    numbers: Vec<(u64, ExchangeId)>,
    _replaced: tokio_util::sync::DropGuard,
}

impl Given {
    pub(super) fn number(&self, item: &ReceiveResponse) -> u64 {
        let id = header::exchange_id(&item.header);
        self.numbers.iter().find(|(_, known)| *known == id).unwrap().0
    }

    /// Whether it is nothing but this.
    pub(super) async fn is_refused(&mut self, reason: Reason) -> bool {
        let first = self.stream.next().await.and_then(Result::err);
        first
            .and_then(|status| concord_wire::status::from_status(&status))
            .is_some_and(|refusal| refusal.reason == reason)
    }

    pub(super) async fn next(&mut self) -> ReceiveResponse {
        self.stream.next().await.unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_goes_while_an_exchange_waits_for_a_slow_reader_takes_it_with_it() {
    let node = Node::new().await;
    node.receives(&[MEASURE, OTHER_MEASURE, MEASURE]).await;
    let (items, stream) = mpsc::channel(1);
    let request = ReceiveRequest { follow: true, ..ReceiveRequest::default() };
    tokio::spawn(give(node.context.clone(), name("customs"), request, items, CancellationToken::new()));
    // The first waits to be taken, the second is read and waits for its place.
    until(|| stream.len() == 1).await;
    node.change("customs", RightsChange::Revoked(right(&[MEASURE], &[]))).await.unwrap();
    let mut given = Box::pin(given(&node.context, name("customs"), ReceiverStream::new(stream)));
    let numbers = node.numbers();
    let first = given.next().await.unwrap().unwrap();
    assert_eq!(header::exchange_id(&first.header), numbers[1].1, "what may not be had any more was given");
    // What comes back is given from its place on, and only that.
    node.change("customs", RightsChange::Granted(right(&[MEASURE], &[]))).await.unwrap();
    for at in [0, 2] {
        let next = given.next().await.unwrap().unwrap();
        assert_eq!(header::exchange_id(&next.header), numbers[at].1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agency_gets_what_it_is_granted_ahead_of_its_cursor_on_the_stream_that_is_open() {
    let node = Node::new().await;
    node.running.writer.add_agency(name("cyber"), vec![measure(OTHER_MEASURE)]).await.unwrap();
    node.receives(&[OTHER_MEASURE, MEASURE, OTHER_MEASURE, MEASURE]).await;
    let mut given = node.stream("cyber", true);
    let (first, third) = (given.next().await, given.next().await);
    assert_eq!([given.number(&first), given.number(&third)], [1, 3]);
    node.acknowledge("cyber", &first).await.unwrap();
    node.change("cyber", RightsChange::Granted(right(&[MEASURE], &["KAZ/drugs"]))).await.unwrap();
    let (second, fourth) = (given.next().await, given.next().await);
    assert_eq!([given.number(&second), given.number(&fourth)], [2, 4]);
    // The word for the third was under way when the right came: it does not pass the second, nor take it.
    node.acknowledge("cyber", &third).await.unwrap();
    assert_eq!(node.taken(), [1, 3]);
    assert_eq!(node.now("cyber").await, [2, 4]);
    node.acknowledge("cyber", &second).await.unwrap();
    assert_eq!(node.taken(), [1, 3, 2]);
    assert_eq!(node.now("cyber").await, [4]);
    node.acknowledge("cyber", &fourth).await.unwrap();
    assert_eq!((node.taken(), node.now("cyber").await), (vec![1, 3, 2, 4], vec![]));
    // Each of them comes to the agency that had all of it, too.
    assert_eq!(node.now("customs").await, [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agency_passed_without_the_right_and_others_had_it_is_not_given_later() {
    let node = Node::new().await;
    node.running.writer.add_agency(name("cyber"), vec![measure(OTHER_MEASURE)]).await.unwrap();
    node.receives(&[MEASURE, OTHER_MEASURE]).await;
    let second = node.stream("cyber", false).next().await;
    node.acknowledge("cyber", &second).await.unwrap();
    node.change("cyber", RightsChange::Granted(right(&[], &[]))).await.unwrap();
    assert!(node.now("cyber").await.is_empty());
    node.receives(&[MEASURE]).await;
    assert_eq!(node.now("cyber").await, [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_may_have_stays_for_whoever_is_granted_it_and_is_given_once() {
    let node = Node::new().await;
    node.running.writer.add_agency(name("cyber"), vec![measure(OTHER_MEASURE)]).await.unwrap();
    node.change("customs", RightsChange::Ended).await.unwrap();
    node.receives(&[MEASURE, OTHER_MEASURE, MEASURE]).await;
    let second = node.stream("cyber", false).next().await;
    node.acknowledge("cyber", &second).await.unwrap();
    assert_eq!(node.taken(), [2]);
    let mut following = node.stream("cyber", true);
    node.change("cyber", RightsChange::Granted(right(&[MEASURE], &[]))).await.unwrap();
    // Ahead of the cursor first, then what lies behind it.
    let (third, first) = (following.next().await, following.next().await);
    assert_eq!([following.number(&third), following.number(&first)], [3, 1]);
    node.acknowledge("cyber", &third).await.unwrap();
    assert_eq!(node.taken(), [2, 3], "what was not acknowledged was taken");
    assert_eq!(node.now("cyber").await, [1]);
    // One that is added now gets it too, until somebody has taken it.
    node.running.writer.add_agency(name("police"), Vec::new()).await.unwrap();
    assert_eq!(node.now("police").await, [1]);
    node.acknowledge("cyber", &first).await.unwrap();
    node.acknowledge("cyber", &first).await.unwrap();
    assert_eq!(node.taken(), [2, 3, 1]);
    assert!(node.now("cyber").await.is_empty() && node.now("police").await.is_empty());
    assert_eq!(node.running.now().mailbox(LANE).taken_count, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_of_what_was_taken_away_takes_nothing() {
    let node = Node::new().await;
    node.receives(&[MEASURE]).await;
    let first = node.stream("customs", false).next().await;
    node.change("customs", RightsChange::Revoked(right(&[], &[]))).await.unwrap();
    node.acknowledge("customs", &first).await.unwrap();
    assert!(node.taken().is_empty() && node.now("customs").await.is_empty());
    // It is nobody's, and stays for whoever is granted it.
    node.change("customs", RightsChange::Granted(right(&[], &["KAZ/drugs"]))).await.unwrap();
    assert_eq!(node.now("customs").await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_agency_is_told_so_and_is_never_let_in_again() {
    let node = Node::new().await;
    node.receives(&[MEASURE]).await;
    let mut given = node.stream("customs", true);
    let first = given.next().await;
    node.change("customs", RightsChange::Ended).await.unwrap();
    node.receives(&[MEASURE]).await;
    let refused = |status: Status| concord_wire::status::from_status(&status).unwrap().reason;
    assert_eq!(given.stream.next().await.unwrap().map(drop).map_err(refused), Err(Reason::AgencyUnknown));
    assert!(given.stream.next().await.is_none());
    assert_eq!(node.acknowledge("customs", &first).await, Err(Reason::AgencyUnknown));
    assert_eq!(node.change("customs", RightsChange::Ended).await, Ok(()), "again is harmless");
    assert_eq!(node.change("customs", RightsChange::Granted(right(&[], &[]))).await, Err(Reason::AgencyUnknown));
    let again = node.running.writer.add_agency(name("customs"), Vec::new()).await;
    assert_eq!(again.unwrap_err().reason, Reason::AgencyExists);
    let submitted = node.running.writer.submit(prepared(&node.forum, "r-1", b"x", LANE)).await;
    assert_eq!(submitted.unwrap_err().reason, Reason::AgencyUnknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_sent_is_judged_when_it_is_queued() {
    let node = Node::new().await;
    let submit = async |id: &str, content: &'static [u8]| {
        let queued = node.running.writer.submit(prepared(&node.forum, id, content, LANE)).await;
        queued.map(|accepted| accepted.id).map_err(|refusal| refusal.reason)
    };
    let mine = prepared(&node.forum, "r-1", b"a", LANE);
    let first = node.running.writer.submit(mine).await.unwrap();
    let only = Right { receive: false, ..right(&[MEASURE], &["KAZ/drugs"]) };
    node.change("customs", RightsChange::Revoked(only.clone())).await.unwrap();
    // What was prepared before the right went is refused where it would be queued.
    assert_eq!(submit("r-2", b"b").await, Err(Reason::MeasureNotAllowed));
    // A repeat of what was queued has its first answer.
    assert_eq!(submit("r-1", b"a").await, Ok(first.id));
    node.change("customs", RightsChange::Granted(only)).await.unwrap();
    assert!(submit("r-2", b"b").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_names_what_there_is_and_repeats_change_nothing() {
    let node = Node::new().await;
    let tail = || node.running.journal.tail().sequence;
    let grant = async |measures: &[&str], agreements: &[&str]| {
        node.change("customs", RightsChange::Granted(right(measures, agreements))).await
    };
    assert_eq!(grant(&["nothing.9"], &[]).await, Err(Reason::MeasureUnknown));
    assert_eq!(grant(&[], &["KAZ/nothing"]).await, Err(Reason::AgreementUnknown));
    let before = tail();
    assert_eq!(grant(&[], &["KAZ/drugs"]).await, Ok(()), "it has all of it already");
    assert_eq!(tail(), before);
    let none = RightsChange::Revoked(right(&["nothing.9"], &["KAZ/ended-long-ago"]));
    assert_eq!(node.change("customs", none).await, Ok(()), "what is not there can be taken away");
    assert_eq!(node.change("nobody", RightsChange::Revoked(right(&[], &[]))).await, Err(Reason::AgencyUnknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_collected_does_not_go_by_age() {
    let node = Node::new().await;
    node.change("customs", RightsChange::Ended).await.unwrap();
    node.receives(&[MEASURE]).await;
    let keeper = Keeper::new(node.context.clone(), Retention::default());
    let goes = async || {
        let report = keeper.preview(AskedDays { bodies: Some(0), entries: None }).await.unwrap();
        (report.rows.len(), report.unsettled_exchanges)
    };
    assert_eq!(goes().await, (0, 1), "what nobody may have would go");
    node.running.writer.add_agency(name("police"), Vec::new()).await.unwrap();
    let first = node.stream("police", false).next().await;
    assert_eq!(goes().await, (0, 1));
    node.acknowledge("police", &first).await.unwrap();
    assert_eq!(goes().await, (1, 0));
}
