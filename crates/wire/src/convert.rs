//! Small conversions that every message needs: digests, times, lanes, ranges.

use bytes::Bytes;
use concord_ledger::IndexRange;
use concord_model::{Digest, Handling, Lane, ParseError, Reason, Refusal, Timestamp};
use prost::Name;

use crate::bounds;
use crate::proto::exchange::v1 as pb;
use crate::proto::feed::v1 as feed;

/// Turns a parse error into a refusal with the reason that fits the place.
pub fn refuse(reason: Reason) -> impl Fn(ParseError) -> Refusal {
    move |error| Refusal::new(reason, error.to_string())
}

/// Decodes a message, or refuses with what it was meant to be.
pub fn decode<M: Name + Default>(reason: Reason, what: &str, bytes: &[u8]) -> Result<M, Refusal> {
    bounds::check::<M>(bytes).map_err(|refusal| Refusal::new(reason, format!("the {what}: {}", refusal.message)))?;
    M::decode(bytes).map_err(|error| Refusal::new(reason, format!("the {what} does not parse: {error}")))
}

/// Decodes a message and refuses bytes that do not re-encode to themselves: unknown fields, other orders, long varints.
pub fn decode_canonical<M: Name + Default>(
    malformed: Reason,
    not_canonical: Reason,
    what: &str,
    bytes: &[u8],
) -> Result<M, Refusal> {
    let message: M = decode(malformed, what, bytes)?;
    // Comparing lengths first spares the encoding in the common bad case and bounds its buffer.
    if message.encoded_len() != bytes.len() || message.encode_to_vec() != bytes {
        let refusal = format!("the {what} does not encode to the same bytes again");
        return Err(Refusal::new(not_canonical, refusal));
    }
    Ok(message)
}

/// Takes a field that must be there.
pub fn required<T>(reason: Reason, what: &str, field: Option<T>) -> Result<T, Refusal> {
    field.ok_or_else(|| Refusal::new(reason, format!("{what} is missing")))
}

/// The bytes of a digest, for a message.
pub fn digest_bytes(digest: &Digest) -> Bytes {
    Bytes::copy_from_slice(digest.as_bytes())
}

/// A time as protobuf says it.
pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let micros = time.as_micros();
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(0);
    prost_types::Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}

/// A time of the years 1 to 9999, to the microsecond.
pub fn parse_timestamp(time: &prost_types::Timestamp) -> Result<Timestamp, ParseError> {
    const YEARS_1_TO_9999: std::ops::Range<i64> = -62_135_596_800..253_402_300_800;
    if !YEARS_1_TO_9999.contains(&time.seconds) || !(0..1_000_000_000).contains(&time.nanos) {
        return Err(ParseError::new(
            "time",
            format!("{}.{}", time.seconds, time.nanos),
            "a time of the years 1 to 9999",
        ));
    }
    Ok(Timestamp::from_micros(time.seconds * 1_000_000 + i64::from(time.nanos) / 1000))
}

/// A time that a peer may have left out.
pub fn optional_timestamp(time: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    time.and_then(|time| parse_timestamp(time).ok())
}

/// A lane as protobuf says it.
pub const fn lane(lane: Lane) -> pb::Lane {
    match lane {
        Lane::Flash => pb::Lane::Flash,
        Lane::Priority => pb::Lane::Priority,
        Lane::Routine => pb::Lane::Routine,
    }
}

/// A lane that must be stated.
pub fn parse_lane(value: i32) -> Result<Lane, ParseError> {
    match pb::Lane::try_from(value) {
        Ok(pb::Lane::Flash) => Ok(Lane::Flash),
        Ok(pb::Lane::Priority) => Ok(Lane::Priority),
        Ok(pb::Lane::Routine) => Ok(Lane::Routine),
        Ok(pb::Lane::Unspecified) | Err(_) => {
            Err(ParseError::new("lane", value.to_string(), "flash, priority or routine"))
        }
    }
}

/// A handling code as protobuf says it.
pub const fn handling(code: Handling) -> pb::HandlingCode {
    match code {
        Handling::Clear => pb::HandlingCode::Clear,
        Handling::Green => pb::HandlingCode::Green,
        Handling::Amber => pb::HandlingCode::Amber,
        Handling::AmberStrict => pb::HandlingCode::AmberStrict,
        Handling::Red => pb::HandlingCode::Red,
    }
}

/// A handling code that must be stated.
pub fn parse_handling(value: i32) -> Result<Handling, ParseError> {
    match pb::HandlingCode::try_from(value) {
        Ok(pb::HandlingCode::Clear) => Ok(Handling::Clear),
        Ok(pb::HandlingCode::Green) => Ok(Handling::Green),
        Ok(pb::HandlingCode::Amber) => Ok(Handling::Amber),
        Ok(pb::HandlingCode::AmberStrict) => Ok(Handling::AmberStrict),
        Ok(pb::HandlingCode::Red) => Ok(Handling::Red),
        Ok(pb::HandlingCode::Unspecified) | Err(_) => {
            Err(ParseError::new("handling code", value.to_string(), "CLEAR, GREEN, AMBER, AMBER+STRICT or RED"))
        }
    }
}

/// Ranges as protobuf says them.
pub fn ranges(ranges: &[IndexRange]) -> Vec<feed::IndexRange> {
    ranges.iter().map(|range| feed::IndexRange { first: range.first, count: range.count }).collect()
}

/// Ranges within one consignment: not empty, ascending, below its limit.
pub fn parse_ranges(ranges: &[feed::IndexRange]) -> Result<Vec<IndexRange>, ParseError> {
    let wrong = || ParseError::new("index range", format!("{ranges:?}"), "ascending ranges within one consignment");
    let mut next = 0;
    let mut parsed = Vec::with_capacity(ranges.len());
    for range in ranges {
        let end = range.first.checked_add(range.count).ok_or_else(wrong)?;
        let fits = end as usize <= concord_model::limits::CONSIGNMENT_EXCHANGES_MAX;
        if range.count == 0 || range.first < next || !fits {
            return Err(wrong());
        }
        next = end;
        parsed.push(IndexRange { first: range.first, count: range.count });
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_the_epoch_survives_the_wire() {
        for micros in [0, 1, -1, -1_000_001, 1_700_000_000_123_456] {
            let time = Timestamp::from_micros(micros);
            assert_eq!(parse_timestamp(&timestamp(time)), Ok(time));
        }
        assert!(parse_timestamp(&prost_types::Timestamp { seconds: 0, nanos: -1 }).is_err());
        assert!(parse_timestamp(&prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }).is_err());
    }

    #[test]
    fn ranges_outside_a_consignment_are_refused() {
        let range = |first, count| feed::IndexRange { first, count };
        assert!(parse_ranges(&[range(0, 1024)]).is_ok());
        for bad in [&[range(0, 0)][..], &[range(1024, 1)], &[range(u32::MAX, 2)], &[range(5, 2), range(6, 1)]] {
            assert!(parse_ranges(bad).is_err(), "{bad:?}");
        }
    }
}
