//! Four states with their own anchors and keys, enrolled and agreed with each other, and their signed consignments.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use concord_identity::{
    Anchor, AnchorKeys, Anchors, Application, CertificateRequest, Credentials, ExpectedServer, LeafKey, LeafKeyKind,
    Profile, SigningKey, StatementSigner, client_config,
};
use concord_journal::Blob;
use concord_model::{
    AgreementId, AgreementRef, AgreementText, ChainKey, ConsignmentDigest, Description, Digest, ExchangeUuid, Handling,
    Header, Identity, Lane, MeasureCode, MediaType, Name, Part, ParticipantCode, Party, PartyRole, Role, Terms,
    Timestamp, Title,
};
use concord_server::MESSAGE_SIZE_MAX_BYTES;
use concord_wire::SUITE_ED25519;
use concord_wire::agreement::{
    Draft, DraftContent, agreement_digest, encode_join_request, encode_statement, encode_text,
};
use concord_wire::consignment::{Sealed, blob_to_bytes, seal, to_message};
use concord_wire::proto::agreement::v1 as agreement;
use concord_wire::proto::agreement::v1::statement_service_client::StatementServiceClient;
use concord_wire::proto::exchange::v1 as exchange;
use concord_wire::proto::exchange::v1::exchange_service_client::ExchangeServiceClient;
use concord_wire::proto::feed::v1::feed_service_client::FeedServiceClient;
use concord_wire::proto::feed::v1::{FeedPosition, FollowRequest, NodeJournal};
use concord_wire::tree::Seed;
use tonic::transport::Channel;

use super::{BODY_SIZE_BYTES, EXCHANGES_PER_CONSIGNMENT, STREAMS};

const CODES: [&str; STREAMS] = ["KAZ", "IRN", "TUR", "KOR"];
const MEASURE: &str = "challenges.3";
/// The run of every node: each has one for as long as the benchmark lasts.
pub(crate) const RUN: [u8; 16] = [1; 16];

/// One state as the benchmark plays it.
pub(crate) struct State {
    pub(crate) code: ParticipantCode,
    anchor: AnchorKeys,
    credentials: Credentials,
    officer: StatementSigner,
    pub(crate) signing_key: SigningKey,
    node_certificate: Vec<u8>,
}

/// The states, enrolled at a hub, and the agreement between all of them.
pub(crate) struct Forum {
    pub(crate) states: Vec<State>,
    pub(crate) agreement: AgreementRef,
    hub_anchor: Anchor,
    address: String,
}

impl State {
    pub(crate) fn new(code: &str) -> Result<Self> {
        let code = ParticipantCode::parse(code)?;
        let now = crate::output::now();
        let anchor = AnchorKeys::create(&code, now)?;
        let node = Identity { participant: code.clone(), role: Role::Node, name: Name::parse("main")? };
        let key = LeafKey::generate(LeafKeyKind::EcdsaP256)?;
        let certificate = anchor.issue(&CertificateRequest::leaf(&node, key.public(), now))?;
        let node_certificate = certificate.to_vec();
        let credentials = Credentials::new(vec![certificate], &key)?;

        let officer = Identity { participant: code.clone(), role: Role::Officer, name: Name::parse("officer")? };
        let key = LeafKey::generate(LeafKeyKind::Ed25519)?;
        let certificate = anchor.issue(&CertificateRequest::leaf(&officer, key.public(), now))?;
        let key = key.into_signing_key().context("an officer's key signs")?;
        let officer = StatementSigner::new(&[certificate], key)?;
        Ok(Self { code, anchor, credentials, officer, signing_key: SigningKey::generate()?, node_certificate })
    }

    fn party(&self) -> Party {
        Party {
            participant: self.code.clone(),
            anchor: self.anchor.anchor().fingerprint(),
            signing_key: self.signing_key.public().fingerprint,
            role: PartyRole::Both,
        }
    }

