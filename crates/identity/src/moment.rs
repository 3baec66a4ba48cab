//! The same moment in the words of the model, of rustls and of X.509.

use std::time::Duration;

use concord_model::Timestamp;
use rustls::pki_types::UnixTime;
use time::OffsetDateTime;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// Moments before 1970 become 1970: no certificate of ours is valid there.
pub(crate) fn to_unix_time(moment: Timestamp) -> UnixTime {
    let seconds = u64::try_from(moment.as_micros() / MICROS_PER_SECOND).unwrap_or(0);
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

pub(crate) fn from_unix_time(time: UnixTime) -> Timestamp {
    from_seconds(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

/// X.509 counts whole seconds. A moment out of its reach becomes the nearest within.
pub(crate) fn from_seconds(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds.saturating_mul(MICROS_PER_SECOND))
}

pub(crate) fn to_date_time(moment: Timestamp) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(moment.as_micros().div_euclid(MICROS_PER_SECOND)).ok()
}

pub(crate) fn plus_seconds(moment: Timestamp, seconds: i64) -> Timestamp {
    let micros = seconds.saturating_mul(MICROS_PER_SECOND);
    Timestamp::from_micros(moment.as_micros().saturating_add(micros))
}

/// RFC 3339 in UTC, whole seconds: for errors that people read.
pub fn rfc3339(moment: Timestamp) -> String {
    let Some(at) = to_date_time(moment) else {
        return "a moment out of range".to_owned();
    };
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = at.to_hms();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_rfc_3339() {
        assert_eq!(rfc3339(from_seconds(1_795_521_600)), "2026-11-24T12:00:00Z");
        assert_eq!(rfc3339(Timestamp::from_micros(-1)), "1969-12-31T23:59:59Z");
        assert_eq!(rfc3339(Timestamp::from_micros(i64::MAX)), "a moment out of range");
    }
}
