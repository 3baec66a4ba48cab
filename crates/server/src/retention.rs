//! Retention: after how many days the bodies of settled exchanges go, and the segments that held them, and what a run of it took away,
//! in counts and bytes only.

use std::collections::BTreeMap;
use std::time::Duration;

use concord_model::{Lane, Reason, Refusal, Timestamp};
use concord_wire::convert::timestamp;
use concord_wire::proto::operations::v1 as pb;
use serde::Deserialize;

/// The longest time that a configuration may ask for.
pub const RETENTION_DAYS_MAX: u32 = 36_500;
/// From one run to the next.
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
    /// After so many days the journal's oldest segments go, as far as all in them is settled; not less than the above.
    pub entries_days: Option<u32>,
}

/// What somebody asks for in place of what is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AskedDays {
    /// For bodies.
    pub bodies: Option<u32>,
    /// For old segments.
    pub entries: Option<u32>,
}

/// Before when something must have been recorded to go.
///
/// Invariant: a term makes bodies go earlier than the rest says, never later, and only those of exchanges that name its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutOff {
    /// The bodies of exchanges, whatever their agreement says; none go but by a term where this is none.
    pub bodies: Option<Timestamp>,
    /// Old segments; none go where this is none. Not later than that of the bodies.
    pub entries: Option<Timestamp>,
    now: Timestamp,
}

/// By what the bodies of an exchange are old enough to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldBy {
    /// By what was asked for, or is configured.
    Own,
    /// By the term of its agreement alone.
    Term,
}

impl CutOff {
    /// All of it.
    pub const ALL: Self = Self {
        bodies: Some(Timestamp::from_micros(i64::MAX)),
        entries: Some(Timestamp::from_micros(i64::MAX)),
        now: Timestamp::from_micros(i64::MAX),
    };

    /// Whether an exchange goes that was recorded then, in microseconds, under a version with this term; and by what.
    pub fn old_by(&self, recorded_at: i64, term_days: Option<u32>) -> Option<OldBy> {
        let is_before = |before: Timestamp| recorded_at < before.as_micros();
        if self.bodies.is_some_and(is_before) {
            return Some(OldBy::Own);
        }
        term_days.map(|days| days_before(self.now, days)).is_some_and(is_before).then_some(OldBy::Term)
    }

    /// Nothing that was recorded from then on goes, where this is the shortest term.
    pub fn latest(&self, term_days_min: Option<u32>) -> Timestamp {
        let by_term = term_days_min.map(|days| days_before(self.now, days));
        self.bodies.max(by_term).unwrap_or(Timestamp::from_micros(i64::MIN))
    }
}

fn days_before(now: Timestamp, days: u32) -> Timestamp {
    Timestamp::from_micros(now.as_micros().saturating_sub(i64::from(days).saturating_mul(MICROS_PER_DAY)))
}

impl Retention {
    /// Checks what a file says.
    pub fn checked(self) -> Result<Self, String> {
        for (name, days) in [("bodies_days", self.bodies_days), ("entries_days", self.entries_days)] {
            if let Some(days) = days.filter(|days| *days == 0 || *days > RETENTION_DAYS_MAX) {
                return Err(format!("retention.{name} = {days} is not between 1 and {RETENTION_DAYS_MAX}"));
            }
        }
        match (self.bodies_days, self.entries_days) {
            (Some(bodies), Some(entries)) if entries < bodies => {
                Err(format!("retention.entries_days = {entries} is less than bodies_days = {bodies}"))
            }
            _ => Ok(self),
        }
    }

    /// The section as `init` writes it.
    pub fn to_toml(self) -> String {
        let line = |name: &str, days: Option<u32>, example: u32| match days {
            Some(days) => format!("{name} = {days}"),
            None => format!("# {name} = {example}"),
        };
        let (bodies, entries) =
            (line("bodies_days", self.bodies_days, 365), line("entries_days", self.entries_days, 730));
        format!(
            "
# What goes by itself, once a day. Without a number everything is kept for ever, but what an agreement has go earlier.
[retention]
# So many days after it was recorded, the title and body of an exchange are overwritten for good if it is settled: everybody who
# was to have it has acknowledged it. Headers, receipts and digests stay, and the journal goes on to verify.
{bodies}
# So many days, not fewer than those, after the last of its entries was recorded, an old segment of the journal goes if all in it is
# settled, and the room of its bodies is free again. What its entries say is kept beside the journal's other files.
{entries}
"
        )
    }

