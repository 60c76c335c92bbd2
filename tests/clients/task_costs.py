"""What tasks cost as processes: the time to start one, the memory of an agent with many and of their supervisors."""
import json
import os
import statistics
import subprocess
import tempfile
import time

from support import suite
from support.router import BINARY, FOREIGN

STARTS = 20
START_LIMIT = 0.150
TASKS = 50
# Of a release build. What is built for the tests is optimised a little only: its pages take some 3 MiB more.
AGENT_LIMIT = (24 if os.path.basename(os.path.dirname(BINARY)) == "ci" else 20) << 10
SUPERVISOR_LIMIT = 4 << 10


def definition(folder, script):
    """A log router and two apps; one logs through it."""
    app = lambda name, **more: dict({"name": name, "image": "busybox", "memory": 32, "entryPoint": ["/bin/sh", "-c"],
                                     "command": [script % name]}, **more)
    log = {"logDriver": "awsfirelens", "options": {"Name": "null"}}
    file = os.path.join(folder, "task.json")
    with open(file, "w") as out:
        json.dump({"family": "costs", "containerDefinitions": [
            app("web", logConfiguration=log), app("worker", essential=False),
            {"name": "log_router", "image": "firelane", "memoryReservation": 32,
             "firelensConfiguration": {"type": "fluentbit"}}]}, out)
    return file


def kib(pid, field):
    with open("/proc/%d/status" % pid) as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field + ":"))


def a_task_of_three_containers_starts_in_150_ms():
    """From the command to the first instruction of the last app, the router listening. What else the machine does is in the
    slower ones, so a quarter of them must be fast enough."""
    if FOREIGN:
        raise suite.Skip("tasks are firelane's own")
    took = []
    with tempfile.TemporaryDirectory(prefix="fl-costs-") as folder:
        # Each says when it begins: nanoseconds since 1970.
        file = definition(folder, "date +%%s%%N > $STARTED/%s; sleep 0.3")
        for n in range(STARTS):
            started = os.path.join(folder, str(n))
            os.mkdir(started)
            began = time.time_ns()
            done = subprocess.run([BINARY, "task", "run", file, "--runtime", "process", "--dir", os.path.join(folder, "d"),
                                   "--env", "STARTED=" + started], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                                  timeout=60)
            assert done.returncode == 0, done.stderr
            times = []
            for name in ("web", "worker"):
                with open(os.path.join(started, name)) as at:
                    times.append(int(at.read()))
            took.append((max(times) - began) / 1e9)
    quarter, median, _ = statistics.quantiles(took, n=4)
    text = "a quarter within %.0f ms, half within %.0f, the fastest %.0f" % tuple(t * 1000 for t in (quarter, median, min(took)))
    assert quarter < START_LIMIT, text
    return text


def an_agent_of_fifty_tasks_and_their_supervisors_are_small():
    if FOREIGN:
        raise suite.Skip("tasks are firelane's own")
    with tempfile.TemporaryDirectory(prefix="fl-costs-") as folder:
        file = definition(folder, ": %s; exec sleep 1000")
        state = os.path.join(folder, "s")
        ask = lambda *words: subprocess.run([BINARY, "agent", words[0], "--state", state, *words[1:]], capture_output=True,
                                            text=True, stdin=subprocess.DEVNULL, timeout=120)
        with open(os.path.join(folder, "log"), "w") as log:
            agent = subprocess.Popen([BINARY, "agent", "--state", state], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            suite.eventually("the agent answers", lambda: agent.poll() is not None or ask("ps").returncode == 0, 20)
            done = ask("run", file, "--runtime", "process", "--count", str(TASKS))
            assert done.returncode == 0, done.stderr
            running = lambda: [t for t in map(json.loads, ask("ps", "--json").stdout.splitlines())
                               if t["view"]["lastStatus"] == "RUNNING"]
            suite.eventually("all run", lambda: len(running()) == TASKS, 60)
            tasks = running()
            containers = [c["pid"] for task in tasks for c in task["view"]["containers"]]
            parents = set()
            for pid in containers:
                with open("/proc/%d/stat" % pid) as stat:
                    parents.add(int(stat.read().rsplit(") ", 1)[1].split()[1]))
            supervisors = [kib(pid, "RssAnon") for pid in parents]
            whole = kib(agent.pid, "VmRSS")
            text = "%d tasks: agent %.1f MiB (%.1f of it anonymous), supervisors at most %.1f MiB anonymous" % (
                len(tasks), whole / 1024, kib(agent.pid, "RssAnon") / 1024, max(supervisors) / 1024)
            assert len(parents) == TASKS and whole < AGENT_LIMIT and max(supervisors) < SUPERVISOR_LIMIT, text
        finally:
            stopped = ask("stop", "--all")
            agent.terminate()
            agent.wait(60)
        assert stopped.returncode == 0, stopped.stderr
    return text


TESTS = [a_task_of_three_containers_starts_in_150_ms, an_agent_of_fifty_tasks_and_their_supervisors_are_small]
