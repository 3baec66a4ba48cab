//! What an agency may send and receive, on the wire and in a node's journal.

use std::collections::BTreeSet;

use concord_model::{AgreementId, MeasureCode, ParseError, Reason, Refusal, Right, Scope};

use crate::proto::operations::v1 as pb;

/// Measures, or agreements, that one right names. One with more is refused: `ARGUMENT_INVALID`.
pub const RIGHT_NAMES_MAX: usize = 256;

/// A right as a message.
pub fn right(right: &Right) -> pb::AgencyRight {
    pb::AgencyRight {
        send: right.send,
        receive: right.receive,
        measures: named(&right.measures).map(|codes| pb::RightMeasures { codes }),
        agreements: named(&right.agreements).map(|ids| pb::RightAgreements { ids }),
    }
}

fn named<T: Ord + ToString>(scope: &Scope<T>) -> Option<Vec<String>> {
    match scope {
        Scope::All => None,
        Scope::These(these) => Some(these.iter().map(ToString::to_string).collect()),
    }
}

/// Reads a right.
///
/// Refuses with `ARGUMENT_INVALID` what has no direction, an empty list, too long a one, or a name that is none.
pub fn parse_right(message: &pb::AgencyRight) -> Result<Right, Refusal> {
    if !(message.send || message.receive) {
        return Err(invalid("a right is to send, to receive, or both".to_owned()));
    }
    let measures = message.measures.as_ref().map(|measures| &measures.codes[..]);
    let agreements = message.agreements.as_ref().map(|agreements| &agreements.ids[..]);
    Ok(Right {
        send: message.send,
        receive: message.receive,
        measures: scope("measures", measures, MeasureCode::parse)?,
        agreements: scope("agreements", agreements, AgreementId::parse)?,
    })
}

fn scope<T: Ord>(
    what: &str,
    named: Option<&[String]>,
    parse: impl Fn(&str) -> Result<T, ParseError>,
) -> Result<Scope<T>, Refusal> {
    let Some(named) = named else { return Ok(Scope::All) };
    if named.is_empty() || named.len() > RIGHT_NAMES_MAX {
        return Err(invalid(format!("a right names 1 to {RIGHT_NAMES_MAX} {what}, or none to mean all")));
    }
    let these = named.iter().map(|name| parse(name).map_err(|error| invalid(error.to_string())));
    Ok(Scope::These(these.collect::<Result<BTreeSet<T>, _>>()?))
}

fn invalid(what: String) -> Refusal {
    Refusal::new(Reason::ArgumentInvalid, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_reads_as_it_was_written_and_nothing_falls_back_to_all() {
        let measures = Scope::These([MeasureCode::parse("challenges.2").unwrap()].into());
        let agreements = Scope::These([AgreementId::parse("KAZ/drugs").unwrap()].into());
        for (send, receive) in [(true, false), (false, true), (true, true)] {
            for (measures, agreements) in [(Scope::All, Scope::All), (measures.clone(), agreements.clone())] {
                let whole = Right { send, receive, measures, agreements };
                assert_eq!(parse_right(&right(&whole)), Ok(whole));
            }
        }
        let all = pb::AgencyRight { send: true, ..Default::default() };
        let many = (0..=RIGHT_NAMES_MAX).map(|number| format!("a.{number}")).collect();
        for wrong in [
            pb::AgencyRight::default(),
            pb::AgencyRight { measures: Some(pb::RightMeasures::default()), ..all.clone() },
            pb::AgencyRight { agreements: Some(pb::RightAgreements::default()), ..all.clone() },
            pb::AgencyRight { measures: Some(pb::RightMeasures { codes: many }), ..all.clone() },
            pb::AgencyRight { measures: Some(pb::RightMeasures { codes: vec!["drugs".into()] }), ..all.clone() },
            pb::AgencyRight { agreements: Some(pb::RightAgreements { ids: vec!["drugs".into()] }), ..all },
        ] {
            assert_eq!(parse_right(&wrong).unwrap_err().reason, Reason::ArgumentInvalid, "{wrong:?}");
        }
    }
}
