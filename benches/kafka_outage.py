#!/usr/bin/env python3
"""A Kafka that is away for ten minutes while 10 MB/s come, by size: 6 GB are offered while it is down, then it comes up.

    benches/kafka_outage.py [--gb GB] memory|storage ... [-- COMMAND {conf}]

  memory   no storage: sources wait. 32 clients have the data; ten times, when nothing has been taken for two seconds, all of
           them hang up, connect again and offer it once more, as clients with timeouts do
  storage  everything is acked into the log while Kafka is down

Then Kafka comes up and all of it goes there. Peak resident memory while it is down and until the end; records acked and
records in Kafka. Exit code 1: something was lost, or the peak was above 96 MiB. Needs what `scripts/setup test` installs;
runs with target/venv-kafka/bin/python.
"""
import argparse
import json
import os
import shutil
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(TOP, "tests"), os.path.join(TOP, "benches")]
from storage import Router, Sender, ports
from support import kafka

CONF = """[SERVICE]
    Flush 1
    Grace 20
%s[INPUT]
    Name forward
    Listen 127.0.0.1
    Port %d
%s[OUTPUT]
    Name kafka
    Match *
    Brokers %s
    Topics logs
    storage.total_limit_size 30G
"""
LIMIT_MIB = 96


def again(s):
    """The same client after it has hung up."""
    s.halt = True
    s.join(10)
    new = Sender(s.port, s.lane, records=s.records, window=s.window)
    new.next, new.unacked, new.acked, new.acked_bytes = s.next, s.unacked, s.acked, s.acked_bytes
    new.start()
    return new


def outage(a, mode, d, broker):
    """While Kafka is down, and after."""
    (port,) = ports(1)
    path, kind = ("    storage.path %s/log\n" % d, "    storage.type filesystem\n") if mode == "storage" else ("", "")
    router = Router(a.command, d, CONF % (path, port, kind, broker.address), port)
    router.start()
    clients = [Sender(port, lane, records=100) for lane in range(4 if mode == "storage" else 32)]
    for client in clients:
        client.start()
    acked = lambda: sum(client.acked_bytes for client in clients)
    total, rounds, began = a.gb * 1e9, 0, time.monotonic()
    while rounds < 10 if mode == "memory" else acked() < total:
        cpu = router.cpu()
        time.sleep(2)
        router.memory()
        if mode == "memory" and router.cpu() - cpu < 0.2:
            rounds += 1
            clients = [again(client) for client in clients]
    away, taken, seconds = router.memory(), acked(), time.monotonic() - began
    broker.up()
    began = time.monotonic()
    while acked() < total:
        time.sleep(0.2)
        router.memory()
    for client in clients:
        client.finish()
    want = sum(len(client.acked) * client.records for client in clients)
    while (came := broker.count("logs")) < want and time.monotonic() - began < 900:
        time.sleep(1)
        router.memory()
    took = time.monotonic() - began
    code = router.stop()
    return {
        "acked_while_away_gb": round(taken / 1e9, 2), "away_s": round(seconds), "peak_mb_while_away": round(away, 1), "acked": want, "in_kafka": came,
        "after_s": round(took), "peak_mb": round(router.peak, 1), "exit": code,
    }, came >= want and code == 0 and router.peak < LIMIT_MIB


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("modes", nargs="+", choices=["memory", "storage"])
    parser.add_argument("--gb", type=float, default=6, help="what is offered (6)")
    words, command = sys.argv[1:], [os.path.join(TOP, "target/release/firelane"), "run", "-c", "{conf}"]
    if "--" in words:
        at = words.index("--")
        words, command = words[:at], words[at + 1:]
    a = parser.parse_args(words)
    a.command = command
    good = True
    for mode in a.modes:
        d = tempfile.mkdtemp(prefix="firelane-outage-")
        with kafka.kafka() as broker:
            broker.topic("logs")
            broker.kill()
            figures, kept = outage(a, mode, d, broker)
        print(json.dumps({"run": mode, "good": kept, **figures}), flush=True)
        good &= kept
        shutil.rmtree(d, ignore_errors=True)
    sys.exit(not good)


if __name__ == "__main__":
    main()
