//! Telling where an exchange is and what it waits for: to whoever may have it tracked or explained, and in no other words.
//!
//! Invariant: an agency hears of what it submitted, or may have by its rights now; an officer of what its own state sent or received. All else
//! is an exchange that is none, in the same words.

use concord_model::{
    ExchangeId, Header, Lane, Name, ParticipantCode, Reason, Refusal, Role, SetAsideReason, Timestamp, WithheldReason,
};
use concord_server::Whereabouts;
use concord_wire::convert::{digest_bytes, optional_timestamp, timestamp};
use concord_wire::header::{agreement_ref, parse};
use concord_wire::proto::agency::v1::{TrackRecipient, TrackState, WhyRequest, WhyResponse};
use concord_wire::proto::exchange::v1 as pb;
use tonic::Status;

use super::track::{Limits, find_now, id_digits, look, not_current, only};
use super::{internal, refused};
use crate::context::Context;
use crate::index::{Became, IndexError, Place, ReceivedOne};
use crate::state::NodeState;
use crate::state::rights::{About, entitled};

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) enum Asking {
    Agency(Name),
    Officer,
}

impl Asking {
    pub(crate) fn of(role: Role, name: Name) -> Self {
        if role == Role::Agency { Self::Agency(name) } else { Self::Officer }
    }
}

pub(crate) async fn why(context: &Context, asking: Asking, request: WhyRequest) -> Result<WhyResponse, Status> {
    let context = context.clone();
    let work = move || why_now(&context, &asking, &request.exchange_id);
    concord_server::blocking(work).await.map_err(internal)?.map_err(refused)
}

fn why_now(context: &Context, asking: &Asking, digits: &str) -> Result<WhyResponse, Refusal> {
    let state = context.now_state();
    let looking = Looking { context, state: &state, now: context.clock.now() };
    match looking.sent(asking, digits) {
        Ok(place) => looking.to_origin(&place),
        Err(refusal) if refusal.reason == Reason::ExchangeUnknown => looking.to_recipient(asking, digits),
        Err(refusal) => Err(refusal),
    }
}

fn unknown() -> Refusal {
    Refusal::new(Reason::ExchangeUnknown, "no exchange that you sent, or may have, begins so")
}

struct Looking<'a> {
    context: &'a Context,
    state: &'a NodeState,
    now: Timestamp,
}

