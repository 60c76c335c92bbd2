//! The forward output and a peer that is away, slow, wrong or gone: with acks nothing is lost, the order is kept, and
//! only what was in flight is sent twice.

use crate::support::forward::{ack, message, message_to_ack};
use crate::support::peer::{Peer, Reply, wrong_ack};
use crate::support::router::{Client, Router, free_port};

fn router(port: u16, lines: &str) -> Router {
    Router::start(&format!(
        "[SERVICE]\n    Flush 0.1\n    Grace 5\n[INPUT]\n    Name forward\n    Unix_Path {{dir}}/in.sock\n\
         [OUTPUT]\n    Name forward\n    Match *\n    Port {port}\n{lines}\n"
    ))
}

const ACKS: &str = "    Require_ack_response on";

fn numbers(n: usize) -> Vec<String> {
    (0..n).map(|i| i.to_string()).collect()
}

/// Without the repeats of what came before.
fn first_of_each(logs: &[String]) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    logs.iter().filter(|l| seen.insert((*l).clone())).cloned().collect()
}

#[test]
fn a_peer_that_is_down_at_first_gets_everything_in_order_once() {
    let port = free_port();
    let router = router(port, ACKS);
    let mut client = router.unix();
    (0..200).for_each(|i| client.send(&message_to_ack("t", &i.to_string(), &i.to_string())));
    router.says("nobody listens there");
    let peer = Peer::start(port, |_, _| Reply::Ack);
    (0..200).for_each(|i| client.expect(&ack(&i.to_string())));
    assert_eq!(peer.logs(200), numbers(200));
    router.says("sending again");
    let ended = router.stop();
    assert_eq!((ended.code, ended.ledger.output("forward.0", "delivered")), (Some(0), 200));
    // Told once, however many attempts there were.
    assert_eq!(ended.messages.matches("cannot send").count(), 1, "{}", ended.messages);
}

#[test]
fn a_peer_that_does_not_ack_gets_it_again_on_a_new_connection() {
    let port = free_port();
    let peer = Peer::start(port, |connection, _| if connection == 0 { Reply::Silence } else { Reply::Ack });
    let router = router(port, &format!("{ACKS}\n    ack_timeout 1"));
    let mut client = router.unix();
    client.send(&message_to_ack("t", "0", "a"));
    client.expect(&ack("a"));
    assert_eq!(peer.logs(2), ["0", "0"]);
    let ended = router.stop();
    assert!(ended.messages.contains("no ack within 1s"), "{}", ended.messages);
    assert!(ended.messages.contains("records_sent_again=1"), "{}", ended.messages);
    assert_eq!(ended.code, Some(0));
}

#[test]
fn acks_in_another_order_and_one_that_nobody_asked_for_settle_what_they_name() {
    let port = free_port();
    let peer = Peer::start(port, |_, n| match n {
        0 | 1 => Reply::Keep,
        2 => Reply::Reversed,
        _ => Reply::Say(wrong_ack()),
    });
    let router = router(port, ACKS);
    // A connection for each: a connection gets its acks in order.
    let mut clients: Vec<_> = (0..3).map(|_| router.unix()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.send(&message_to_ack(&format!("t{i}"), &i.to_string(), "id"));
        peer.logs(i + 1);
    }
    clients.iter_mut().for_each(|c| c.expect(&ack("id")));
    clients[0].send(&message_to_ack("t", "3", "id"));
    clients[0].expect(&ack("id"));
    assert_eq!(peer.logs(4), numbers(4));
    let ended = router.stop();
    assert!(ended.messages.contains("acked what is not in flight"), "{}", ended.messages);
    assert!(ended.code == Some(0) && !ended.messages.contains("cannot send"), "{}", ended.messages);
}

#[test]
fn a_peer_that_closes_again_and_again_loses_nothing_and_sees_the_order_kept() {
    let port = free_port();
    let peer = Peer::start(port, |_, n| if n < 3 { Reply::Ack } else { Reply::Close });
    let router = router(port, ACKS);
    let mut client = router.unix();
    for i in 0..30 {
        client.send(&message_to_ack(&format!("t{}", i % 2), &i.to_string(), &i.to_string()));
    }
    (0..30).for_each(|i| client.expect(&ack(&i.to_string())));
    let logs: Vec<_> = peer.got().into_iter().flat_map(|g| g.logs).collect();
    assert_eq!(first_of_each(&logs), numbers(30));
    for connection in 0.. {
        let of_one: Vec<usize> = peer
            .got()
            .into_iter()
            .filter(|g| g.connection == connection)
            .flat_map(|g| g.logs)
            .map(|l| l.parse().unwrap())
            .collect();
        if of_one.is_empty() {
            break;
        }
        assert!(of_one.is_sorted(), "connection {connection}: {of_one:?}");
    }
    assert_eq!(router.stop().code, Some(0));
}

