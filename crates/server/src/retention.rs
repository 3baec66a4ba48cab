//! Retention: after how many days the bodies of settled exchanges go, and what a run of it took away, in counts and bytes only.

use std::collections::BTreeMap;
use std::time::Duration;

use concord_model::{Lane, Reason, Refusal, Timestamp};
use concord_wire::convert::timestamp;
use concord_wire::proto::operations::v1 as pb;
use serde::Deserialize;

/// The longest time that a configuration may ask for.
pub const RETENTION_DAYS_MAX: u32 = 36_500;
/// Where a time is configured, from one run to the next.
const RUN_EVERY: Duration = Duration::from_hours(24);
/// From a run that could not go whole to the next: a clock or a disk may be right again by then.
const TRY_AGAIN: Duration = Duration::from_mins(10);
const MICROS_PER_DAY: i64 = 86_400 * 1_000_000;

/// The `[retention]` of a configuration; what is absent is kept for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// After so many days the bodies of settled exchanges go.
    pub bodies_days: Option<u32>,
}

impl Retention {
    /// Checks what a file says.
    pub fn checked(self) -> Result<Self, String> {
        match self.bodies_days {
            Some(days) if days == 0 || days > RETENTION_DAYS_MAX => {
                Err(format!("retention.bodies_days = {days} is not between 1 and {RETENTION_DAYS_MAX}"))
            }
            _ => Ok(self),
        }
    }

    /// The section as `init` writes it.
    pub fn to_toml(self) -> String {
        let days =
            self.bodies_days.map_or_else(|| "# bodies_days = 365".to_owned(), |days| format!("bodies_days = {days}"));
        format!(
            "
# What goes by itself, once a day. Without a number everything is kept for ever.
[retention]
# So many days after it was recorded, the title and body of an exchange are overwritten for good if it is settled: everybody who
# was to have it has acknowledged it. Headers, receipts and digests stay, and the journal goes on to verify.
{days}
"
        )
    }

    /// Has `run` done once a day where a time is configured, for as long as the process does.
    pub async fn keep<F>(self, run: impl Fn() -> F)
    where
        F: Future<Output = Result<pb::RetentionReport, Refusal>>,
    {
        while self.bodies_days.is_some() {
            let next = match run().await {
                Ok(report) => {
                    tracing::info!(rows = report.rows.len(), "the retention ran");
                    RUN_EVERY
                }
                Err(refusal) => {
                    tracing::warn!(why = refusal.message, "the retention did not run whole");
                    TRY_AGAIN
                }
            };
            tokio::time::sleep(next).await;
        }
    }

    /// Before when an exchange must have been recorded for its bodies to go: by what was asked for, or else by the configuration.
    ///
    /// `now` is none while the clock is not believed: one that is wrong by years must take nothing away. Refuses with
    /// `ARGUMENT_INVALID` where neither names a number of days, and with `CLOCK_SUSPECT`.
    pub fn cut_off(self, asked_days: Option<u32>, now: Option<Timestamp>) -> Result<Timestamp, Refusal> {
        let days = asked_days.or(self.bodies_days).filter(|days| *days <= RETENTION_DAYS_MAX);
        let days = days.ok_or_else(|| {
            let what = format!(
                "no time is configured: write bodies_days under [retention], or ask for days, at most {RETENTION_DAYS_MAX}"
            );
            Refusal::new(Reason::ArgumentInvalid, what)
        })?;
        let what = "what goes is chosen by time, and the machine's clock is not believed";
        let now = now.ok_or_else(|| Refusal::new(Reason::ClockSuspect, what))?;
        Ok(Timestamp::from_micros(now.as_micros().saturating_sub(i64::from(days) * MICROS_PER_DAY)))
    }
}

/// What goes, by agreement and lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionTally {
    rows: BTreeMap<(String, Lane), (u64, u64)>,
    unsettled: u64,
}

impl RetentionTally {
    /// One exchange whose bodies go.
    pub fn goes(&mut self, agreement: &str, lane: Lane, bytes: u64) {
        let (exchanges, sum) = self.rows.entry((agreement.to_owned(), lane)).or_default();
        *exchanges += 1;
        *sum += bytes;
    }

    /// One that is old enough, and whose bodies stay because somebody has yet to acknowledge it.
    pub fn stays(&mut self) {
        self.unsettled += 1;
    }

    /// As it is told.
    pub fn report(self, before: Timestamp) -> pb::RetentionReport {
        let row = |((agreement, lane), (exchanges, bytes)): ((String, Lane), (u64, u64))| pb::RetentionRow {
            agreement,
            lane: lane.to_string(),
            exchanges,
            bytes,
        };
        pb::RetentionReport {
            before: Some(timestamp(before)),
            rows: self.rows.into_iter().map(row).collect(),
            unsettled_exchanges: self.unsettled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_writes_is_read_again_and_nothing_goes_unless_it_is_said() {
        #[derive(Deserialize)]
        struct File {
            retention: Retention,
        }
        for bodies_days in [None, Some(30)] {
            let file: File = toml::from_str(&Retention { bodies_days }.to_toml()).unwrap();
            assert_eq!(file.retention.checked(), Ok(Retention { bodies_days }));
        }
        for days in [0, RETENTION_DAYS_MAX + 1] {
            assert!(Retention { bodies_days: Some(days) }.checked().unwrap_err().contains("bodies_days"));
        }
        let now = Some(Timestamp::from_micros(3 * MICROS_PER_DAY));
        let configured = Retention { bodies_days: Some(2) };
        assert_eq!(configured.cut_off(None, now), Ok(Timestamp::from_micros(MICROS_PER_DAY)));
        assert_eq!(configured.cut_off(Some(0), now), now.ok_or_else(|| unreachable!()));
        assert_eq!(configured.cut_off(None, None).unwrap_err().reason, Reason::ClockSuspect);
        assert_eq!(Retention::default().cut_off(None, now).unwrap_err().reason, Reason::ArgumentInvalid);
    }
}
