//! One entry in words: kinds, numbers, participants, digests. Content stands apart, for whoever asked for it.

use concord_journal::{Entry, HistoryId, KIND_REDACTED, KIND_REDACTION_STEP, KIND_TRIMMED, is_reserved_kind};
use concord_ledger::epoch::FIRST_EPOCH;
use concord_ledger::{
    ConsignmentRecorded, ContactSetting, DecisionContent, MailAcknowledged, Resume, RoleDecision, Statement,
    StatementContent, StatementDecided,
};
use concord_model::MeasureCode;
use concord_wire::agreement::parse_statement;
use concord_wire::header::is_exercise;
use concord_wire::proto::agreement::v1::SignedStatement;
use concord_wire::proto::feed::v1::{FeedItem, feed_item};
use concord_wire::stored::hub::{self, HubEntry};
use concord_wire::stored::node::{
    self, AsideEnded, AsideOutcome, NodeEntry, Received, Restored, RightsChange, Verdict,
};
use concord_wire::stored::{Kept, StoredError};
use serde::Serialize;

use super::secretariat::Agreed;
use crate::media;
use crate::output::{hex, safe};

/// Kinds of a hub's journal; a node's are above.
const HUB_KINDS: std::ops::RangeInclusive<u16> = 1..=99;

/// What an entry says.
#[derive(Debug, Serialize)]
pub(super) struct Words {
    /// Never a title, never a body.
    pub(super) about: String,
    /// Titles and bodies, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<Vec<Content>>,
}

/// The content of one exchange, or the title of one agreement.
#[derive(Debug, Serialize)]
pub(super) struct Content {
    of: String,
    title: Option<String>,
    media_type: Option<String>,
    text: Option<String>,
    hex: Option<String>,
    /// Why there is neither title nor body.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_shown: Option<&'static str>,
}

impl Content {
    fn without(self, why: &'static str) -> Self {
        Self { title: None, text: None, hex: None, not_shown: Some(why), ..self }
    }

    pub(super) fn shown(&self) -> String {
        let media_type = self.media_type.as_deref().unwrap_or("agreement");
        let body = match (&self.text, &self.hex) {
            (Some(text), _) => text.lines().map(|line| format!("\n          {}", safe(line))).collect(),
            (None, Some(hex)) => format!("\n          {} bytes, not text", hex.len() / 2),
            (None, None) => String::new(),
        };
        let title = self.title.as_deref().map(safe);
        let title = title.unwrap_or_else(|| format!("not shown ({})", self.not_shown.unwrap_or_default()));
        format!("{}  {title}  {media_type}{body}", self.of.get(..16).unwrap_or(&self.of))
    }
}

/// The kind of an entry and its words. With content: of a hub's as far as these agreements let the secretariat read it.
pub(super) fn words(entry: &Entry, with_content: Option<&Agreed>) -> Result<(&'static str, Words), StoredError> {
    let is_hubs = is_reserved_kind(entry.kind) || HUB_KINDS.contains(&entry.kind);
    let (kind, about, content) = if is_hubs { of_hub(entry, with_content)? } else { of_node(entry)? };
    let content = (with_content.is_some() && !content.is_empty()).then_some(content);
    Ok((kind, Words { about, content }))
}

