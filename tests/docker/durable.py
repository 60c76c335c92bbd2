"""Storage behind dockerd's driver: SIGKILL of the router while containers that ask for acks print stack traces."""
import json
import os
import random
import signal
import time

from engine import Engine
from support.suite import eventually
from workload import Task, count_lines

NAMES = ("web", "api")
TRACES = int(os.environ.get("DOCKER_TRACES", "1500"))
KILLS = 6


def trace(name, i):
    """A Java exception of four lines, numbered."""
    return ["%s %06d Exception in thread \"main\" java.lang.IllegalStateException: boom" % (name, i),
            "    at shop.Cart.add(Cart.java:%d)" % i,
            "    at shop.Web.serve(Web.java:%d)" % (i + 1),
            "    at shop.Main.main(Main.java:%d)" % (i + 2)]


def stack_traces_survive_kills_of_the_router():
    """No acknowledged line is missing, and what a filter held at a kill is joined with what came after the start."""
    rng = random.Random(4)
    with Engine() as engine, Task(NAMES, storage=True, multiline="java", grace=5) as task:
        task.router.start()
        containers = [
            task.write(engine, name, [line.encode() for i in range(TRACES) for line in trace(name, i)], "unix",
                       "fluentd-request-ack=true", "fluentd-retry-wait=200ms") for name in NAMES]
        total = lambda: sum(count_lines(task.path(name)) for name in NAMES)
        for kill in range(KILLS):
            before = total()
            eventually(lambda: "records come after kill %d" % kill, lambda: total() > before + 20, 60)
            time.sleep(rng.uniform(0.05, 0.6))
            task.router.signal(signal.SIGKILL)
            task.router.process.wait()
            task.router.start()
        last = lambda name: any("%06d" % (TRACES - 1) in log for log in logs(task.path(name), 20))
        for name in NAMES:
            eventually(lambda: "the last trace of " + name, lambda: last(name), 120, 0.2)
        task.finish(engine, containers)
        ledger = task.router.stop()
        assert ledger.lost() == 0, ledger.line
        twice = 0
        for name in NAMES:
            whole = {}
            for log in logs(task.path(name)):
                lines = log.rstrip("\n").split("\n")
                if lines[0].startswith(name):
                    whole.setdefault(int(lines[0].split()[1]), []).append(lines)
            for i in range(TRACES):
                want = trace(name, i)
                found = whole.get(i, [])
                assert any(all(line in lines for line in want) for lines in found), (
                    "%s trace %d is not whole: %r" % (name, i, found))
                twice += len(found) - 1
    return "%d traces, %d kills, %d traces more than once" % (TRACES * len(NAMES), KILLS, twice)


def logs(path, last=None):
    """The `log` values of a file that grows, or of its last lines."""
    try:
        with open(path, "rb") as f:
            lines = f.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line)["log"] for line in lines[-last if last else 0:]]


TESTS = [stack_traces_survive_kills_of_the_router]
