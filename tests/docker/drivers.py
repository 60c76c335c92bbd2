"""What real dockerd's log drivers send and write, as tests/golden/docker_drivers.json keeps it.

    drivers.py capture       asks the dockerd of this machine, and writes the file anew

The Rust tests compare firelane's own drivers with that file; the test below compares dockerd with it. Ids, times and
names are replaced and the fields of a record sorted (docker's order is chance); all other bytes count. A long message is
kept as its SHA-256.
"""
import hashlib
import json
import os
import re
import socket
import struct
import sys
import tempfile
import threading

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from engine import Engine

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden", "docker_drivers.json")
AFTER = b"after\n"

# name: standard output, standard error
CASES = {
    "plain": (b"one\ntwo\nthree\n", b""),
    "empty lines": (b"\n\na\n\n", b""),
    "crlf": (b"a\r\nb\r\n", b""),
    "16383": (b"x" * 16383 + b"\n" + AFTER, b""),
    "16384": (b"x" * 16384 + b"\n" + AFTER, b""),
    "16385": (b"x" * 16385 + b"\n" + AFTER, b""),
    "40000": (b"x" * 40000 + b"\n" + AFTER, b""),
    "unterminated tail": (b"line\nno newline", b""),
    "unterminated 16384": (b"x" * 16384, b""),
    "unterminated 16388": (b"x" * 16388, b""),
    "both streams": (b"o1\no2\n", b"e1\ne2\n"),
    "both streams, long": (b"o" * 20000 + b"\n" + AFTER, b"e" * 33000 + b"\n" + AFTER),
    "invalid utf-8": (b"\xff\xfe\n\xc3\n\xe2\x82 \xed\xa0\x80\n", b""),
    "cut in a character": ("\u00e9".encode() * 8192 + b"y" + "\u00e9".encode() * 10 + b"\n" + b"z" + "\u00e9".encode() * 8200 + b"\n", b""),
    "control characters": (b"a\0b\tc\x1b[0m\x7f\b\f\n<&>\"\\/ \xe2\x80\xa8\xe2\x80\xa9\n", b""),
}
DRIVERS = {
    "fluentd": {},
    "fluentd sub-second": {"fluentd-sub-second-precision": "true"},
    "fluentd async": {"fluentd-async": "true", "fluentd-sub-second-precision": "true"},
    "json-file": None,
}


def skip(b, at):
    """Where the value that begins at `at` ends, and where its parts begin."""
    t = b[at]
    if t < 0x80 or t >= 0xe0 or t in (0xc0, 0xc2, 0xc3):
        return at + 1
    if 0xa0 <= t < 0xc0:
        return at + 1 + (t & 31)
    sizes = {0xd9: (">B", 1), 0xda: (">H", 2), 0xdb: (">I", 4), 0xc4: (">B", 1), 0xc5: (">H", 2), 0xc6: (">I", 4)}
    if t in sizes:
        form, n = sizes[t]
        return at + 1 + n + struct.unpack(form, b[at + 1:at + 1 + n])[0]
    fixed = {0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8, 0xd0: 1, 0xd1: 2, 0xd2: 4, 0xd3: 8, 0xd7: 9}
    if t in fixed:
        return at + 1 + fixed[t]
    count = {0x80: 2, 0x90: 1}[t & 0xf0] * (t & 15)
    at += 1
    for _ in range(count):
        at = skip(b, at)
    return at


def text(b):
    """The content of a str."""
    n = {0xd9: 2, 0xda: 3, 0xdb: 5}.get(b[0], 1)
    return b[n:]


def pairs(b):
    """Keys and values of a map, as they stand."""
    at, out = 1, []
    for _ in range(b[0] & 15):
        middle = skip(b, at)
        end = skip(b, middle)
        out.append((b[at:middle], b[middle:end]))
        at = end
    return out


def replace(key, value, ids):
    """An id becomes as many letters: I the container's, A, B, ... those of long lines."""
    content = text(value)
    letter = "I" if key == b"container_id" else ids.setdefault(content, chr(ord("A") + len(ids)))
    return value[:len(value) - len(content)] + letter.encode() * len(content)


def normal(b, ids):
    """One message of the wire: (source, bytes)."""
    assert b[0] == 0x94, b[:1]
    tag = skip(b, 1)
    time = skip(b, tag)
    record = skip(b, time)
    kind = b[tag:tag + (2 if b[tag] == 0xd7 else 1)]
    fields = []
    source = None
    for key, value in pairs(b[time:record]):
        if text(key) in (b"container_id", b"partial_id"):
            value = replace(text(key), value, ids)
        if text(key) == b"source":
            source = text(value).decode()
        fields.append(key + value)
    options = b"".join(k + b"C" * len(v) for k, v in pairs(b[record:]))
    head = b[:tag] + kind + b[time:time + 1]
    return source, head + b"".join(sorted(fields)) + b[record:record + 1] + options


