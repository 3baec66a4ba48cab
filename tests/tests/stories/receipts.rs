//! How far an exchange has come, as its sender is told, and what its recipients get.

use concord_model::Lane;
use concord_tests::{Forum, body_of, concord, exchange_ids, text_of, words};

const AGREEMENT: &str = "KAZ/warnings";

fn three() -> Forum {
    let forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN", "TUR"]);
    forum
}

#[test]
fn waiting_for_delivered_ends_when_each_recipients_node_has_it() {
    let forum = three();
    let (kaz, irn, tur) = (forum.agency("KAZ"), forum.agency("IRN"), forum.agency("TUR"));
    let sent = kaz.submit("a warning", "--lane flash --wait delivered");
    assert_eq!(text_of(&sent.answer, "state"), "delivered");
    let tracked = kaz.track(&sent.id);
    let at = |field: &str| text_of(&tracked, field);
    assert!(at("queued_at") <= at("recorded_at"), "{tracked}");
    assert_eq!(kaz.settled(&sent.id), ["IRN delivered", "TUR delivered"]);

    for agency in [&irn, &tur] {
        let received = agency.receive(1);
        assert_eq!(exchange_ids(&received), [sent.id.clone()]);
        assert_eq!(body_of(&received[0]), b"a warning");
        for (field, expected) in
            [("origin", "KAZ"), ("agreement", AGREEMENT), ("measure", "environmental.5"), ("lane", "flash")]
        {
            assert_eq!(received[0][field], expected, "{}", received[0]);
        }
        assert_eq!(received[0]["media_type"], "text/plain");
        assert_eq!(received[0]["recorded_at"], tracked["recorded_at"]);
    }
    kaz.await_taken(&sent.id, "IRN");
    kaz.await_taken(&sent.id, "TUR");
    assert!(irn.receive_rest().is_empty() && tur.receive_rest().is_empty());
}

#[test]
fn waiting_for_recorded_does_not_wait_for_a_recipient_that_is_away() {
    let mut forum = three();
    forum.stop_node("IRN");
    let kaz = forum.agency("KAZ");
    let sent = kaz.submit("one", "--wait recorded");
    assert_eq!(text_of(&sent.answer, "state"), "recorded");
    let late = kaz.try_submit("two", "--wait delivered --timeout 1");
    late.refused(4, "WAIT_EXPIRED");
    assert_eq!(text_of(&late.json(), "state"), "recorded");
}

#[test]
fn the_sender_may_narrow_and_only_those_named_learn_of_it() {
    let forum = three();
    let kaz = forum.agency("KAZ");
    let narrow = kaz.submit("for one", "--to TUR --wait delivered");
    let wide = kaz.submit("for all", "--wait delivered");
    assert_eq!(kaz.settled(&narrow.id), ["TUR delivered"]);
    assert_eq!(kaz.settled(&wide.id), ["IRN delivered", "TUR delivered"]);
    assert_eq!(exchange_ids(&forum.agency("TUR").receive(2)), [narrow.id.clone(), wide.id.clone()]);
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [wide.id]);
    // Its mailbox number was the first: nothing shows that there was another before it.
    let mail = concord(words!["journal", "show", forum.node_dir("IRN")]).ok().text();
    assert!(mail.contains("routine: 1 from KAZ"), "{mail}");
    assert!(!mail.contains(&narrow.id[..16]), "{mail}");
}

#[test]
fn listing_acknowledges_nothing_and_one_body_can_go_to_stdout() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let first = kaz.submit("first\n", "--wait delivered --title Первое --language ru --caveat NOFORN");
    let second = kaz.submit("second\n", "--wait delivered --lane priority");
    for _ in 0..2 {
        let listed = irn.list();
        // More urgent ones first.
        assert_eq!(exchange_ids(&listed), [second.id.clone(), first.id.clone()]);
        assert_eq!(listed[1]["title"], "Первое");
        assert!(listed[0]["file"].is_null());
    }
    let stdout = concord(words!["receive", "--profile", irn.profile, "--out", "-"]).ok();
    assert_eq!(stdout.stdout, b"second\n");
    assert_eq!(exchange_ids(&irn.receive_rest()), [first.id]);
    let nothing = concord(words!["receive", "--profile", irn.profile, "--out", "-"]);
    nothing.refused(1, "NOTHING_RECEIVED");
}

#[test]
fn ids_may_be_shortened_to_eight_digits_and_belong_to_their_sender() {
    let forum = three();
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let sent = kaz.submit("one", "--wait delivered");
    assert_eq!(text_of(&kaz.track(&sent.id[..8]), "exchange_id"), sent.id);
    kaz.try_track(&sent.id[..7]).refused(3, "EXCHANGE_UNKNOWN");
    irn.try_track(&sent.id).refused(3, "EXCHANGE_UNKNOWN");
    kaz.try_track(&"0".repeat(64)).refused(3, "EXCHANGE_UNKNOWN");
}

#[test]
fn several_files_are_several_exchanges_in_their_order_on_every_lane() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let kaz = forum.agency("KAZ");
    for lane in Lane::ALL {
        let mut submit = words!["submit", "--profile", kaz.profile, "--lane", lane.as_str(), "--wait", "delivered"];
        for number in 0..40 {
            let path = forum.path().join(format!("{lane}-{number}.txt"));
            std::fs::write(&path, format!("{lane} {number}")).unwrap();
            submit.push(path.into());
        }
        let sent = exchange_ids(&concord(submit).ok().lines());
        let received = forum.agency("IRN").receive(40);
        assert_eq!(exchange_ids(&received), sent);
        assert_eq!(text_of(&received[7], "title"), format!("{lane}-7.txt"));
        assert_eq!(body_of(&received[7]), format!("{lane} 7").as_bytes());
    }
}
