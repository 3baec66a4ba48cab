//! The two papers that node and secretariat hand each other: `join-request.json` and the hub's bundle.
//!
//! What counts is the serialised message inside, in base64; the fields beside it are for people.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use concord_identity::{bundle_fingerprint, enrolment_fingerprint};
use concord_model::{Fingerprint, Name, ParticipantCode};
use concord_wire::agreement::{parse_join_request, public_key};
use concord_wire::proto::operations::v1::Bundle;
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::error::NodeError;

const JOIN_REQUEST_FORMAT: &str = "concord join request 1";
const BUNDLE_FORMAT: &str = "concord bundle 1";

#[derive(Serialize, Deserialize)]
struct JoinRequestFile {
    format: String,
    participant: String,
    node: String,
    fingerprint: String,
    request: String,
}

#[derive(Serialize, Deserialize)]
struct BundleFile {
    format: String,
    hub: String,
    participant: String,
    addresses: Vec<String>,
    fingerprint: String,
    bundle: String,
}

/// A join request as it was read from its paper. Its proofs are the hub's to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinPaper {
    /// Who wants to join.
    pub participant: ParticipantCode,
    /// Its node.
    pub node: Name,
    /// Over code, anchor and signing key: what both sides compare by telephone.
    pub fingerprint: Fingerprint,
    /// The serialised `agreement.v1.JoinRequest`, which the enrolment carries.
    pub request: Bytes,
}

/// A bundle as it was read from its paper.
#[derive(Debug, Clone, PartialEq)]
pub struct BundlePaper {
    /// What it says.
    pub bundle: Bundle,
    /// Over name, anchor and signing key of the hub: what both sides compare by telephone.
    pub fingerprint: Fingerprint,
}

/// Writes a serialised join request as its paper.
pub fn join_request_to_json(request: &[u8]) -> Result<String, NodeError> {
    let (parsed, _) = parse_join_request(request)?;
    let fingerprint = enrolment_fingerprint(&parsed.participant, &parsed.anchor, &parsed.signing_key);
    pretty(&JoinRequestFile {
        format: JOIN_REQUEST_FORMAT.to_owned(),
        participant: parsed.participant.to_string(),
        node: parsed.node.to_string(),
        fingerprint: fingerprint.grouped(),
        request: STANDARD.encode(request),
    })
}

/// Reads the paper of a join request; refuses one whose readable part says something else than its message.
pub fn join_request_from_json(text: &str) -> Result<JoinPaper, NodeError> {
    let what = "join request";
    let file: JoinRequestFile = parse(what, text)?;
    check_format(what, &file.format, JOIN_REQUEST_FORMAT)?;
    let request = decode(what, &file.request)?;
    let (parsed, _) = parse_join_request(&request)?;
    let fingerprint = enrolment_fingerprint(&parsed.participant, &parsed.anchor, &parsed.signing_key);
    let same = file.participant == parsed.participant.as_str()
        && file.node == parsed.node.as_str()
        && file.fingerprint == fingerprint.grouped();
    check_readable(what, same)?;
    Ok(JoinPaper { participant: parsed.participant, node: parsed.node, fingerprint, request })
}

/// Writes a bundle as its paper.
pub fn bundle_to_json(bundle: &Bundle) -> Result<String, NodeError> {
    pretty(&BundleFile {
        format: BUNDLE_FORMAT.to_owned(),
        hub: bundle.hub.clone(),
        participant: bundle.participant.clone(),
        addresses: bundle.addresses.clone(),
        fingerprint: fingerprint_of(bundle)?.grouped(),
        bundle: STANDARD.encode(bundle.encode_to_vec()),
    })
}

/// Reads the paper of a bundle; refuses one whose readable part says something else than its message.
pub fn bundle_from_json(text: &str) -> Result<BundlePaper, NodeError> {
    let what = "bundle";
    let file: BundleFile = parse(what, text)?;
    check_format(what, &file.format, BUNDLE_FORMAT)?;
    let bundle = Bundle::decode(decode(what, &file.bundle)?)
        .map_err(|error| NodeError::Paper(format!("the {what} does not parse: {error}")))?;
    let fingerprint = fingerprint_of(&bundle)?;
    let same = file.hub == bundle.hub
        && file.participant == bundle.participant
        && file.addresses == bundle.addresses
        && file.fingerprint == fingerprint.grouped();
    check_readable(what, same)?;
    Ok(BundlePaper { bundle, fingerprint })
}

