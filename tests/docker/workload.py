"""What containers write, and the check that it came out: every line once, whole, in order, with the task's metadata."""
import json
import os
import shutil
import tempfile

from support import firelens
from support.router import FOREIGN, Router, free_port
from support.suite import eventually

EXCLUDED = "/healthz"
# Around docker's part of 16 KiB: just below, exactly, just above, several parts.
LONG = (16_383, 16_384, 16_385, 40_000, 100_003)


def plain(name, count):
    """Numbered lines."""
    return [b"%s %08d %s" % (name.encode(), i, b"x" * (i * 7 % 90)) for i in range(count)]


def mixed(name, count):
    """Numbered lines with all that applications write: JSON, excluded paths, empty lines, long lines, bytes that are
    no UTF-8."""
    lines = plain(name, count)
    for i in range(count):
        if i % 1_000 == 13:
            unit = "%08d é中🙂 " % i
            size = LONG[i // 1_000 % len(LONG)]
            lines[i] = (unit.encode() * (size // 10))[:size]
        elif i % 97 == 5:
            lines[i] += (b" \xff\xfe", b" \xc3(", b" \xe4\xb8", b" \xf0\x9f\x98 \x80", b" \xed\xa0\x80")[i % 5]
        elif i % 10 == 4:
            lines[i] += b' "GET /healthz HTTP/1.1" 200'
        elif i % 500 == 7:
            lines[i] = b""
        elif i % 7 == 1:
            lines[i] = json.dumps({"seq": i, "from": name, "msg": 'said "hi"\t\\o/ é'}).encode()
        elif i % 11 == 3:
            lines[i] += b"\r"
    return lines


def expected(lines):
    """The `log` values that must come out: excluded lines gone, bad bytes replaced, one mark for each bad part."""
    texts = (line.decode("utf-8", "replace") for line in lines)
    return [text for text in texts if EXCLUDED not in text]


def count_lines(path):
    """Lines in a file that grows; 0 while there is none."""
    total = 0
    try:
        with open(path, "rb") as f:
            while block := f.read(1 << 20):
                total += block.count(b"\n")
    except FileNotFoundError:
        pass
    return total


class Scratch:
    """A temporary directory for a router and for what containers read and it writes; kept on failure with KEEP set."""

    def __init__(self, prefix):
        self.base = tempfile.mkdtemp(prefix=prefix)
        self.input, self.output = os.path.join(self.base, "in"), os.path.join(self.base, "out")
        os.mkdir(self.input)
        os.mkdir(self.output)
        self.router = None

    def __exit__(self, kind, *_):
        self.router.kill()
        if kind and os.environ.get("KEEP"):
            print("kept: " + self.base)
        else:
            shutil.rmtree(self.base, ignore_errors=True)


class Task(Scratch):
    """A temporary task: directory, configuration, router, the container's input lines."""

    def __init__(self, containers, storage=False, **configuration):
        super().__init__("fl-task-")
        if storage:
            configuration["storage"] = os.path.join(self.base, "storage")
        self.sock, self.port = os.path.join(self.base, "fluent.sock"), free_port()
        self.names = list(containers)
        self.conf = os.path.join(self.base, "fluent-bit.conf")
        with open(self.conf, "w") as f:
            f.write(firelens.configuration(self.sock, self.port, self.output, self.names, **configuration))
        self.log = os.path.join(self.base, "router.log")
        self.router = Router(self.conf, self.log, [self.sock, self.port])

    def __enter__(self):
        return self

    def options(self, name, over, *more):
        """Docker's options as the ECS agent gives them; `over` is "unix" or "tcp"."""
        address = "unix://" + self.sock if over == "unix" else "tcp://127.0.0.1:%d" % self.port
        pairs = ["fluentd-address=" + address, "fluentd-async=true", "fluentd-sub-second-precision=true",
                 "tag=" + firelens.tag(name), *more]
        options = ["--log-driver", "fluentd", "-v", self.input + ":/in:ro"]
        return options + [word for pair in pairs for word in ("--log-opt", pair)]

    def write(self, engine, name, lines, over, *more, to="stdout", held=()):
        """A container that writes these lines at once, those that are held after `go_on`, and lives until `finish`."""
        script = []
        for part, of in ((name, lines), (name + ".held", held)):
            if of:
                with open(os.path.join(self.input, part), "wb") as f:
                    f.write(b"".join(line + b"\n" for line in of))
                script.append("cat /in/%s%s" % (part, " >&2" if to == "stderr" else ""))
        return self.script(engine, name, "; until [ -e /in/go ]; do sleep 0.05; done; ".join(script), over, *more)

    def go_on(self):
        """Lets the containers write what is held."""
        with open(os.path.join(self.input, "go"), "w"):
            pass

    def script(self, engine, name, script, over, *more):
        """A container that runs a shell script and lives until `finish`: dockerd throws away what it has not yet
        sent for a container that ends."""
        wait = "until [ -e /in/done ]; do sleep 0.2; done"
        return engine.run(self.options(name, over, *more), "sh", "-c", "%s; %s" % (script, wait))

    def finish(self, engine, containers):
        """Lets the containers end."""
        with open(os.path.join(self.input, "done"), "w"):
            pass
        for container in containers:
            engine.wait(container)

    def path(self, name):
        return os.path.join(self.output, name + ".log")

    def arrived(self, name, count, timeout):
        """Waits for so many lines in a container's file."""
        eventually(lambda: "%d lines of %s have arrived, %d have" % (count, name, count_lines(self.path(name))),
                   lambda: count_lines(self.path(name)) >= count, timeout, 0.2)

    def logs(self, name, source="stdout"):
        """The `log` values of a container's file. Every record must be whole and carry what ECS adds."""
        logs = []
        want = dict(firelens.METADATA, source=source)
        with open(self.path(name), "rb") as f:
            for line in f:
                record = json.loads(line)
                logs.append(record.pop("log"))
                assert len(record.pop("container_id")) == 64, line[:300]
                assert record.pop("container_name").startswith("/"), line[:300]
                assert record == want, "unexpected fields: %s" % line[:300]
        return logs


def same_lines(name, want, got):
    """Equal lists of lines; says what the first difference is."""
    if FOREIGN:  # Others write bad bytes in other ways: only which lines came, and in what order, is compared.
        want, got = ([str(x)[:12] for x in y] for y in (want, got))
    if want == got:
        return
    lost, extra = set(want) - set(got), len(got) - len(set(got)) - (len(want) - len(set(want)))
    at = next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), min(len(want), len(got)))
    raise AssertionError("%s: %d lines expected, %d came, %d missing, %d more than once; first difference at %d: "
                         "%.80r, came %.80r" % (name, len(want), len(got), len(lost), extra, at,
                                                want[at:at + 1], got[at:at + 1]))


def numbers(name, logs):
    """The numbers of `plain` lines, as they came."""
    head = name + " "
    assert all(x.startswith(head) for x in logs), "foreign lines in the file of " + name
    return [int(x[len(head):len(head) + 8]) for x in logs]
