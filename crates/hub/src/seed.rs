//! With which participants and measures a new hub begins: data of the forum, never constants of the program.

use std::collections::{BTreeMap, BTreeSet};

use concord_model::{Area, Measure, MeasureCode, Name, ParseError, Participant, ParticipantCode, ParticipantKind};
use serde::Deserialize;

use crate::error::HubError;

/// The registry and the catalogue of a new hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// Who there is; the secretariat is among them.
    pub participants: Vec<Participant>,
    /// The areas of the catalogue.
    pub areas: Vec<Area>,
    /// The catalogue.
    pub measures: Vec<Measure>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    participants: Vec<ParticipantRow>,
    areas: Vec<AreaRow>,
    measures: Vec<MeasureRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ParticipantRow {
    code: String,
    kind: String,
    names: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AreaRow {
    slug: String,
    title: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MeasureRow {
    code: String,
    slug: String,
    title: String,
}

impl Seed {
    /// CICA as it stood in 2007: 27 participants and the secretariat, 4 areas, 26 measures.
    pub fn cica_2007() -> Result<Self, HubError> {
        Self::from_toml(include_str!("../seed/cica-2007.toml"))
    }

    /// Reads a TOML of the same shape.
    pub fn from_toml(text: &str) -> Result<Self, HubError> {
        let file: File = concord_identity::settings_from_toml(text).map_err(HubError::Seed)?;
        let seed = Self::read(&file).map_err(|error| HubError::Seed(error.to_string()))?;
        seed.check().map_err(HubError::Seed)?;
        Ok(seed)
    }

    fn read(file: &File) -> Result<Self, ParseError> {
        let participant = |row: &ParticipantRow| {
            Ok(Participant {
                code: ParticipantCode::parse(&row.code)?,
                kind: row.kind.parse::<ParticipantKind>()?,
                names: row.names.clone(),
            })
        };
        let area = |row: &AreaRow| Ok(Area { slug: Name::parse(&row.slug)?, title: row.title.clone() });
        let measure = |row: &MeasureRow| {
            Ok(Measure {
                code: MeasureCode::parse(&row.code)?,
                slug: Name::parse(&row.slug)?,
                title: row.title.clone(),
            })
        };
        Ok(Self {
            participants: file.participants.iter().map(participant).collect::<Result<_, ParseError>>()?,
            areas: file.areas.iter().map(area).collect::<Result<_, ParseError>>()?,
            measures: file.measures.iter().map(measure).collect::<Result<_, ParseError>>()?,
        })
    }

    fn check(&self) -> Result<(), String> {
        unique("participant", self.participants.iter().map(|participant| participant.code.as_str()))?;
        unique("area", self.areas.iter().map(|area| area.slug.as_str()))?;
        unique("measure", self.measures.iter().map(|measure| measure.code.as_str()))?;
        let secretariat = ParticipantCode::secretariat();
        for participant in &self.participants {
            let is_secretariat = participant.kind == ParticipantKind::Secretariat;
            if is_secretariat != (participant.code == secretariat) {
                return Err(format!(
                    "{} is of kind {}; the secretariat, and only it, is {secretariat}",
                    participant.code, participant.kind
                ));
            }
            if !participant.names.contains_key("en") {
                return Err(format!("{} has no English name (names.en)", participant.code));
            }
        }
        if !self.participants.iter().any(|participant| participant.code == secretariat) {
            return Err(format!("the secretariat {secretariat} is missing"));
        }
        for measure in &self.measures {
            let area = measure.code.as_str().split('.').next().unwrap_or_default();
            if !self.areas.iter().any(|known| known.slug.as_str() == area) {
                return Err(format!("measure {} is of no area that the seed names", measure.code));
            }
        }
        Ok(())
    }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("{what} {name} stands there twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forum_of_2007_has_its_participants_areas_and_measures() {
        let seed = Seed::cica_2007().unwrap();
        let of_kind = |kind| seed.participants.iter().filter(|participant| participant.kind == kind).count();
        let kinds = ParticipantKind::ALL.map(of_kind);
        assert_eq!((kinds, seed.areas.len(), seed.measures.len()), ([18, 6, 3, 1], 4, 26));
    }

    #[test]
    fn a_seed_with_a_fault_is_refused_with_the_place_named() {
        let good = "[[participants]]\ncode='SEC'\nkind='secretariat'\nnames={en='S'}\n[[areas]]\nslug='a'\ntitle='A'\n[[measures]]\ncode='a.1'\nslug='x'\ntitle='X'\n";
        assert!(Seed::from_toml(good).is_ok());
        let check = |from: &str, to: &str, names: &str| {
            let error = Seed::from_toml(&good.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(names), "{error}");
        };
        check("'SEC'", "'KAZ'", "KAZ");
        check("kind='secretariat'", "kind='member'", "SEC");
        check("en='S'", "ru='S'", "English");
        check("code='a.1'", "code='b.1'", "b.1");
        check("title='A'", "title='A'\nextra=1", "extra");
        check("[[areas]]", "[[participants]]\ncode='SEC'\nkind='secretariat'\nnames={en='S'}\n[[areas]]", "twice");
    }
}
