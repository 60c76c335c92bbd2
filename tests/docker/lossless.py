"""Three containers at once through dockerd's own `fluentd` log driver: every line once, whole, in order."""
import os
import time

from engine import Engine
from support.router import FOREIGN
from workload import EXCLUDED, Task, expected, mixed, plain, same_lines

LINES = int(os.environ.get("DOCKER_LINES", "100000"))
NAMES = ("web", "api", "db")


def three_containers(over, *more, count=LINES):
    """`over` says for each container how it reaches the router."""
    lines = {name: mixed(name, count // 3 + (count % 3 if name == "web" else 0)) for name in NAMES}
    source = {"web": "stdout", "api": "stdout", "db": "stderr"}
    with Engine() as engine, Task(NAMES, exclude=EXCLUDED) as task:
        task.router.start()
        start = time.monotonic()
        containers = [task.write(engine, name, lines[name], over[name], *more, to=source[name]) for name in NAMES]
        want = {name: expected(lines[name]) for name in NAMES}
        for name in NAMES:
            task.arrived(name, len(want[name]), 240)
        took = time.monotonic() - start
        task.finish(engine, containers)
        ledger = task.router.stop()
        for name in NAMES:
            same_lines(name, want[name], task.logs(name, source[name]))
    if not FOREIGN:
        excluded = count - sum(map(len, want.values()))
        assert ledger["filtered"] == excluded, "%d lines are excluded: %s" % (excluded, ledger.line)
        assert ledger["routed"] == count - excluded and ledger["refused"] == 0, ledger.line
        assert ledger["holding"] == 0 and ledger.lost() == 0, ledger.line
    return "%d lines, %.0f/s" % (count, count / took)


def three_containers_over_the_unix_socket():
    """As ECS wires it."""
    return three_containers(dict.fromkeys(NAMES, "unix"))


def three_containers_over_tcp():
    """As bridge and awsvpc tasks may."""
    return three_containers(dict.fromkeys(NAMES, "tcp"))


def three_containers_that_ask_for_acks():
    """fluentd-request-ack: the driver sends a line when the one before is acknowledged."""
    return three_containers({"web": "unix", "api": "tcp", "db": "unix"}, "fluentd-request-ack=true")


def a_killed_container_leaves_a_gap_free_prefix():
    """dockerd throws its queue away; what came must have no hole."""
    lines = plain("web", 400_000)
    with Engine() as engine, Task(["web"], exclude=EXCLUDED) as task:
        task.router.start()
        container = task.write(engine, "web", lines, "unix")
        task.arrived("web", 2_000, 60)
        engine.docker("kill", container)
        ledger = task.router.stop()
        came = task.logs("web")
        same_lines("web", expected(lines[:len(came)]), came)
    assert FOREIGN or ledger["routed"] == len(came), "%d in the file: %s" % (len(came), ledger.line)
    return "%d of %d lines" % (len(came), len(lines))


def one_container_with_acks_line_rate():
    """A figure, not a limit: on a disk that syncs slowly it is the disk's."""
    lines = plain("web", 4_000)
    with Engine() as engine, Task(["web"]) as task:
        task.router.start()
        start = time.monotonic()
        container = task.write(engine, "web", lines, "unix", "fluentd-request-ack=true")
        task.arrived("web", len(lines), 120)
        took = time.monotonic() - start
        task.finish(engine, [container])
        task.router.stop()
        same_lines("web", expected(lines), task.logs("web"))
        alone = syncs_per_second(task.output)
    return "%.0f lines/s; 1,000 are wanted where the disk gives them: it syncs %.0f appended lines/s" % (
        len(lines) / took, alone)


def syncs_per_second(folder):
    """How often a second the disk takes a line with write and fdatasync: the bound for one sender that waits."""
    fd = os.open(os.path.join(folder, "sync"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    start = time.monotonic()
    for _ in range(300):
        os.write(fd, b"x" * 300)
        os.fdatasync(fd)
    os.close(fd)
    return 300 / (time.monotonic() - start)


TESTS = [
    three_containers_over_the_unix_socket,
    three_containers_over_tcp,
    three_containers_that_ask_for_acks,
    a_killed_container_leaves_a_gap_free_prefix,
    one_container_with_acks_line_rate,
]