type Parts = (&'static str, String, Vec<Content>);

/// What the journal did to itself.
fn own_effect(entry: &Entry) -> Parts {
    let words = match entry.kind {
        KIND_REDACTED => "bodies were redacted",
        KIND_TRIMMED => "entries before it were trimmed; a base stands for them",
        KIND_REDACTION_STEP => "a redaction went on",
        _ => "the journal's own",
    };
    ("journal", words.to_owned(), Vec::new())
}

fn of_hub(entry: &Entry, agreed: Option<&Agreed>) -> Result<Parts, StoredError> {
    Ok(match hub::read(entry)? {
        HubEntry::HistoryBegun(begun) => {
            let parent = begun.parent.map_or_else(String::new, |parent| format!(" after {}", hex(&parent)));
            ("history", format!("{} begins{parent}", hex(&begun.history)), Vec::new())
        }
        HubEntry::JournalEffect => own_effect(entry),
        HubEntry::Founded(founding) => {
            let (participants, measures) = (founding.participants.len(), founding.measures.len());
            let about = format!(
                "hub {}, {participants} participants, {measures} measures, anchor {}",
                founding.hub, founding.anchor_fingerprint
            );
            ("founded", about, Vec::new())
        }
        HubEntry::Statement(decided, ..) => ("statement", decision(&decided), titles(&decided.statement)),
        HubEntry::Consignment(recorded, kept) => {
            let content = agreed.map_or_else(Vec::new, |agreed| contents_at_hub(entry, &kept, agreed));
            ("consignment", recording(&recorded), content)
        }
        HubEntry::Acknowledged(acknowledged, _) => ("acknowledged", acknowledgement(&acknowledged), Vec::new()),
        HubEntry::FeedResumed(fact) => {
            ("feed-resumed", format!("feed of {}{}", fact.participant, goes_on(&fact.resume)), Vec::new())
        }
        HubEntry::NodeSeen(fact) => {
            let (history, run) = (HistoryId(fact.history), HistoryId(fact.run));
            ("node", format!("{}'s node goes on in history {history}, run {run}", fact.participant), Vec::new())
        }
        HubEntry::NotHealed(fact) => {
            let lost: Vec<String> = fact.lost.iter().map(|(lost, reason)| format!("{lost}: {reason}")).collect();
            ("not-healed", format!("lost of {}: {}", fact.participant, lost.join("; ")), Vec::new())
        }
        HubEntry::Lapsed(fact) => {
            let of = &fact.agreement;
            let told: Vec<_> = fact.told.iter().map(|told| format!("{} {}", told.participant, told.number)).collect();
            ("lapsed", format!("{} version {}; told {}", of.id, of.version, told.join(", ")), Vec::new())
        }
        HubEntry::MailboxResumed(fact) => {
            let about = format!("mailbox {} of {}{}", fact.lane, fact.recipient, goes_on(&fact.resume));
            ("mailbox-resumed", about, Vec::new())
        }
    })
}

fn of_node(entry: &Entry) -> Result<Parts, StoredError> {
    Ok(match node::read(entry)? {
        NodeEntry::JournalEffect => own_effect(entry),
        NodeEntry::HistoryBegun(begun) => ("history", format!("{} begins", begun.history), Vec::new()),
        NodeEntry::Founded { participant, node } => ("founded", format!("node {node} of {participant}"), Vec::new()),
        NodeEntry::Joined(bundle) => ("joined", format!("hub {}", bundle.hub), Vec::new()),
        NodeEntry::AgencyAdded { name, measures } => {
            let measures: Vec<_> = measures.iter().map(ToString::to_string).collect();
            let measures = if measures.is_empty() { "all measures".to_owned() } else { measures.join(", ") };
            ("agency-added", format!("{name}, {measures}"), Vec::new())
        }
        NodeEntry::RightsChanged(name, change) => match change {
            RightsChange::Granted(right) => ("agency-granted", format!("{name}: {right}"), Vec::new()),
            RightsChange::Revoked(right) => ("agency-revoked", format!("{name}: {right}"), Vec::new()),
            RightsChange::Ended => ("agency-ended", name.to_string(), Vec::new()),
            RightsChange::Confirmed { with_past } => {
                let past = if with_past { ", with the past" } else { "" };
                ("agency-confirmed", format!("{name}{past}"), Vec::new())
            }
        },
        NodeEntry::AgencyCollected(fact) => {
            let about = format!("{} has {} {}, which nobody had collected", fact.agency, fact.lane, fact.number);
            ("agency-collected", about, Vec::new())
        }
        NodeEntry::Queued(queued) => {
            let node::Queued { kept, submissions, packed_anew } = *queued;
            let mut agencies: Vec<&str> = submissions.iter().map(|one| one.agency.as_str()).collect();
            agencies.sort_unstable();
            agencies.dedup();
            let anew = packed_anew.map_or_else(String::new, |(epoch, number)| {
                format!(", packed anew from epoch {epoch} number {number}")
            });
            let about = format!("{} by {}{anew}", consignment(&kept), agencies.join(", "));
            ("queued", about, contents(entry, &kept))
        }
        NodeEntry::Receipt(receipt) => ("receipt", in_receipt(&receipt), Vec::new()),
        NodeEntry::ReceiptRenewed(receipt) => ("receipt-renewed", in_receipt(&receipt), Vec::new()),
        NodeEntry::FeedResumed(fact) => ("feed-resumed", format!("the feed goes on after {}", fact.at), Vec::new()),
        NodeEntry::MailboxResumed(fact) => {
            let (lane, at, common, taken) = (fact.lane, fact.at, fact.common, fact.taken.len());
            let about = format!("{lane} goes on after {at}, in common to {common}, {taken} taken are told again");
            ("mailbox-resumed", about, Vec::new())
        }
        NodeEntry::Feed { items, .. } => ("feed", feed(&items), Vec::new()),
        NodeEntry::Mail { lane, items, .. } => {
            let (about, content) = mail(entry, &items);
            ("mail", format!("{lane}: {about}"), content)
        }
        NodeEntry::AgencyAcknowledged(fact) => {
            let about =
                format!("{}, {} through {}, {} first taken", fact.agency, fact.lane, fact.through, fact.taken.len());
            ("taken", about, Vec::new())
        }
        NodeEntry::Statement(signed) => match parse_statement(&signed) {
            Ok(statement) => ("statement", say(&statement), titles(&statement)),
            Err(refusal) => ("statement", format!("cannot be read: {}", refusal.message), Vec::new()),
        },
        NodeEntry::Answer(answer) => {
            let became = if answer.refused.is_empty() { "accepted" } else { &answer.refused };
            ("answer", format!("statement {} of {}: {became}", answer.number, answer.officer), Vec::new())
        }
        NodeEntry::Restored(Restored::FromBackup(taken_at)) => {
            ("restored", format!("from a backup taken {}", crate::output::time(taken_at)), Vec::new())
        }
        NodeEntry::Restored(Restored::Declared(last)) => {
            let what = format!("declared to be an older copy, whose last entry is of {}", crate::output::time(last));
            ("restored", what, Vec::new())
        }
        NodeEntry::Found(kept, _) => {
            let about = format!("the hub has {} under a number of something else", consignment(&kept));
            ("found", about, contents(entry, &kept))
        }
        NodeEntry::PinConfirmed(whose, key) => ("pin", format!("{whose} signs with {key}, as confirmed"), Vec::new()),
        NodeEntry::EpochEntered(lane, epoch) => ("epoch", format!("{lane} goes on in epoch {epoch}"), Vec::new()),
        NodeEntry::RunBegun(run) => ("run", HistoryId(run).to_string(), Vec::new()),
        NodeEntry::Fenced(why) => {
            let about = format!("the hub does not serve this copy of the node ({}): {}", why.reason, why.message);
            ("fenced", about, Vec::new())
        }
        NodeEntry::FenceLifted => ("fence-lifted", "the hub serves this copy of the node".to_owned(), Vec::new()),
        NodeEntry::AsideEnded(fact) => aside_ended(entry, fact),
        NodeEntry::TakenRecovered(lane, taken) => {
            ("taken-recovered", format!("{} deliveries of {lane}, acknowledged before", taken.len()), Vec::new())
        }
        NodeEntry::LaneRecovered(fact) => {
            let about = format!(
                "{}: {} consignments fetched back; mailbox acknowledged up to {}; content gone of {} {}",
                fact.lane,
                fact.fetched,
                fact.delivered_through,
                fact.bodies_lost_count,
                fact.bodies_lost.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            );
            ("recovered", about, Vec::new())
        }
        NodeEntry::Restored(Restored::Rebuilt) => ("restored", "made anew, without a backup".to_owned(), Vec::new()),
    })
}

fn goes_on(resume: &Resume) -> String {
    let Resume { shown, common, last, at, .. } = resume;
    format!(
        " goes on after {at}: its node showed {}, in common to {common}, {} told again",
        shown.number,
        last - common
    )
}

fn say(statement: &Statement) -> String {
    let what = match &statement.content {
        StatementContent::Propose { text, digest } => {
            let parties: Vec<_> = text.parties.iter().map(|party| party.participant.as_str()).collect();
            format!("proposes {} version {} among {} ({})", text.id, text.version, parties.join(" "), short(&digest.0))
        }
        StatementContent::Consent(of) => {
            format!("consents to {} version {} ({})", of.id, of.version, short(&of.digest.0))
        }
        StatementContent::Decline(of, _) => {
            format!("declines {} version {} ({})", of.id, of.version, short(&of.digest.0))
        }
        StatementContent::Return(of, leave) => {
            format!("comes back to {} version {} from the leave {}", of.id, of.version, short(leave))
        }
        StatementContent::Leave(reference) => format!("leaves {} version {}", reference.id, reference.version),
        StatementContent::End(of) => format!("says that {} version {} is to end", of.id, of.version),
        StatementContent::Hold { participant, reason } => format!("holds {participant}: {}", safe(reason.as_str())),
        StatementContent::Release(hold) => format!("lifts the hold of statement {}", short(hold)),
        StatementContent::SetContact(ContactSetting { measure, revision, contact }) => {
            let about = measure.as_ref().map_or("everything", MeasureCode::as_str);
            match contact {
                Some(contact) => {
                    format!("sets its contact {revision} for {about}: {}", safe(contact.office.as_str()))
                }
                None => format!("sets its contact {revision} for {about}: nobody any more"),
            }
        }
        StatementContent::Role(RoleDecision { participant, role, scope, is_given, reference, .. }) => {
            let records = if *is_given { "gave" } else { "took" };
            let over = safe(&scope.to_string());
            let paper = safe(reference.as_str());
            format!("records that the forum {records} the role {role} {over} of {participant} by {paper}")
        }
        StatementContent::Replace(replacement) => {
            let request = &replacement.request;
            let (whose, node, anchor) = (&request.participant, &request.node, request.anchor_fingerprint);
            format!(
                "replaces the keys of {whose}, node {node}, anchor {anchor}, by {}",
                safe(replacement.reference.as_str())
            )
        }
        StatementContent::OpenEpoch(opening) => {
            format!("opens epoch {} of the chains of node {}", opening.epoch, opening.node)
        }
        StatementContent::RotateKey(rotation) => {
            let whose = rotation.opening.as_ref().map_or("the hub".to_owned(), |opening| {
                format!("node {} from epoch {} on", opening.node, opening.epoch)
            });
            format!("rotates the signing key of {whose} to {}", rotation.signing_key.fingerprint)
        }
        StatementContent::SucceedAnchor(next) => format!("brings the new anchor {}", next.anchor_fingerprint),
        StatementContent::EndAnchor(anchor) => format!("ends the anchor {anchor}"),
        StatementContent::Enrol(request) => {
            format!("enrols {} with node {}, anchor {}", request.participant, request.node, request.anchor_fingerprint)
        }
        StatementContent::Approve(statement) => format!("approves statement {}", short(statement)),
        StatementContent::Reject(statement) => format!("rejects statement {}", short(statement)),
        StatementContent::Decided(decision) => {
            let what = match &decision.content {
                DecisionContent::AddParticipant(added) => {
                    let name = added.names.get("en").map_or("", String::as_str);
                    format!("adds the participant {} ({}, {})", added.code, safe(name), added.kind)
                }
                DecisionContent::Rename { participant, names, .. } => {
                    let names: Vec<_> = names.iter().map(|(tag, name)| format!("{tag} {}", safe(name))).collect();
                    format!("renames {participant}: {}", names.join(", "))
                }
                DecisionContent::SetKind { participant, kind, .. } => format!("makes {participant} a {kind}"),
                DecisionContent::AddMeasure(added) => {
                    format!("adds the measure {} ({})", added.code, safe(&added.title))
                }
            };
            format!("{what}, by {}", safe(decision.reference.as_str()))
        }
    };
    format!("{} {} number {} {what}", statement.participant, statement.officer, statement.number)
}

fn decision(decided: &StatementDecided) -> String {
    let told: Vec<String> = decided.told.iter().map(|told| format!("{} {}", told.participant, told.number)).collect();
    let refused = decided.refused.map_or_else(String::new, |reason| format!("; refused {reason}"));
    let signatures = match &decided.completes {
        Some(completed) => format!("; with it entry {} takes effect", completed.statement),
        None if decided.waits() => format!("; waits until {} officers have signed", decided.needs),
        None => decided.approvals.iter().map(|approval| format!("; signed by {} too", approval.officer)).collect(),
    };
    format!("{}{refused}{signatures}; told {}", say(&decided.statement), told.join(", "))
}

fn recording(recorded: &ConsignmentRecorded) -> String {
    let runs = recorded.mailboxes.iter().map(|run| {
        let last = run.first.saturating_add(u64::from(run.count)).saturating_sub(1);
        if run.count == 1 {
            format!("{} {}", run.recipient, run.first)
        } else {
            format!("{} {}-{last}", run.recipient, run.first)
        }
    });
    let mut groups: Vec<String> = recorded.groups.iter().map(|group| group.agreement.id.to_string()).collect();
    groups.dedup();
    let chain = &recorded.chain;
    let mut about = format!(
        "{} {}{} number {}, {} exchanges ({}) under {} to {}",
        chain.origin,
        chain.lane,
        in_epoch(chain.epoch),
        recorded.number,
        recorded.count,
        short(&recorded.digest.0),
        groups.join(", "),
        runs.collect::<Vec<_>>().join(", ")
    );
    for refusal in &recorded.refused {
        about.push_str(&format!("; item {} refused {}", refusal.index, refusal.reason));
    }
    about
}

/// Every chain begins in the first: that need not be said.
fn in_epoch(epoch: u32) -> String {
    if epoch == FIRST_EPOCH { String::new() } else { format!(" epoch {epoch}") }
}

fn consignment(kept: &Kept) -> String {
    let sealed = &kept.sealed;
    let (lane, number, count) = (sealed.chain.lane, sealed.number, sealed.headers.len());
    let epoch = in_epoch(sealed.chain.epoch);
    let exercises = match sealed.headers.iter().filter(|header| is_exercise(header)).count() {
        0 => String::new(),
        exercises => format!(", EXERCISE: {exercises} of them"),
    };
    format!("{lane}{epoch} number {number}, {count} exchanges{exercises} ({})", short(&sealed.digest.0))
}

fn acknowledgement(fact: &MailAcknowledged) -> String {
    let told: Vec<String> =
        fact.told.iter().map(|one| format!("{} {}", one.told.participant, one.told.number)).collect();
    let told = if told.is_empty() { String::new() } else { format!("; told {}", told.join(", ")) };
    format!(
        "{} {} delivered through {}, {} taken{told}",
        fact.recipient, fact.lane, fact.delivered_through, fact.taken_count
    )
}

fn in_receipt(receipt: &concord_wire::proto::exchange::v1::RecordedReceipt) -> String {
    use concord_wire::proto::exchange::v1::RecordedStatement;
    use prost::Message as _;
    match RecordedStatement::decode(receipt.statement.clone()) {
        Ok(statement) => {
            let refused = statement.outcomes.iter().filter(|outcome| !outcome.refused.is_empty()).count();
            let lane = statement.chain.and_then(|chain| concord_wire::convert::parse_lane(chain.lane).ok());
            let lane = lane.map_or("unknown lane", concord_model::Lane::as_str);
            format!("{lane} number {}, {} exchanges, {refused} refused", statement.number, statement.outcomes.len())
        }
        Err(error) => format!("cannot be read: {error}"),
    }
}

fn feed(items: &[FeedItem]) -> String {
    let item = |item: &FeedItem| {
        let what = match &item.content {
            None => "nothing".to_owned(),
            Some(feed_item::Content::Registry(registry)) => {
                format!(
                    "registry of {} participants, {} measures",
                    registry.participants.len(),
                    registry.measures.len()
                )
            }
            Some(feed_item::Content::Statement(signed)) => stated(signed),
            Some(feed_item::Content::StatementRefused(refused)) => {
                format!("statement {} of {} refused {}", refused.number, refused.officer, refused.reason)
            }
            Some(feed_item::Content::Lapsed(of)) => format!("{} version {} lapsed", safe(&of.id), of.version),
            Some(feed_item::Content::Receipts(receipts)) => {
                let states: Vec<_> = receipts.receipts.iter().map(|receipt| receipt.state().as_str_name()).collect();
                let states = states.join(" ").replace("RECEIPT_STATE_", "").to_lowercase();
                format!("{} {states}", receipts.recipient)
            }
        };
        format!("{}: {what}", item.number)
    };
    items.iter().map(item).collect::<Vec<_>>().join("; ")
}

fn stated(signed: &SignedStatement) -> String {
    parse_statement(signed)
        .map_or_else(|refusal| format!("cannot be read: {}", refusal.message), |statement| say(&statement))
}

fn aside_ended(entry: &Entry, fact: AsideEnded) -> (&'static str, String, Vec<Content>) {
    let (lane, number) = (fact.lane, fact.number);
    match fact.outcome {
        AsideOutcome::Accepted(item) => {
            let (about, content) = mail(entry, std::slice::from_ref(item.as_ref()));
            ("aside-accepted", format!("{lane}: {about} holds after all"), content)
        }
        AsideOutcome::Discarded { by, reason } => {
            ("aside-discarded", format!("{lane}: {number} by {by}: {}", safe(&reason)), Vec::new())
        }
    }
}

fn mail(entry: &Entry, items: &[Received]) -> (String, Vec<Content>) {
    let mut content = Vec::new();
    let mut first_blob = 0_usize;
    let words = items.iter().map(|item| {
        let blobs = first_blob..first_blob.saturating_add(item.blob_count as usize);
        first_blob = blobs.end;
        match &item.verdict {
            Verdict::Accepted(delivery) => {
                content.extend(of_exchange(entry, &delivery.header, blobs));
                let origin = concord_wire::header::parse(&delivery.header).map(|header| header.origin.to_string());
                let id = concord_wire::header::exchange_id(&delivery.header).to_string();
                format!(
                    "{}{} from {} ({})",
                    if is_exercise(&delivery.header) { "EXERCISE " } else { "" },
                    delivery.number,
                    origin.unwrap_or_default(),
                    id.get(..16).unwrap_or_default()
                )
            }
            Verdict::SetAside(delivery, reason) => format!("{} set aside, {reason}", delivery.number),
            Verdict::Withheld(number) => format!("{number} withheld"),
            Verdict::Repeated(repeated) => format!("{} repeats {}", repeated.number, repeated.first_number),
        }
    });
    let words = words.collect::<Vec<_>>().join(", ");
    (words, content)
}

fn contents(entry: &Entry, kept: &Kept) -> Vec<Content> {
    let headers = kept.sealed.headers.iter().enumerate();
    headers.filter_map(|(index, header)| of_exchange(entry, header, kept.blob_range(index))).collect()
}

/// The same, as far as the secretariat may read it.
fn contents_at_hub(entry: &Entry, kept: &Kept, agreed: &Agreed) -> Vec<Content> {
    let headers = kept.sealed.headers.iter().enumerate();
    let content = headers.filter_map(|(index, header)| {
        let version = concord_wire::header::parse(header).ok()?.agreement;
        let content = of_exchange(entry, header, kept.blob_range(index))?;
        Some(match agreed.allow(&version) {
            Ok(()) => content,
            Err(why) => content.without(why),
        })
    });
    content.collect()
}

/// Title and body of one exchange, where its blobs are held and were read.
fn of_exchange(entry: &Entry, header: &[u8], blobs: std::ops::Range<usize>) -> Option<Content> {
    let mut blobs = entry.blobs.get(blobs)?.iter().flatten();
    let description = concord_wire::header::parse_description(blobs.next()?.bytes()).ok()?;
    let body = blobs.next()?.bytes();
    let media_type = concord_wire::header::parse(header).ok()?.parts.first()?.media_type.clone();
    let text = std::str::from_utf8(body).ok().filter(|_| media::is_text(&media_type));
    Some(Content {
        of: concord_wire::header::exchange_id(header).to_string(),
        title: Some(description.title.to_string()),
        media_type: Some(media_type.to_string()),
        text: text.map(ToOwned::to_owned),
        hex: text.is_none().then(|| hex(body)),
        not_shown: None,
    })
}

fn titles(statement: &Statement) -> Vec<Content> {
    match &statement.content {
        StatementContent::Propose { text, .. } => {
            vec![Content {
                of: text.id.to_string(),
                title: Some(text.title.to_string()),
                media_type: None,
                text: None,
                hex: None,
                not_shown: None,
            }]
        }
        _ => Vec::new(),
    }
}

fn short(digest: &concord_model::Digest) -> String {
    digest.to_string().get(..16).unwrap_or_default().to_owned()
}
