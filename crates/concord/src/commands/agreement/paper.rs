//! An agreement as a paper: its text in plain words, with the fingerprints that a consent signs and who signed it, fit to be attached to a
//! diplomatic note.
//!
//! The words are stable: the same version in the same state gives the same text, with times in UTC. A test compares it whole.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use concord_model::{Fingerprint, Handling, InForceAmong, OnwardRelease, Party, PartyRole, SecretariatAccess, Terms};
use concord_wire::proto::operations::v1::ListMeasuresRequest;

use super::view::{self, PartyLine, Shown};
use crate::client::{Client, call};
use crate::commands::participant::registered;
use crate::exit::Failure;
use crate::output::{Output, marked, safe, short_time};

/// Words of others stand behind a mark, below what they belong to: so they cannot pass for another line of the paper.
const WORDS_INDENT: &str = "    ";
const WHOSE_WORDS: &str = "Behind | stand words of others. The title above is part of the text. Titles of measures and names of participants are the registry's, \
     and a reason is that of who declined: no consent signs them.";

/// What stands beside the text: measures by code, and everybody's names, in English and then in its other languages.
#[derive(Default)]
struct Words {
    measures: BTreeMap<String, String>,
    names: BTreeMap<String, Vec<String>>,
}

/// Shows the paper, and of an amendment that waits another; with `--json` beside the facts.
pub(super) async fn show(
    client: &Client,
    shown: &Shown,
    amendment: Option<&Shown>,
    output: Output,
) -> Result<(), Failure> {
    let words = words(client).await?;
    let text = paper(shown, &words);
    let of_amendment = amendment.map(|amendment| paper(amendment, &words));
    view::show_with(shown, amendment, &text, of_amendment.as_deref(), output)
}

async fn words(client: &Client) -> Result<Words, Failure> {
    let measures = client.registry().list_measures(call(ListMeasuresRequest {})).await?.into_inner().measures;
    let participants = registered(client).await?.into_iter().filter_map(|one| one.participant);
    let names = participants.map(|participant| {
        let (english, others): (Vec<_>, Vec<_>) = participant.names.into_iter().partition(|name| name.language == "en");
        (participant.code, english.into_iter().chain(others).map(|name| name.name).collect())
    });
    Ok(Words { measures: measures.into_iter().map(|one| (one.code, one.title)).collect(), names: names.collect() })
}

fn paper(shown: &Shown, words: &Words) -> String {
    let text = &shown.text;
    let mut out = String::new();
    let _ = writeln!(out, "AGREEMENT {}, version {}", text.id, text.version);
    let _ = writeln!(out, "{}", marked(text.title.as_str(), "  "));
    if let Some(amends) = &text.amends {
        let _ = writeln!(out, "It takes the place of version {} ({}).\n", amends.version, amends.digest.0);
    }
    let _ = writeln!(out, "MEASURES");
    for code in &text.measures {
        let _ = writeln!(out, "  {code}");
        words.measures.get(code.as_str()).into_iter().for_each(|title| out.push_str(&marked(title, WORDS_INDENT)));
    }
    let _ = writeln!(out, "\nPARTICIPANTS");
    for party in &text.parties {
        let code = &party.participant;
        let _ = writeln!(out, "  {code}: it {}.", does(party.role));
        out.push_str(&names(code.as_str(), words));
    }
    for code in &text.outgoing {
        let _ = writeln!(out, "  {code}: it goes off the list, and consents to that.");
        out.push_str(&names(code.as_str(), words));
    }
    let _ = writeln!(out, "\nTERMS");
    sentences(&text.terms).iter().for_each(|sentence| {
        let _ = writeln!(out, "  {sentence}");
    });
    let _ = writeln!(out, "\nFORCE");
    force(shown).iter().for_each(|sentence| {
        let _ = writeln!(out, "  {sentence}");
    });
    let _ = writeln!(
        out,
        "\nWHAT A CONSENT SIGNS\n  The digest of this text:\n    {}",
        Fingerprint(shown.reference.digest.0).grouped()
    );
    for Party { participant, anchor, signing_key, .. } in &text.parties {
        let _ = writeln!(out, "  {participant}, trust anchor:\n    {}", anchor.grouped());
        let _ = writeln!(out, "  {participant}, signing key of its node:\n    {}", signing_key.grouped());
    }
    let _ = writeln!(out, "  {WHOSE_WORDS}");
    let _ = writeln!(out, "\nSIGNATURES");
    for party in shown.line.participants.iter().chain(&shown.line.outgoing) {
        let _ = writeln!(out, "  {}", signature(party));
        party.reason.iter().for_each(|reason| out.push_str(&marked(reason, WORDS_INDENT)));
    }
    out
}