#[test]
fn only_what_was_in_flight_when_the_peer_died_is_sent_twice() {
    let port = free_port();
    let peer = Peer::start(port, |connection, n| match (connection, n) {
        (0, 10..) => Reply::Silence,
        _ => Reply::Ack,
    });
    let router = router(port, ACKS);
    let mut client = router.unix();
    for i in 0..10 {
        client.send(&message_to_ack("t", &i.to_string(), &i.to_string()));
        client.expect(&ack(&i.to_string()));
    }
    for i in 10..13 {
        client.send(&message_to_ack("t", &i.to_string(), &i.to_string()));
        peer.logs(i + 1);
    }
    peer.close_all();
    (10..13).for_each(|i| client.expect(&ack(&i.to_string())));
    assert_eq!(peer.logs(16), [numbers(13), numbers(13)[10..].to_vec()].concat());
    assert_eq!(router.stop().code, Some(0));
}

#[test]
fn without_acks_a_connection_that_the_peer_has_closed_is_not_written_to() {
    let port = free_port();
    let peer = Peer::start(port, |_, _| Reply::Silence);
    let router = router(port, "");
    let mut client = router.unix();
    for i in 0..50 {
        client.send(&message("t", &i.to_string()));
        assert_eq!(peer.logs(i + 1), numbers(i + 1));
        // Nothing is in flight: all of it was read.
        peer.close_all();
    }
    let ended = router.stop();
    assert_eq!((ended.code, ended.ledger.output("forward.0", "delivered")), (Some(0), 50));
}

#[test]
fn an_idle_connection_is_closed_after_its_time_and_made_anew_when_needed() {
    let port = free_port();
    let peer = Peer::start(port, |_, _| Reply::Ack);
    let router = router(port, &format!("{ACKS}\n    net.keepalive_idle_timeout 1"));
    let mut client = router.unix();
    client.send(&message_to_ack("t", "0", "a"));
    client.expect(&ack("a"));
    // More than the idle time, measured by another silent socket.
    client.wait_at_most(std::time::Duration::from_millis(1500));
    assert!(std::io::Read::read(&mut client, &mut [0; 1]).is_err());
    client.wait_at_most(crate::support::LIMIT);
    client.send(&message_to_ack("t", "1", "b"));
    client.expect(&ack("b"));
    assert_eq!(peer.got().iter().map(|g| g.connection).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(router.stop().code, Some(0));
}

#[test]
fn a_stop_waits_out_no_back_off() {
    let port = free_port();
    let router = router(port, "    Alias out");
    let mut client = router.unix();
    client.send(&message("t", "0"));
    router.says("cannot send");
    let peer = Peer::start(port, |_, _| Reply::Ack);
    let ended = router.stop();
    assert_eq!((ended.code, peer.logs(1)), (Some(0), numbers(1)));
}

#[test]
fn a_peer_that_stays_away_costs_the_exit_code_and_is_accounted_for() {
    let router = router(free_port(), "");
    let mut client = router.unix();
    client.send(&message("t", "0"));
    router.says("cannot send");
    let ended = router.stop();
    assert_eq!((ended.code, ended.ledger.output("forward.0", "delivered")), (Some(1), 0));
}

#[test]
fn what_the_retry_limit_or_the_age_gives_up_is_counted_and_what_comes_after_it_goes_out() {
    for (lines, first) in [("    Retry_Limit 1", "scheduler.base 1"), ("    retry.max_age 1", "Flush 0.1")] {
        let port = free_port();
        let router = Router::start(&format!(
            "[SERVICE]\n    {first}\n    Grace 5\n[INPUT]\n    Name forward\n    Unix_Path {{dir}}/in.sock\n\
             [OUTPUT]\n    Name forward\n    Match *\n    Port {port}\n{ACKS}\n{lines}\n"
        ));
        let mut client = router.unix();
        client.send(&message_to_ack("t", "lost", "a"));
        // The chunk has failed: its sender is told by the end of the connection.
        client.expect_close();
        let peer = Peer::start(port, |_, _| Reply::Ack);
        let mut client = router.unix();
        client.send(&message_to_ack("t", "0", "b"));
        client.expect(&ack("b"));
        assert_eq!(peer.logs(1), numbers(1));
        let ended = router.stop();
        let counted = (
            ended.ledger.output("forward.0", "delivered"),
            ended.ledger.output("forward.0", "dropped_retries"),
        );
        assert_eq!((ended.code, counted), (Some(1), (1, 1)), "{}", ended.messages);
    }
}