impl Looking<'_> {
    /// The exchange of the own state that is meant.
    fn sent(&self, asking: &Asking, digits: &str) -> Result<Place, Refusal> {
        match asking {
            Asking::Agency(agency) => find_now(self.state, &self.context.index, agency, digits),
            Asking::Officer => {
                let digits = id_digits(digits).ok_or_else(unknown)?;
                only(self.context.index.exchanges_of_all(&digits).map_err(failed)?, &digits, unknown)
            }
        }
    }

    fn to_origin(&self, place: &Place) -> Result<WhyResponse, Refusal> {
        let index = &self.context.index;
        let header = parse(&index.own_header(place).map_err(failed)?)?;
        let limits = Limits { of: self.context.overdue, lane: place.lane, now: self.now };
        let tracked = limits.mark(look(index, &place.id).map_err(failed)?);
        let (queued_at, recorded_at) =
            (optional_timestamp(tracked.queued_at.as_ref()), optional_timestamp(tracked.recorded_at.as_ref()));
        let whole = |at: Whereabouts, since| vec![at.told(None, since)];
        let whereabouts = match tracked.state() {
            TrackState::Queued => vec![self.at_own_node(place.lane).told_of_queue(tracked.overdue, queued_at)],
            TrackState::Refused => {
                let reason = Reason::from_code(&tracked.reason).unwrap_or(Reason::Internal);
                whole(Whereabouts::Refused(reason), recorded_at)
            }
            _ if tracked.recipients.is_empty() => whole(Whereabouts::ForNobody, recorded_at),
            _ => {
                let is_current = tracked.not_current.is_none();
                let recipients = tracked.recipients.iter();
                recipients.map(|one| self.at_recipient(one, &header, is_current)).collect::<Result<_, _>>()?
            }
        };
        Ok(WhyResponse { not_current: tracked.not_current, ..response(&place.id, &header, whereabouts) })
    }

    /// Where something is that the hub has not recorded.
    fn at_own_node(&self, lane: Lane) -> Whereabouts {
        let link = match lane {
            Lane::Flash => "uplink-flash",
            Lane::Priority => "uplink-priority",
            Lane::Routine => "uplink-routine",
        };
        let is_alarmed = self.context.readiness.list().iter().any(|alarm| alarm.name == link);
        let own = &self.context.participant;
        if self.context.check_fence().is_err() {
            Whereabouts::NotServed
        } else if !self.context.contact.is_connected() {
            Whereabouts::HubAway
        } else if self.state.directory().registry.holds().is_held(own) {
            Whereabouts::OriginHeld
        } else if is_alarmed {
            Whereabouts::LaneStopped
        } else {
            Whereabouts::InQueue
        }
    }

    fn at_recipient(
        &self,
        one: &TrackRecipient,
        header: &Header,
        is_current: bool,
    ) -> Result<pb::Whereabouts, Refusal> {
        let code = ParticipantCode::parse(&one.participant).map_err(|_| failed(IndexError::Row("a receipt")))?;
        let is_held = || self.state.directory().registry.holds().is_held(&code);
        let at = match one.state() {
            TrackState::Taken => Whereabouts::Taken,
            TrackState::Delivered if one.overdue => Whereabouts::NotTaken,
            TrackState::Delivered => Whereabouts::WaitsForAgency,
            TrackState::Withheld => {
                Whereabouts::Withheld(WithheldReason::from_code(&one.reason).unwrap_or(WithheldReason::Left))
            }
            TrackState::SetAside => set_aside(&one.reason),
            _ if !is_current => Whereabouts::TakenBack,
            _ if self.is_expired(header) => Whereabouts::Expired,
            _ if is_held() => Whereabouts::RecipientHeld,
            _ if one.overdue => Whereabouts::Overdue,
            _ => Whereabouts::OnItsWay,
        };
        Ok(at.told(Some(&code), optional_timestamp(one.at.as_ref())))
    }

    fn is_expired(&self, header: &Header) -> bool {
        header.expires_at.is_some_and(|until| until <= self.now)
    }

    /// About the own state.
    fn to_recipient(&self, asking: &Asking, digits: &str) -> Result<WhyResponse, Refusal> {
        let digits = id_digits(digits).ok_or_else(unknown)?;
        let index = &self.context.index;
        let found = match asking {
            Asking::Agency(agency) => {
                let known = self.state.agencies().get(agency).ok_or_else(unknown)?;
                let may = |about: &About| entitled(known, about) || concord_faults::planted("explain-without-right");
                index.received(&digits, may)
            }
            Asking::Officer => index.received(&digits, |_| true),
        };
        let one = only(found.map_err(failed)?, &digits, unknown)?;
        let header = parse(&one.header).map_err(|_| failed(IndexError::Row("an exchange")))?;
        let withdrawn = index.withdrawn(&one.id, &header.origin).map_err(failed)?;
        let at = self.here(asking, &one, &header, withdrawn.is_some())?;
        let told = at.told(Some(&self.context.participant), Some(one.delivered_at));
        let not_current = withdrawn.map(|row| not_current(&row));
        Ok(WhyResponse { not_current, ..response(&one.id, &header, vec![told]) })
    }

    fn here(
        &self,
        asking: &Asking,
        one: &ReceivedOne,
        header: &Header,
        is_withdrawn: bool,
    ) -> Result<Whereabouts, Refusal> {
        let (index, lane) = (&self.context.index, header.lane);
        let taken = match &one.became {
            Became::SetAside(reason) => return Ok(set_aside(reason)),
            Became::Accepted { taken } => *taken,
        };
        if taken {
            return Ok(Whereabouts::Taken);
        }
        if is_withdrawn {
            return Ok(Whereabouts::TakenBack);
        }
        let number = index.received_as(&one.id).map_err(failed)?.unwrap_or_default();
        if index.damaged().is_gone(lane, number) {
            return Ok(Whereabouts::BodyGone);
        }
        if index.damaged().is_wanted(lane, number) {
            return Ok(Whereabouts::WaitsForBody);
        }
        // Which agencies there are, and what they may, is its officer's to know.
        let about = About::of(header);
        let may = |agency: &crate::state::Agency| entitled(agency, &about);
        let is_officer = matches!(asking, Asking::Officer);
        Ok(if is_officer && !self.state.all_agencies().any(may) {
            Whereabouts::Uncollected
        } else if is_officer && !self.state.agencies().values().any(may) {
            Whereabouts::Unconfirmed
        } else if self.context.overdue.is(lane, one.delivered_at, self.now) {
            Whereabouts::AgencyOverdue
        } else {
            Whereabouts::WaitsForAgency
        })
    }
}

/// A reason of a newer node: set aside it is, whatever the words.
fn set_aside(reason: &str) -> Whereabouts {
    Whereabouts::SetAside(SetAsideReason::from_code(reason).unwrap_or(SetAsideReason::SignatureInvalid))
}

fn response(id: &ExchangeId, header: &Header, whereabouts: Vec<pb::Whereabouts>) -> WhyResponse {
    WhyResponse {
        exchange_id: digest_bytes(&id.0),
        origin: header.origin.to_string(),
        agreement: Some(agreement_ref(&header.agreement)),
        expires_at: header.expires_at.map(timestamp),
        whereabouts,
        exercise: header.exercise,
        ..WhyResponse::default()
    }
}

fn failed(error: IndexError) -> Refusal {
    crate::submit::internal(&error)
}
