//! Agencies behind a restore: what was taken away in the lost time is not known, so that nobody has anything before an officer said so.

use concord_journal::Journal as _;
use concord_model::{ExchangeId, Reason};
use concord_server::{AskedDays, Retention};
use concord_wire::proto::agency::v1::{SubmitRequest, WithdrawRequest};
use concord_wire::stored::node::{NodeEntry, Restored, RightsChange, read};

use super::rights::{LANE, Node, right};
use super::support::{HISTORY, MEASURE, OTHER_MEASURE, measure, name, prepared};
use super::uplink::receipt_of;
use crate::retention::Keeper;
use crate::services::track;
use crate::submit::submit;
use crate::withdraw::withdraw;
use crate::writer::Fetched;

/// The entry that says which hub was joined: what a rebuilt journal has.
const JOINED: u64 = 3;
const TAKEN: concord_model::Timestamp = concord_model::Timestamp::from_micros(0);

impl Node {
    fn tail(&self) -> u64 {
        self.running.journal.tail().sequence
    }

    async fn add(&self, agency: &str, measures: &[&str]) {
        let measures = measures.iter().map(|text| measure(text)).collect();
        self.running.writer.add_agency(name(agency), measures).await.unwrap();
    }

    async fn confirm(&self, agency: &str, with_past: bool) -> Result<(), Reason> {
        self.change(agency, RightsChange::Confirmed { with_past }).await
    }

