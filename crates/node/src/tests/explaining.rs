//! What an agency hears of what came from others: by its rights now, and nothing else.

use concord_journal::Blob;
use concord_model::{ExchangeId, Header, Lane, Reason, Right, Scope, SetAsideReason};
use concord_wire::header;
use concord_wire::proto::agency::v1::{ExplainRequest, ExplainResponse, TrackState, WhyRequest, WhyResponse};
use concord_wire::stored::node::{RightsChange, Verdict};
use tonic::Status;

use super::support::{Forum, HISTORY, Running, delivered, founded, name, prepared};
use super::uplink::context;
use super::withdrawn::came;
use crate::context::Context;
use crate::services::{Asking, explain, why};
use crate::writer::Judged;

const LANE: Lane = Lane::Routine;

/// As IRN sent it.
type Sent = (Header, Vec<Blob>);

struct Node {
    forum: Forum,
    running: Running,
    context: Context,
    _place: tempfile::TempDir,
}

impl Node {
    async fn new() -> Self {
        let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
        let running = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
        running.writer.feed(HISTORY, forum.feed(), 0).await.unwrap();
        let context = context(&forum, &running);
        Self { forum, running, context, _place: place }
    }

    /// The next number of the mailbox, accepted or set aside; answers the exchange.
    async fn receives(&self, sent: &Sent, set_aside: Option<SetAsideReason>) -> ExchangeId {
        let (header, blobs) = sent.clone();
        let number = self.running.now().mailbox(LANE).received_through + 1;
        let mut delivery = delivered(&self.forum.irn, &header, &blobs, number);
        delivery.blobs.clear();
        let id = header::exchange_id(&delivery.header);
        let verdict = match set_aside {
            None => Verdict::Accepted(delivery),
            Some(reason) => Verdict::SetAside(delivery, reason.to_string()),
        };
        let judged = Judged { verdict, id: set_aside.is_none().then_some(id), blobs, size_bytes: 1024 };
        self.running.writer.mail(LANE, HISTORY, vec![judged]).await.unwrap();
        id
    }

    fn sent(&self, which: u8) -> Sent {
        self.forum.exchange(&self.forum.irn, which)
    }

    async fn ask(&self, digits: &str, about: &str) -> Result<ExplainResponse, Status> {
        let request = ExplainRequest { exchange_id: digits.to_owned(), participant: about.to_owned() };
        explain(&self.context, name("customs"), request).await
    }

    async fn why(&self, digits: &str, asking: Asking) -> Result<WhyResponse, Status> {
        why(&self.context, asking, WhyRequest { exchange_id: digits.to_owned() }).await
    }

    /// State, reason, rule, and whether it is current.
    async fn explained(&self, id: ExchangeId) -> (TrackState, String, String, bool) {
        let said = self.ask(&id.to_string(), "").await.unwrap();
        assert_eq!(said, self.ask(&id.to_string()[..8], "KAZ").await.unwrap());
        assert!(said.in_audience && said.origin == "IRN" && said.participant == "KAZ");
        assert!(said.recorded_at.is_some() && said.delivered_at.is_some());
        (said.state(), said.reason.clone(), said.rule.clone(), said.not_current.is_none())
    }

    async fn change(&self, change: impl FnOnce(Right) -> RightsChange) {
        let all = Right { send: false, receive: true, measures: Scope::All, agreements: Scope::All };
        self.running.writer.change_rights(name("customs"), change(all)).await.unwrap();
    }
}

