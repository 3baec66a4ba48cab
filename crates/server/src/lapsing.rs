//! When a revocation list is too old: a section of the configuration, and what it says of one list at a moment.

use concord_identity::IssuerLists;
use concord_model::Timestamp;
use serde::Deserialize;

/// The longest time that a configuration may ask for.
pub const LAPSING_DAYS_MAX: u32 = 365;
const WARN_DAYS_DEFAULT: u32 = 30;
const GRACE_DAYS_DEFAULT: u32 = 7;
const MICROS_PER_DAY: i64 = 86_400 * 1_000_000;

/// The `[revocation]` of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lapsing {
    /// So many days before a list is to be followed by the next one, that is told.
    pub warn_days: u32,
    /// So many days after it, the list goes on to count; then what its issuer issued is refused.
    pub grace_days: u32,
}

impl Default for Lapsing {
    fn default() -> Self {
        Self { warn_days: WARN_DAYS_DEFAULT, grace_days: GRACE_DAYS_DEFAULT }
    }
}

/// How the newest list of an issuer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It is soon to be followed by the next one.
    Due,
    /// It was to be followed by now, and counts on until it lapses.
    Overdue,
    /// What its issuer issued is refused.
    Lapsed,
}

impl Lapsing {
    /// Checks what a file says.
    pub fn checked(self) -> Result<Self, String> {
        for (name, days) in [("warn_days", self.warn_days), ("grace_days", self.grace_days)] {
            if days > LAPSING_DAYS_MAX {
                return Err(format!("revocation.{name} = {days} is more than {LAPSING_DAYS_MAX}"));
            }
        }
        Ok(self)
    }

    /// The section as `init` writes it.
    pub fn to_toml(self) -> String {
        format!(
            "
# Revocation lists (folder revocation/) that grow old. So many days before the next list of an issuer is due that is an alarm; so many
# days after it the old one goes on to count, and then what its issuer issued is refused until a newer list is there.
[revocation]
warn_days = {}
grace_days = {}
",
            self.warn_days, self.grace_days
        )
    }

    /// Lists that were to be followed before this moment have lapsed.
    pub(crate) fn lapsed_before(self, now: Timestamp) -> Timestamp {
        Timestamp::from_micros(now.as_micros().saturating_sub(days(self.grace_days)))
    }

    /// The last moment at which a list counts that is to be followed then.
    pub(crate) fn counts_until(self, next_update: Timestamp) -> Timestamp {
        Timestamp::from_micros(next_update.as_micros().saturating_add(days(self.grace_days)))
    }

    /// How a list stands. One that is put out anew every week is not due all the time: half of its own time has to be over, too.
    pub(crate) fn stage(self, list: &IssuerLists, now: Timestamp) -> Option<Stage> {
        let (begun, next, now) = (list.this_update.as_micros(), list.next_update.as_micros(), now.as_micros());
        let half = next.saturating_sub(next.saturating_sub(begun).max(0) / 2);
        let due = half.max(next.saturating_sub(days(self.warn_days)));
        if now > self.counts_until(list.next_update).as_micros() {
            return Some(Stage::Lapsed);
        }
        match now {
            now if now >= next => Some(Stage::Overdue),
            now if now >= due => Some(Stage::Due),
            _ => None,
        }
    }
}

fn days(days: u32) -> i64 {
    i64::from(days).saturating_mul(MICROS_PER_DAY)
}

#[cfg(test)]
mod tests {
    use concord_model::ParticipantCode;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const NEXT: i64 = 20_000 * MICROS_PER_DAY;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn of_days(life: i64) -> IssuerLists {
        IssuerLists {
            participant: ParticipantCode::parse("KAZ").unwrap(),
            issuer: "CN=KAZ".to_owned(),
            this_update: at(NEXT - life * MICROS_PER_DAY),
            next_update: at(NEXT),
        }
    }

    #[test]
    fn a_list_is_due_thirty_days_before_counts_seven_days_after_and_has_lapsed_a_second_later() {
        let lapsing = Lapsing::default();
        for (days, seconds, expected) in [
            (-30, -1, None),
            (-30, 0, Some(Stage::Due)),
            (0, -1, Some(Stage::Due)),
            (0, 0, Some(Stage::Overdue)),
            (7, 0, Some(Stage::Overdue)),
            (7, 1, Some(Stage::Lapsed)),
        ] {
            let now = at(NEXT + days * MICROS_PER_DAY + seconds * SECOND);
            assert_eq!(lapsing.stage(&of_days(365), now), expected, "day {days} and {seconds} s");
            // The same border as for the lists that count.
            let is_lapsed = at(NEXT) < lapsing.lapsed_before(now);
            assert_eq!(is_lapsed, expected == Some(Stage::Lapsed), "day {days} and {seconds} s");
        }
        let at_once = Lapsing { warn_days: 0, grace_days: 0 };
        assert_eq!(at_once.stage(&of_days(365), at(NEXT - 1)), None);
        assert_eq!(at_once.stage(&of_days(365), at(NEXT)), Some(Stage::Overdue));
        assert_eq!(at_once.stage(&of_days(365), at(NEXT + 1)), Some(Stage::Lapsed));
    }

    #[test]
    fn a_list_of_a_week_is_not_due_from_its_first_day_and_one_for_ever_never_is() {
        let lapsing = Lapsing::default();
        let half = NEXT - 7 * MICROS_PER_DAY / 2;
        assert_eq!(lapsing.stage(&of_days(7), at(half - 1)), None);
        assert_eq!(lapsing.stage(&of_days(7), at(half)), Some(Stage::Due));
        let for_ever = IssuerLists { next_update: at(i64::MAX), ..of_days(7) };
        assert_eq!(lapsing.stage(&for_ever, at(NEXT)), None);
    }

    #[test]
    fn days_that_nobody_means_are_refused_by_name() {
        let long = Lapsing { grace_days: LAPSING_DAYS_MAX + 1, ..Lapsing::default() };
        assert!(long.checked().unwrap_err().contains("grace_days"));
        assert_eq!(Lapsing::default().checked(), Ok(Lapsing::default()));
    }
}