def short(b):
    return b.decode("latin-1") if len(b) <= 400 else "sha256 %s of %d" % (hashlib.sha256(b).hexdigest(), len(b))


def wire(stream):
    """Messages of a connection by source."""
    at, ids, out = 0, {}, {}
    messages = []
    while at < len(stream):
        end = skip(stream, at)
        messages.append(stream[at:end])
        at = end
    # Streams run side by side: ids are lettered source by source.
    for wanted in ("stdout", "stderr"):
        for message in messages:
            if b"\xa6source\xa6" + wanted.encode() in message:
                source, b = normal(message, ids)
                out.setdefault(source, []).append(short(b))
    return out


def lines(file):
    """Lines of docker's JSON file by stream, without their times."""
    out = {}
    for line in file.splitlines(keepends=True):
        assert re.search(rb'"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,8}[1-9]|\.[1-9])?Z"}\n$', line), line[-60:]
        line = re.sub(rb'"time":"[^"]*"}\n$', b'"time":"T"}\n', line)
        stream = re.search(rb'","stream":"(\w+)",', line).group(1).decode()
        out.setdefault(stream, []).append(short(line))
    return out


class Receiver:
    """Takes one connection at a time on a unix socket."""

    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(8)
        self.got, self.done = b"", threading.Event()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            connection, _ = self.listener.accept()
            stream = b""
            while True:
                part = connection.recv(1 << 20)
                if not part:
                    break
                stream += part
            # The driver may look whether we are there before it sends.
            if stream:
                self.got = stream
                self.done.set()

    def take(self):
        assert self.done.wait(20), "no connection has ended"
        self.done.clear()
        return self.got


def runs(stream):
    """A stream as texts that are repeated: [[text, times], ...]."""
    out, at, plain = [], 0, 0
    while at < len(stream):
        for period in (1, 2):
            unit, times = stream[at:at + period], 1
            while stream[at + times * period:at + (times + 1) * period] == unit:
                times += 1
            if times > 16:
                out += [[stream[plain:at].decode("latin-1"), 1], [unit.decode("latin-1"), times]]
                at = plain = at + times * period
                break
        else:
            at += 1
    return [run for run in out + [[stream[plain:].decode("latin-1"), 1]] if run[0]]


def ask():
    """What dockerd does with every case in every driver."""
    out = {}
    with Engine() as engine, tempfile.TemporaryDirectory() as base:
        receiver = Receiver(os.path.join(base, "s"))
        for number, (case, (stdout, stderr)) in enumerate(CASES.items()):
            for name, content in (("out", stdout), ("err", stderr)):
                with open(os.path.join(base, "%d.%s" % (number, name)), "wb") as f:
                    f.write(content)
            # Async mode discards what is queued when the container ends: it waits a little.
            script = "cat /in/{0}.out; cat /in/{0}.err >&2; sleep 0.3".format(number)
            for driver, options in DRIVERS.items():
                # dockerd discards the queue at the end, and a tail comes at the end: whether it is sent is chance.
                if driver == "fluentd async" and case.startswith("unterminated"):
                    continue
                words = ["--log-driver", driver.split(" ")[0], "-v", base + ":/in", "--name", "golden"]
                if options is not None:
                    options = dict(options, tag="golden-tag", **{"fluentd-address": "unix://" + os.path.join(base, "s")})
                for key, value in (options or {}).items():
                    words += ["--log-opt", "%s=%s" % (key, value)]
                container = engine.run(words, "sh", "-c", script)
                assert engine.wait(container) == 0
                if options is None:
                    path = engine.docker("inspect", "-f", "{{.LogPath}}", container).stdout.decode().strip()
                    with open(path, "rb") as f:
                        found = lines(f.read())
                else:
                    found = wire(receiver.take())
                engine.docker("rm", container)
                engine.containers.remove(container)
                out.setdefault(driver, {})[case] = found
    return out


def dockerd_sends_what_the_golden_file_holds():
    """The file that firelane's own drivers are compared with is what this machine's dockerd does."""
    with open(GOLDEN, encoding="utf-8") as f:
        want = json.load(f)
    assert ask() == want["messages"], "dockerd differs from %s" % GOLDEN
    return "%d cases, %d drivers" % (len(CASES), len(DRIVERS))


TESTS = [dockerd_sends_what_the_golden_file_holds]

if __name__ == "__main__":
    if sys.argv[1:] != ["capture"]:
        sys.exit(__doc__)
    streams = {case: [runs(s) for s in streams] for case, streams in CASES.items()}
    with open(GOLDEN, "w", encoding="utf-8") as f:
        json.dump({"streams": streams, "messages": ask()}, f, indent=1, sort_keys=True)
        f.write("\n")
