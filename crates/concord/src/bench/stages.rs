//! Where the hub's time goes: each step of one consignment by itself, on one thread, without network or disk.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};
use bytes::Bytes;
use concord_model::{AgreementDigest, AgreementId, AgreementRef, Digest};
use concord_wire::consignment;
use concord_wire::header;
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::tree::{Seed, Tree};
use prost::Message as _;

use super::forum::{State, consignments};

/// How often each step is done.
const REPEATS: u32 = 200;

/// One step and what it costs.
#[derive(serde::Serialize)]
pub(crate) struct Stage {
    pub(crate) stage: &'static str,
    pub(crate) microseconds: f64,
}

/// Measures the steps.
pub(crate) fn measure() -> Result<Vec<Stage>> {
    let state = State::new("KAZ")?;
    let agreement =
        AgreementRef { id: AgreementId::parse("KAZ/bench")?, version: 1, digest: AgreementDigest(Digest::ZERO) };
    let message = consignments(&state, &agreement, 1)?.remove(0);
    let bytes = Bytes::from(message.encode_to_vec());
    let public = state.signing_key.public().bytes;
    let open = |message: pb::Consignment| consignment::open(message, &state.code, |_, _, _| Ok(()));
    let opened = open(message.clone())?;
    let seed = Seed::new(*opened.sealed.seed.as_bytes());
    let ids: Vec<_> = opened.sealed.headers.iter().map(|bytes| header::exchange_id(bytes)).collect();
    let seal = consignment::signed_message(&opened.sealed.seal);
    ensure!(concord_identity::verify(&public, &seal, &opened.sealed.signature).is_ok(), "the signature does not hold");

    Ok(vec![
        stage("decode the message", || {
            black_box(pb::Consignment::decode(bytes.clone()).is_ok());
        }),
        stage("open it: headers, tree, blobs, without signature", || {
            black_box(open(message.clone()).is_ok());
        }),
        stage("  of which the tree", || {
            black_box(Tree::build(&seed, ids.iter().copied()).root());
        }),
        stage("  of which parsing headers", || {
            for header in &opened.sealed.headers {
                black_box(header::parse(header).is_ok());
            }
        }),
        stage("verify the signature", || {
            black_box(concord_identity::verify(&public, &seal, &opened.sealed.signature).is_ok());
        }),
        stage("sign the receipt", || {
            black_box(state.signing_key.sign(&seal));
        }),
    ])
}

fn stage(stage: &'static str, mut work: impl FnMut()) -> Stage {
    work();
    let begun = Instant::now();
    for _ in 0..REPEATS {
        work();
    }
    Stage { stage, microseconds: begun.elapsed().as_secs_f64() * 1e6 / f64::from(REPEATS) }
}