fn names(code: &str, words: &Words) -> String {
    words
        .names
        .get(code)
        .filter(|names| !names.is_empty())
        .map_or_else(String::new, |names| marked(&names.join(" / "), WORDS_INDENT))
}

const fn does(role: PartyRole) -> &'static str {
    match role {
        PartyRole::Contribute => "contributes, and is sent nothing",
        PartyRole::Receive => "receives, and sends nothing",
        PartyRole::Both => "contributes and receives",
    }
}

fn sentences(terms: &Terms) -> Vec<String> {
    let media: Vec<_> = terms.media.iter().map(ToString::to_string).collect();
    vec![
        match media.as_slice() {
            [] => "Bodies may be of any media type.".to_owned(),
            media => format!("Bodies are of these media types: {}.", media.join(", ")),
        },
        match terms.body_size_max_bytes {
            None => "A body may be as large as its lane carries.".to_owned(),
            Some(size) => format!("A body has at most {size} bytes."),
        },
        format!(
            "Nothing is exchanged under a higher handling code than TLP:{}. {}",
            terms.handling_max,
            effect(terms.handling_max)
        ),
        match terms.retention_days {
            None => "Hub and nodes keep bodies by their own rules.".to_owned(),
            Some(days) => format!("Hub and nodes let bodies go {days} days after they had them, at the latest."),
        },
        match terms.secretariat {
            SecretariatAccess::Carries => "The secretariat stores what passes and hands it on, and does not use it.",
            SecretariatAccess::Reads => "The secretariat may take what passes into what it compiles for the forum.",
        }
        .to_owned(),
        match terms.onward_release {
            OnwardRelease::None => "A recipient gives nothing on beyond the agencies that were given it.",
            OnwardRelease::State => "A recipient gives what it receives on within its state only.",
            OnwardRelease::WithConsent => {
                "A recipient gives what it receives on beyond its state only with the origin's written consent."
            }
            OnwardRelease::Free => "A recipient gives what it receives on as it sees fit.",
        }
        .to_owned(),
    ]
}

/// What the highest code lets in.
const fn effect(handling: Handling) -> &'static str {
    match handling {
        Handling::Red => "RED goes to agencies named by the exchange, AMBER+STRICT to agencies of its measure.",
        Handling::AmberStrict => "AMBER+STRICT goes to agencies of its measure only.",
        Handling::Clear | Handling::Green | Handling::Amber => "It goes to every agency that its state entitles.",
    }
}

fn force(shown: &Shown) -> Vec<String> {
    let (text, line) = (&shown.text, &shown.line);
    let when = |at: &Option<String>| short_time(at.as_deref());
    let among = match text.in_force {
        InForceAmong::All => "It is in force once all on it have consented, among all of them.",
        InForceAmong::Each => {
            "It is in force among those who have consented, from two on; whoever consents later joins then, and gets nothing of before."
        }
    };
    let lapses = match text.valid_until {
        None => "It has no end by itself.".to_owned(),
        Some(until) => format!("It lapses by itself at {}.", short_time(Some(&crate::output::time(until)))),
    };
    let mut sentences = vec![among.to_owned(), lapses, format!("It was proposed at {}.", when(&line.proposed_at))];
    match &line.in_force_at {
        Some(_) => sentences.push(format!("It came into force at {}.", when(&line.in_force_at))),
        None => sentences.push("It has not come into force.".to_owned()),
    }
    if line.ended_at.is_some() {
        sentences.push(format!("It is {} since {}.", shown.state(), when(&line.ended_at)));
    }
    sentences
}

