use concord_tests::{Forum, exchange_ids};
#[test]
fn probe() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    let sent = forum.agency("KAZ").submit("hello", "");
    let got = forum.agency("IRN").receive(1);
    assert_eq!(exchange_ids(&got), [sent.id]);
}
