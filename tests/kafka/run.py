#!/usr/bin/env python3
"""The Kafka output and input against Apache Kafka: what kcat reads is what clients were acked for.

    run.py [NAME ...]        all tests, or those whose names match (globs)

`scripts/setup test` fetches Kafka and makes the environments. Needs about four minutes.
"""
import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time

import msgpack

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from support import kafka, suite
from support.router import FOREIGN, Router, free_port, peak_kib

KEYS = 7


class Feed(threading.Thread):
    """An at-least-once client of the forward input: chunks of 100 records `{k, n}`, n counting within k, acks wanted; what
    is not acked when the connection ends is sent again."""

    def __init__(self, port, name, chunks, pad=100, every=None, tag="app.web"):
        super().__init__(daemon=True)
        self.port, self.name, self.pad, self.tag, self.every = port, name, pad, tag, every
        self.left = [self.chunk(c) for c in range(chunks)]
        self.total, self.acked, self.resent, self.halt = chunks * 100, 0, 0, False

    def chunk(self, c):
        entries = []
        for n in range(c * 100, c * 100 + 100):
            long = self.every and n % self.every == self.every - 1
            record = {"k": "%s-%d" % (self.name, n % KEYS), "n": n // KEYS, "pad": "x" * (3000 if long else self.pad)}
            entries.append(msgpack.packb([int(time.time()), record]))
        return msgpack.packb([self.tag, b"".join(entries), {"chunk": "%s/%d" % (self.name, c)}])

    def run(self):
        while self.left and not self.halt:
            with contextlib.suppress(OSError):
                self.talk()
            time.sleep(0.05)

    def talk(self):
        with socket.create_connection(("127.0.0.1", self.port), 5) as s:
            s.settimeout(120)
            unpacker, out = msgpack.Unpacker(), 0
            while self.left and not self.halt:
                while out < min(8, len(self.left)):
                    s.sendall(self.left[out])
                    out += 1
                data = s.recv(65536)
                if not data:
                    break
                unpacker.feed(data)
                for answer in unpacker:
                    name, _, c = answer["ack"].partition("/")
                    self.left.pop(0)
                    out -= 1
                    self.acked += 100
            self.resent += out


OUTPUT = """
[SERVICE]
    Flush 1
    Grace 20
{service}
[INPUT]
    Name forward
    Listen 127.0.0.1
    Port {port}
{input}
[OUTPUT]
    Name kafka
    Match *
    Brokers {brokers}
    Topics {topic}
    Message_Key_Field k
{output}
"""


@contextlib.contextmanager
def router(text, ports):
    """A router with this configuration, in a folder of its own."""
    if FOREIGN:
        raise suite.Skip("the configuration has keys of firelane's own")
    folder = tempfile.mkdtemp(prefix="fl-kafka-")
    with open(folder + "/router.conf", "w") as f:
        f.write(text.replace("{dir}", folder))
    r = Router(folder + "/router.conf", folder + "/router.log", ports)
    r.folder = folder
    try:
        yield r.start()
    finally:
        r.kill()
        shutil.rmtree(folder, ignore_errors=True)


def output(broker, topic="logs", service="", input="", output=""):
    port = free_port()
    lines = lambda text: "".join("    %s\n" % line for line in text.splitlines())
    return port, OUTPUT.format(port=port, brokers=broker.address, topic=topic, service=lines(service),
                               input=lines(input), output=lines(output))


def judged(broker, topic, want, again=0):
    """Every record of `want` there, in the order of its key in one partition; at most `again` twice. Says what came."""
    places, last, seen, twice, wrong = {}, {}, set(), 0, 0
    for line in broker.read(topic, "%p %k %s\n").splitlines():
        partition, key, text = line.split(b" ", 2)
        record = json.loads(text)
        assert record["k"].encode() == key, line
        assert places.setdefault(key, partition) == partition, "a key in two partitions: %r" % line
        if (record["k"], record["n"]) in seen:
            twice += 1
            continue
        seen.add((record["k"], record["n"]))
        wrong += record["n"] <= last.get(key, -1)
        last[key] = max(record["n"], last.get(key, -1))
    missing = want - seen
    assert not missing, "%d of %d are missing: %r" % (len(missing), len(want), sorted(missing)[:5])
    assert seen == want and wrong == 0 and twice <= again, "%d out of order, %d twice" % (wrong, twice)
    return "%d records%s" % (len(seen), ", %d twice" % twice if again else "")


def wanted(feeds, every=None):
    return {("%s-%d" % (f.name, n % KEYS), n // KEYS) for f in feeds for n in range(f.total)
            if not (every and n % every == every - 1)}


def fed(feeds, timeout=240):
    suite.eventually(lambda: "every chunk is acked: %r" % [len(f.left) for f in feeds],
                     lambda: not any(f.left for f in feeds), timeout)


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


def it_signs_in():
    """SASL: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER; a wrong password is told and nothing is lost."""
    with kafka.kafka(sasl=True) as broker:
        for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"):
            topic = mechanism.lower()
            who = ("rdkafka.sasl.oauthbearer.config principal=alice" if mechanism == "OAUTHBEARER" else
                   "rdkafka.sasl.username alice\nrdkafka.sasl.password secret")
            more = "rdkafka.security.protocol sasl_plaintext\nrdkafka.sasl.mechanism %s\n%s" % (mechanism, who)
            port, text = output(broker, topic, output=more)
            text = text.replace(broker.address, "127.0.0.1:%d" % broker.sasl_port)
            with router(text, [port]) as r:
                feed = Feed(port, "a", 2)
                feed.start()
                fed([feed], 60)
                r.stop()
            judged(broker, topic, wanted([feed]))
        with router(text.replace("OAUTHBEARER", "PLAIN").replace("principal=alice", "x=y") +
                    "    rdkafka.sasl.username alice\n    rdkafka.sasl.password wrong\n", [port]) as r:
            suite.eventually("it says so", lambda: "the user and the password" in r.messages(), 30)


INPUT = """
[SERVICE]
    Flush 1
    Grace 20
    storage.path {dir}/st
[INPUT]
    Name kafka
    Brokers %s
    Topics %s
    Group_Id %s
    Format json
    Tag_Header fluent-tag
    Payload_Only on
    rdkafka.auto.offset.reset earliest
    rdkafka.session.timeout.ms 6000
%s
[OUTPUT]
    Name file
    Match *
    Path {dir}
    File out
    Format plain
"""


def counted(path, counts):
    """Adds the records of a file to `counts`."""
    if os.path.exists(path):
        with open(path, "rb") as f:
            for line in f:
                if line.endswith(b"\n"):
                    record = json.loads(line)
                    key = (record["k"], record["n"])
                    counts[key] = counts.get(key, 0) + 1
    return counts


def a_group_takes_over():
    """Two firelanes share 500,000 records, one is killed in the middle, a third joins: none is missing."""
    with kafka.kafka() as broker:
        broker.topic("logs", 6)
        port, text = output(broker)
        group = INPUT % (broker.address, "logs", "g", "    Mem_Buf_Limit 1M\n")
        lines = lambda r: sum(1 for _ in open(r.folder + "/out", "rb")) if os.path.exists(r.folder + "/out") else 0
        with router(text, [port]) as sender, router(group, []) as first, router(group, []) as second:
            for r in (first, second):
                suite.eventually("it has partitions", lambda: "partitions taken" in r.messages(), 60)
            feeds = [Feed(port, name, 1000, pad=20) for name in "abcde"]
            [f.start() for f in feeds]
            suite.eventually(lambda: "both are reading: %d and %d lines\n%s" % (lines(first), lines(second), second.messages()),
                             lambda: lines(first) > 20_000 and lines(second) > 20_000, 60, every=0.2)
            second.kill()
            with router(group, []) as third:
                fed(feeds)
                counts = {}

                def all_there():
                    counts.clear()
                    for r in (first, second, third):
                        counted(r.folder + "/out", counts)
                    return len(counts) >= 500_000
                suite.eventually(lambda: "all records: %d" % len(counts), all_there, 120, every=2)
                taken = "partitions taken" in third.messages()
                third.stop()
                first.stop()
                sender.stop()
                all_there()
            missing = wanted(feeds) - set(counts)
            assert not missing, "%d are missing: %r" % (len(missing), sorted(missing)[:3])
            assert set(counts) == wanted(feeds), "records that nobody sent: %r" % list(set(counts) - wanted(feeds))[:3]
            assert taken, "the third had nothing to do: " + third.messages()
            return "500,000 records, %d twice" % (sum(counts.values()) - len(counts))


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
         a_topic_that_is_missing, it_signs_in, a_group_takes_over, from_firelane_to_firelane]

if __name__ == "__main__":
    sys.exit(suite.run(TESTS, sys.argv[1:]))
