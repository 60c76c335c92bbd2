//! A chunk that its client sends again, since the ack did not come in time: it is taken once while the first copy is
//! inside, and whoever sent it last hears what becomes of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;

use crate::support::forward::{ack, entry, map, message_to_ack, packed};
use crate::support::router::{Client, Ended, Router, TO_FILE};

/// Two files; the second cannot be written until [`free`].
fn stuck() -> Router {
    let dir = tempfile::tempdir().unwrap();
    symlink("/dev/full", dir.path().join("slow.log")).unwrap();
    let conf = format!(
        "{TO_FILE}[OUTPUT]\n    Name file\n    Match *\n    Path {{dir}}\n    File slow.log\n    Format plain\n"
    );
    Router::start_in(dir, &conf)
}

fn free(router: &Router) {
    fs::remove_file(router.path("slow.log")).unwrap();
}

fn repeated(ended: &Ended) -> u64 {
    ended.ledger.get("repeated_chunks")
}

/// Waits until the router has read everything up to a message of another client, which it takes.
fn passes(router: &Router, lines: usize) {
    let mut other = router.unix();
    other.send(&message_to_ack("t", "other", "other"));
    router.logs("out.log", lines);
}

#[test]
fn a_chunk_sent_again_while_the_first_is_inside_is_taken_once_and_acked_with_it() {
    let router = stuck();
    let chunk: Vec<u8> = packed("t", &[entry("a"), entry("b")].concat(), &map(&[(b"chunk", b"one")]));
    let mut first = router.tcp();
    first.send(&chunk);
    router.logs("out.log", 2);
    drop(first);
    let mut second = router.tcp();
    // Acks keep their order: what comes behind the repeat waits with it.
    second.send(&[chunk.clone(), message_to_ack("t", "c", "two")].concat());
    router.logs("out.log", 3);
    second.expect_silence();
    // The second one loses patience as well.
    drop(second);
    let mut third = router.tcp();
    third.send(&[chunk, message_to_ack("t", "c", "two")].concat());
    third.expect_silence();
    free(&router);
    third.expect(&ack("one"));
    third.expect(&ack("two"));
    let ended = router.stop();
    assert_eq!(ended.logs("out.log"), ["a", "b", "c"]);
    assert_eq!(fs::read_to_string(ended.dir.path().join("slow.log")).unwrap().lines().count(), 3);
    assert_eq!((ended.code, repeated(&ended), ended.ledger.get("received")), (Some(0), 3, 3));
}

#[test]
fn equal_chunks_of_clients_that_stay_are_each_taken() {
    let router = stuck();
    let chunk = message_to_ack("t", "equal", "the same id");
    let mut clients: [UnixStream; 2] = [router.unix(), router.unix()];
    clients[0].send(&[chunk.clone(), chunk.clone()].concat());
    clients[1].send(&chunk);
    router.logs("out.log", 3);
    free(&router);
    (0..2).for_each(|_| clients[0].expect(&ack("the same id")));
    clients[1].expect(&ack("the same id"));
    // And one that was acked, on a connection that has ended since, says nothing of the next.
    drop(clients);
    let mut later = router.unix();
    later.send(&chunk);
    later.expect(&ack("the same id"));
    let ended = router.stop();
    assert_eq!((ended.logs("out.log").len(), repeated(&ended)), (4, 0));
}

#[test]
fn one_byte_of_difference_makes_another_chunk() {
    let router = stuck();
    let mut first = router.unix();
    first.send(&message_to_ack("t", "a", "id"));
    router.logs("out.log", 1);
    drop(first);
    let mut second = router.unix();
    second.send(&[message_to_ack("t", "b", "id"), message_to_ack("u", "a", "id")].concat());
    router.logs("out.log", 3);
    free(&router);
    (0..2).for_each(|_| second.expect(&ack("id")));
    let ended = router.stop();
    assert_eq!((ended.logs("out.log").len(), repeated(&ended)), (3, 0));
}

#[test]
fn a_chunk_whose_ack_nobody_heard_is_acked_when_it_comes_again() {
    let router = stuck();
    let chunk = message_to_ack("t", "a", "id");
    let mut first = router.unix();
    first.send(&chunk);
    router.logs("out.log", 1);
    drop(first);
    free(&router);
    router.logs("slow.log", 1);
    let mut second = router.unix();
    second.send(&chunk);
    second.expect(&ack("id"));
    passes(&router, 2);
    let ended = router.stop();
    assert_eq!((ended.logs("out.log"), repeated(&ended)), (vec!["a".to_owned(), "other".to_owned()], 1));
}

#[test]
fn a_chunk_whose_first_copy_is_given_up_is_new() {
    let port = crate::support::router::free_port();
    let router = Router::start(&format!(
        "[SERVICE]\n    Flush 0.1\n    Grace 2\n    scheduler.base 1\n    scheduler.cap 1\n\
         [INPUT]\n    Name forward\n    Unix_Path {{dir}}/in.sock\n\
         [OUTPUT]\n    Name forward\n    Match *\n    Port {port}\n    Retry_Limit 1\n    Require_ack_response on\n"
    ));
    let chunk = message_to_ack("t", "a", "id");
    let mut first = router.unix();
    first.send(&chunk);
    router.says("nobody listens there");
    drop(first);
    let mut second = router.unix();
    second.send(&chunk);
    // Both are given up with the first: the client is told so by the end of its connection.
    second.expect_close();
    let peer = crate::support::peer::Peer::start(port, |_, _| crate::support::peer::Reply::Ack);
    let mut third = router.unix();
    third.send(&chunk);
    third.expect(&ack("id"));
    assert_eq!(peer.logs(1), ["a"]);
    let ended = router.stop();
    assert_eq!((repeated(&ended), ended.ledger.get("received")), (1, 2));
}