/// Over name, anchor and signing key of the hub that a bundle names.
pub fn fingerprint_of(bundle: &Bundle) -> Result<Fingerprint, NodeError> {
    let wrong = |what: String| NodeError::Paper(format!("the bundle cannot be used: {what}"));
    let hub = Name::parse(&bundle.hub).map_err(|error| wrong(error.to_string()))?;
    let key = <[u8; 32]>::try_from(&bundle.signing_key[..]);
    let key = public_key(key.map_err(|_| wrong("its signing key does not have 32 bytes".to_owned()))?);
    Ok(bundle_fingerprint(&hub, &bundle.anchor, &key, bundle.present_anchors.iter().map(|anchor| &anchor[..])))
}

fn pretty(file: &impl Serialize) -> Result<String, NodeError> {
    let mut text = serde_json::to_string_pretty(file).map_err(|error| NodeError::Paper(error.to_string()))?;
    text.push('\n');
    Ok(text)
}

fn parse<'a, T: Deserialize<'a>>(what: &str, text: &'a str) -> Result<T, NodeError> {
    serde_json::from_str(text).map_err(|error| NodeError::Paper(format!("this is no Concord {what}: {error}")))
}

fn check_format(what: &str, found: &str, expected: &str) -> Result<(), NodeError> {
    if found == expected {
        return Ok(());
    }
    let found: String = found.chars().filter(|c| !c.is_control()).take(80).collect();
    Err(NodeError::Paper(format!("this {what} has the format '{found}', this version reads '{expected}'")))
}

fn decode(what: &str, text: &str) -> Result<Bytes, NodeError> {
    let decoded = STANDARD.decode(text);
    decoded.map(Bytes::from).map_err(|error| NodeError::Paper(format!("the {what} is damaged: {error}")))
}

fn check_readable(what: &str, same: bool) -> Result<(), NodeError> {
    if same {
        return Ok(());
    }
    Err(NodeError::Paper(format!(
        "the readable part of the {what} says something else than what it carries: somebody changed it. Get it again"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Bundle {
        Bundle {
            hub: "main".to_owned(),
            addresses: vec!["127.0.0.1:7443".to_owned()],
            anchor: Bytes::from_static(b"anchor"),
            signing_key: Bytes::from_static(&[7; 32]),
            participant: "KAZ".to_owned(),
            enrolment_fingerprint: Bytes::from_static(&[9; 32]),
            history: Bytes::from_static(&[1; 16]),
            replaces: false,
            present_anchors: Vec::new(),
        }
    }

    #[test]
    fn a_bundle_reads_as_it_was_written() {
        let text = bundle_to_json(&bundle()).unwrap();
        assert_eq!(bundle_from_json(&text).unwrap().bundle, bundle());
    }

    #[test]
    fn a_paper_whose_readable_part_was_changed_is_refused() {
        let text = bundle_to_json(&bundle()).unwrap();
        for (from, to) in [("127.0.0.1:7443", "192.0.2.1:7443"), ("\"KAZ\"", "\"IRN\""), ("bundle 1", "bundle 2")] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            assert!(bundle_from_json(&changed).is_err(), "{from} became {to}");
        }
        for text in ["", "{}", "[]"] {
            assert!(bundle_from_json(text).is_err());
            assert!(join_request_from_json(text).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn a_damaged_bundle_is_refused_or_says_what_its_message_says(
            changes in proptest::collection::vec(
                (proptest::prelude::any::<usize>(), proptest::prelude::any::<char>(), proptest::prelude::any::<bool>()),
                1..4,
            ),
        ) {
            let good = bundle_to_json(&bundle()).unwrap();
            let mut text: Vec<char> = good.chars().collect();
            for (at, with, removes) in changes {
                let at = at % text.len();
                if removes { text.remove(at); } else { text[at] = with; }
            }
            let text: String = text.into_iter().collect();
            if let Ok(paper) = bundle_from_json(&text) {
                assert_eq!(bundle_from_json(&bundle_to_json(&paper.bundle).unwrap()).unwrap(), paper);
            }
            drop(join_request_from_json(&text));
        }
    }
}
