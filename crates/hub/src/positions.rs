//! Where a peer says that it stands, compared in full with what stands here: the history, the number in it, and a digest of what
//! the peer has under that number.

use bytes::Bytes;
use concord_journal::HistoryId;
use concord_ledger::{PastPositions, Resume, Shown};
use concord_model::{Digest, Lane, ParticipantCode, Reason, Refusal};
use concord_wire::proto::exchange::v1 as exchange;
use concord_wire::proto::feed::v1 as feed;

use crate::feed::load;
use crate::healing::shown;
use crate::projection::run_with;
use crate::sequencer::Published;
use crate::shared::{Shared, internal};

/// Whether a position lies within this hub's past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// All that the peer has, this hub has.
    Stands,
    /// This hub lost data that the peer has, or something else stands here under the same number.
    Lost {
        /// The last number that this hub has of the peer's history; 0 where it does not know the history.
        known: u64,
    },
    /// Every position stands, and a statement of an own officer that this hub answered is not known, or what it handed back may count now.
    Forgotten,
}

/// Where a peer's positions may lie: the present history, or a past one up to where it ended.
pub struct Positions {
    /// The present history.
    pub history: HistoryId,
    /// The last number of the thing spoken of, now.
    pub last: u64,
    /// The last number of the thing spoken of at the end of each past history, the oldest first.
    pub past: Vec<exchange::PastHistory>,
}

impl Positions {
    /// The positions of a chain, a mailbox or a feed, whichever `at_end` reads from a past.
    pub fn new(published: &Published, last: u64, at_end: impl Fn(&PastPositions) -> Option<u64>) -> Self {
        let past = published.ledger.histories().all_past().map(|past| exchange::PastHistory {
            history: Bytes::copy_from_slice(&past.history),
            last_number: at_end(past).unwrap_or(0),
        });
        Self { history: published.tail.history, last, past: past.collect() }
    }

    /// The mailbox of one recipient and lane.
    pub fn mailbox(published: &Published, recipient: &ParticipantCode, lane: Lane) -> Self {
        let key = (recipient.clone(), lane);
        let last = published.ledger.mailbox(recipient, lane).last;
        Self::new(published, last, |past| past.mailboxes.get(&key).copied())
    }

    /// The feed of one participant.
    pub fn feed(published: &Published, participant: &ParticipantCode) -> Self {
        Self::new(published, published.ledger.feed_last(participant), |past| past.feeds.get(participant).copied())
    }

    /// Whether `number` of `history` lies within what this hub has, by the numbers alone.
    pub fn standing(&self, history: &[u8], number: u64) -> Standing {
        let known = if history.is_empty() {
            Some(0)
        } else if history == self.history.as_bytes() {
            Some(self.last)
        } else {
            self.past.iter().rev().find(|past| past.history == history).map(|past| past.last_number)
        };
        match known {
            Some(known) if number <= known => Standing::Stands,
            known => Standing::Lost { known: known.unwrap_or(0) },
        }
    }
}

/// Whether a participant's feed position stands: by its number, by the digest of the item there, and by what its officers said.
pub async fn feed_standing(
    shared: &std::sync::Arc<Shared>,
    participant: &ParticipantCode,
    position: &feed::FeedPosition,
) -> Result<Standing, Refusal> {
    let published = shared.published();
    let shown = shown(&position.history, position.last_number, &position.last_digest)?;
    let resumes = published.ledger.feed().resumes(participant);
    let is_asked_again = shared.losses.is_asked_again(participant);
    if resumes.is_some_and(|resumes| resumes.made_for(&shown).is_some()) {
        return Ok(if is_asked_again { Standing::Forgotten } else { Standing::Stands });
    }
    let standing = Positions::feed(&published, participant).standing(&position.history, position.last_number);
    if standing != Standing::Stands {
        return Ok(standing);
    }
    let known = position.last_number;
    if is_asked_again {
        return Ok(Standing::Forgotten);
    }
    // Whoever has handed everything back in this process has no more to hand back.
    if !shared.losses.has_handed_back(participant) && !knows_officers(&published, participant, &position.officers)? {
        return Ok(Standing::Forgotten);
    }
    let Some(theirs) = shown.digest.filter(|_| known > 0) else {
        return Ok(Standing::Stands);
    };
    let ours = feed_digest(shared, participant, known).await?;
    Ok(if ours.is_none_or(|ours| ours == theirs) { Standing::Stands } else { Standing::Lost { known } })
}

