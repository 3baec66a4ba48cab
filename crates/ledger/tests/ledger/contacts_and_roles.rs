//! Whom one calls in each state, and who has which role: who may say so, and what holds.

use concord_ledger::contact::CONTACTS_MAX;
use concord_ledger::{ContactSetting, RoleDecision, Statement, StatementContent};
use concord_model::{Digest, ForumRole, MeasureCode, ParticipantCode, Reason, RoleScope, Timestamp};

use crate::forum::{Forum, MEASURES, contact, reason, t};

fn set(
    forum: &mut Forum,
    by: &str,
    measure: Option<&str>,
    revision: u32,
    office: Option<&str>,
) -> Result<Vec<ParticipantCode>, Reason> {
    let setting = ContactSetting { measure: measure.map(t), revision, contact: office.map(contact) };
    reason(forum.say(by, StatementContent::SetContact(setting)))?;
    Ok(forum.last_statement().told.iter().map(|told| told.participant.clone()).collect())
}

fn office(forum: &Forum, of: &str, measure: Option<&str>) -> Option<String> {
    let measure: Option<MeasureCode> = measure.map(t);
    let point = forum.ledger.registry().contacts().get(&t(of), measure.as_ref())?;
    Some(point.contact.as_ref()?.office.to_string())
}

#[test]
fn a_contact_point_is_its_own_states_and_told_to_all() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let all: Vec<ParticipantCode> = ["IRN", "KAZ", "SEC"].map(t).into();
    assert_eq!(set(&mut forum, "KAZ", None, 1, Some("duty officer")), Ok(all.clone()));
    assert_eq!(set(&mut forum, "SEC", None, 1, Some("the secretariat")), Ok(all.clone()));
    assert_eq!(set(&mut forum, "KAZ", Some(MEASURES[0]), 1, Some("drug control")), Ok(all.clone()));
    assert_eq!(office(&forum, "KAZ", None).unwrap(), "duty officer");
    assert_eq!(office(&forum, "KAZ", Some(MEASURES[0])).unwrap(), "drug control");
    assert_eq!(office(&forum, "IRN", None), None, "nobody says so for another");
    // It is set again, removed, and set once more, by whoever knows the last word.
    assert_eq!(set(&mut forum, "KAZ", None, 1, Some("another")), Err(Reason::RegistryChanged));
    assert_eq!(set(&mut forum, "KAZ", None, 3, Some("another")), Err(Reason::RegistryChanged));
    assert_eq!(set(&mut forum, "KAZ", None, 2, None), Ok(all.clone()));
    assert_eq!(office(&forum, "KAZ", None), None);
    assert_eq!(set(&mut forum, "KAZ", None, 3, None), Err(Reason::ContactUnknown));
    assert_eq!(set(&mut forum, "IRN", None, 1, None), Err(Reason::ContactUnknown));
    assert_eq!(set(&mut forum, "KAZ", None, 3, Some("a new one")), Ok(all));
    assert_eq!(office(&forum, "KAZ", None).unwrap(), "a new one");
    assert_eq!(set(&mut forum, "KAZ", Some("challenges.99"), 1, Some("x")), Err(Reason::MeasureUnknown));
    assert!(CONTACTS_MAX > MEASURES.len());
}

fn record(
    forum: &mut Forum,
    by: &str,
    (participant, role, scope): (&str, ForumRole, &RoleScope),
    revision: u32,
    is_given: bool,
) -> Result<(), Reason> {
    let (participant, scope, reference) = (t(participant), scope.clone(), t("SOC decision 14"));
    let decision = RoleDecision { participant, role, scope, revision, is_given, reference };
    reason(forum.say(by, StatementContent::Role(decision)))
}

fn holders(forum: &Forum, role: ForumRole) -> Vec<String> {
    let roles = forum.ledger.registry().roles().iter().filter(|(place, _)| place.role == role);
    roles.filter_map(|(_, held)| held.holder.as_ref().map(ToString::to_string)).collect()
}

#[test]
fn the_secretariat_alone_records_roles_and_there_is_one_chair() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let none = RoleScope::default();
    let chair = |code| (code, ForumRole::Chair, &none);
    assert_eq!(record(&mut forum, "KAZ", chair("KAZ"), 1, true), Err(Reason::CallerNotAllowed));
    assert_eq!(record(&mut forum, "SEC", chair("KAZ"), 1, true), Ok(()));
    assert_eq!(forum.last_statement().told.len(), 4, "all are told");
    assert_eq!(record(&mut forum, "SEC", chair("KAZ"), 2, true), Err(Reason::RoleExists));
    assert_eq!(record(&mut forum, "SEC", chair("IRN"), 2, false), Err(Reason::RoleUnknown));
    assert_eq!(record(&mut forum, "SEC", chair("IRN"), 1, true), Err(Reason::RegistryChanged));
    assert_eq!(record(&mut forum, "SEC", chair("IRN"), 2, true), Ok(()));
    assert_eq!(holders(&forum, ForumRole::Chair), ["IRN"], "one member at a time");
    assert_eq!(record(&mut forum, "SEC", chair("SEC"), 3, true), Err(Reason::ArgumentInvalid));
    assert_eq!(record(&mut forum, "SEC", chair("USA"), 3, true), Err(Reason::ParticipantUnknown));
    assert_eq!(record(&mut forum, "SEC", chair("IRN"), 3, false), Ok(()));
    assert!(holders(&forum, ForumRole::Chair).is_empty());
}

