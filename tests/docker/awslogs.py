"""dockerd's own `awslogs` driver against the CloudWatch Logs input: every line once, whole, in order."""
import json
import os
import re
import signal
import tempfile

from engine import Engine
from support.moto import moto, read
from support.router import Router, free_port
from support.suite import eventually
from workload import Scratch, count_lines, mixed, plain, same_lines

LINES = int(os.environ.get("DOCKER_LINES", "100000"))
NAMES = ("web", "api", "db")
KEY, SECRET = "AKIDDOCKER", "docker/secret+key"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": ""}

CONF = """
[SERVICE]
    Flush 0.2
    Grace 20
    {storage}
[INPUT]
    Name cloudwatch_logs
    Listen 127.0.0.1
    Port {port}
    Access_Key_Id {key}
    Secret_Access_Key {secret}
    {type}
"""
OUTPUT = """
[OUTPUT]
    Name file
    Match awslogs.shop.{name}
    Path {out}
    File {name}.log
    Format plain
"""


ONWARD = """
[OUTPUT]
    Name cloudwatch_logs
    Match awslogs.*
    region eu-west-1
    endpoint {endpoint}
    log_group_name other
    log_stream_name other
    log_group_template $log_group
    log_stream_template $log_stream
    log_key log
    auto_create_group on
"""


class Task(Scratch):
    """A router with a file for each stream, and containers that log to it through awslogs."""

    def __init__(self, storage=False, onward=None):
        super().__init__("fl-awslogs-")
        self.port = free_port()
        conf = CONF.format(port=self.port, key=KEY, secret=SECRET,
                           storage="storage.path " + os.path.join(self.base, "storage") if storage else "",
                           type="storage.type filesystem" if storage else "")
        conf += "".join(OUTPUT.format(name=name, out=self.output) for name in NAMES)
        if onward:
            conf += ONWARD.format(endpoint=onward)
        with open(os.path.join(self.base, "router.conf"), "w") as f:
            f.write(conf)
        self.router = Router(os.path.join(self.base, "router.conf"), os.path.join(self.base, "router.log"),
                             [self.port], dict(os.environ, AWS_ACCESS_KEY_ID="writer", AWS_SECRET_ACCESS_KEY="secret",
                                               AWS_EC2_METADATA_DISABLED="true", NO_PROXY="127.0.0.1"))

    def __enter__(self):
        self.router.start()
        return self

    def options(self, name, *more):
        pairs = ["awslogs-region=eu-west-1", "awslogs-endpoint=http://127.0.0.1:%d" % self.port,
                 "awslogs-group=shop", "awslogs-stream=" + name, "awslogs-create-group=true", *more]
        options = ["--log-driver", "awslogs", "-v", self.input + ":/in:ro"]
        return options + [word for pair in pairs for word in ("--log-opt", pair)]

    def script(self, engine, name, script, *more):
        """A container that runs a shell script and lives until `finish`."""
        wait = "until [ -e /in/done ]; do sleep 0.2; done"
        return engine.run(self.options(name, *more), "sh", "-c", "%s; %s" % (script, wait))

    def write(self, engine, name, lines, *more):
        """A container that writes these lines at once."""
        self.put(name, lines)
        return self.script(engine, name, "cat /in/" + name, *more)

    def put(self, name, lines):
        path = os.path.join(self.input, name)
        with open(path + ".new", "wb") as f:
            f.write(b"".join(line + b"\n" for line in lines))
        os.rename(path + ".new", path)

    def arrived(self, name, count, timeout):
        path = os.path.join(self.output, name + ".log")
        eventually(lambda: "%d lines of %s, %d came\n%s" % (count, name, count_lines(path),
                                                             self.router.messages()[-1500:]),
                   lambda: count_lines(path) >= count, timeout, 0.2)

    def logs(self, name):
        if not count_lines(os.path.join(self.output, name + ".log")):
            return []
        with open(os.path.join(self.output, name + ".log"), encoding="utf-8") as f:
            records = [json.loads(line) for line in f if line.endswith("\n")]
        assert all(r["log_group"] == "shop" and r["log_stream"] == name for r in records)
        return [repaired(r["log"]) for r in records]

    def finish(self, engine, containers):
        with open(os.path.join(self.input, "done"), "w"):
            pass
        for container in containers:
            assert engine.wait(container) == 0


def text(lines):
    return [repaired(line.decode("utf-8", "replace")) for line in lines]


def repaired(text):
    """One mark for a run of bad bytes: dockerd before version 25 sends them as they are, newer ones a mark for each."""
    return re.sub("\ufffd+", "\ufffd", text)


