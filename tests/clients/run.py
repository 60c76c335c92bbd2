#!/usr/bin/env python3
"""Real clients against the router, of forward and of CloudWatch Logs: every record once, whole, in order. And tasks against
what they need of AWS.

    run.py [NAME ...]        all tests, or those whose names match (globs)

`scripts/setup test` makes the environments target/venv, target/venv-aiofluent and target/venv-aws.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import cloudwatch
import cloudwatch_input
import send
import task_costs
import task_endpoints
import task_secrets
from support import suite
from support.router import FOREIGN, TOP, Router, free_port

COUNT = 2_000
CONF = """
[SERVICE]
    Flush 0.2
[INPUT]
    Name forward
    Unix_Path {dir}/in.sock
[INPUT]
    Name forward
    Listen 127.0.0.1
    Port {port}
[OUTPUT]
    Name file
    Match app.web
    Path {dir}
    File out.log
"""


def arrives(client, environment="venv", unix=False, time=None, extra=None):
    """Starts the router, lets the client send, stops the router, compares the file."""
    python = os.path.join(TOP, "target", environment, "bin", "python")
    if not os.path.exists(python):
        raise suite.Skip("no target/%s: run scripts/setup test" % environment)
    folder, port = tempfile.mkdtemp(prefix="fl-client-"), free_port()
    path = lambda name: os.path.join(folder, name)
    with open(path("router.conf"), "w") as f:
        f.write(CONF.replace("{dir}", folder).replace("{port}", str(port)))
    router = Router(path("router.conf"), path("router.log"), [path("in.sock"), port])
    try:
        router.start()
        host = "unix://" + path("in.sock") if unix else "127.0.0.1"
        done = subprocess.run([python, os.path.join(HERE, "send.py"), client, host, str(port), str(COUNT)],
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, "the client failed: " + done.stderr[-1500:]
        if FOREIGN:  # It may close connections with data in them when it stops.
            suite.eventually("all lines", lambda: lines(path("out.log")) == COUNT, 10)
        ledger = router.stop()
        with open(path("out.log"), encoding="utf-8") as f:
            for i, line in enumerate(f):
                head, _, body = line.partition(", ")
                assert head.startswith("app.web: [" + (time or "")), line
                got, want = json.loads(body[:-2]), dict(send.record(i), **extra or {})
                assert got == want, "record %d: expected %r, came %r" % (i, want, got)
        assert i + 1 == COUNT, "%d records expected, %d came" % (COUNT, i + 1)
        assert FOREIGN or ledger["routed"] == COUNT, ledger.line
    finally:
        router.kill()
        shutil.rmtree(folder, ignore_errors=True)


def lines(path):
    try:
        with open(path, "rb") as f:
            return f.read().count(b"\n")
    except FileNotFoundError:
        return 0


def fluent_logger_over_tcp():
    arrives("fluent_logger")


def fluent_logger_over_the_unix_socket():
    arrives("fluent_logger", unix=True)


def fluent_logger_with_nanoseconds():
    arrives("fluent_logger_nanoseconds", time="1760000000.500000000")


def fluent_logger_async():
    arrives("fluent_logger_async")


def fluent_logger_as_logging_handler():
    arrives("fluent_logger_handler", extra={"level": "WARNING"})


def aiofluent_over_tcp():
    arrives("aiofluent", environment="venv-aiofluent")


def aiofluent_python_over_tcp():
    arrives("aiofluent_python")


TESTS = [fluent_logger_over_tcp, fluent_logger_over_the_unix_socket, fluent_logger_with_nanoseconds,
         fluent_logger_async, fluent_logger_as_logging_handler, aiofluent_over_tcp, aiofluent_python_over_tcp,
         *cloudwatch.TESTS, *cloudwatch_input.TESTS, *task_secrets.TESTS,
         *task_endpoints.TESTS, *task_costs.TESTS]

if __name__ == "__main__":
    sys.exit(suite.run(TESTS, sys.argv[1:]))
