//! Where an exchange is for one party, and what it waits for, in words: the one place that has them, for hub and node.
//!
//! **What it must not know:** how it was found out. Whoever asks is told no more than tracking or explaining tells it anyway.

use concord_model::{ParticipantCode, Reason, SetAsideReason, Timestamp, WithheldReason};
use concord_wire::convert::timestamp;
use concord_wire::proto::exchange::v1 as pb;

/// What became of an exchange, or what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// At its origin's node, which goes on to send it.
    InQueue,
    /// At its origin's node, which does not reach the hub.
    HubAway,
    /// At its origin's node, whose state is held.
    OriginHeld,
    /// At its origin's node, which the hub does not serve.
    NotServed,
    /// At its origin's node, whose lane does not move.
    LaneStopped,
    /// The hub refused it.
    Refused(Reason),
    /// Recorded, and meant for nobody.
    ForNobody,
    /// At the hub, on its way.
    OnItsWay,
    /// At the hub, for longer than its lane should.
    Overdue,
    /// At the hub, since the recipient's node is not connected to it.
    NodeAway,
    /// At the hub, while the recipient is held.
    RecipientHeld,
    /// Not delivered by its time.
    Expired,
    /// Taken back before it was delivered.
    TakenBack,
    /// At the recipient's node; no agency has acknowledged it.
    WaitsForAgency,
    /// The same, for longer than its lane should.
    AgencyOverdue,
    /// The same, as its sender knows it.
    NotTaken,
    /// At the recipient's node, where no agency may have it.
    Uncollected,
    /// At the recipient's node, whose agencies wait for their officer's word.
    Unconfirmed,
    /// At the recipient's node, where its content is damaged and asked for again.
    WaitsForBody,
    /// At the recipient's node, without its content, which nobody gives any more.
    BodyGone,
    /// An agency of the recipient has it.
    Taken,
    /// At the recipient's node or with its agency: the hub is not told which.
    Delivered,
    /// Not delivered, for this reason.
    Withheld(WithheldReason),
    /// At the recipient's node, where it did not verify.
    SetAside(SetAsideReason),
    /// Not known: what was told of it was not looked through.
    NotSeen,
}

use Whereabouts as At;

