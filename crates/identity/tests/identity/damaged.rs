//! Certificates that somebody damaged, or made of noise: whoever reads them answers, and a name that is read is one that was written.

use concord_identity::{Anchor, Caller, verify_certificate};
use concord_model::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::{NODE, anchor_keys, code, identity, leaf, now};

fn read(der: &[u8], anchor: &Anchor, now: Timestamp) -> Option<String> {
    drop(Anchor::from_der(der));
    let verified = verify_certificate(&code("KAZ"), std::slice::from_ref(anchor), der, now).ok();
    let claimed = Caller::from_verified_certificate(der).ok().map(|caller| caller.identity);
    if let Some(verified) = &verified {
        assert_eq!(claimed.as_ref(), Some(verified));
    }
    verified.map(|identity| identity.to_string())
}

#[test]
fn a_certificate_with_any_one_bit_flipped_is_refused_and_a_whole_one_is_read() {
    let (keys, now) = (anchor_keys("KAZ"), now());
    let good = leaf(&keys, NODE, |_| {}).chain()[0].to_vec();
    assert_eq!(read(&good, keys.anchor(), now).as_deref(), Some(NODE));
    for bit in 0..good.len() * 8 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(read(&flipped, keys.anchor(), now), None, "bit {bit}");
    }
}

proptest! {
    #[test]
    fn noise_and_pieces_of_a_certificate_are_none(
        noise in vec(any::<u8>(), 0..300),
        from in any::<Index>(),
        to in any::<Index>(),
    ) {
        let (keys, now) = (anchor_keys("KAZ"), now());
        let good = leaf(&keys, NODE, |_| {}).chain()[0].to_vec();
        let (from, to) = (from.index(good.len()), to.index(good.len()));
        let pieces = [&good[..from.min(to)], &noise, &good[from.max(to)..]].concat();
        assert_eq!(read(&noise, keys.anchor(), now), None);
        if pieces != good {
            assert_eq!(read(&pieces, keys.anchor(), now), None);
        }
        assert_eq!(identity(NODE).to_string(), NODE);
    }
}
