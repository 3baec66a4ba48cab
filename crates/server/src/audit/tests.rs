//! The audit log as a whole: what is found again, what a flood leaves, what a torn end and a full disk do.

use std::fs;
use std::io::Write as _;

use concord_model::{Identity, Name, Reason};
use concord_wire::proto::operations::v1::ListAuditRequest;
use futures::StreamExt as _;

use super::files::read_all;
use super::*;
use crate::drain::Shutdown;

struct Log {
    place: tempfile::TempDir,
    audit: Audit,
    readiness: Readiness,
}

fn kaz() -> ParticipantCode {
    ParticipantCode::parse("KAZ").unwrap()
}

fn begin(place: tempfile::TempDir) -> Log {
    let readiness = Readiness::new();
    let audit = Audit::begin(place.path(), kaz(), readiness.clone());
    Log { place, audit, readiness }
}

fn operator(name: &str) -> Identity {
    format!("spiffe://kaz.concord/operator/{name}").parse().unwrap()
}

fn refusal(by: &str, method: &'static str) -> Event {
    Event::of_call(&by.parse().unwrap(), method, Object::nothing(), Err(Reason::CallerNotAllowed))
}

fn act(agency: &str) -> Event {
    let by = "spiffe://kaz.concord/operator/operator".parse().unwrap();
    Event::of_call(&by, "/t.S/AddAgency", Object::agency(&Name::parse(agency).unwrap(), None), Ok(()))
}

impl Log {
    fn folder(&self) -> PathBuf {
        self.place.path().join(AUDIT_FOLDER)
    }

