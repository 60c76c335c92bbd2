"""What the Kafka tests share: clients that feed a router, configurations of both ends, and the judge of what kcat reads."""
import contextlib
import json
import os
import shutil
import socket
import tempfile
import threading
import time

import msgpack

from support import suite
from support.router import FOREIGN, Router, free_port

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
def router(text, ports, env=None):
    """A router with this configuration, in a folder of its own, and this environment."""
    if FOREIGN:
        raise suite.Skip("the configuration has keys of firelane's own")
    folder = tempfile.mkdtemp(prefix="fl-kafka-")
    with open(folder + "/router.conf", "w") as f:
        f.write(text.replace("{dir}", folder))
    r = Router(folder + "/router.conf", folder + "/router.log", ports, env)
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