    /// Has `run` done once a day, for as long as the process does.
    pub async fn keep<F>(run: impl Fn() -> F)
    where
        F: Future<Output = Result<pb::RetentionReport, Refusal>>,
    {
        loop {
            let next = match run().await {
                Ok(report) => {
                    let segments = report.old_segments.map_or(0, |old| old.segments);
                    tracing::info!(rows = report.rows.len(), segments, "the retention ran");
                    RUN_EVERY
                }
                // No time is configured, and no agreement has one yet: one that comes has days to go by.
                Err(refusal) if refusal.reason == Reason::ArgumentInvalid => RUN_EVERY,
                Err(refusal) => {
                    tracing::warn!(why = refusal.message, "the retention did not run whole");
                    TRY_AGAIN
                }
            };
            tokio::time::sleep(next).await;
        }
    }

    /// Before when something must have been recorded to go: by what was asked for, or else by the configuration. Where only a time for
    /// old segments is named, that is the bodies' too.
    /// `has_terms` says whether an agreement has bodies go after days of its own: then a time may be missing here.
    ///
    /// `now` is none while the clock is not believed: one that is wrong by years must take nothing away. Refuses with
    /// `ARGUMENT_INVALID` where none of these names a number of days, or less for segments than for bodies, and with `CLOCK_SUSPECT`.
    pub fn cut_off(self, asked: AskedDays, has_terms: bool, now: Option<Timestamp>) -> Result<CutOff, Refusal> {
        let invalid = |what: String| Refusal::new(Reason::ArgumentInvalid, what);
        // Whoever asks for bodies by a time of its own means no segments by the configured one.
        let entries = asked.entries.or(self.entries_days.filter(|_| asked.bodies.is_none()));
        let bodies = asked.bodies.or(self.bodies_days).or(entries);
        if bodies.is_none() && !has_terms {
            let what = "no time is configured, and no agreement has one: write bodies_days under [retention], or name --days N";
            return Err(invalid(what.to_owned()));
        }
        if let Some(days) = [bodies, entries].into_iter().flatten().find(|days| *days > RETENTION_DAYS_MAX) {
            return Err(invalid(format!("{days} days are more than {RETENTION_DAYS_MAX}")));
        }
        if let (Some(bodies), Some(entries)) = (bodies, entries)
            && entries < bodies
        {
            let what = format!(
                "segments of {entries} days cannot go before bodies of {bodies} days: ask for as many, or more"
            );
            return Err(invalid(what));
        }
        let what = "what goes is chosen by time, and the machine's clock is not believed";
        let now = now.ok_or_else(|| Refusal::new(Reason::ClockSuspect, what))?;
        let before = |days: u32| days_before(now, days);
        Ok(CutOff { bodies: bodies.map(before), entries: entries.map(before), now })
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Going {
    exchanges: u64,
    bytes: u64,
    by_term: u64,
}

/// What goes, by agreement and lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionTally {
    rows: BTreeMap<(String, Lane), Going>,
    unsettled: u64,
    old_segments: Option<pb::OldSegments>,
}

impl RetentionTally {
    /// One exchange whose bodies go.
    pub fn goes(&mut self, agreement: &str, lane: Lane, bytes: u64, by: OldBy) {
        let going = self.rows.entry((agreement.to_owned(), lane)).or_default();
        going.exchanges += 1;
        going.bytes += bytes;
        going.by_term += u64::from(by == OldBy::Term);
    }

    /// One that is old enough, and whose bodies stay because somebody has yet to acknowledge it.
    pub fn stays(&mut self) {
        self.unsettled += 1;
    }

    /// Whether something of it stays.
    pub fn is_awaited(&self) -> bool {
        self.unsettled > 0
    }

    /// The old segments that go.
    pub fn segments(&mut self, before: Timestamp, segments: u64, bytes: u64, entries: u64) {
        self.old_segments = Some(pb::OldSegments { before: Some(timestamp(before)), segments, bytes, entries });
    }

