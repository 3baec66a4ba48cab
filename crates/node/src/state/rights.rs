//! What an agency may send and receive: rules in their order, of which the later one counts; and which agency a received exchange is for.
//!
//! Invariant: what an agency may have is judged by [`entitled`] alone, wherever it is asked: when an exchange is read, when it is handed
//! to the connection, when it is acknowledged, counted, or let go.

use std::collections::BTreeSet;

use concord_model::{AgencyName, AgreementId, Handling, Header, Lane, MeasureCode, Right, Scope};
use serde::{Deserialize, Serialize};

use super::Agency;

/// Rules of one agency and direction. One more is refused: `ARGUMENT_INVALID`.
pub const RULES_MAX: usize = 128;

/// What of a received exchange tells which agencies it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its measure.
    pub measure: MeasureCode,
    /// The agreement under which it came.
    pub agreement: AgreementId,
    /// It is only for agencies that were granted the measure by name.
    pub strict: bool,
    /// The agencies that it names, where it names any: nobody else is given it.
    pub only: Option<BTreeSet<AgencyName>>,
    /// Its origin took it back: whoever was not given it yet is not.
    pub is_withdrawn: bool,
    /// It is an exercise: that changes nothing but how it is shown.
    pub exercise: bool,
}

impl About {
    /// Of an exchange.
    pub fn of(header: &Header) -> Self {
        let named = header.agencies.iter().cloned().collect();
        let names_agencies = !header.agencies.is_empty() || header.handling == Handling::Red;
        Self {
            measure: header.measure.clone(),
            agreement: header.agreement.id.clone(),
            strict: header.handling == Handling::AmberStrict,
            only: names_agencies.then_some(named),
            is_withdrawn: false,
            exercise: header.exercise,
        }
    }
}

/// Whether an agency may have a received exchange.
pub fn entitled(agency: &Agency, about: &About) -> bool {
    let is_it = |one: &AgencyName| one.agency == agency.name && one.participant == agency.participant;
    let is_named = about.only.as_ref().is_none_or(|only| only.iter().any(is_it));
    let is_named = is_named || concord_faults::planted("give-what-names-others");
    is_named && !about.is_withdrawn && agency.receive.grant_for(about).is_some()
}

/// By which rule an exchange is to be given to an agency: it may have it, and has not acknowledged it, nor passed it by before it had
/// the right. Answers since which entry of the journal.
pub fn owed(agency: &Agency, about: &About, lane: Lane, number: u64) -> Option<u64> {
    let rule = agency.receive.grant_for(about).filter(|_| entitled(agency, about))?;
    (number > rule.through[lane.slot()]).then_some(rule.since)
}

/// One rule of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Else taken away.
    pub granted: bool,
    /// Of these measures.
    pub measures: Scope<MeasureCode>,
    /// Under these agreements.
    pub agreements: Scope<AgreementId>,
    /// The entry of the journal that said so.
    since: u64,
    /// Of a grant, per lane: what the agency had passed when it was granted, or acknowledged since of what was given under it.
    through: [u64; Lane::ALL.len()],
}

impl Rule {
    /// An agreement that is none stands for all that no rule names.
    fn is_about(&self, measure: &MeasureCode, agreement: Option<&AgreementId>) -> bool {
        let under = match agreement {
            Some(agreement) => self.agreements.has(agreement),
            None => self.agreements == Scope::All,
        };
        under && self.measures.has(measure)
    }

    /// Else they are all.
    fn names_measures(&self) -> bool {
        self.measures != Scope::All
    }

    fn covers(&self, other: &Self) -> bool {
        self.measures.covers(&other.measures) && self.agreements.covers(&other.agreements)
    }

    fn meets(&self, other: &Self) -> bool {
        self.measures.meets(&other.measures) && self.agreements.meets(&other.agreements)
    }
}

/// The rules of one direction, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rules(Vec<Rule>);

impl Rules {
    pub(super) fn add(&mut self, granted: bool, right: &Right, since: u64, through: [u64; Lane::ALL.len()]) {
        let (measures, agreements) = (right.measures.clone(), right.agreements.clone());
        self.0.push(Rule { granted, measures, agreements, since, through });
        self.tidy();
    }