fn said(state: TrackState, reason: &str, rule: &str, is_current: bool) -> (TrackState, String, String, bool) {
    (state, reason.to_owned(), rule.to_owned(), is_current)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_is_explained_as_it_became_and_stays_so_when_it_is_withdrawn() {
    use TrackState::{Delivered, SetAside, Taken};
    let node = Node::new().await;
    let (taken, left) = (node.receives(&node.sent(1), None).await, node.receives(&node.sent(2), None).await);
    let rights_at = node.running.now().agencies()[&name("customs")].rights_at;
    node.running.writer.acknowledge(name("customs"), LANE, 1, rights_at).await.unwrap();
    let sent = node.sent(3);
    let aside = node.receives(&sent, Some(SetAsideReason::KeyNotPinned)).await;
    assert_eq!(node.explained(taken).await, said(Taken, "", "RECEIVES", true));
    assert_eq!(node.explained(left).await, said(Delivered, "", "RECEIVES", true));
    assert_eq!(node.explained(aside).await, said(SetAside, &SetAsideReason::KeyNotPinned.to_string(), "", true));
    for (number, id) in (1..).zip([taken, left]) {
        let withdrawal = came(&node.forum, &node.forum.irn, id, number);
        node.running.writer.mail(Lane::Priority, HISTORY, vec![withdrawal]).await.unwrap();
    }
    assert_eq!(node.explained(taken).await, said(Taken, "", "RECEIVES", false));
    assert_eq!(node.explained(left).await, said(Delivered, "", "RECEIVES", false));
    // It came once more and held: that is what became of it.
    assert_eq!(node.receives(&sent, None).await, aside);
    assert_eq!(node.explained(aside).await, said(Delivered, "", "RECEIVES", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agency_may_not_have_is_explained_as_what_is_none() {
    let node = Node::new().await;
    let set_aside = Some(SetAsideReason::KeyNotPinned);
    let ids = [node.receives(&node.sent(1), None).await, node.receives(&node.sent(2), set_aside).await];
    let none = "0".repeat(64);
    let refused = async |digits: &str, about: &str| {
        let status = node.ask(digits, about).await.unwrap_err();
        (status.code(), status.message().to_owned(), status.details().to_vec())
    };
    // Of others it hears nothing, whether there is something or not.
    for about in ["IRN", "TUR", "SEC", "XXX", "kaz"] {
        for id in &ids {
            assert_eq!(refused(&id.to_string(), about).await, refused(&none, about).await, "{about}");
        }
    }
    node.change(RightsChange::Revoked).await;
    for id in ids.map(|id| id.to_string()) {
        for (digits, digits_of_none) in [(id.as_str(), none.as_str()), (&id[..8], &none[..8]), (&id[..7], &none[..7])] {
            assert_eq!(refused(digits, "").await, refused(digits_of_none, "").await);
            assert_eq!(refused(digits, "KAZ").await, refused(digits_of_none, "KAZ").await);
            let heard = async |digits| {
                let status = node.why(digits, agency()).await.unwrap_err();
                (status.code(), status.message().to_owned(), status.details().to_vec())
            };
            assert_eq!(heard(digits).await, heard(digits_of_none).await);
        }
        // Its officer answers for all that its state has.
        assert!(node.why(&id, Asking::Officer).await.is_ok() && node.why(&none, Asking::Officer).await.is_err());
        let status = node.ask(&id, "").await.unwrap_err();
        assert_eq!(concord_wire::status::from_status(&status).unwrap().reason, Reason::ExchangeUnknown);
    }
    node.change(RightsChange::Granted).await;
    for id in ids {
        assert!(node.ask(&id.to_string(), "").await.is_ok() && node.why(&id.to_string(), agency()).await.is_ok());
    }
}

fn agency() -> Asking {
    Asking::Agency(name("customs"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_officer_hears_why_it_waits_and_its_agencies_no_more_than_that_it_does() {
    let node = Node::new().await;
    let id = node.receives(&node.sent(1), None).await.to_string();
    let code = async |asking| node.why(&id, asking).await.unwrap().whereabouts[0].code.clone();
    assert_eq!(
        (code(agency()).await, code(Asking::Officer).await),
        ("WAITS_FOR_AGENCY".into(), "WAITS_FOR_AGENCY".into())
    );
    node.change(RightsChange::Revoked).await;
    assert_eq!(code(Asking::Officer).await, "UNCOLLECTED");
    // What an agency sent is its own to ask about, and its officer's.
    let sent = node.running.writer.submit(prepared(&node.forum, "r-1", b"x", LANE)).await.unwrap().id.to_string();
    let of = async |who| node.why(&sent, who).await.map(|said| said.whereabouts[0].code.clone());
    assert_eq!(of(Asking::Officer).await.unwrap(), "HUB_AWAY");
    assert_eq!(of(agency()).await.unwrap(), "HUB_AWAY");
    assert!(of(Asking::Agency(name("police"))).await.is_err());
}
