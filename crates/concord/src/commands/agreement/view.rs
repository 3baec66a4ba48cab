//! How an agreement looks, and that its words are the ones its digest covers.

use concord_ledger::AudienceRule;
use concord_model::{AgreementRef, AgreementText, Fingerprint, ParticipantCode};
use concord_wire::agreement::{agreement_digest, parse_text};
use concord_wire::header::parse_agreement_ref;
use concord_wire::proto::agreement::v1::{
    Agreement, AgreementParty, AgreementState, PartyState, PreviewAudienceResponse, PreviewedParty, Signed,
};
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{self, Output, facts, inline, quoted, table};

/// An agreement whose digest was computed again here, over the bytes that came.
pub(super) struct Shown {
    pub(super) reference: AgreementRef,
    pub(super) text: AgreementText,
    pub(super) line: AgreementLine,
}

#[derive(Serialize)]
pub(super) struct AgreementLine {
    id: String,
    version: u32,
    digest: String,
    state: &'static str,
    /// all, or each who consents.
    in_force_among: &'static str,
    title: String,
    measures: Vec<String>,
    pub(super) participants: Vec<PartyLine>,
    /// Who has to consent to not being on it any more.
    pub(super) outgoing: Vec<PartyLine>,
    terms: TermsLine,
    valid_until: Option<String>,
    amends: Option<u32>,
    pub(super) proposed_at: Option<String>,
    pub(super) in_force_at: Option<String>,
    pub(super) ended_at: Option<String>,
}

#[derive(Serialize)]
struct TermsLine {
    media_types: Vec<String>,
    body_size_max_bytes: Option<u64>,
    handling_max: &'static str,
    retention_days: Option<u32>,
    secretariat: &'static str,
    onward_release: &'static str,
}

/// An agreement with the amendment that waits.
#[derive(Serialize)]
struct WithAmendment<'a> {
    #[serde(flatten)]
    counting: WithText<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amendment: Option<WithText<'a>>,
}

/// An agreement, with its paper where that was asked for.
#[derive(Serialize)]
struct WithText<'a> {
    #[serde(flatten)]
    line: &'a AgreementLine,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct PartyLine {
    pub(super) participant: String,
    role: Option<&'static str>,
    pub(super) state: &'static str,
    pub(super) at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ends_at: Option<String>,
    /// Who signed its first consent, and when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signed: Option<SignedLine>,
    /// Who signed that it comes back, the last time, and when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) returned: Option<SignedLine>,
    /// Why it declined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// What a consent pins, of those on it: grouped SHA-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    anchor_fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_key_fingerprint: Option<String>,
}

