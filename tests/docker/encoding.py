"""examples/docker_stdout.rs says that it sends what Docker's log driver sends: both send the same bytes here."""
import os
import socket
import subprocess
import tempfile
import threading

from engine import Engine
from support import firelens
from support.router import BINARY
from support.suite import Skip, eventually
from workload import mixed

EXAMPLE = os.path.join(os.path.dirname(BINARY), "examples", "docker_stdout")
TAG = firelens.tag("web")


class Listener:
    """Accepts on a unix socket and keeps what one connection sends until it closes."""

    def __init__(self, path):
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen()
        self.bytes, self.closed = bytearray(), False
        threading.Thread(target=self.receive, daemon=True).start()

    def receive(self):
        connection, _ = self.server.accept()
        while block := connection.recv(1 << 16):
            self.bytes += block
        self.closed = True

    def messages(self):
        """What came, comparable: ids of containers and lines are random, times are what they are."""
        try:
            import msgpack
        except ImportError:
            raise Skip("no msgpack module: run with target/venv/bin/python")
        eventually("the sender closes", lambda: self.closed, 30)
        unpacker = msgpack.Unpacker(raw=False, unicode_errors="surrogateescape", max_buffer_size=1 << 30)
        unpacker.feed(bytes(self.bytes))
        found, lines = [], {}
        for message in unpacker:
            tag, time, record, option = message
            assert (time.code, len(time.data), option) == (0, 8, {}), message
            assert len(record.pop("container_id")) == 64 and record.pop("container_name")[0] == "/"
            part = record.pop("partial_id", None)
            if part:
                assert len(part) == 64, part
                number, first = lines.setdefault(part, (len(lines), time))
                assert first == time, "the parts of one line have one time"
                record["line"] = number
            found.append((tag, record))
        return found


def the_example_sends_what_docker_sends():
    """Long lines, empty lines, bytes that are no UTF-8, and an end without a newline."""
    raw = b"\n".join(mixed("web", 20_000)) + b"\nno newline"
    with tempfile.TemporaryDirectory(prefix="fl-encoding-") as base, Engine() as engine:
        path = lambda name: os.path.join(base, name)
        with open(path("raw"), "wb") as f:
            f.write(raw)
        docker, example = Listener(path("docker.sock")), Listener(path("example.sock"))
        options = ["fluentd-address=unix://" + path("docker.sock"), "fluentd-sub-second-precision=true", "tag=" + TAG]
        container = engine.run(
            ["--log-driver", "fluentd", "-v", base + ":/in:ro", *(w for o in options for w in ("--log-opt", o))],
            "cat", "/in/raw")
        engine.wait(container)
        subprocess.run([EXAMPLE, "--address", "unix://" + path("example.sock"), "--tag", TAG, "--", "cat", path("raw")],
                       check=True, timeout=60)
        want, got = docker.messages(), example.messages()
    assert len(want) > 20_000, len(want)
    for i, (a, b) in enumerate(zip(want, got)):
        assert a == b, "message %d: docker sends %.300r, the example %.300r" % (i, a, b)
    assert len(want) == len(got), "docker sends %d messages, the example %d" % (len(want), len(got))
    return "%d messages" % len(want)


TESTS = [the_example_sends_what_docker_sends]