    /// Forgets rules that tell nothing any more, so that giving and taking again and again does not make the list grow.
    fn tidy(&mut self) {
        let mut kept: Vec<Rule> = Vec::with_capacity(self.0.len());
        let rules = std::mem::take(&mut self.0);
        for (place, rule) in rules.iter().enumerate() {
            let taken_later = rules[place + 1..].iter().any(|later| !later.granted && later.covers(rule));
            let has_effect = if rule.granted {
                // An older one that gives as much, since then without a break, is the one by which it is given.
                let is_older = |(at, older): (usize, &Rule)| {
                    older.granted
                        && older.covers(rule)
                        && older.names_measures() >= rule.names_measures()
                        && !kept[at..].iter().any(|between| !between.granted && between.meets(rule))
                };
                !kept.iter().enumerate().any(is_older)
            } else {
                kept.iter().any(|older| older.granted && older.meets(rule))
            };
            if !taken_later && has_effect {
                kept.push(rule.clone());
            }
        }
        self.0 = kept;
    }

    /// The rule by which this is given, if it is: the first that gives it behind the last that took it away.
    pub(super) fn grant_for(&self, about: &About) -> Option<&Rule> {
        self.grant(&about.measure, Some(&about.agreement), about.strict)
    }

    /// What is `strict` only a rule gives that names the measure; any takes it away.
    fn grant(&self, measure: &MeasureCode, agreement: Option<&AgreementId>, strict: bool) -> Option<&Rule> {
        let strict = strict && !concord_faults::planted("give-strict-to-all");
        let mut found: Option<&Rule> = None;
        for rule in self.0.iter().filter(|rule| rule.is_about(measure, agreement)) {
            found = match rule.granted {
                true if strict && !rule.names_measures() => found,
                true => found.or(Some(rule)),
                false => None,
            };
        }
        found
    }

    /// Whether this measure is given under this agreement.
    pub fn allows(&self, measure: &MeasureCode, agreement: &AgreementId) -> bool {
        self.grant(measure, Some(agreement), false).is_some()
    }

    /// Whether this measure is given under any agreement that there is or may come to be.
    pub fn allows_somewhere(&self, measure: &MeasureCode) -> bool {
        let named: BTreeSet<&AgreementId> = self.0.iter().flat_map(|rule| named(&rule.agreements)).collect();
        named.into_iter().map(Some).chain([None]).any(|agreement| self.grant(measure, agreement, false).is_some())
    }

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() > RULES_MAX
    }

    /// What was given under the rights as an entry of the journal left them was acknowledged.
    pub(super) fn acknowledged(&mut self, lane: Lane, through: u64, rights_at: u64) {
        for rule in self.0.iter_mut().filter(|rule| rule.granted && rule.since <= rights_at) {
            let cursor = &mut rule.through[lane.slot()];
            *cursor = through.max(*cursor);
        }
    }

    /// Moves every cursor of a lane.
    pub(super) fn begin(&mut self, lane: Lane, moved: impl Fn(u64) -> u64) {
        self.0.iter_mut().map(|rule| &mut rule.through[lane.slot()]).for_each(|cursor| *cursor = moved(*cursor));
    }

    /// Up to where all that was given under those rights was acknowledged; none where nothing was given under them.
    pub(super) fn lowest(&self, lane: Lane, rights_at: u64) -> Option<u64> {
        let grants = self.0.iter().filter(|rule| rule.granted && rule.since <= rights_at);
        grants.map(|rule| rule.through[lane.slot()]).min()
    }
}