impl Whereabouts {
    /// The stable code.
    pub const fn code(self) -> &'static str {
        match self {
            At::InQueue => "IN_QUEUE",
            At::HubAway => "HUB_AWAY",
            At::OriginHeld => "ORIGIN_HELD",
            At::NotServed => "NOT_SERVED",
            At::LaneStopped => "LANE_STOPPED",
            At::Refused(_) => "REFUSED",
            At::ForNobody => "FOR_NOBODY",
            At::OnItsWay => "ON_ITS_WAY",
            At::Overdue => "OVERDUE",
            At::NodeAway => "NODE_AWAY",
            At::RecipientHeld => "RECIPIENT_HELD",
            At::Expired => "EXPIRED",
            At::TakenBack => "WITHDRAWN",
            At::WaitsForAgency => "WAITS_FOR_AGENCY",
            At::AgencyOverdue => "AGENCY_OVERDUE",
            At::NotTaken => "NOT_TAKEN",
            At::Uncollected => "UNCOLLECTED",
            At::Unconfirmed => "AGENCY_UNCONFIRMED",
            At::WaitsForBody => "WAITS_FOR_BODY",
            At::BodyGone => "BODY_GONE",
            At::Taken => "TAKEN",
            At::Delivered => "DELIVERED",
            At::Withheld(_) => "WITHHELD",
            At::SetAside(SetAsideReason::Discarded) => "DISCARDED",
            At::SetAside(_) => "SET_ASIDE",
            At::NotSeen => "NOT_SEEN",
        }
    }

    /// Whether nothing is waited for any more.
    pub const fn is_over(self) -> bool {
        matches!(
            self,
            At::Refused(_)
                | At::ForNobody
                | At::Expired
                | At::TakenBack
                | At::BodyGone
                | At::Taken
                | At::Delivered
                | At::Withheld(_)
                | At::SetAside(SetAsideReason::Discarded)
        )
    }

    /// A stable reason, where it has one.
    pub const fn reason(self) -> &'static str {
        match self {
            At::Refused(reason) => reason.code(),
            At::Withheld(reason) => reason.as_str(),
            At::SetAside(reason) => reason.as_str(),
            _ => "",
        }
    }

    /// In a sentence, about a party where it is about one.
    fn said(self, of: &str) -> String {
        match self {
            At::InQueue => "It is durable at its own node, in the queue for the hub.".to_owned(),
            At::HubAway => "It is durable at its own node, and waits until that reaches the hub.".to_owned(),
            At::OriginHeld => {
                "It is durable at its own node, and waits: its state is held for a technical reason.".to_owned()
            }
            At::NotServed => "It is durable at its own node, which the hub does not serve.".to_owned(),
            At::LaneStopped => "It is durable at its own node, and its lane to the hub does not move.".to_owned(),
            At::Refused(reason) => format!("The hub refused it ({reason}): nobody has it."),
            At::ForNobody => "It was recorded, and is for nobody: what it speaks of had reached nobody.".to_owned(),
            At::OnItsWay => format!("The hub has it, and the node of {of} has yet to take it."),
            At::Overdue => format!(
                "The hub has it, and waits for the node of {of} for longer than its lane should. That node is away, or stands still."
            ),
            At::NodeAway => format!("The hub has it, and the node of {of} is not connected to the hub."),
            At::RecipientHeld => format!("The hub keeps it: {of} is held for a technical reason, and its mail waits."),
            At::Expired => format!("Its time was over before it reached {of}, and it does not go there any more."),
            At::TakenBack => {
                format!("Its origin took it back before it reached {of}, and it does not go there any more.")
            }
            At::WaitsForAgency => format!("The node of {of} has it, and no agency there has acknowledged it yet."),
            At::AgencyOverdue => {
                format!("The node of {of} has it, and no agency there has taken it for longer than its lane should.")
            }
            At::NotTaken => format!(
                "The node of {of} has it, and no agency there has taken it for longer than its lane should: none asks for it, or none has \
                 the right to it. Which of them only {of} knows."
            ),
            At::Uncollected => format!("The node of {of} has it, and no agency there has the right to it."),
            At::Unconfirmed => {
                format!("The node of {of} has it, and the agencies that may have it wait for their officer's word.")
            }
            At::WaitsForBody => {
                format!(
                    "The node of {of} has it, and its content is damaged on the disk: the hub is asked for it again."
                )
            }
            At::BodyGone => format!("The node of {of} had it, its content is damaged, and nobody gives that any more."),
            At::Taken => format!("An agency of {of} has it."),
            At::Delivered => format!("The node of {of} has it. Whether an agency took it is told to its sender only."),
            At::Withheld(reason) => format!("{of} did not get it: {}.", withheld(reason)),
            At::SetAside(SetAsideReason::Discarded) => {
                format!("It did not verify at the node of {of}, and the officer there discarded it.")
            }
            At::SetAside(reason) => {
                format!("It did not verify at the node of {of} ({reason}), and waits there for a person's word.")
            }
            At::NotSeen => format!("The hub recorded it for {of}; what became of it then was not looked through."),
        }
    }

    /// What to do, if anything.
    fn next(self) -> &'static str {
        match self {
            At::InQueue | At::OnItsWay => "nothing: it goes by itself; `concord track --wait delivered` waits for it",
            At::HubAway => "the node's operator: `concord node check` says where the way to the hub ends",
            At::OriginHeld => {
                "ask whoever laid the hold: `concord agreement preview` and `concord status` say that it stands"
            }
            At::NotServed | At::LaneStopped => "the node's operator sees why with `concord status`",
            At::Refused(reason) => reason.help(),
            At::Overdue | At::NodeAway => "call that state's contact point: its node has to run and to reach the hub",
            At::RecipientHeld => "nothing: it goes when the hold is lifted",
            At::Expired => "submit it again with a later --expires, if it still matters",
            At::WaitsForAgency => "nothing at the sender; an agency of the recipient gets it with `concord receive`",
            At::AgencyOverdue => "see that the agency's program runs: `concord status` lists what waits for each",
            At::NotTaken => {
                "call that state's contact point (`concord contact list`): its node says what waits there, and for whom"
            }
            At::Uncollected => "grant an agency the right: `concord agency grant`",
            At::Unconfirmed => "confirm them: `concord agency confirm`",
            At::WaitsForBody => "nothing: it comes by itself while the hub is there",
            At::BodyGone => "ask its sender to send it again",
            At::SetAside(SetAsideReason::Discarded) => {
                "ask that state's contact point, and send it again if it is to arrive"
            }
            At::SetAside(_) => {
                "at the recipient: `concord set-aside show` says what to do; at the sender: call that state's contact point"
            }
            At::NotSeen => "nothing can be said here; its sender sees it with `concord track`",
            At::Withheld(WithheldReason::BodyLost | WithheldReason::Expired) => "submit it again, if it still matters",
            At::ForNobody | At::TakenBack | At::Taken | At::Delivered | At::Withheld(_) => "",
        }
    }

    /// As it is told about a party, or, where that is empty, about the whole.
    pub fn told(self, of: Option<&ParticipantCode>, since: Option<Timestamp>) -> pb::Whereabouts {
        let party = of.map(ToString::to_string).unwrap_or_default();
        pb::Whereabouts {
            code: self.code().to_owned(),
            said: self.said(&party),
            next: self.next().to_owned(),
            since: since.map(timestamp),
            reason: self.reason().to_owned(),
            ended: self.is_over(),
            overdue: matches!(self, At::Overdue | At::AgencyOverdue | At::NotTaken),
            participant: party,
        }
    }

    /// The same about the whole, which waits at its own node for longer than its lane should where that is so: what it waits for stays to be said.
    pub fn told_of_queue(self, is_overdue: bool, since: Option<Timestamp>) -> pb::Whereabouts {
        let told = self.told(None, since);
        match is_overdue {
            false => told,
            true => pb::Whereabouts {
                said: format!("{} It is overdue: it waits for longer than its lane should.", told.said),
                overdue: true,
                ..told
            },
        }
    }
}