def three_containers(*more):
    # The driver sends no empty lines.
    lines = {name: [x for x in mixed(name, LINES // 3 + (LINES % 3 if name == "web" else 0)) if x] for name in NAMES}
    with Engine(CREDENTIALS) as engine, Task() as task:
        containers = [task.write(engine, name, lines[name], *more) for name in NAMES]
        for name in NAMES:
            task.arrived(name, len(lines[name]), 240)
        task.finish(engine, containers)
        ledger = task.router.stop()
        for name in NAMES:
            same_lines(name, text(lines[name]), task.logs(name))
    total = sum(map(len, lines.values()))
    assert ledger["routed"] == total and ledger["refused"] == 0 and ledger.lost() == 0, ledger.line
    return "%d lines" % total


def awslogs_in_blocking_mode_with_create_group():
    """The default: a slow router stops the containers' writes, and nothing is lost."""
    return three_containers()


def awslogs_in_non_blocking_mode():
    """With buffers large enough for all: what does not fit the driver drops itself, and says so."""
    return three_containers("mode=non-blocking", "max-buffer-size=256m", "awslogs-max-buffered-events=100000")


def awslogs_on_to_moto():
    """Into a file and on to moto_server, under the names the containers log to: every line once in both."""
    lines = {name: [x for x in mixed(name, LINES // 3) if x] for name in NAMES}
    with tempfile.TemporaryDirectory(prefix="fl-moto-") as folder, moto(folder) as endpoint, \
            Engine(CREDENTIALS) as engine, Task(onward=endpoint) as task:
        containers = [task.write(engine, name, lines[name]) for name in NAMES]
        for name in NAMES:
            task.arrived(name, len(lines[name]), 240)
        task.finish(engine, containers)
        ledger = task.router.stop()
        for name in NAMES:
            same_lines(name, text(lines[name]), task.logs(name))
            same_lines(name, text(lines[name]), [repaired(e[1]) for e in read(endpoint, "shop", name)["events"]])
    assert ledger.lost() == 0, ledger.line
    return "%d lines" % sum(map(len, lines.values()))


def awslogs_with_a_multiline_pattern():
    """Events of several lines come as the driver made them, each line with its end."""
    traces = [["%06d java.lang.IllegalStateException: boom" % i, "    at shop.Cart.add(Cart.java:%d)" % i,
               "    at shop.Main.main(Main.java:%d)" % (i + 1)] for i in range(3000)]
    with Engine(CREDENTIALS) as engine, Task() as task:
        lines = [line.encode() for trace in traces for line in trace]
        container = task.write(engine, "web", lines, "awslogs-multiline-pattern=^[0-9]")
        task.arrived("web", len(traces), 60)
        task.finish(engine, [container])
        task.router.stop()
        same_lines("web", ["\n".join(trace) + "\n" for trace in traces], task.logs("web"))
    return "%d events" % len(traces)


def a_container_that_logs_over_a_restart_of_the_router():
    """docker makes its stream once, at the start of a container: SIGKILL of the router must not end its logs."""
    before, after = plain("web", 500), plain("web", 1000)[500:]
    with Engine(CREDENTIALS) as engine, Task(storage=True) as task:
        script = "cat /in/web; until [ -e /in/second ]; do sleep 0.2; done; cat /in/second"
        task.put("web", before)
        loud = task.script(engine, "web", script)
        silent = task.script(engine, "api", "until [ -e /in/second ]; do sleep 0.2; done; cat /in/second")
        task.arrived("web", len(before), 60)
        task.router.signal(signal.SIGKILL)
        task.router.process.wait()
        task.router.start()
        task.put("second", after)
        for name in ("web", "api"):
            eventually(lambda: "the last line of " + name, lambda: text(after[-1:])[0] in task.logs(name), 60, 0.2)
        task.finish(engine, [loud, silent])
        ledger = task.router.stop()
        # What was delivered in the last second before a kill may come again.
        same_lines("web", text(before + after), list(dict.fromkeys(task.logs("web"))))
        same_lines("api", text(after), task.logs("api"))
    assert ledger.lost() == 0, ledger.line


def awslogs_with_a_wrong_key_does_not_start_a_container():
    """The refusal reaches whoever types `docker run`."""
    with Engine(dict(CREDENTIALS, AWS_SECRET_ACCESS_KEY="wrong")) as engine, Task() as task:
        done = engine.docker("run", "--rm", "--network", "none", *task.options("web"), "busybox", "true", check=False)
        assert done.returncode and b"InvalidSignatureException" in done.stderr, done.stderr
        assert "a call was refused" in task.router.messages()
        task.router.stop()


TESTS = [awslogs_in_blocking_mode_with_create_group, awslogs_in_non_blocking_mode, awslogs_on_to_moto,
         awslogs_with_a_multiline_pattern,
         a_container_that_logs_over_a_restart_of_the_router, awslogs_with_a_wrong_key_does_not_start_a_container]
