//! Who acts in the demo, what they agree on, and what they send: data that the story and its expectations share.

use super::samples::{BULLETIN, EARTHQUAKE, INDICATORS, SEIZURES, Sample};

/// A state with its one agency, which may have everything that its state may have.
pub(super) struct State {
    pub(super) code: &'static str,
    pub(super) name: &'static str,
    pub(super) agency: &'static str,
}

/// An agreement; the first on it proposes.
pub(super) struct Accord {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) measures: &'static str,
    pub(super) on: &'static [&'static str],
}

/// An exchange.
pub(super) struct Item {
    /// How the tables call it.
    pub(super) name: &'static str,
    pub(super) from: &'static str,
    pub(super) accord: &'static Accord,
    pub(super) measure: &'static str,
    pub(super) lane: &'static str,
    pub(super) sample: &'static Sample,
}

pub(super) const STATES: [State; 4] = [
    State { code: "KAZ", name: "Kazakhstan", agency: "emergency-situations" },
    State { code: "IRN", name: "Iran", agency: "drug-control" },
    State { code: "TUR", name: "Turkey", agency: "disaster-management" },
    State { code: "KOR", name: "Republic of Korea", agency: "cert" },
];

pub(super) const DISASTERS: Accord = Accord {
    id: "KAZ/disaster-warnings",
    title: "Disaster warnings",
    measures: "environmental.3,environmental.5",
    on: &["KAZ", "IRN", "TUR", "KOR"],
};
pub(super) const DRUGS: Accord = Accord {
    id: "IRN/drug-trafficking",
    title: "Drug trafficking",
    measures: "challenges.2",
    on: &["IRN", "KAZ", "TUR"],
};
pub(super) const CYBERCRIME: Accord =
    Accord { id: "KOR/cybercrime", title: "Cybercrime", measures: "challenges.3", on: &["KOR", "KAZ"] };

pub(super) const ACCORDS: [&Accord; 3] = [&DISASTERS, &DRUGS, &CYBERCRIME];

/// In the order in which they are sent, each when all whom the one before concerned have it. The last goes to everybody
/// who might miss one: whoever has it and not an earlier one was not sent that one.
pub(super) const ITEMS: [Item; 4] = [
    Item {
        name: "earthquake alert",
        from: "KAZ",
        accord: &DISASTERS,
        measure: "environmental.5",
        lane: "flash",
        sample: &EARTHQUAKE,
    },
    Item {
        name: "drug seizures",
        from: "IRN",
        accord: &DRUGS,
        measure: "challenges.2",
        lane: "routine",
        sample: &SEIZURES,
    },
    Item {
        name: "cyber indicators",
        from: "KOR",
        accord: &CYBERCRIME,
        measure: "challenges.3",
        lane: "routine",
        sample: &INDICATORS,
    },
    Item {
        name: "closing bulletin",
        from: "KAZ",
        accord: &DISASTERS,
        measure: "environmental.3",
        lane: "routine",
        sample: &BULLETIN,
    },
];

/// The proposer is on the list, the others consent.
impl Accord {
    pub(super) fn proposer(&self) -> &'static str {
        self.id.split('/').next().unwrap_or(self.id)
    }

    pub(super) fn others(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.on.iter().copied().filter(|code| *code != self.proposer())
    }
}

impl Item {
    /// Whether this state is to receive it.
    pub(super) fn is_for(&self, code: &str) -> bool {
        code != self.from && self.accord.on.contains(&code)
    }
}

/// The state with this code.
pub(super) fn state(code: &str) -> Option<&'static State> {
    STATES.iter().find(|state| state.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_misses_an_exchange_receives_the_closing_one() {
        let (closing, earlier) = ITEMS.split_last().unwrap();
        for state in &STATES {
            let misses = earlier.iter().any(|item| item.from != state.code && !item.is_for(state.code));
            assert!(!misses || closing.is_for(state.code), "{}", state.code);
        }
        assert_eq!(closing.lane, "routine");
        assert_eq!(closing.accord.on.len(), STATES.len());
    }

    #[test]
    fn everybody_named_is_in_the_cast_and_proposes_under_its_own_code() {
        for accord in ACCORDS {
            assert!(accord.on.contains(&accord.proposer()));
            assert!(accord.on.iter().all(|code| state(code).is_some()));
        }
        for item in &ITEMS {
            assert!(item.accord.on.contains(&item.from) && item.accord.measures.contains(item.measure));
        }
    }
}