const fn withheld(reason: WithheldReason) -> &'static str {
    match reason {
        WithheldReason::Left => "it left the agreement",
        WithheldReason::AgreementEnded => "the agreement had ended",
        WithheldReason::Removed => "it was taken off the agreement",
        WithheldReason::Withdrawn => "its origin took it back before",
        WithheldReason::Expired => "its time was over before",
        WithheldReason::BodyLost => "its content was lost at the hub",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each.
    fn all() -> Vec<At> {
        let plain = [
            At::InQueue,
            At::HubAway,
            At::OriginHeld,
            At::NotServed,
            At::LaneStopped,
            At::ForNobody,
            At::OnItsWay,
            At::Overdue,
            At::NodeAway,
            At::RecipientHeld,
            At::Expired,
            At::TakenBack,
            At::WaitsForAgency,
            At::AgencyOverdue,
            At::NotTaken,
            At::Uncollected,
            At::Unconfirmed,
            At::WaitsForBody,
            At::BodyGone,
            At::Taken,
            At::Delivered,
            At::NotSeen,
        ];
        let withheld = WithheldReason::ALL.iter().map(|reason| At::Withheld(*reason));
        let aside = SetAsideReason::ALL.iter().map(|reason| At::SetAside(*reason));
        plain.into_iter().chain(withheld).chain(aside).chain([At::Refused(Reason::AudienceEmpty)]).collect()
    }

    #[test]
    fn what_is_overdue_in_the_queue_says_so_beside_what_it_waits_for() {
        let late = At::HubAway.told_of_queue(true, None);
        assert!(
            late.overdue && late.code == "HUB_AWAY" && late.said.contains("until that reaches the hub. It is overdue")
        );
        assert_eq!(At::HubAway.told_of_queue(false, None), At::HubAway.told(None, None));
    }

    #[test]
    fn whatever_is_waited_for_says_so_in_a_sentence_or_two_and_what_to_do() {
        let code = ParticipantCode::parse("IRN").unwrap();
        for at in all() {
            let told = at.told(Some(&code), None);
            let sentences = told.said.matches(". ").count() + 1;
            assert!(told.said.ends_with('.') && sentences <= 2 && !told.said.contains('`'), "{told:?}");
            assert!(at.is_over() || !told.next.is_empty(), "{told:?}");
        }
    }
}
