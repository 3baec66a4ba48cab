//! An officer's word: prepared, signed here, handed to the server of the profile.

use std::io::{BufRead as _, IsTerminal as _};
use std::time::Duration;

use concord_model::{Digest, Name, ParticipantCode};
use concord_wire::agreement::{Draft, DraftContent, encode_statement, parse_statement};
use concord_wire::proto::agreement::v1::{PrepareRequest, SignedStatement, StatementState, SubmitRequest};

use crate::client::{Client, WAIT_MARGIN, call, call_within, duration};
use crate::exit::Failure;
use crate::output::{self, Output};

/// How long a node may wait for the hub's answer before it says *queued*.
const HUB_ANSWER_WAIT: Duration = Duration::from_secs(10);

/// What became of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// Recorded by the hub.
    Accepted,
    /// Durable at the node, which forwards it when the hub can be reached.
    Queued,
    /// Recorded by the hub, and takes effect when so many more officers have signed it.
    Waits(u32),
}

impl Said {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Queued => "queued",
            Self::Waits(_) => "waits",
        }
    }
}

/// Has whoever sits at the terminal type a word before something that cannot be taken back.
pub(crate) fn confirm(output: Output, what: &str, question: &str, word: &str) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage(format!("{what} needs a yes, and there is no terminal to ask")).help("add --yes"));
    }
    output.say(&format!("{question} Type {word} to go on:"));
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    read.map_err(|error| Failure::failed("TERMINAL", format!("the answer cannot be read: {error}")))?;
    if answer.trim() != word {
        return Err(Failure::failed("NOT_CONFIRMED", format!("{what} was not confirmed: nothing was done"))
            .help(format!("run it again and type {word} if it is meant")));
    }
    Ok(())
}

/// The same where somebody sits at a terminal; elsewhere nobody is asked, since what is about to be signed was read before.
pub(crate) fn confirm_if_asked(output: Output, what: &str, question: &str, word: &str) -> Result<(), Failure> {
    if std::io::stdin().is_terminal() { confirm(output, what, question, word) } else { Ok(()) }
}

/// Signs a statement with the profile's officer key and hands it in.
pub(crate) async fn say(client: &Client, content: DraftContent) -> Result<Said, Failure> {
    say_it(client, content).await.map(|(said, _)| said)
}

/// The same, with the digest of the statement: by it what waits for signatures is known.
pub(crate) async fn say_it(client: &Client, content: DraftContent) -> Result<(Said, Digest), Failure> {
    let signer = client.profile().statement_signer()?;
    let mut service = client.statements();
    let prepared = service.prepare(call(PrepareRequest {})).await?.into_inner();
    let draft = Draft {
        participant: ParticipantCode::parse(&prepared.participant).map_err(Failure::answer)?,
        officer: Name::parse(&prepared.officer).map_err(Failure::answer)?,
        hub: Name::parse(&prepared.hub).map_err(Failure::answer)?,
        number: prepared.next_number,
        made_at: output::now(),
        content,
    };
    let identity = signer.identity();
    // The server's word for who speaks is not signed unseen.
    if (&draft.participant, &draft.officer) != (&identity.participant, &identity.name) {
        return Err(Failure::answer(format!("it names another officer than {identity}")));
    }
    let statement = encode_statement(&draft);
    let signed = SignedStatement {
        signature: signer.sign_statement(&statement).to_vec().into(),
        statement,
        certificates: signer.chain().iter().map(|der| der.clone().into()).collect(),
        suite: concord_wire::SUITE_ED25519,
    };
    let digest = parse_statement(&signed).map_err(Failure::from)?.digest;
    let request =
        SubmitRequest { statement: Some(signed), wait: Some(duration(HUB_ANSWER_WAIT)), ..Default::default() };
    let answer = service.submit(call_within(request, HUB_ANSWER_WAIT + WAIT_MARGIN)).await?.into_inner();
    match answer.state() {
        StatementState::Accepted => Ok((Said::Accepted, digest)),
        StatementState::Queued => Ok((Said::Queued, digest)),
        StatementState::Waits => Ok((Said::Waits(answer.signatures_missing), digest)),
        StatementState::Unspecified => Err(Failure::answer("the state of the statement is missing")),
    }
}
