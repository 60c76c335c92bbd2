"""The router where ECS tasks have it: a quarter of a CPU, 64 MiB, and the agent's own Mem_Buf_Limit."""

from engine import Engine
from support.ledger import Ledger
from support.router import FOREIGN, accepts, command, peak_kib
from support.suite import eventually
from workload import Task

NAMES = ("web", "api", "db")
FLOOD, COUNT = 50_000, 60_000
# A flood through a pipe, then numbered lines as fast as a shell can.
SCRIPT = ('yes "{0} flood ' + "x" * 1500 + '" | head -n {1}; '
          'i=0; while [ $i -lt {2} ]; do echo "{0} line $i"; i=$((i+1)); done')


def a_flood_at_a_quarter_cpu_and_64_mib_loses_nothing():
    """At the limit the socket is not read for a while; no connection is closed."""
    with Engine() as engine, Task(NAMES, mem_buf_limit="25MB") as task:
        words = " ".join("'%s'" % word for word in command(task.conf))
        router = engine.run(["--cpus", "0.25", "--memory", "64m", "-v", "/:/host"],
                            "sh", "-c", "exec chroot /host %s >/host%s 2>&1" % (words, task.log))
        eventually(lambda: "the router in its container accepts: " + read(task.log)[-2000:],
                   lambda: accepts(task.sock), 30)
        containers = [task.script(engine, name, SCRIPT.format(name, FLOOD, COUNT), "unix") for name in NAMES]
        try:
            for name in NAMES:
                task.arrived(name, FLOOD + COUNT, 240)
        finally:
            state = engine.state(router)
            assert state["Running"], "the router's container ended: %s" % state
            peak = peak_kib(state["Pid"])
        task.finish(engine, containers)
        engine.docker("stop", "-t", "40", router)
        state = engine.state(router)
        assert FOREIGN or state["ExitCode"] == 0 and not state["OOMKilled"], state
        for name in NAMES:
            logs = task.logs(name)
            flood, lines = logs[:FLOOD], logs[FLOOD:]
            assert all(x.startswith(name + " flood x") for x in flood), "%s: the flood is not whole" % name
            want = ["%s line %d" % (name, i) for i in range(COUNT)]
            assert lines == want, "%s: %d numbered lines are missing" % (name, len(set(want) - set(lines)))
        if not FOREIGN:
            ledger = Ledger(read(task.log)).check()
            assert ledger["routed"] == 3 * (FLOOD + COUNT) and ledger["broken_connections"] == 0, ledger.line
    return "%d lines, peak memory %d KiB" % (3 * (FLOOD + COUNT), peak)


def read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


TESTS = [a_flood_at_a_quarter_cpu_and_64_mib_loses_nothing]
