//! What the forum decided about itself, as its secretariat's officers sign it.

use std::collections::BTreeMap;

use concord_ledger::{DecisionContent, ForumDecision};
use concord_model::{Measure, MeasureCode, Name, ParseError, Participant, ParticipantCode, Reason, Refusal, Title};

use crate::convert::refuse;
use crate::proto::agreement::v1 as pb;
use crate::proto::agreement::v1::statement::Content;

pub(super) fn encode(decision: &ForumDecision) -> Content {
    let reference = decision.reference.to_string();
    match &decision.content {
        DecisionContent::AddParticipant(participant) => Content::ParticipantAddition(pb::ParticipantAddition {
            code: participant.code.to_string(),
            kind: participant.kind.to_string(),
            names: encode_names(&participant.names),
            reference,
        }),
        DecisionContent::Rename { participant, revision, names } => {
            Content::ParticipantRenaming(pb::ParticipantRenaming {
                participant: participant.to_string(),
                revision: *revision,
                names: encode_names(names),
                reference,
            })
        }
        DecisionContent::SetKind { participant, revision, kind } => {
            Content::ParticipantKindChange(pb::ParticipantKindChange {
                participant: participant.to_string(),
                revision: *revision,
                kind: kind.to_string(),
                reference,
            })
        }
        DecisionContent::AddMeasure(measure) => {
            let (code, slug, title) = (measure.code.to_string(), measure.slug.to_string(), measure.title.clone());
            Content::MeasureAddition(pb::MeasureAddition { code, slug, title, reference })
        }
    }
}

/// Refuses with `STATEMENT_MALFORMED`; whether it may be said is the ledger's to judge.
pub(super) fn parse(content: Content) -> Result<ForumDecision, Refusal> {
    let reason = Reason::StatementMalformed;
    let wrong = refuse(reason);
    let reference;
    let content = match content {
        Content::ParticipantAddition(addition) => {
            reference = addition.reference;
            DecisionContent::AddParticipant(Participant {
                code: ParticipantCode::parse(&addition.code).map_err(&wrong)?,
                kind: addition.kind.parse().map_err(&wrong)?,
                names: names(&addition.names).map_err(&wrong)?,
            })
        }
        Content::ParticipantRenaming(renaming) => {
            reference = renaming.reference;
            DecisionContent::Rename {
                participant: ParticipantCode::parse(&renaming.participant).map_err(&wrong)?,
                revision: renaming.revision,
                names: names(&renaming.names).map_err(&wrong)?,
            }
        }
        Content::ParticipantKindChange(change) => {
            reference = change.reference;
            DecisionContent::SetKind {
                participant: ParticipantCode::parse(&change.participant).map_err(&wrong)?,
                revision: change.revision,
                kind: change.kind.parse().map_err(&wrong)?,
            }
        }
        Content::MeasureAddition(addition) => {
            reference = addition.reference;
            DecisionContent::AddMeasure(Measure {
                code: MeasureCode::parse(&addition.code).map_err(&wrong)?,
                slug: Name::parse(&addition.slug).map_err(&wrong)?,
                title: addition.title,
            })
        }
        _ => return Err(Refusal::new(reason, "it is no decision of the forum")),
    };
    Ok(ForumDecision { content, reference: Title::parse(&reference).map_err(&wrong)? })
}

fn encode_names(names: &BTreeMap<String, String>) -> Vec<pb::ParticipantName> {
    let one =
        |(language, name): (&String, &String)| pb::ParticipantName { language: language.clone(), name: name.clone() };
    names.iter().map(one).collect()
}

/// Names by language, sorted, each language once: so they are signed as they are read.
fn names(names: &[pb::ParticipantName]) -> Result<BTreeMap<String, String>, ParseError> {
    if !names.is_sorted_by(|one, next| one.language < next.language) {
        return Err(ParseError::new("names", "", "sorted by language, each once"));
    }
    Ok(names.iter().map(|local| (local.language.clone(), local.name.clone())).collect())
}