    fn join_request(&self) -> Result<Bytes> {
        let anchor = self.anchor.anchor().der();
        Ok(encode_join_request(
            &self.code,
            &Name::parse("main")?,
            anchor,
            &self.signing_key.public(),
            &self.node_certificate,
            |message| self.signing_key.sign(message),
        ))
    }

    pub(crate) fn client_config(&self, hub_anchor: &Anchor) -> Result<Arc<rustls::ClientConfig>> {
        let anchors = Anchors::pinned(ParticipantCode::secretariat(), hub_anchor.clone());
        Ok(client_config(&self.credentials, &anchors, ExpectedServer::AnyHub, Application::Grpc)?)
    }
}

impl Forum {
    /// Enrols four states with the secretariat's profile and brings an agreement of all into force.
    pub(crate) async fn gather(address: &str, secretariat: &Profile, hub_anchor: Anchor) -> Result<Self> {
        let states: Vec<State> = CODES.iter().map(|code| State::new(code)).collect::<Result<_, _>>()?;
        let officer = secretariat.statement_signer()?;
        let channel = concord_server::connect(address, secretariat.client_config()?).await?;
        for (number, state) in (1..).zip(&states) {
            say(channel.clone(), &officer, number, DraftContent::Enrol(state.join_request()?)).await?;
        }

        let mut parties: Vec<Party> = states.iter().map(State::party).collect();
        parties.sort_by(|left, right| left.participant.cmp(&right.participant));
        let text = AgreementText {
            id: AgreementId::parse("KAZ/bench")?,
            version: 1,
            title: Title::parse("Benchmark")?,
            measures: vec![MeasureCode::parse(MEASURE)?],
            parties,
            terms: Terms::default(),
            valid_until: None,
            amends: None,
            outgoing: Vec::new(),
            in_force: concord_model::InForceAmong::All,
        };
        let digest = agreement_digest(&encode_text(&text));
        let agreement = AgreementRef { id: text.id.clone(), version: text.version, digest };
        for (index, state) in states.iter().enumerate() {
            let channel = concord_server::connect(address, state.client_config(&hub_anchor)?).await?;
            show_feed(channel.clone()).await?;
            let content = match index {
                0 => DraftContent::Propose(text.clone()),
                _ => DraftContent::Consent(agreement.clone()),
            };
            say(channel, &state.officer, 1, content).await?;
        }
        Ok(Self { states, agreement, hub_anchor, address: address.to_owned() })
    }

    /// A node's own connection for consignments.
    pub(crate) async fn exchange_client(&self, state: &State) -> Result<ExchangeServiceClient<Channel>> {
        let channel = concord_server::connect(&self.address, state.client_config(&self.hub_anchor)?).await?;
        Ok(ExchangeServiceClient::new(channel)
            .max_encoding_message_size(MESSAGE_SIZE_MAX_BYTES)
            .max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES))
    }
}

/// The chain of a state on lane routine.
pub(crate) fn chain(state: &State) -> Result<ChainKey> {
    Ok(ChainKey {
        origin: state.code.clone(),
        hub: Name::parse("main")?,
        node: Name::parse("main")?,
        epoch: 1,
        lane: Lane::Routine,
    })
}

/// Signs a stream of consignments, each of 64 exchanges of 1 KiB to all of the agreement.
pub(crate) fn consignments(state: &State, agreement: &AgreementRef, count: u32) -> Result<Vec<exchange::Consignment>> {
    let chain = chain(state)?;
    let mut previous = ConsignmentDigest(Digest::ZERO);
    let mut all = Vec::with_capacity(count as usize);
    for number in 1..=u64::from(count) {
        let (sealed, blobs) = consignment(state, agreement, &chain, number, previous, EXCHANGES_PER_CONSIGNMENT)?;
        previous = sealed.digest;
        let blobs: Vec<Vec<_>> = blobs.iter().map(|blobs| blobs.iter().map(blob_to_bytes).collect()).collect();
        all.push(to_message(&sealed, blobs));
    }
    Ok(all)
}