/// The number up to which a participant's feed is the same here as at its node, as far as this position says.
pub async fn feed_common(
    shared: &std::sync::Arc<Shared>,
    participant: &ParticipantCode,
    shown: &Shown,
) -> Result<u64, Refusal> {
    let is_here = shown.number <= shared.published().ledger.feed_last(participant);
    let Some(theirs) = shown.digest.filter(|_| is_here && shown.number > 0) else { return Ok(0) };
    let same = feed_digest(shared, participant, shown.number).await? == Some(theirs);
    Ok(if same { shown.number } else { 0 })
}

/// What a node shows that stands at this number of its feed; none where it stands for nothing.
async fn feed_digest(
    shared: &std::sync::Arc<Shared>,
    participant: &ParticipantCode,
    number: u64,
) -> Result<Option<Digest>, Refusal> {
    let published = shared.published();
    let resumes = published.ledger.feed().resumes(participant);
    if let Some(resume) = resumes.and_then(|resumes| resumes.at(number)) {
        return Ok(Some(resume_digest(resume)));
    }
    let whose = participant.clone();
    let item = shared.blocking(move |shared| load(shared, &whose, number)).await?;
    Ok(item.as_ref().map(concord_wire::feed::item_digest))
}

/// What a node shows where its feed was resumed.
pub fn resume_digest(resume: &Resume) -> Digest {
    let shown = &resume.shown;
    let digest = shown.digest.map(|digest| digest.as_bytes().to_vec()).unwrap_or_default();
    concord_wire::feed::resume_digest(&shown.history, shown.number, &digest, resume.at)
}

/// A statement may be forgotten though a later one is known, which another participant handed back: so all of them count.
fn knows_officers(
    published: &Published,
    participant: &ParticipantCode,
    officers: &[feed::OfficerPosition],
) -> Result<bool, Refusal> {
    for officer in officers {
        let name = concord_model::Name::parse(&officer.officer)
            .map_err(|error| Refusal::new(Reason::ArgumentInvalid, error.to_string()))?;
        let digest = Digest::from_slice(&officer.digest)
            .map_err(|error| Refusal::new(Reason::ArgumentInvalid, error.to_string()))?;
        if !published.ledger.signers().has_all_up_to(participant, &name, officer.number, &digest) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a mailbox position stands: by its number, and by the exchange there. Blocks.
pub fn mailbox_standing(
    shared: &Shared,
    recipient: &ParticipantCode,
    lane: Lane,
    hello: &exchange::ReceiveHello,
) -> Result<Standing, Refusal> {
    let positions = Positions::mailbox(&shared.published(), recipient, lane);
    let number = hello.last_number;
    let standing = positions.standing(&hello.history, number);
    if standing != Standing::Stands || hello.last_digest.is_empty() || number == 0 {
        return Ok(standing);
    }
    let Some(run) = run_with(&shared.views, &shared.hub, recipient, lane, number).map_err(internal)? else {
        return Ok(standing);
    };
    let (_, kept) = shared.consignment(run.sequence)?;
    let header = run.index(number).and_then(|index| kept.sealed.headers.get(index as usize));
    let same = header
        .is_some_and(|header| concord_wire::header::exchange_id(header).0.as_bytes()[..] == hello.last_digest[..]);
    Ok(if same { Standing::Stands } else { Standing::Lost { known: number } })
}
