//! Enrolment and its end are live with the next handshake, and a table is shared by all who have a clone.

use std::sync::Arc;

use crate::support::{NODE, World, connect, leaf};

#[tokio::test]
async fn an_anchor_counts_from_the_moment_it_is_added_until_it_is_taken_away() {
    let world = World::new();
    let server = world.hub();
    let client = world.client(&leaf(&world.kaz, NODE, |_| {}));
    let refused_with = async || {
        let outcome = connect(Arc::clone(&server), Arc::clone(&client)).await;
        outcome.server.err().map(|refusal| refusal.code())
    };
    world.enrol(&[&world.sec]);
    assert_eq!(refused_with().await, Some("UNKNOWN_ISSUER"));
    world.enrol(&[&world.sec, &world.kaz]);
    assert_eq!(refused_with().await, None);
    world.enrol(&[&world.sec, &world.uzb]);
    assert_eq!(refused_with().await, Some("UNKNOWN_ISSUER"));
}