    /// As it is told.
    pub fn report(self, before: Option<Timestamp>) -> pb::RetentionReport {
        let row = |((agreement, lane), going): ((String, Lane), Going)| pb::RetentionRow {
            agreement,
            lane: lane.to_string(),
            exchanges: going.exchanges,
            bytes: going.bytes,
            exchanges_by_term: going.by_term,
        };
        pb::RetentionReport {
            before: before.map(timestamp),
            rows: self.rows.into_iter().map(row).collect(),
            unsettled_exchanges: self.unsettled,
            old_segments: self.old_segments,
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
        for (bodies_days, entries_days) in [(None, None), (Some(30), None), (Some(30), Some(30)), (None, Some(60))] {
            let retention = Retention { bodies_days, entries_days };
            let file: File = toml::from_str(&retention.to_toml()).unwrap();
            assert_eq!(file.retention.checked(), Ok(retention));
        }
        for days in [0, RETENTION_DAYS_MAX + 1] {
            let bodies = Retention { bodies_days: Some(days), entries_days: None };
            assert!(bodies.checked().unwrap_err().contains("bodies_days"));
            let entries = Retention { bodies_days: None, entries_days: Some(days) };
            assert!(entries.checked().unwrap_err().contains("entries_days"));
        }
        let shorter = Retention { bodies_days: Some(30), entries_days: Some(29) };
        assert!(shorter.checked().unwrap_err().contains("less than bodies_days"));
    }

    #[test]
    fn what_is_asked_for_goes_before_what_is_configured_and_segments_never_before_bodies() {
        let now = Some(Timestamp::from_micros(9 * MICROS_PER_DAY));
        let day = |day: i64| Timestamp::from_micros(day * MICROS_PER_DAY);
        let asked = |bodies, entries| AskedDays { bodies, entries };
        let configured = Retention { bodies_days: Some(2), entries_days: Some(5) };
        let cut_off = |bodies: i64, entries: Option<i64>| {
            Ok(CutOff { bodies: Some(day(bodies)), entries: entries.map(day), now: day(9) })
        };
        assert_eq!(configured.cut_off(asked(None, None), false, now), cut_off(7, Some(4)));
        assert_eq!(
            configured.cut_off(asked(Some(0), None), false, now),
            cut_off(9, None),
            "segments were not asked for"
        );
        assert_eq!(configured.cut_off(asked(Some(0), Some(0)), false, now), cut_off(9, Some(9)));
        assert_eq!(configured.cut_off(asked(None, Some(3)), false, now), cut_off(7, Some(6)));
        assert_eq!(Retention::default().cut_off(asked(None, Some(3)), false, now), cut_off(6, Some(6)));
        let refused = |retention: Retention, asked, now| retention.cut_off(asked, false, now).unwrap_err().reason;
        assert_eq!(refused(configured, asked(None, None), None), Reason::ClockSuspect);
        assert_eq!(refused(configured, asked(None, Some(1)), now), Reason::ArgumentInvalid);
        assert_eq!(refused(configured, asked(Some(0), Some(RETENTION_DAYS_MAX + 1)), now), Reason::ArgumentInvalid);
        assert_eq!(refused(Retention::default(), asked(None, None), now), Reason::ArgumentInvalid);
    }

    #[test]
    fn a_term_has_bodies_go_earlier_never_later_and_only_its_own() {
        let day = |day: i64| day * MICROS_PER_DAY;
        let now = Some(Timestamp::from_micros(day(100)));
        let cut = |bodies_days, has_terms| {
            Retention { bodies_days, entries_days: None }.cut_off(AskedDays::default(), has_terms, now).unwrap()
        };
        let configured = cut(Some(30), true);
        for (recorded_at, term, expected) in [
            (day(70) - 1, None, Some(OldBy::Own)),
            (day(70), None, None),
            (day(70) - 1, Some(60), Some(OldBy::Own)),
            (day(70), Some(60), None),
            (day(90) - 1, Some(10), Some(OldBy::Term)),
            (day(90), Some(10), None),
            (day(70) - 1, Some(10), Some(OldBy::Own)),
            (day(0), Some(u32::MAX), Some(OldBy::Own)),
        ] {
            assert_eq!(configured.old_by(recorded_at, term), expected, "{recorded_at} {term:?}");
        }
        let terms_only = cut(None, true);
        assert_eq!((terms_only.bodies, terms_only.entries), (None, None));
        assert_eq!(terms_only.old_by(0, None), None, "what has no term is kept");
        assert_eq!(terms_only.old_by(0, Some(u32::MAX)), None);
        assert_eq!(terms_only.old_by(day(90) - 1, Some(10)), Some(OldBy::Term));
        let latest = |cut: CutOff, term| cut.latest(term).as_micros();
        assert_eq!((latest(configured, Some(10)), latest(configured, Some(60))), (day(90), day(70)));
        assert_eq!((latest(terms_only, Some(10)), latest(terms_only, None)), (day(90), i64::MIN));
        let unbelieved = Retention::default().cut_off(AskedDays::default(), true, None).unwrap_err();
        assert_eq!(unbelieved.reason, Reason::ClockSuspect, "a wrong clock takes nothing by a term either");
    }
}