/// Signs one consignment of a chain, and answers it with the blobs of each exchange.
pub(crate) fn consignment(
    state: &State,
    agreement: &AgreementRef,
    chain: &ChainKey,
    number: u64,
    previous: ConsignmentDigest,
    exchanges: usize,
) -> Result<(Sealed, Vec<Vec<Blob>>)> {
    let mut headers = Vec::with_capacity(exchanges);
    let mut blobs = Vec::with_capacity(exchanges);
    for index in 0..exchanges as u64 {
        let (header, content) = exchange_of(state, agreement, number << 16 | index)?;
        headers.push(header);
        blobs.push(content);
    }
    let seed = Seed::new(filled(number));
    let key = state.signing_key.public().fingerprint;
    let sealed = seal(chain.clone(), number, previous, seed, headers, key, |message| state.signing_key.sign(message));
    Ok((sealed, blobs))
}

fn exchange_of(state: &State, agreement: &AgreementRef, unique: u64) -> Result<(Bytes, Vec<Blob>)> {
    let description = Description { title: Title::parse("Benchmark exchange")?, caveats: Vec::new() };
    let description = Blob::seal(filled(unique), concord_wire::header::encode_description(&description));
    let pattern = filled::<32>(unique ^ 0x5555);
    let body: Vec<u8> = pattern.iter().copied().cycle().take(BODY_SIZE_BYTES).collect();
    let body = Blob::seal(filled(unique ^ 0xaaaa), body.into());
    let created = Timestamp::from_micros(1_700_000_000_000_000);
    let header = Header {
        origin: state.code.clone(),
        node: Name::parse("main")?,
        uuid: ExchangeUuid::from_parts(created, &filled(unique)),
        agreement: agreement.clone(),
        measure: MeasureCode::parse(MEASURE)?,
        lane: Lane::Routine,
        narrowing: None,
        language: None,
        created,
        parts: vec![Part {
            media_type: MediaType::parse("application/octet-stream")?,
            size_bytes: BODY_SIZE_BYTES as u64,
            commitment: Digest(*body.commitment().as_bytes()),
        }],
        description: Digest(*description.commitment().as_bytes()),
        handling: Handling::Amber,
        expires_at: None,
        supersedes: None,
        exercise: false,
        withdraws: None,
        agencies: Vec::new(),
    };
    Ok((concord_wire::header::encode(&header), vec![description, body]))
}

/// Bytes that differ from number to number; a benchmark needs no randomness.
fn filled<const LENGTH: usize>(number: u64) -> [u8; LENGTH] {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::array::from_fn(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    })
}

/// A node shows where its feed stands before it is served.
async fn show_feed(channel: Channel) -> Result<()> {
    let limits = Some(concord_wire::limits());
    let run = Bytes::from_static(&RUN);
    let journal = NodeJournal { history: run.clone(), runs: vec![run], ..Default::default() };
    let request =
        FollowRequest { limits, position: Some(FeedPosition::default()), journal: Some(journal), ..Default::default() };
    let welcome = FeedServiceClient::new(channel).follow(request).await?.into_inner().message().await?;
    welcome.map(drop).context("the hub ended the feed")
}

async fn say(channel: Channel, officer: &StatementSigner, number: u64, content: DraftContent) -> Result<()> {
    let identity = officer.identity();
    let statement = encode_statement(&Draft {
        participant: identity.participant.clone(),
        officer: identity.name.clone(),
        hub: Name::parse("main")?,
        number,
        made_at: crate::output::now(),
        content,
    });
    let signed = agreement::SignedStatement {
        signature: Bytes::copy_from_slice(&officer.sign_statement(&statement)),
        statement,
        certificates: officer.chain().iter().map(|der| Bytes::copy_from_slice(der)).collect(),
        suite: SUITE_ED25519,
    };
    let request = agreement::SubmitRequest { statement: Some(signed), wait: None, run: Bytes::from_static(&RUN) };
    StatementServiceClient::new(channel).submit(request).await?;
    Ok(())
}