    fn size(&self) -> u64 {
        fs::read_dir(self.folder()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }

    async fn lines(&self, request: ListAuditRequest) -> Vec<(u64, String, u64)> {
        let given = self.audit.list(&operator("reader"), request, Shutdown::new()).unwrap();
        let line = |line: Result<concord_wire::proto::operations::v1::ListAuditResponse, _>| {
            let line = line.unwrap().line.unwrap();
            (line.number, format!("{} {} {} {}", line.caller, line.method, line.about, line.outcome), line.more)
        };
        given.map(line).collect().await
    }
}

#[tokio::test]
async fn what_was_noted_is_found_again_also_after_a_restart_and_behind_a_torn_line() {
    let log = begin(tempfile::tempdir().unwrap());
    log.audit.note(act("cert"));
    log.audit.note(refusal("spiffe://kaz.concord/agency/cert", "/t.S/Secret"));
    let all = log.lines(ListAuditRequest::default()).await;
    assert_eq!(all[0].1, "spiffe://kaz.concord/operator/operator /t.S/AddAgency agency cert ok");
    assert_eq!(all[1].1, "spiffe://kaz.concord/agency/cert /t.S/Secret  CALLER_NOT_ALLOWED");
    let only = ListAuditRequest { refused: true, ..Default::default() };
    assert_eq!(log.lines(only).await, all[1..]);
    let of = ListAuditRequest { caller: "agency/cert".into(), ..Default::default() };
    assert_eq!(log.lines(of).await, all[1..]);
    let newest = ListAuditRequest { limit: 1, ..Default::default() };
    assert_eq!(log.lines(newest).await, all[1..]);

    // A power cut leaves half a line at the end of each file.
    for file in fs::read_dir(log.folder()).unwrap() {
        let mut file = fs::OpenOptions::new().append(true).open(file.unwrap().path()).unwrap();
        file.write_all(b"{\"number\":99,\"time\":\"20").unwrap();
    }
    let Log { place, audit, .. } = log;
    drop(audit);
    let log = begin(place);
    log.audit.note(act("police"));
    log.audit.note(refusal("spiffe://kaz.concord/agency/police", "/t.S/Secret"));
    let again = log.lines(ListAuditRequest::default()).await;
    assert_eq!(again[..2], all);
    let numbers: Vec<u64> = again.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert_eq!(fs::read_dir(log.folder()).unwrap().count(), 2, "a start begins no file where one has room");
}

#[tokio::test]
async fn a_flood_of_refusals_is_counted_stays_small_and_leaves_acts_and_others_where_they_are() {
    let log = begin(tempfile::tempdir().unwrap());
    log.audit.note(act("cert"));
    for _ in 0..20_000 {
        log.audit.note(refusal("spiffe://kaz.concord/agency/cert", "/t.S/Secret"));
    }
    log.audit.note(refusal("spiffe://kaz.concord/agency/police", "/t.S/Secret"));
    log.audit.note(act("police"));
    let all = log.lines(ListAuditRequest::default()).await;
    let written = REFUSALS.of_caller_at_once as usize;
    assert_eq!(all.len(), 1 + written + 1 + 1 + 1, "{all:#?}");
    let more: u64 = all.iter().map(|(.., more)| more).sum();
    assert_eq!(more, 20_000 - written as u64, "what was left out is not counted");
    assert_eq!(all.iter().filter(|(_, line, _)| line.contains("AddAgency")).count(), 2);
    assert!(all.iter().any(|(_, line, _)| line.contains("agency/police")), "another's refusal was left out");
    assert!(log.size() < 64 * 1024 && log.readiness.list().is_empty());
}

#[tokio::test]
async fn strangers_from_everywhere_lose_no_line_of_who_has_a_name_and_raise_nothing() {
    let log = begin(tempfile::tempdir().unwrap());
    // Nothing is written before the first await, so that the queue takes all of it.
    let strangers = 20_000_u32;
    for number in 0..strangers {
        let address = std::net::Ipv6Addr::from((0x2001_0db8_u128 << 96) | (u128::from(number) << 64));
        let by = Actor::Address(address.into());
        let about = Object::nothing();
        log.audit.note(Event { listener: "grpc", by, method: "handshake", about, refused: Some("ANCHOR_UNKNOWN") });
    }
    for name in ["cert", "police", "weather"] {
        for _ in 0..REFUSALS.of_caller_at_once {
            log.audit.note(refusal(&format!("spiffe://kaz.concord/agency/{name}"), "/t.S/Secret"));
        }
    }
    log.audit.note(act("cert"));
    // What found no room the first time is in a line of the second.
    log.lines(ListAuditRequest::default()).await;
    let all = log.lines(ListAuditRequest::default()).await;
    let of_known: Vec<_> = all.iter().filter(|(_, line, _)| line.starts_with("spiffe://")).collect();
    assert_eq!(of_known.len(), 3 * REFUSALS.of_caller_at_once as usize + 1);
    assert!(of_known.iter().all(|(.., more)| *more == 0), "{of_known:#?}");
    let counted: u64 = all.iter().filter(|(_, line, _)| !line.starts_with("spiffe://")).map(|line| line.2.max(1)).sum();
    assert_eq!(counted, u64::from(strangers), "what was not written is not counted");
    assert!(log.readiness.list().is_empty(), "{:?}", log.readiness.list());
}

#[tokio::test]
async fn refusals_of_who_has_a_name_that_found_no_room_are_told_as_lost() {
    let log = begin(tempfile::tempdir().unwrap());
    for number in 0..AUDIT_WAITING_MAX {
        log.audit.note(refusal(&format!("spiffe://kaz.concord/agency/a{number}"), "/t.S/Secret"));
    }
    assert_eq!(log.readiness.list()[0].name, AUDIT_LOST_NOTE);
}

#[tokio::test]
async fn one_who_follows_in_every_window_shuts_out_nobody() {
    let log = begin(tempfile::tempdir().unwrap());
    let follow = |name: &str| {
        let request = ListAuditRequest { follow: true, ..Default::default() };
        log.audit.list(&operator(name), request, Shutdown::new())
    };
    let mut open: Vec<_> = (0..LISTS_OPEN_PER_CALLER_MAX).map(|_| follow("one").unwrap()).collect();
    for _ in 0..LISTS_OPEN_MAX {
        let refusal = follow("one").err().unwrap();
        assert!(refusal.reason == Reason::QueueFull && refusal.message.contains("operator/one"), "{refusal}");
    }
    open.extend((open.len()..LISTS_OPEN_MAX).map(|number| follow(&format!("n{number}")).unwrap()));
    assert!(follow("late").err().is_some_and(|refusal| refusal.message.starts_with("8 lists")));
    // A place is free again when its list is gone, which its task notices.
    open.clear();
    let since = std::time::Instant::now();
    while follow("one").is_err() {
        assert!(since.elapsed() < Duration::from_secs(30), "its places are not given back");
        tokio::task::yield_now().await;
    }
}

#[test]
fn files_stay_within_their_bounds_and_refusals_push_out_no_act() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join(AUDIT_FOLDER);
    let mut files = Files::open(&folder).unwrap();
    let mut write = |event: &Event, class| {
        let line = AuditLine::of(event, files.next_number(), concord_model::Timestamp::from_micros(1), 0);
        files.write(&line, class).unwrap();
    };
    write(&act("first"), Class::Acts);
    let long = refusal("spiffe://kaz.concord/agency/cert", "/t.S/AMethodWithALongName");
    for _ in 0..2 * (SEGMENTS_MAX as u64 * SEGMENT_SIZE_MAX_BYTES) / 150 {
        write(&long, Class::Refusals);
    }
    let sizes = || fs::read_dir(&folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
    assert!(sizes().all(|size| size <= SEGMENT_SIZE_MAX_BYTES) && sizes().sum::<u64>() <= AUDIT_SIZE_MAX_BYTES);
    assert_eq!(sizes().count(), SEGMENTS_MAX + 1);
    let all = read_all(&folder).unwrap();
    assert_eq!((all[0].number, all[0].about.as_str()), (1, "agency first"));
    assert!(all.len() > 10_000 && all[1].number > 2, "the oldest refusals went");
}

#[tokio::test]
async fn a_disk_that_takes_no_line_loses_it_and_says_so_and_holds_up_nothing() {
    let place = tempfile::tempdir().unwrap();
    // Where the folder should be there is a file.
    fs::write(place.path().join(AUDIT_FOLDER), "x").unwrap();
    let log = begin(place);
    log.audit.note(act("cert"));
    log.audit.flush().await;
    let alarms = log.readiness.list();
    assert_eq!((alarms.len(), alarms[0].name, alarms[0].stops), (1, AUDIT_LOST_NOTE, false));
    // There is room again: it goes on by itself.
    fs::remove_file(log.folder()).unwrap();
    log.audit.note(act("police"));
    assert_eq!(log.lines(ListAuditRequest::default()).await.len(), 1);
}

#[tokio::test]
async fn whoever_follows_is_given_what_comes() {
    let log = begin(tempfile::tempdir().unwrap());
    log.audit.note(act("one"));
    let request = ListAuditRequest { follow: true, ..Default::default() };
    let shutdown = Shutdown::new();
    let mut given = log.audit.list(&operator("reader"), request, shutdown.clone()).unwrap();
    let about = |line: concord_wire::proto::operations::v1::ListAuditResponse| line.line.unwrap().about;
    assert_eq!(about(given.next().await.unwrap().unwrap()), "agency one");
    log.audit.note(act("two"));
    assert_eq!(about(given.next().await.unwrap().unwrap()), "agency two");
    shutdown.end_streams();
    assert!(given.next().await.unwrap().is_err());
    assert!(given.next().await.is_none());
}
