//! The CloudWatch Logs output and memory: what the service does not take waits where it came from.

use crate::strict_cloudwatch::{Answer, CloudWatch, Rule};
use crate::support::cloudwatch::{NAMES, Sender, conf, line, start, stop, stored};

#[test]
fn more_than_fits_in_memory_waits_at_its_senders_and_arrives_once_the_service_is_back() {
    let aws = CloudWatch::start();
    aws.create("g", &["s"]);
    aws.fault(Rule::put(Answer::UNAVAILABLE).always());
    let router = start(&conf(&aws, "memory.limit 8M", &format!("{NAMES}\nlog_key log")));
    let mut client = Sender::new(&router);
    let count = 2400;
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || {
            for i in 0..count / 20 {
                let entries: Vec<_> =
                    (0..20).map(|n| line(&format!("{} {}", i * 20 + n, "x".repeat(10_000)))).collect();
                client.send("app", &entries);
            }
        });
        router.says("cannot send");
        let mut other = Sender::new(&router);
        (0..8).for_each(|_| other.expect_silence());
        assert!(!sending.is_finished(), "24 MB do not fit in 8");
        aws.heal();
        stored(&aws, count);
    });
    let numbers: Vec<usize> =
        aws.messages("g", "s").iter().map(|m| m.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(0..count), "out of order");
    stop(router);
}

#[test]
fn large_events_in_many_streams_fit_through_little_memory() {
    let aws = CloudWatch::start();
    let lines = "log_group_name g\nlog_stream_prefix p-\nauto_create_group on\nlog_key log";
    let router = start(&conf(&aws, "memory.limit 6M", lines));
    let text = "é".repeat(450_000);
    let mut clients: Vec<_> = (0..3).map(|_| Sender::new(&router)).collect();
    std::thread::scope(|scope| {
        for (c, client) in clients.iter_mut().enumerate() {
            let text = &text;
            scope.spawn(move || {
                for n in 0..6 {
                    client.send(&format!("t{}", (c + n) % 4), &[line(text), line("small")]);
                }
            });
        }
        stored(&aws, 36);
    });
    stop(router);
}

#[test]
fn a_thousand_streams_in_a_flood_take_less_than_64_mib() {
    let aws = CloudWatch::start();
    let lines = "log_group_name g\nlog_stream_prefix p-\nauto_create_group on\nlog_key log";
    let router = start(&conf(&aws, "", lines));
    let text = "x".repeat(1000);
    // More than the output's share of memory holds, so that the sender waits; each line is of another stream.
    let (streams, rounds) = (1000, 12);
    let mut client = Sender::new(&router);
    for round in 0..rounds {
        for stream in 0..streams {
            client.send(&format!("t{}", (stream * 7 + round) % streams), &[line(&format!("{round} {text}"))]);
        }
    }
    stored(&aws, streams * rounds);
    let peak = router.peak_kib();
    assert!(peak < 64 << 10, "{peak} KiB at its peak");
    stop(router);
}
