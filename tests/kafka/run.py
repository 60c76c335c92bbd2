#!/usr/bin/env python3
"""The Kafka output and input against Apache Kafka: what kcat reads is what clients were acked for.

    run.py [NAME ...]        all tests, or those whose names match (globs)

`scripts/setup test` fetches Kafka and makes the environments. Two at a time: much of it is waiting. Needs about three
minutes.
"""
import collections
import json
import os
import socket
import sys
import time

import msgpack

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import iam
import security
from common import INPUT, Feed, fed, judged, output, router, wanted
from support import kafka, suite
from support.router import peak_kib


def once_and_in_order():
    """Three clients, 200,000 records, four partitions; the broker is killed and restarted, and away for 30 s."""
    with kafka.kafka() as broker:
        broker.topic("logs", 4)
        port, text = output(broker)
        with router(text, [port]) as r:
            feeds = [Feed(port, name, 667) for name in "abc"]
            [f.start() for f in feeds]
            suite.eventually("some are acked", lambda: sum(f.acked for f in feeds) > 20_000, 60)
            broker.kill()
            broker.up()
            suite.eventually("more are acked", lambda: sum(f.acked for f in feeds) > 80_000, 90)
            broker.kill()
            time.sleep(30)
            broker.up()
            fed(feeds)
            peak = peak_kib(r.process.pid) // 1024
            ledger = r.stop()
            assert ledger["routed"] == 200_100, ledger.line
            note = judged(broker, "logs", wanted(feeds))
            assert peak < 96, "%d MiB" % peak
            return "%s, %d MiB at most" % (note, peak)


def its_own_kill_loses_nothing():
    """kill -9 three times with storage: nothing acked is lost; order holds but for what comes again."""
    with kafka.kafka() as broker:
        broker.topic("logs", 2)
        port, text = output(broker, service="storage.path {dir}/st", input="storage.type filesystem")
        with router(text, [port]) as r:
            feeds = [Feed(port, name, 300) for name in "ab"]
            [f.start() for f in feeds]
            for upto in (10_000, 25_000, 40_000):
                suite.eventually("some are acked", lambda: sum(f.acked for f in feeds) > upto, 60)
                r.kill()
                r.start()
            fed(feeds)
            r.stop()
            seen, lines = set(), 0
            for line in broker.read("logs").splitlines():
                record = json.loads(line)
                seen.add((record["k"], record["n"]))
                lines += 1
            want = wanted(feeds)
            assert want <= seen, "%d are missing" % len(want - seen)
            return "%d records, %d twice" % (len(want), lines - len(want))


def an_outage_of_120_megabytes():
    """What ten minutes at a few MB/s are: the log takes it in while the broker is away, memory stays where it was."""
    with kafka.kafka() as broker:
        broker.topic("logs", 2)
        broker.kill()
        port, text = output(broker, service="storage.path {dir}/st", input="storage.type filesystem")
        with router(text, [port]) as r:
            feeds = [Feed(port, name, 1000, pad=560) for name in "ab"]
            [f.start() for f in feeds]
            fed(feeds)
            away = peak_kib(r.process.pid) // 1024
            broker.up()
            suite.eventually("everything is there", lambda: broker.count("logs", 2) >= 200_000, 120, every=1)
            peak = peak_kib(r.process.pid) // 1024
            r.stop()
            assert peak < 96, "%d MiB, %d while the broker was away" % (peak, away)
            return "%s, %d MiB at most, %d while the broker was away" % (judged(broker, "logs", wanted(feeds)), peak, away)


def batches_that_are_too_large():
    """A topic that takes 2,000 bytes: batches go one by one, in order, and only what is too large alone is a dead letter."""
    with kafka.kafka() as broker:
        broker.topic("small", 1, max_message_bytes=2000)
        port, text = output(broker, "small", "dead_letter.path {dir}/dead", output="rdkafka.compression.codec none")
        with router(text, [port]) as r:
            feeds = [Feed(port, "a", 100, every=501)]
            feeds[0].start()
            fed(feeds)
            ledger = r.stop()
            large = feeds[0].total // 501
            assert ledger.outputs["kafka.0"]["dead_lettered_rejected"] == large, ledger.line
            assert "max.message.bytes" in r.messages()
            return judged(broker, "small", wanted(feeds, 501)) + ", %d dead letters" % large


def a_topic_that_is_missing():
    """A configured topic is waited for; one that a record names is not, and its record is a dead letter."""
    with kafka.kafka(["auto.create.topics.enable=false"]) as broker:
        broker.topic("there")
        more = "Topic_Key t\nDynamic_Topic on\nrdkafka.topic.metadata.propagation.max.ms 1000"
        port, text = output(broker, "later", "dead_letter.path {dir}/dead", output=more)
        with router(text, [port]) as r:
            feed = Feed(port, "a", 3)
            feed.start()
            suite.eventually("it says so", lambda: "create the topic" in r.messages(), 30)
            assert feed.acked == 0
            broker.topic("later")
            fed([feed])
            entry = lambda topic, n: msgpack.packb([5, {"k": "x", "n": n, "t": topic}])
            with socket.create_connection(("127.0.0.1", port)) as s:
                s.sendall(msgpack.packb(["t", entry("nowhere", 0) + entry("there", 1), {"chunk": "c"}]))
                s.settimeout(60)
                assert msgpack.unpackb(s.recv(1000)) == {"ack": "c"}
            ledger = r.stop()
            assert ledger.outputs["kafka.0"]["dead_lettered_rejected"] == 1, ledger.line
            assert json.loads(broker.read("there"))["n"] == 1
            return judged(broker, "later", wanted([feed]))