#[derive(Serialize)]
pub(super) struct SignedLine {
    pub(super) officer: String,
    pub(super) at: Option<String>,
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
        let role = |code: &str| {
            text.parties.iter().find(|party| party.participant.as_str() == code).map(|party| party.role.as_str())
        };
        let pinned = |code: &str| text.parties.iter().find(|party| party.participant.as_str() == code);
        let signed = |signed: &Signed| SignedLine {
            officer: signed.officer.clone(),
            at: output::optional_time(signed.at.as_ref()),
        };
        let party = |party: &AgreementParty| PartyLine {
            participant: party.participant.clone(),
            role: role(&party.participant),
            state: party_state(party.state()),
            at: output::optional_time(party.at.as_ref()),
            ends_at: output::optional_time(party.ends_at.as_ref()),
            signed: party.signed.as_ref().map(signed),
            returned: party.returned.as_ref().map(signed),
            reason: Some(party.reason.clone()).filter(|reason| !reason.is_empty()),
            anchor_fingerprint: pinned(&party.participant).map(|pinned| pinned.anchor.grouped()),
            signing_key_fingerprint: pinned(&party.participant).map(|pinned| pinned.signing_key.grouped()),
        };
        let terms = &text.terms;
        let line = AgreementLine {
            id: text.id.to_string(),
            version: text.version,
            digest: reference.digest.0.to_string(),
            state: state(agreement.state()),
            in_force_among: text.in_force.as_str(),
            title: text.title.to_string(),
            measures: text.measures.iter().map(ToString::to_string).collect(),
            participants: agreement.parties.iter().map(party).collect(),
            outgoing: agreement.outgoing.iter().map(party).collect(),
            terms: TermsLine {
                media_types: terms.media.iter().map(ToString::to_string).collect(),
                body_size_max_bytes: terms.body_size_max_bytes,
                handling_max: terms.handling_max.as_str(),
                retention_days: terms.retention_days,
                secretariat: terms.secretariat.as_str(),
                onward_release: terms.onward_release.as_str(),
            },
            valid_until: text.valid_until.map(output::time),
            amends: text.amends.as_ref().map(|amends| amends.version),
            proposed_at: output::optional_time(agreement.proposed_at.as_ref()),
            in_force_at: output::optional_time(agreement.in_force_at.as_ref()),
            ended_at: output::optional_time(agreement.ended_at.as_ref()),
        };
        Ok(Self { reference, text, line })
    }

    /// Where it stands, in the word of tables and JSON.
    pub(super) fn state(&self) -> &'static str {
        self.line.state
    }

    /// Whether it waits for consents.
    pub(super) fn waits(&self) -> bool {
        self.state() == "proposed"
    }

    /// When this participant consented to it, if it did.
    pub(super) fn consented_at(&self, participant: &ParticipantCode) -> Option<&str> {
        let parties = self.line.participants.iter().chain(&self.line.outgoing);
        let mut own = parties.filter(|party| party.participant == participant.as_str() && party.state == "consented");
        own.find_map(|party| party.at.as_deref())
    }

    /// The others on it who have yet to say that it is to end.
    pub(super) fn yet_to_end(&self, own: &ParticipantCode) -> Vec<&str> {
        let members =
            self.line.participants.iter().filter(|party| party.state == "consented" && party.ends_at.is_none());
        members.map(|party| party.participant.as_str()).filter(|code| *code != own.as_str()).collect()
    }

    /// Whether this participant consented to it and has not left.
    pub(super) fn has_consented(&self, code: &ParticipantCode) -> bool {
        self.line.participants.iter().any(|party| party.participant == code.as_str() && party.state == "consented")
    }

    /// Whether it is over with a leave of this participant: it takes two who consented.
    pub(super) fn ends_with_leave_of(&self, own: &ParticipantCode) -> bool {
        let members = self.line.participants.iter().filter(|party| party.state == "consented");
        members.filter(|party| party.participant != own.as_str()).count() < 2
    }

    /// Those on it whose word it still waits for.
    pub(super) fn have_yet_to_answer(&self) -> Vec<&str> {
        let waited = self.line.participants.iter().filter(|party| party.state == "pending");
        waited.map(|party| party.participant.as_str()).collect()
    }

    /// Whether this participant left it.
    pub(super) fn has_left(&self, code: &ParticipantCode) -> bool {
        self.line.participants.iter().any(|party| party.participant == code.as_str() && party.state == "left")
    }

    /// Whether this participant declined it, for good.
    pub(super) fn has_declined(&self, code: &ParticipantCode) -> bool {
        self.line.participants.iter().any(|party| party.participant == code.as_str() && party.state == "declined")
    }

    /// Those who left it, or went off it by declining.
    pub(super) fn gone(&self) -> Vec<ParticipantCode> {
        let gone = self.line.participants.iter().filter(|party| matches!(party.state, "left" | "declined"));
        gone.filter_map(|party| ParticipantCode::parse(&party.participant).ok()).collect()
    }

    /// Everything that a consent signs, for a person to compare.
    pub(super) fn with_fingerprints(&self) -> String {
        let grouped = |fingerprint: &Fingerprint| fingerprint.grouped();
        let parties = table(
            &["participant", "role", "anchor", "signing key"],
            self.text.parties.iter().map(|party| {
                let role = party.role.to_string();
                vec![party.participant.to_string(), role, grouped(&party.anchor), grouped(&party.signing_key)]
            }),
        );
        format!("{}\n{parties}", self.facts())
    }

    fn facts(&self) -> String {
        let line = &self.line;
        let mut rows = vec![
            ("agreement", format!("{} version {}", line.id, line.version)),
            ("title", inline(&line.title)),
            ("measures", line.measures.join(", ")),
            ("state", line.state.to_owned()),
            ("proposed", output::short_time(line.proposed_at.as_deref())),
            (
                "in force among",
                if line.in_force_among == "each" { "each who consents" } else { "all on it" }.to_owned(),
            ),
            ("in force since", output::short_time(line.in_force_at.as_deref())),
        ];
        if line.ended_at.is_some() {
            rows.push(("ended", output::short_time(line.ended_at.as_deref())));
        }
        if let Some(version) = line.amends {
            rows.push(("amends", format!("version {version}")));
        }
        let going: Vec<_> =
            line.outgoing.iter().map(|party| format!("{} ({})", party.participant, party.state)).collect();
        if !going.is_empty() {
            rows.push(("off the list", going.join(", ")));
        }
        rows.extend(line.terms.facts());
        rows.push((
            "lapses",
            line.valid_until.as_deref().map_or("never".to_owned(), |at| output::short_time(Some(at))),
        ));
        rows.push(("digest", line.digest.clone()));
        facts(&rows)
    }
}

