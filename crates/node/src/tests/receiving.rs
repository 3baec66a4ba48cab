//! What an agency is given, and what never again.

use concord_model::Lane;
use concord_wire::proto::agency::v1::ReceiveRequest;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::judging::accepted;
use super::support::{Forum, HISTORY, Running, founded, name, until};
use super::uplink::context;
use crate::services::give;

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_of_the_agency_acknowledged_meanwhile_is_not_given_any_more() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let mail = (1..=4).map(|number| accepted(&forum, number, number as u8)).collect();
    node.writer.mail(Lane::Routine, HISTORY, mail).await.unwrap();
    let (items, mut given) = mpsc::channel(1);
    let request = ReceiveRequest { follow: true, ..ReceiveRequest::default() };
    tokio::spawn(give(context(&forum, &node), name("customs"), request, items, CancellationToken::new()));
    let first = given.recv().await.unwrap().unwrap();
    // The second is handed over, the third is read and waits for its place.
    until(|| given.len() == 1).await;
    node.writer.acknowledge(name("customs"), Lane::Routine, 3, 0).await.unwrap();
    let second = given.recv().await.unwrap().unwrap();
    let third = given.recv().await.unwrap().unwrap();
    let numbers = [first, second, third].map(|given| given.place().1);
    assert_eq!(numbers, [1, 2, 4]);
}
