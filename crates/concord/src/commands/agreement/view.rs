//! How an agreement looks, and that its words are the ones its digest covers.

use concord_model::{AgreementRef, AgreementText, Fingerprint};
use concord_wire::agreement::{agreement_digest, parse_text};
use concord_wire::header::parse_agreement_ref;
use concord_wire::proto::agreement::v1::{Agreement, AgreementState, PartyState};
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{self, Output, facts, safe, table};

/// An agreement whose digest was computed again here, over the bytes that came.
pub(super) struct Shown {
    pub(super) reference: AgreementRef,
    pub(super) text: AgreementText,
    line: AgreementLine,
}

#[derive(Serialize)]
struct AgreementLine {
    id: String,
    version: u32,
    digest: String,
    state: &'static str,
    title: String,
    measures: Vec<String>,
    participants: Vec<PartyLine>,
    proposed_at: Option<String>,
    in_force_at: Option<String>,
}

#[derive(Serialize)]
struct PartyLine {
    participant: String,
    state: &'static str,
    at: Option<String>,
}

impl Shown {
    pub(super) fn read(agreement: &Agreement) -> Result<Self, Failure> {
        let stated = agreement.reference.as_ref().ok_or_else(|| Failure::answer("the agreement has no reference"))?;
        let stated = parse_agreement_ref(stated).map_err(Failure::answer)?;
        let text = parse_text(&agreement.text).map_err(Failure::answer)?;
        let reference =
            AgreementRef { id: text.id.clone(), version: text.version, digest: agreement_digest(&agreement.text) };
        if reference != stated {
            return Err(Failure::answer(format!("the text of {} is not the one that its digest names", stated.id)));
        }
        let parties = agreement.parties.iter().map(|party| PartyLine {
            participant: party.participant.clone(),
            state: party_state(party.state()),
            at: output::optional_time(party.at.as_ref()),
        });
        let line = AgreementLine {
            id: text.id.to_string(),
            version: text.version,
            digest: reference.digest.0.to_string(),
            state: state(agreement.state()),
            title: text.title.to_string(),
            measures: text.measures.iter().map(ToString::to_string).collect(),
            participants: parties.collect(),
            proposed_at: output::optional_time(agreement.proposed_at.as_ref()),
            in_force_at: output::optional_time(agreement.in_force_at.as_ref()),
        };
        Ok(Self { reference, text, line })
    }

    /// Everything that a consent signs, for a person to compare.
    pub(super) fn with_fingerprints(&self) -> String {
        let grouped = |fingerprint: &Fingerprint| fingerprint.grouped();
        let parties = table(
            &["participant", "anchor", "signing key"],
            self.text
                .parties
                .iter()
                .map(|party| vec![party.participant.to_string(), grouped(&party.anchor), grouped(&party.signing_key)]),
        );
        format!("{}\n{parties}", self.facts())
    }

    fn facts(&self) -> String {
        let line = &self.line;
        facts(&[
            ("agreement", format!("{} version {}", line.id, line.version)),
            ("title", safe(&line.title)),
            ("measures", line.measures.join(", ")),
            ("state", line.state.to_owned()),
            ("proposed", output::short_time(line.proposed_at.as_deref())),
            ("in force since", output::short_time(line.in_force_at.as_deref())),
            ("digest", line.digest.clone()),
        ])
    }
}

pub(super) fn show(shown: &Shown, output: Output) -> Result<(), Failure> {
    output.result(&shown.line, || {
        let parties = shown.line.participants.iter();
        let rows = parties.map(|party| {
            vec![party.participant.clone(), party.state.to_owned(), output::short_time(party.at.as_deref())]
        });
        format!("{}\n{}", shown.facts(), table(&["participant", "state", "since"], rows))
    })
}

pub(super) fn list(all: &[Shown], output: Output) -> Result<(), Failure> {
    let lines: Vec<&AgreementLine> = all.iter().map(|shown| &shown.line).collect();
    output.results(&lines, || {
        let rows = lines.iter().map(|line| {
            vec![
                line.id.clone(),
                line.version.to_string(),
                line.state.to_owned(),
                line.measures.join(" "),
                line.participants.iter().map(in_list).collect::<Vec<_>>().join(" "),
                safe(&line.title),
            ]
        });
        let shown = table(&["agreement", "version", "state", "measures", "participants", "title"], rows);
        if lines.is_empty() { "no agreements".to_owned() } else { shown }
    })
}

fn in_list(party: &PartyLine) -> String {
    match party.state {
        "consented" => party.participant.clone(),
        state => format!("{}({state})", party.participant),
    }
}

fn state(state: AgreementState) -> &'static str {
    match state {
        AgreementState::Unspecified => "unknown",
        AgreementState::Proposed => "proposed",
        AgreementState::InForce => "in-force",
        AgreementState::Declined => "declined",
        AgreementState::Ended => "ended",
    }
}

fn party_state(state: PartyState) -> &'static str {
    match state {
        PartyState::Unspecified => "unknown",
        PartyState::Pending => "pending",
        PartyState::Consented => "consented",
        PartyState::Declined => "declined",
        PartyState::Left => "left",
    }
}