impl TermsLine {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let media = if self.media_types.is_empty() { "any".to_owned() } else { self.media_types.join(", ") };
        let or = |value: Option<String>, otherwise: &str| value.unwrap_or_else(|| otherwise.to_owned());
        vec![
            ("media types", media),
            ("largest body", or(self.body_size_max_bytes.map(|size| format!("{size} bytes")), "as the lane carries")),
            ("handling up to", format!("TLP:{}", self.handling_max)),
            ("bodies are kept", or(self.retention_days.map(|days| format!("{days} days")), "as each keeps them")),
            ("the secretariat", self.secretariat.to_owned()),
            ("onward release", self.onward_release.to_owned()),
        ]
    }
}

/// The facts alone.
pub(super) fn show(shown: &Shown, amendment: Option<&Shown>, output: Output) -> Result<(), Failure> {
    let line = WithAmendment { counting: shown.without_text(), amendment: amendment.map(Shown::without_text) };
    output.result(&line, || {
        let waiting = amendment.map(|waiting| format!("\nAn amendment waits for consents:\n{}", waiting.in_full()));
        format!("{}{}", shown.in_full(), waiting.unwrap_or_default())
    })
}

/// The papers; with `--json` beside the facts.
pub(super) fn show_with(
    shown: &Shown,
    amendment: Option<&Shown>,
    text: &str,
    of_amendment: Option<&str>,
    output: Output,
) -> Result<(), Failure> {
    let line = WithAmendment {
        counting: WithText { line: &shown.line, text: Some(text) },
        amendment: amendment.map(|waiting| WithText { line: &waiting.line, text: of_amendment }),
    };
    output.result(&line, || std::iter::once(text).chain(of_amendment).collect::<Vec<_>>().join("\n\n"))
}

pub(super) fn history(all: &[Shown], output: Output) -> Result<(), Failure> {
    let lines: Vec<&AgreementLine> = all.iter().map(|shown| &shown.line).collect();
    output.results(&lines, || all.iter().map(Shown::in_full).collect::<Vec<_>>().join("\n"))
}

#[derive(Serialize)]
struct PreviewLine {
    agreement: String,
    version: u32,
    measure: String,
    participant: String,
    receives: bool,
    rule: String,
}

/// One line for each party.
pub(super) fn previewed(answer: &PreviewAudienceResponse, output: Output) -> Result<(), Failure> {
    let reference = answer.agreement.as_ref().ok_or_else(|| Failure::answer("the preview names no agreement"))?;
    let line = |party: &PreviewedParty| PreviewLine {
        agreement: reference.id.clone(),
        version: reference.version,
        measure: answer.measure.clone(),
        participant: party.participant.clone(),
        receives: party.receives,
        rule: party.rule.clone(),
    };
    let lines: Vec<_> = answer.parties.iter().map(line).collect();
    output.results(&lines, || {
        let rows = lines.iter().map(|line| {
            let receives = if line.receives { "yes" } else { "no" };
            vec![line.participant.clone(), receives.to_owned(), in_words(&line.rule).to_owned()]
        });
        let of = format!("{} version {}, {}", reference.id, reference.version, answer.measure);
        format!("{of}\n{}", table(&["participant", "receives", "because it"], rows))
    })
}

pub(crate) fn in_words(rule: &str) -> &str {
    match AudienceRule::ALL.into_iter().find(|known| known.as_str() == rule) {
        Some(AudienceRule::Receives) => "is a member that receives",
        Some(AudienceRule::ReceivesWhenReleased) => "is a member that receives; its mail waits while it is held",
        Some(AudienceRule::IsOrigin) => "is the origin",
        Some(AudienceRule::OnlyContributes) => "is on the agreement to contribute only",
        Some(AudienceRule::Left) => "left the agreement",
        Some(AudienceRule::HasNotConsented) => "has not consented to the agreement",
        Some(AudienceRule::NotNamed) => "is not among those named",
        Some(AudienceRule::NotOnVersion) => "was not on the version that decided",
        None => rule,
    }
}

impl Shown {
    const fn without_text(&self) -> WithText<'_> {
        WithText { line: &self.line, text: None }
    }

    fn in_full(&self) -> String {
        let rows = self.line.participants.iter().map(|party| {
            let ends = party.ends_at.as_ref().map_or("", |_| ", to end");
            let role = party.role.unwrap_or("-").to_owned();
            let why = party.reason.as_deref().map(|reason| format!(": {}", quoted(reason))).unwrap_or_default();
            let state = format!("{}{ends}{why}", party.state);
            vec![party.participant.clone(), role, state, output::short_time(party.at.as_deref())]
        });
        format!("{}\n{}", self.facts(), table(&["participant", "role", "state", "since"], rows))
    }
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
                inline(&line.title),
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
        AgreementState::Amended => "amended",
        AgreementState::Lapsed => "lapsed",
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