fn signature(party: &PartyLine) -> String {
    let code = &party.participant;
    let when = |at: &Option<String>| short_time(at.as_deref());
    let mut said: Vec<String> = Vec::new();
    if let Some(signed) = &party.signed {
        said.push(format!("signed by officer {} at {}", safe(&signed.officer), when(&signed.at)));
    }
    if let Some(returned) = &party.returned {
        said.push(format!("came back by officer {} at {}", safe(&returned.officer), when(&returned.at)));
    }
    match party.state {
        "pending" => said.push("has not answered".to_owned()),
        "left" => said.push(format!("left at {}", when(&party.at))),
        "declined" if party.reason.is_some() => said.push(format!("declined at {}, saying why", when(&party.at))),
        "declined" => said.push(format!("declined at {}", when(&party.at))),
        _ => {}
    }
    if party.ends_at.is_some() {
        said.push(format!("said at {} that it is to end", when(&party.ends_at)));
    }
    format!("{code}: {}", said.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use concord_model::{
        AgreementDigest, AgreementRef, AgreementText, Digest, MediaRange, ParticipantCode, Timestamp, Title,
    };
    use concord_wire::agreement::{agreement_digest, encode_text};
    use concord_wire::convert::timestamp;
    use concord_wire::header::agreement_ref;
    use concord_wire::proto::agreement::v1 as pb;

    fn at(minute: i64) -> prost_types::Timestamp {
        timestamp(Timestamp::from_micros(1_790_000_000_000_000 + minute * 60_000_000))
    }

    fn text() -> AgreementText {
        let party = |code: &str, byte, role| Party {
            participant: ParticipantCode::parse(code).unwrap(),
            anchor: Fingerprint(Digest([byte; 32])),
            signing_key: Fingerprint(Digest([byte + 1; 32])),
            role,
        };
        let id: concord_model::AgreementId = "KAZ/floods".parse().unwrap();
        AgreementText {
            amends: Some(AgreementRef { id: id.clone(), version: 1, digest: AgreementDigest(Digest([0xee; 32])) }),
            id,
            version: 2,
            title: Title::parse("Паводки / Flood warnings").unwrap(),
            measures: vec!["environmental.5".parse().unwrap()],
            parties: vec![
                party("IRN", 0x10, PartyRole::Receive),
                party("KAZ", 0x20, PartyRole::Both),
                party("TUR", 0x30, PartyRole::Contribute),
            ],
            terms: Terms {
                media: vec![MediaRange::parse("text/*").unwrap()],
                body_size_max_bytes: Some(4096),
                handling_max: Handling::AmberStrict,
                retention_days: Some(30),
                secretariat: SecretariatAccess::Reads,
                onward_release: OnwardRelease::WithConsent,
            },
            valid_until: Some(Timestamp::from_micros(1_800_000_000_000_000)),
            outgoing: vec!["UZB".parse().unwrap()],
            in_force: InForceAmong::Each,
        }
    }

    fn party(code: &str, state: pb::PartyState) -> pb::AgreementParty {
        let signed = pb::Signed { officer: "aigerim".to_owned(), at: Some(at(1)) };
        pb::AgreementParty {
            participant: code.to_owned(),
            state: state.into(),
            at: Some(at(3)),
            signed: (state != pb::PartyState::Pending).then_some(signed),
            ..Default::default()
        }
    }

    #[test]
    fn the_paper_has_every_term_in_words_and_stays_as_it_is() {
        let bytes = encode_text(&text());
        let digest = agreement_digest(&bytes);
        let reference = AgreementRef { id: text().id, version: 2, digest };
        let back = pb::Signed { officer: "timur".to_owned(), at: Some(at(4)) };
        let agreement = pb::Agreement {
            reference: Some(agreement_ref(&reference)),
            state: pb::AgreementState::InForce.into(),
            text: bytes,
            parties: vec![
                pb::AgreementParty {
                    returned: Some(back),
                    ends_at: Some(at(5)),
                    ..party("IRN", pb::PartyState::Consented)
                },
                party("KAZ", pb::PartyState::Left),
                pb::AgreementParty {
                    reason: "Нет мандата".to_owned(),
                    signed: None,
                    ..party("TUR", pb::PartyState::Declined)
                },
            ],
            outgoing: vec![party("UZB", pb::PartyState::Pending)],
            proposed_at: Some(at(0)),
            in_force_at: Some(at(2)),
            ended_at: None,
        };
        let names =
            |code: &str, names: &[&str]| (code.to_owned(), names.iter().map(|name| (*name).to_owned()).collect());
        let words = Words {
            measures: [("environmental.5".to_owned(), "Early warning of floods".to_owned())].into(),
            names: [names("KAZ", &["Kazakhstan", "Қазақстан", "Казахстан"]), names("IRN", &["Iran", "ایران"])].into(),
        };
        let digest = Fingerprint(digest.0).grouped();
        let paper = paper(&Shown::read(&agreement).unwrap(), &words).replace(&digest, "(the digest)");
        assert_eq!(paper, include_str!("paper.txt"));
    }
}