#[test]
fn coordinators_are_of_an_area_a_measure_or_words() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let over = |area: Option<&str>, measure: Option<&str>, words: Option<&str>| RoleScope {
        area: area.map(t),
        measure: measure.map(t),
        words: words.map(t),
    };
    let area = over(Some("challenges"), None, None);
    let part = over(None, Some(MEASURES[0]), Some("drug control"));
    let words = over(None, None, Some("the political-military dimension"));
    let coordinator = ForumRole::Coordinator;
    for (code, scope) in [("TUR", &area), ("IRN", &part), ("KAZ", &part), ("KAZ", &words)] {
        assert_eq!(record(&mut forum, "SEC", (code, coordinator, scope), 1, true), Ok(()));
    }
    assert_eq!(record(&mut forum, "SEC", ("IRN", ForumRole::CoCoordinator, &area), 1, true), Ok(()));
    assert_eq!(record(&mut forum, "SEC", ("IRN", coordinator, &part), 2, false), Ok(()));
    assert_eq!(holders(&forum, coordinator), ["KAZ", "KAZ", "TUR"]);
    for (scope, why) in [
        (over(None, None, None), Reason::ArgumentInvalid),
        (over(Some("challenges"), Some(MEASURES[0]), None), Reason::ArgumentInvalid),
        (over(Some("cosmic"), None, None), Reason::ArgumentInvalid),
        (over(None, Some("challenges.99"), None), Reason::MeasureUnknown),
    ] {
        assert_eq!(record(&mut forum, "SEC", ("TUR", coordinator, &scope), 1, true), Err(why), "{scope:?}");
    }
    assert_eq!(record(&mut forum, "SEC", ("TUR", ForumRole::Chair, &area), 1, true), Err(Reason::ArgumentInvalid));
}

fn contact_set(revision: u32, office: &str) -> StatementContent {
    StatementContent::SetContact(ContactSetting { measure: None, revision, contact: Some(contact(office)) })
}

fn chair_given(revision: u32, participant: &str) -> StatementContent {
    let (participant, scope, reference) = (t(participant), RoleScope::default(), t("SOC decision 14"));
    StatementContent::Role(RoleDecision {
        participant,
        role: ForumRole::Chair,
        scope,
        revision,
        is_given: true,
        reference,
    })
}

#[test]
fn no_setting_and_no_decision_that_comes_back_takes_the_numbers_of_the_next_ones() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    for revision in [0, 1001, u32::MAX] {
        for (by, content) in [("KAZ", contact_set(revision, "from afar")), ("SEC", chair_given(revision, "KAZ"))] {
            let far = forum.statement(by, content);
            assert_eq!(forum.takes_back(&far), Some(Reason::RegistryChanged), "{by} {revision}");
        }
    }
    set(&mut forum, "KAZ", None, 1, Some("duty officer")).unwrap();
    record(&mut forum, "SEC", ("KAZ", ForumRole::Chair, &RoleScope::default()), 1, true).unwrap();
}

#[test]
fn of_two_under_one_number_the_one_made_later_holds_whichever_comes_first() {
    let twice = [
        ("KAZ", [contact_set(1, "before"), contact_set(1, "anew")], ["before", "anew"]),
        ("SEC", [chair_given(1, "KAZ"), chair_given(1, "IRN")], ["KAZ", "IRN"]),
    ];
    for (by, [before, anew], [_, expected]) in twice {
        // Digests in the order of the times, and in the other.
        for [earlier, later] in [[1, 2], [2, 1]].map(|digests| digests.map(|byte| Digest([byte; 32]))) {
            let first = Forum::of(["KAZ", "IRN"]).statement(by, before.clone());
            let made_at = Timestamp::from_micros(first.made_at.as_micros() + 1);
            let (number, content) = (first.number + 1, anew.clone());
            let last = Statement { digest: later, made_at, number, content, ..first.clone() };
            let first = Statement { digest: earlier, ..first };
            for order in [[&first, &last], [&last, &first]] {
                let mut hub = Forum::of(["KAZ", "IRN"]);
                for statement in order {
                    assert_eq!(hub.takes_back(statement), None);
                }
                let holds = [office(&hub, "KAZ", None), holders(&hub, ForumRole::Chair).pop()];
                assert_eq!(holds.into_iter().flatten().collect::<Vec<_>>(), [expected], "{by}");
            }
        }
    }
}
