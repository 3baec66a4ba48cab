//! The text of a version: from the words of a proposal, or from the version in force and what is to change.

use clap::Args;
use concord_model::{
    AgreementText, Digest, Fingerprint, Handling, InForceAmong, MeasureCode, MediaRange, OnwardRelease,
    ParticipantCode, ParticipantKind, Party, PartyRole, Reason, Refusal, SecretariatAccess, Terms, Timestamp, Title,
};
use concord_wire::proto::operations::v1::RegisteredParticipant;
use concord_wire::registry::parse_participant;

use crate::client::Client;
use crate::commands::participant::{registered, unknown};
use crate::exit::Failure;

/// A participant with its role: `KGZ`, or `KGZ:receive`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartySpec {
    pub(crate) code: ParticipantCode,
    role: Option<PartyRole>,
}

impl std::str::FromStr for PartySpec {
    type Err = concord_model::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (code, role) = match text.split_once(':') {
            Some((code, role)) => (code, Some(role.parse()?)),
            None => (text, None),
        };
        Ok(Self { code: code.parse()?, role })
    }
}

impl From<ParticipantCode> for PartySpec {
    fn from(code: ParticipantCode) -> Self {
        Self { code, role: None }
    }
}

/// How what is exchanged may be used. What is left out stays as it is; in a proposal it is what `Terms::default` says.
#[derive(Args)]
pub(crate) struct TermsArgs {
    /// Only bodies of these media types, such as application/cap+xml or text/*; `any` lifts it.
    #[arg(long = "media-type", value_delimiter = ',', value_name = "TYPE")]
    media: Vec<String>,
    /// The largest body, in bytes; 0: the lane's limit.
    #[arg(long, value_name = "BYTES")]
    max_size: Option<u64>,
    /// The highest handling code (TLP 2.0): CLEAR, GREEN, AMBER, AMBER+STRICT or RED.
    #[arg(long, value_name = "CODE")]
    handling_max: Option<Handling>,
    /// Days after which hub and nodes let the bodies of what is settled go, at the latest; 0: as each keeps by its own rules.
    #[arg(long, value_name = "DAYS")]
    retention_days: Option<u32>,
    /// What the secretariat may do with what passes: carries (where nothing is said) or reads.
    #[arg(long, value_name = "ACCESS")]
    secretariat: Option<SecretariatAccess>,
    /// How far a recipient may pass it on: none, state, with-consent (where nothing is said in a proposal) or free.
    #[arg(long, value_name = "HOW")]
    onward_release: Option<OnwardRelease>,
    /// When the agreement lapses by itself, such as 2027-12-31T00:00:00Z; `never` lifts it.
    #[arg(long, value_name = "TIME")]
    valid_until: Option<String>,
}

impl TermsArgs {
    /// Whether nothing is to change.
    pub(super) fn is_empty(&self) -> bool {
        let Self { media, max_size, handling_max, retention_days, secretariat, onward_release, valid_until } = self;
        media.is_empty()
            && max_size.is_none()
            && handling_max.is_none()
            && retention_days.is_none()
            && secretariat.is_none()
            && onward_release.is_none()
            && valid_until.is_none()
    }

    /// These terms, over those that stood.
    pub(super) fn over(&self, mut terms: Terms) -> Result<Terms, Failure> {
        match self.media.as_slice() {
            [] => {}
            [any] if any == "any" => terms.media.clear(),
            named => {
                terms.media = named.iter().map(|range| MediaRange::parse(range)).collect::<Result<_, _>>()?;
                terms.media.sort();
                terms.media.dedup();
            }
        }
        if let Some(size) = self.max_size {
            terms.body_size_max_bytes = Some(size).filter(|size| *size > 0);
        }
        if let Some(days) = self.retention_days {
            terms.retention_days = Some(days).filter(|days| *days > 0);
        }
        terms.handling_max = self.handling_max.unwrap_or(terms.handling_max);
        terms.secretariat = self.secretariat.unwrap_or(terms.secretariat);
        terms.onward_release = self.onward_release.unwrap_or(terms.onward_release);
        Ok(terms)
    }

    /// When it lapses, over what stood.
    pub(super) fn valid_until_over(&self, before: Option<Timestamp>) -> Result<Option<Timestamp>, Failure> {
        match self.valid_until.as_deref() {
            None => Ok(before),
            Some("never") => Ok(None),
            Some(text) => crate::output::parse_time("--valid-until", text).map(Some),
        }
    }
}

/// What an amendment changes.
#[derive(Args)]
pub(crate) struct Changes {
    /// What it is about, in words.
    #[arg(long)]
    title: Option<Title>,
    /// Add participants, or change their roles: CODE or CODE:contribute, CODE:receive, CODE:both.
    #[arg(long, value_delimiter = ',', value_name = "CODE[:ROLE]")]
    add_participant: Vec<PartySpec>,
    /// Take participants off the list; they have to consent to that too.
    #[arg(long, value_delimiter = ',', value_name = "CODE")]
    remove_participant: Vec<ParticipantCode>,
    /// Add measures.
    #[arg(long, value_delimiter = ',', value_name = "CODE")]
    add_measure: Vec<MeasureCode>,
    /// Take measures away.
    #[arg(long, value_delimiter = ',', value_name = "CODE")]
    remove_measure: Vec<MeasureCode>,
    #[command(flatten)]
    terms: TermsArgs,
}