fn named(agreements: &Scope<AgreementId>) -> impl Iterator<Item = &AgreementId> {
    match agreements {
        Scope::All => None,
        Scope::These(these) => Some(these),
    }
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MEASURES: [&str; 3] = ["a.1", "a.2", "a.3"];
    const AGREEMENTS: [&str; 3] = ["KAZ/x", "KAZ/y", "KAZ/z"];

    fn scope<T: Ord>(bits: u8, of: [&str; 3], parse: impl Fn(&str) -> T) -> Scope<T> {
        let these: BTreeSet<T> = (0..3).filter(|bit| bits & 1 << bit != 0).map(|bit| parse(of[bit])).collect();
        if these.is_empty() { Scope::All } else { Scope::These(these) }
    }

    fn abouts() -> Vec<About> {
        let under = |text: &str| AGREEMENTS.map(|id| plain(text, id));
        MEASURES.into_iter().flat_map(under).collect()
    }

    fn plain(measure: &str, under: &str) -> About {
        let measure = MeasureCode::parse(measure).unwrap();
        About { measure, agreement: agreement(under), strict: false, only: None, is_withdrawn: false, exercise: false }
    }

    #[test]
    fn what_is_strict_is_for_those_who_were_granted_the_measure_by_name() {
        let right = |measures| Right { send: false, receive: true, measures, agreements: Scope::All };
        let by_name = right(Scope::These([MeasureCode::parse("a.1").unwrap()].into()));
        let strict = About { strict: true, ..plain("a.1", "KAZ/x") };
        let mut rules = Rules::default();
        rules.add(true, &right(Scope::All), 1, [0; 3]);
        assert!(rules.grant_for(&strict).is_none() && rules.grant_for(&plain("a.1", "KAZ/x")).is_some());
        rules.add(true, &by_name, 2, [0; 3]);
        assert!(rules.grant_for(&strict).is_some());
        assert!(rules.grant_for(&About { strict: true, ..plain("a.2", "KAZ/x") }).is_none());
        rules.add(false, &right(Scope::All), 3, [0; 3]);
        assert!(rules.grant_for(&strict).is_none());
        rules.add(true, &right(Scope::All), 4, [0; 3]);
        assert!(rules.grant_for(&strict).is_none(), "what was taken away is not given by a grant of all");
    }

    fn agreement(text: &str) -> AgreementId {
        AgreementId::parse(text).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        /// Against a list that keeps every rule: what is given, by which rule, and how far that was acknowledged.
        #[test]
        fn a_tidy_list_says_what_the_whole_one_would(steps in prop::collection::vec((any::<bool>(), 0_u8..8, 0_u8..8, 0_u64..4), 1..24)) {
            let (mut tidy, mut whole) = (Rules::default(), Rules::default());
            for (since, (granted, measures, agreements, acknowledged)) in (1_u64..).zip(steps) {
                let right = Right {
                    send: false,
                    receive: true,
                    measures: scope(measures, MEASURES, |text| MeasureCode::parse(text).unwrap()),
                    agreements: scope(agreements, AGREEMENTS, agreement),
                };
                tidy.add(granted, &right, since, [since; 3]);
                let (measures, agreements) = (right.measures, right.agreements);
                whole.0.push(Rule { granted, measures, agreements, since, through: [since; 3] });
                for rules in [&mut tidy, &mut whole] {
                    rules.acknowledged(Lane::Flash, since + 10 * acknowledged, since - acknowledged.min(since));
                }
                for about in abouts() {
                    let by = |rules: &Rules| rules.grant_for(&about).map(|rule| (rule.since, rule.through));
                    prop_assert_eq!(by(&tidy), by(&whole));
                }
                prop_assert!(tidy.0.len() <= whole.0.len());
            }
        }
    }

    #[test]
    fn giving_and_taking_the_same_again_and_again_does_not_grow_the_list() {
        let right = |measures| Right { send: false, receive: true, measures, agreements: Scope::All };
        let some = right(Scope::These([MeasureCode::parse("a.1").unwrap()].into()));
        let mut rules = Rules::default();
        rules.add(true, &right(Scope::All), 1, [0; 3]);
        for since in 2..1000 {
            rules.add(since % 2 == 1, &some, since, [0; 3]);
            rules.add(true, &right(Scope::All), since, [0; 3]);
            assert!(rules.0.len() <= 4, "{}", rules.0.len());
        }
    }

    #[test]
    fn a_measure_is_given_somewhere_where_one_agreement_is_left() {
        let measure = MeasureCode::parse("a.1").unwrap();
        let only = |agreements| Right { send: true, receive: false, measures: Scope::All, agreements };
        let mut rules = Rules::default();
        assert!(!rules.allows_somewhere(&measure));
        rules.add(true, &only(Scope::These([agreement("KAZ/x")].into())), 1, [0; 3]);
        assert!(rules.allows_somewhere(&measure) && rules.allows(&measure, &agreement("KAZ/x")));
        assert!(!rules.allows(&measure, &agreement("KAZ/y")));
        rules.add(false, &only(Scope::These([agreement("KAZ/x")].into())), 2, [0; 3]);
        assert!(!rules.allows_somewhere(&measure) && rules.0.is_empty());
        rules.add(true, &only(Scope::All), 3, [0; 3]);
        rules.add(false, &only(Scope::These([agreement("KAZ/x")].into())), 4, [0; 3]);
        assert!(rules.allows_somewhere(&measure) && !rules.allows(&measure, &agreement("KAZ/x")));
    }
}