    /// What an agency hears that may not act.
    fn refused(&self, agency: &str) -> Option<Reason> {
        self.running.now().agency(&name(agency)).err().map(|refusal| refusal.reason)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_restore_nobody_has_anything_before_an_officer_confirmed_it_and_what_waited_is_given_then() {
    let node = Node::new().await;
    node.change("customs", RightsChange::Revoked(right(&[OTHER_MEASURE], &[]))).await.unwrap();
    node.add("police", &[MEASURE, OTHER_MEASURE]).await;
    node.add("gone", &[]).await;
    node.receives(&[MEASURE, OTHER_MEASURE, MEASURE]).await;
    let first = node.stream("customs", false).next().await;
    node.acknowledge("customs", &first).await.unwrap();
    let backup = node.tail();
    // What the backup does not know.
    node.change("police", RightsChange::Revoked(right(&[MEASURE], &[]))).await.unwrap();
    node.change("gone", RightsChange::Ended).await.unwrap();

    let node = node.restored(Restored::FromBackup(TAKEN), backup).await;
    for agency in ["customs", "police", "gone"] {
        assert_eq!(node.refused(agency), Some(Reason::AgencyUnconfirmed), "{agency} is back");
        assert!(node.stream(agency, false).is_refused(Reason::AgencyUnconfirmed).await, "{agency} is given something");
        let given_more = node.change(agency, RightsChange::Granted(right(&[MEASURE], &[]))).await;
        assert_eq!(given_more, Err(Reason::AgencyUnconfirmed));
    }
    node.recovers(3).await;
    let submitted = node.running.writer.submit(prepared(&node.forum, "r-1", b"x", LANE)).await;
    assert_eq!(submitted.unwrap_err().reason, Reason::AgencyUnconfirmed);
    // Nothing goes that one of them waits for, and nobody else is given what was theirs.
    let keeper = Keeper::new(node.context.clone(), Retention::default());
    let report = keeper.preview(AskedDays { bodies: Some(0), entries: None }).await.unwrap();
    assert_eq!((report.rows.len(), report.unsettled_exchanges), (0, 3));
    assert_eq!(node.confirm("customs", false).await, Ok(()));
    assert_eq!(node.confirm("customs", false).await, Ok(()), "again is harmless");
    assert_eq!(node.now("customs").await, [3]);
    let third = node.stream("customs", false).next().await;
    node.acknowledge("customs", &third).await.unwrap();
    node.change("customs", RightsChange::Granted(right(&[OTHER_MEASURE], &[]))).await.unwrap();
    assert!(node.now("customs").await.is_empty(), "given what waits for another that is not confirmed yet");

    // The officer says again what was taken away.
    node.change("gone", RightsChange::Ended).await.unwrap();
    node.change("police", RightsChange::Revoked(right(&[MEASURE], &[]))).await.unwrap();
    assert_eq!(node.refused("police"), Some(Reason::AgencyUnconfirmed), "a word that takes away confirms nothing");
    assert_eq!(node.confirm("police", false).await, Ok(()));
    assert_eq!(node.now("police").await, [2]);
    assert_eq!(node.confirm("gone", false).await, Err(Reason::AgencyUnknown));
    assert!(node.running.now().unconfirmed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_restore_whoever_is_added_has_nothing_before_an_officers_word_and_of_the_past_only_by_it() {
    for early in [true, false] {
        let node = Node::new().await.restored(Restored::Rebuilt, JOINED).await;
        let add = async || {
            for agency in ["customs", "fresh"] {
                node.add(agency, &[MEASURE]).await;
                assert_eq!(node.refused(agency), Some(Reason::AgencyUnconfirmed), "an operator alone lets in");
                node.confirm(agency, agency == "customs").await.unwrap();
            }
        };
        if early {
            add().await;
        }
        // Two had come before, and come again; the third is new.
        node.recovers(2).await;
        node.receives(&[MEASURE, OTHER_MEASURE]).await;
        if !early {
            add().await;
        }
        node.receives(&[MEASURE]).await;
        assert_eq!(node.now("customs").await, [1, 3], "early: {early}");
        assert_eq!(node.now("fresh").await, [3], "a new one is given the past; early: {early}");
        assert_eq!(node.confirm("fresh", true).await, Err(Reason::ArgumentInvalid));
        // What nobody may have: whether anybody had the right in the lost time is not known.
        for (agency, with_past, given) in [("new", false, vec![]), ("old", true, vec![2])] {
            node.add(agency, &[OTHER_MEASURE]).await;
            node.confirm(agency, with_past).await.unwrap();
            assert_eq!(node.now(agency).await, given, "{agency}; early: {early}");
        }
        node.receives(&[OTHER_MEASURE]).await;
        assert_eq!((node.now("new").await, node.now("old").await), (vec![4], vec![2, 4]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_restore_a_cursor_of_before_acknowledges_nothing() {
    let node = Node::new().await;
    let backup = node.tail();
    node.receives(&[MEASURE, MEASURE]).await;
    let mut given = node.stream("customs", false);
    let (_, second) = (given.next().await, given.next().await);
    let node = node.restored(Restored::FromBackup(TAKEN), backup).await;
    node.recovers(2).await;
    node.confirm("customs", false).await.unwrap();
    node.receives(&[MEASURE, MEASURE]).await;
    assert_eq!(node.acknowledge("customs", &second).await, Err(Reason::CursorOutdated));
    assert_eq!((node.taken(), node.now("customs").await), (vec![], vec![1, 2]), "acknowledged what was not given");
    let first = node.stream("customs", false).next().await;
    node.acknowledge("customs", &first).await.unwrap();
    assert_eq!((node.taken(), node.now("customs").await), (vec![1], vec![2]));
}

/// Rebuilt, with one exchange that came back from the hub.
async fn with_one_that_came_back() -> (Node, ExchangeId) {
    let node = Node::new().await;
    let id = node.running.writer.submit(prepared(&node.forum, "r-1", b"x", LANE)).await.unwrap().id;
    let sequence = node.running.index.consignment(LANE, 1, 1).unwrap().unwrap();
    let entry = node.running.journal.entry(sequence).unwrap();
    let NodeEntry::Queued(queued) = read(&entry).unwrap() else { panic!("no consignment") };
    let sealed = queued.kept.sealed;
    let receipt = receipt_of(&node.forum, &sealed, false);
    let recorded = concord_wire::receipt::parse(&receipt.statement).unwrap();
    let blobs = vec![entry.blobs.into_iter().flatten().collect()];
    let node = node.restored(Restored::Rebuilt, JOINED).await;
    node.running.writer.feed(HISTORY, node.forum.feed(), 0).await.unwrap();
    node.running.writer.fetched(Box::new(Fetched { sealed, blobs, receipt, recorded })).await.unwrap();
    node.recovers(0).await;
    (node, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_is_known_to_have_sent_is_taken_back_only_by_who_may_send_the_like() {
    let (node, id) = with_one_that_came_back().await;
    for agency in ["customs", "police"] {
        node.add(agency, &[MEASURE]).await;
        node.confirm(agency, true).await.unwrap();
    }
    let sends = || concord_model::Right { receive: false, ..right(&[MEASURE], &["KAZ/drugs"]) };
    node.change("police", RightsChange::Revoked(sends())).await.unwrap();
    let take_back = async |agency: &str, digits: &str| {
        let request = WithdrawRequest { exchange_id: digits.to_owned(), ..WithdrawRequest::default() };
        withdraw(&node.context, &name(agency), request).await.map(drop).map_err(|refusal| refusal.reason)
    };
    let supersede = async |agency: &str| {
        let request = SubmitRequest {
            measure: OTHER_MEASURE.to_owned(),
            agreement_id: "KAZ/drugs".to_owned(),
            title: "In its place".to_owned(),
            media_type: "text/plain".to_owned(),
            lane: 3,
            body: bytes::Bytes::from_static(b"x"),
            supersedes: id.to_string(),
            ..SubmitRequest::default()
        };
        submit(&node.context, &name(agency), request).await.map(drop).map_err(|refusal| refusal.reason)
    };
    node.change("police", RightsChange::Granted(right(&[OTHER_MEASURE], &[]))).await.unwrap();
    assert_eq!(take_back("police", &id.to_string()).await, Err(Reason::ExchangeUnknown));
    assert_eq!(supersede("police").await, Err(Reason::ExchangeUnknown));
    let tracked = track::find(&node.context, name("police"), id.to_string()).await;
    assert!(tracked.is_err(), "it is shown to whoever may not send the like");
    assert_eq!(take_back("customs", &id.to_string()[..32]).await, Err(Reason::ExchangeUnknown), "not by a prefix");
    // Where the right goes between the look and the queue.
    let mut prepared = prepared(&node.forum, "r-2", b"y", LANE);
    prepared.withdraws = Some(id);
    prepared.by_right = Some((measure(MEASURE), prepared.answer.agreement.clone()));
    prepared.agency = name("police");
    let late = node.running.writer.submit(prepared).await.map(drop).map_err(|refusal| refusal.reason);
    assert_eq!(late, Err(Reason::ExchangeUnknown));
    assert_eq!(take_back("customs", &id.to_string()).await, Ok(()));
}