/// The version after the one in force, with these changes, and everybody's present keys.
pub(super) async fn amended(
    client: &Client,
    current: &super::view::Shown,
    version: u32,
    changes: Changes,
) -> Result<AgreementText, Failure> {
    let text = &current.text;
    let is_on = |code: &ParticipantCode| text.party(code).is_some();
    if let Some(stranger) = changes.remove_participant.iter().find(|code| !is_on(code)) {
        return Err(Failure::usage(format!("{stranger} is not on {}", text.id)));
    }
    if let Some(absent) = changes.remove_measure.iter().find(|measure| !text.measures.contains(measure)) {
        return Err(Failure::usage(format!("{} does not cover {absent}", text.id)));
    }
    let gone = current.gone();
    let mut specs: Vec<PartySpec> = Vec::new();
    for party in &text.parties {
        let code = &party.participant;
        if !changes.remove_participant.contains(code) && !gone.contains(code) {
            specs.push(PartySpec { code: code.clone(), role: Some(party.role) });
        }
    }
    for added in changes.add_participant {
        match specs.iter_mut().find(|spec| spec.code == added.code) {
            Some(known) => known.role = added.role.or(known.role),
            None => specs.push(added),
        }
    }
    let mut measures: Vec<_> = text.measures.iter().chain(&changes.add_measure).cloned().collect();
    measures.retain(|measure| !changes.remove_measure.contains(measure));
    measures.sort();
    measures.dedup();
    let outgoing = changes.remove_participant.iter().filter(|code| current.has_consented(code));
    let mut outgoing: Vec<_> = outgoing.cloned().collect();
    outgoing.sort();
    outgoing.dedup();
    Ok(AgreementText {
        id: text.id.clone(),
        version,
        title: changes.title.unwrap_or_else(|| text.title.clone()),
        measures,
        parties: parties(client, specs).await?,
        terms: changes.terms.over(text.terms.clone())?,
        valid_until: changes.terms.valid_until_over(text.valid_until)?,
        amends: Some(current.reference.clone()),
        outgoing,
        // What members have agreed to is changed with the word of all of them.
        in_force: InForceAmong::All,
    })
}

impl Changes {
    /// Whether nothing is to change: everybody's present keys only.
    pub(super) fn is_empty(&self) -> bool {
        let Self { title, add_participant, remove_participant, add_measure, remove_measure, terms } = self;
        title.is_none()
            && add_participant.is_empty()
            && remove_participant.is_empty()
            && add_measure.is_empty()
            && remove_measure.is_empty()
            && terms.is_empty()
    }
}

/// All other member states that can be named on an agreement, in this role.
pub(super) async fn enrolled_members(
    client: &Client,
    own: &ParticipantCode,
    role: PartyRole,
) -> Result<Vec<PartySpec>, Failure> {
    let mut members = Vec::new();
    for one in registered(client).await?.into_iter().filter(|one| one.enrolled.is_some()) {
        let participant = one.participant.as_ref().ok_or_else(|| Failure::answer("a participant is missing"))?;
        let participant = parse_participant(participant).map_err(Failure::answer)?;
        if participant.kind == ParticipantKind::Member && participant.code != *own {
            members.push(PartySpec { code: participant.code, role: Some(role) });
        }
    }
    Ok(members)
}

/// Each party with its role and the keys that it is enrolled with: what a consent pins. Sorted; the last role said of one counts.
pub(super) async fn parties(client: &Client, mut specs: Vec<PartySpec>) -> Result<Vec<Party>, Failure> {
    let all = registered(client).await?;
    specs.sort_by(|one, other| one.code.cmp(&other.code));
    // Whoever is named with a role and without one has the role.
    specs.dedup_by(|later, first| {
        let same = later.code == first.code;
        if same {
            first.role = later.role.or(first.role);
        }
        same
    });
    specs.into_iter().map(|spec| party(&all, spec)).collect()
}

fn party(all: &[RegisteredParticipant], PartySpec { code, role }: PartySpec) -> Result<Party, Failure> {
    let is_it = |one: &&RegisteredParticipant| {
        one.participant.as_ref().is_some_and(|participant| participant.code == code.as_str())
    };
    let found = all.iter().find(is_it).ok_or_else(|| unknown(&code))?;
    let keys = found
        .enrolled
        .as_ref()
        .ok_or_else(|| Refusal::new(Reason::ParticipantNotEnrolled, format!("{code} has no enrolled keys yet")))?;
    let fingerprint = |bytes: &[u8]| Digest::from_slice(bytes).map(Fingerprint).map_err(Failure::answer);
    Ok(Party {
        anchor: fingerprint(&keys.anchor_fingerprint)?,
        signing_key: fingerprint(&keys.signing_key_fingerprint)?,
        role: role.unwrap_or(PartyRole::Both),
        participant: code,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_participant_is_named_with_or_without_its_role() {
        let parse = |text: &str| text.parse::<PartySpec>();
        assert_eq!(parse("KGZ:receive").unwrap().role, Some(PartyRole::Receive));
        assert_eq!(parse("KGZ").unwrap().role, None);
        assert!(parse("KGZ:reader").is_err() && parse("kgz").is_err() && parse("KGZ:").is_err());
    }
}