def read_by(r):
    """What a router has written of the topic: partition, offset, and the record's own key and number."""
    found = []
    if os.path.exists(r.folder + "/out"):
        with open(r.folder + "/out", "rb") as f:
            for line in f:
                if line.endswith(b"\n"):
                    m = json.loads(line)
                    found.append((m["partition"], m["offset"], m["payload"]["k"], m["payload"]["n"]))
    return found


def a_group_takes_over():
    """Two firelanes share 500,000 records; one is killed -9 in the middle, then a third joins: every record is there, no
    offset is missing, and nothing comes twice but what was uncommitted when its reader was killed or gave the partition up."""
    with kafka.kafka() as broker:
        broker.topic("logs", 6)
        port, text = output(broker)
        group = (INPUT % (broker.address, "logs", "g", "    Mem_Buf_Limit 1M\n")).replace("    Payload_Only on\n", "")
        size = lambda r: os.path.getsize(r.folder + "/out") if os.path.exists(r.folder + "/out") else 0
        with router(text, [port]) as sender, router(group, []) as first, router(group, []) as second:
            for r in (first, second):
                suite.eventually("it has partitions", lambda: "partitions taken" in r.messages(), 60)
            feeds = [Feed(port, name, 1000, pad=20) for name in "abcde"]
            [f.start() for f in feeds]
            line = suite.eventually("lines come", lambda: size(first) and len(open(first.folder + "/out", "rb").readline()), 30)
            suite.eventually(lambda: "both are in the middle: %d and %d bytes\n%s" % (size(first), size(second), second.messages()),
                             lambda: size(first) > 80_000 * line and size(second) > 80_000 * line, 60, every=0.02)
            second.kill()
            committed = broker.committed("g", "logs", 6)
            killed = read_by(second)
            with router(group, []) as third:
                fed(feeds)
                suite.eventually("the third has partitions", lambda: "partitions taken" in third.messages(), 60)
                ends = {p: broker.ends("logs", p) for p in range(6)}
                suite.eventually(lambda: "all is committed: %r of %r" % (broker.committed("g", "logs", 6), ends),
                                 lambda: broker.committed("g", "logs", 6) == ends, 120, every=1)
                third.stop()
                first.stop()
                sender.stop()
                read = {"first": read_by(first), "second": killed, "third": read_by(third)}
        every = [m for found in read.values() for m in found]
        offsets = {m[:2] for m in every}
        want = wanted(feeds)
        assert {m[2:] for m in every} == want, "records are missing, or nobody sent them"
        assert offsets == {(p, o) for p, end in ends.items() for o in range(end)}, "there are gaps"
        uncommitted = {m[:2] for m in killed if m[1] >= committed[m[0]]}
        count = collections.Counter(m[:2] for m in every)
        twice = {place for place, n in count.items() if n > 1}
        note = "%d records (%s), killed at %d with %d uncommitted, %d of them twice, %d others twice" % (
            len(offsets), ", ".join("%s %d" % (name, len(found)) for name, found in read.items()), len(killed),
            len(uncommitted), len(twice & uncommitted), len(twice - uncommitted))
        assert len(offsets) == 500_000 and read["third"], note
        return note


def from_firelane_to_firelane():
    """firelane to Kafka to firelane: tag, time and record are what they were; a restart reads nothing twice."""
    with kafka.kafka() as broker:
        port, text = output(broker)
        with router(text, [port]) as r:
            with socket.create_connection(("127.0.0.1", port)) as s:
                for second, tag in ((1_700_000_000, "old"), (int(time.time()), "new")):
                    entry = msgpack.packb([msgpack.ExtType(0, second.to_bytes(4, "big") + (250_000_000).to_bytes(4, "big")),
                                           {"k": "x", "n": second, "log": "h\u00e9"}])
                    s.sendall(msgpack.packb([tag, entry, {"chunk": tag}]))
                    s.settimeout(30)
                    assert msgpack.unpackb(s.recv(1000)) == {"ack": tag}
            r.stop()
        text = INPUT.replace("Format plain", "Format out_file").replace("File out", "") % (broker.address, "logs", "h", "")
        with router(text, []) as r:
            for tag in ("old", "new"):
                suite.eventually(tag, lambda: os.path.exists(r.folder + "/" + tag), 30)
            r.stop()
            r.start()
            time.sleep(3)  # Nothing is to come.
            r.stop()
            for second, tag in ((1_700_000_000, "old"), (None, "new")):
                with open(r.folder + "/" + tag, encoding="utf-8") as f:
                    text = f.read()
                assert text.count("\n") == 1, text
                head, _, body = text.partition(", ")
                record = json.loads(body.rstrip()[:-1])
                assert head == "%s: [%d.250000000" % (tag, second or record["n"]), text
                assert record["log"] == "h\u00e9" and record["n"] == (second or record["n"]), text


TESTS = [once_and_in_order, its_own_kill_loses_nothing, an_outage_of_120_megabytes, batches_that_are_too_large,
         a_topic_that_is_missing, *security.TESTS, *iam.TESTS, a_group_takes_over, from_firelane_to_firelane]

if __name__ == "__main__":
    sys.exit(suite.run(TESTS, sys.argv[1:], at_once=2))
