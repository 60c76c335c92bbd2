"""Task definitions in the docker runtime: real containers, dockerd's own log drivers, firelane as the FireLens container.

Every example runs in both runtimes with the same routed records; failures have ECS's reasons and leave nothing behind.
"""
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile

from engine import Engine, busybox_image, find
from support.moto import moto, read
from support.router import BINARY, TOP, free_port
from support.suite import Skip, eventually
from workload import count_lines, same_lines

EXAMPLES = os.path.join(TOP, "examples", "tasks")
ROUTER = "firelane-router"
LINES = int(os.environ.get("DOCKER_LINES", "100000"))
# The program that an image of Fluent Bit has.
PROGRAM = "fluent-bit/bin/fluent-bit"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


def router_image():
    """A tar with busybox, firelane and the libraries that it is linked with."""
    out = io.BytesIO(busybox_image())
    stripped = tempfile.NamedTemporaryFile(prefix="fl-stripped-")
    if not find("strip") or subprocess.run(["strip", "-o", stripped.name, BINARY], capture_output=True).returncode:
        shutil.copyfile(BINARY, stripped.name)
    found = subprocess.run(["ldd", BINARY], capture_output=True, text=True, check=True).stdout
    libraries = [word for line in found.splitlines() for word in line.split() if word.startswith("/")]
    with tarfile.open(fileobj=out, mode="a") as tar:
        def add(source, target):
            entry = tar.gettarinfo(os.path.realpath(source), target.lstrip("/"))
            entry.mode = 0o755
            with open(os.path.realpath(source), "rb") as content:
                tar.addfile(entry, content)
        add(stripped.name, PROGRAM)
        for library in libraries:
            add(library, library)
        if os.path.exists(AUTHORITIES):
            add(AUTHORITIES, AUTHORITIES)
    return out.getvalue()


class Machine:
    """An engine with a bridge, the router's image, and a directory for tasks."""

    def __init__(self, credentials=None):
        assert os.path.exists(BINARY), "no %s: cargo build --release" % BINARY
        self.engine = Engine(credentials, network=True)
        self.base = None

    def __enter__(self):
        self.engine.__enter__()
        self.base = tempfile.mkdtemp(prefix="fl-tasks-")
        command = 'CMD ["/%s", "-c", "/fluent-bit/etc/fluent-bit.conf"]' % PROGRAM
        try:
            self.engine.docker("import", "--change", command, "-", ROUTER, input=router_image())
        except BaseException:
            self.__exit__(None)
            raise
        return self

    def __exit__(self, kind, *_):
        if kind and os.environ.get("KEEP"):
            print("kept: " + self.base)
        else:
            shutil.rmtree(self.base, ignore_errors=True)
        self.engine.close()

    def path(self, *parts):
        return os.path.join(self.base, *parts)

    def file(self, name, definition):
        """Writes a definition. Returns its path."""
        path = self.path(name + ".json")
        with open(path, "w") as out:
            json.dump(definition, out)
        return path

    def command(self, file, *options, runtime="docker", out="out"):
        return [BINARY, "task", "run", file, "--runtime", runtime, "--json", "--dir", self.path("d"),
                "--router-image", ROUTER, "--env", "OUT_DIR=" + self.path(out), *options]

    def start(self, file, *options, **more):
        return subprocess.Popen(self.command(file, *options, **more), env=self.engine.environment, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, file, *options, **more):
        """Runs a task to its end. Returns its view; the exit code is in it as `code`, the messages as `messages`."""
        return view(self.start(file, *options, **more))

    def assert_clean(self):
        """No container, volume or directory of a task is left."""
        containers = self.engine.docker("ps", "-aq").stdout.decode().split()
        volumes = self.engine.docker("volume", "ls", "-q").stdout.decode().split()
        assert not containers and not volumes, "left behind: %s %s" % (containers, volumes)
        left = os.listdir(self.path("d", "firelens")) if os.path.exists(self.path("d", "firelens")) else []
        assert not left, "left behind: %s" % left

    def records(self, out, file):
        """The records of a file of JSON lines, without what differs from task to task."""
        with open(self.path(out, file), encoding="utf-8") as lines:
            found = [json.loads(line) for line in lines]
        for record in found:
            for field in ("container_id", "container_name", "ecs_task_arn"):
                record.pop(field, None)
        return found


def view(process, timeout=180):
    """The end of `task run --json`."""
    try:
        out, messages = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, messages = process.communicate()
        raise AssertionError("the task does not end: %s" % messages[-3000:])
    try:
        # What is followed stands before it.
        found = json.loads(out.splitlines()[-1])
    except (ValueError, IndexError):
        found = {}
    return dict(found, code=process.returncode, messages=messages)


class Daemon:
    """`firelane agent` in a machine. Use as a context: its end is the daemon's."""

    def __init__(self, machine):
        self.machine, self.state, self.process = machine, machine.path("state"), None

    def __enter__(self):
        with open(self.machine.path("agent.log"), "a") as log:
            self.process = subprocess.Popen([BINARY, "agent", "--state", self.state], env=self.machine.engine.environment,
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually("the agent answers", lambda: self.process.poll() is not None or self.run("ps").returncode == 0, 20)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def command(self, command, *words):
        return [BINARY, "agent", command, "--state", self.state, *words]

    def run(self, command, *words):
        return subprocess.run(self.command(command, *words), env=self.machine.engine.environment, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=60)

    def ask(self, command, *words):
        """What it prints."""
        done = self.run(command, *words)
        assert done.returncode == 0, "%s: %s" % (command, done.stderr)
        return done.stdout

    def task(self):
        """Its one task."""
        return json.loads(self.ask("ps", "--all", "--json"))


def example(name, **changes):
    with open(os.path.join(EXAMPLES, name + ".json")) as file:
        return dict(json.load(file), **changes)


def visible(definition, path):
    """The router sees a directory of this machine at its own path, so that what it writes can be read."""
    definition = json.loads(json.dumps(definition))
    definition.setdefault("volumes", []).append({"name": "out", "host": {"sourcePath": path}})
    for container in definition["containerDefinitions"]:
        if "firelensConfiguration" in container:
            container.setdefault("mountPoints", []).append({"sourceVolume": "out", "containerPath": path})
    return definition


def alone(**fields):
    """A definition of one container."""
    container = {"name": "app", "image": "busybox", "memory": 32, "entryPoint": ["/bin/sh", "-c"], "command": ["true"]}
    return {"family": "alone", "containerDefinitions": [dict(container, **fields)]}


def both(machine, name, definition, files, *options):
    """Runs a definition in both runtimes; the records must be the same. Returns how many there are."""
    total, found = 0, {}
    for runtime in ("docker", "process"):
        folder = machine.path(runtime)
        file = machine.file(name, visible(definition, folder) if runtime == "docker" else definition)
        end = machine.run(file, *options, runtime=runtime, out=runtime)
        assert end["code"] == 0, "%s: %s" % (runtime, end)
        found[runtime] = {}
        for output in files:
            records = machine.records(runtime, output)
            # Two streams of one container have no order between them.
            found[runtime][output] = {source: [r for r in records if r["source"] == source]
                                      for source in ("stdout", "stderr")}
            total += len(records)
        shutil.rmtree(folder)
    for output in files:
        docker, process = found["docker"][output], found["process"][output]
        assert docker == process, "%s: %s differs:\n%.600s\n%.600s" % (name, output, docker, process)
    machine.assert_clean()
    return total // 2


def examples_have_the_same_records_in_both_runtimes():
    """hello, two-apps, chain, multiline and demo, through dockerd's fluentd driver and through ours."""
    conf = "conf=" + EXAMPLES
    with Machine() as machine:
        count = both(machine, "hello", example("hello"), ["app.log"])
        apps = example("two-apps")
        # The other container's format is csv, whose columns have no names.
        apps["containerDefinitions"][1]["logConfiguration"]["options"]["Format"] = "plain"
        count += both(machine, "two-apps", apps, ["web.log", "worker.log"])
        count += both(machine, "chain", example("chain"), ["chain.log"])
        count += both(machine, "multiline", example("multiline"), ["java.log"], "--volume", conf)
        count += both(machine, "demo", example("demo"), ["web.log", "java.log"], "--volume", conf)
    assert count == 4 + 60 + 2 + 3 + 2401, count
    return "%d records" % count


def logs_and_metrics_reach_cloudwatch_from_both_runtimes():
    """awslogs by dockerd's own driver, and EMF through the router; the task has the machine's network."""
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    with Machine(keys) as machine, moto(machine.base) as endpoint:
        emf, logs = example("emf", networkMode="host"), example("awslogs", networkMode="host")
        of = lambda definition: definition["containerDefinitions"][0]["logConfiguration"]["options"]
        of(emf)["region"] = of(logs)["awslogs-region"] = "eu-west-1"
        options = [word for pair in keys.items() for word in ("--env", "%s=%s" % pair)]
        machine.engine.environment.update(keys)
        for runtime in ("docker", "process"):
            end = machine.run(machine.file("emf", emf), *options, "--env", "CLOUDWATCH_ENDPOINT=" + endpoint,
                              runtime=runtime)
            assert end["code"] == 0, end
            task = end["taskArn"].split("/")[-1]
            found = read(endpoint, "/ecs/emf", "example-app-firelens-" + task)
            messages = [json.loads(message) for _, message in found["events"]]
            assert [m["Orders"] for m in messages] == [3] and "_aws" in messages[0], found
            end = machine.run(machine.file("awslogs", logs), "--endpoint", endpoint, runtime=runtime)
            assert end["code"] == 0, end
            task = end["taskArn"].split("/")[-1]
            found = read(endpoint, "/ecs/awslogs", "example/app/" + task)
            assert [message for _, message in found["events"]] == ["line 1", "line 2", "line 3"], found
        machine.assert_clean()


def ten_containers_lose_nothing_and_the_router_stops_last():
    """The most that a task may have; each waits with its end until its lines have come, for docker's driver discards."""
    names = ["app%d" % n for n in range(9)]
    count = LINES // len(names)
    script = ("i=0; while [ $i -lt %d ]; do i=$((i+1)); echo \"$NAME line $i\"; done;"
              "until [ -e /in/done ]; do sleep 0.1; done" % count)
    output = {"Name": "file", "Path": "${OUT_DIR}", "Format": "plain", "Mkdir": "on"}
    with Machine() as machine:
        os.mkdir(machine.path("in"))
        app = lambda name: {
            "name": name, "image": "busybox", "memory": 32, "entryPoint": ["/bin/sh", "-c"], "command": [script],
            "environment": [{"name": "NAME", "value": name}],
            "mountPoints": [{"sourceVolume": "in", "containerPath": "/in", "readOnly": True}],
            "logConfiguration": {"logDriver": "awsfirelens", "options": dict(output, File=name + ".log")}}
        router = {"name": "router", "image": "firelane", "memoryReservation": 64,
                  "firelensConfiguration": {"type": "fluentbit"}}
        definition = {"family": "ten", "containerDefinitions": [app(name) for name in names] + [router],
                      "volumes": [{"name": "in", "host": {"sourcePath": machine.path("in")}}]}
        process = machine.start(machine.file("ten", visible(definition, machine.path("out"))))
        try:
            path = lambda name: machine.path("out", name + ".log")
            came = lambda: sum(count_lines(path(name)) for name in names)
            eventually(lambda: "all lines have come, %d have" % came(),
                       lambda: came() >= count * len(names) or process.poll() is not None, 300, 0.2)
            with open(machine.path("in", "done"), "w"):
                pass
            end = view(process)
        finally:
            process.kill()
        assert end["code"] == 0, end
        for name in names:
            logs = [record["log"] for record in machine.records("out", name + ".log")]
            same_lines(name, ["%s line %d" % (name, i + 1) for i in range(count)], logs)
        finished = {c["name"]: c["finishedAt"] for c in end["containers"]}
        assert max(finished, key=finished.get) == "router", finished
        machine.assert_clean()
    return "%d lines" % (count * len(names))


def containers_have_what_the_definition_gives_them():
    """Limits, user, directory, mounts, names, labels, links, ports, FLUENT_HOST: seen from inside and by docker."""
    port = free_port()
    script = ("echo $(id -u):$(id -g) $(pwd) $(hostname) $(ulimit -n) $(cat /conf/word) $GREETING;"
              "grep -c ' /data ' /proc/mounts; grep -c '/ro .*ro,' /proc/mounts; grep -q peer /etc/hosts && echo peer;"
              "ping -c 1 -w 5 backend >/dev/null 2>&1; grep -c backend /etc/hosts;"
              "nc -w 2 $FLUENT_HOST $FLUENT_PORT </dev/null && echo router; touch /no 2>/dev/null || echo readonly;"
              "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null;"
              "cat /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null; until [ -e /data/done ]; do sleep 0.1; done; sleep 1")
    with Machine() as machine:
        os.mkdir(machine.path("conf"))
        with open(machine.path("conf", "word"), "w") as word:
            word.write("hello")
        log = {"logDriver": "awsfirelens",
               "options": {"Name": "file", "Path": "${OUT_DIR}", "File": "app.log", "Format": "plain", "Mkdir": "on"}}
        definition = {
            "family": "rich", "cpu": "512",
            "volumes": [{"name": "data"}, {"name": "conf", "host": {"sourcePath": machine.path("conf")}}],
            "containerDefinitions": [
                {"name": "app", "image": "busybox", "memory": 64, "cpu": 300, "user": "0:7", "hostname": "shop",
                 "entryPoint": ["/bin/sh", "-c"], "command": [script], "workingDirectory": "/tmp", "links": ["db:backend"],
                 "environment": [{"name": "GREETING", "value": "a=b c"}],
                 "ulimits": [{"name": "nofile", "softLimit": 100, "hardLimit": 200}],
                 "mountPoints": [{"sourceVolume": "data", "containerPath": "/data"},
                                 {"sourceVolume": "conf", "containerPath": "/conf", "readOnly": True},
                                 {"sourceVolume": "conf", "containerPath": "/ro", "readOnly": True}],
                 "extraHosts": [{"hostname": "peer", "ipAddress": "10.9.9.9"}],
                 "readonlyRootFilesystem": True, "linuxParameters": {"initProcessEnabled": True},
                 "dockerLabels": {"team": "shop"}, "logConfiguration": log},
                {"name": "db", "image": "busybox", "memory": 32, "essential": False, "entryPoint": ["/bin/sh", "-c"],
                 "command": ["mkdir /tmp/w; echo page > /tmp/w/index.html; exec httpd -f -p 8000 -h /tmp/w"],
                 "portMappings": [{"containerPort": 8000, "hostPort": port}, {"containerPortRange": "9000-9002"}],
                 "stopTimeout": 2,
                 "volumesFrom": [{"sourceContainer": "store"}]},
                {"name": "store", "image": "busybox", "memory": 32, "essential": False, "command": ["true"],
                 "mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}]},
                {"name": "router", "image": "firelane", "memory": 64,
                 "firelensConfiguration": {"type": "fluentbit"}}]}
        process = machine.start(machine.file("rich", visible(definition, machine.path("out"))))
        try:
            docker = machine.engine.docker
            label = "label=com.amazonaws.ecs.container-name="
            ids = lambda name: docker("ps", "-q", "--filter", label + name).stdout.decode().split()
            eventually("the app runs", lambda: ids("app") or process.poll() is not None, 60)
            page = lambda: subprocess.run(["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:%d/" % port],
                                          capture_output=True, text=True).stdout
            eventually("the published port answers", lambda: page() == "page\n" or process.poll() is not None, 30)
            assert process.poll() is None, view(process)
            found = json.loads(docker("inspect", ids("app")[0]).stdout)[0]
            eventually("the lines have come", lambda: os.path.exists(machine.path("out", "app.log")), 30)
            holder = lambda of: [c for c in docker("ps", "-q", "--filter", "label=firelane.holds=" + of).stdout.decode().split()]
            ranged = json.loads(docker("inspect", holder("db")[0]).stdout)[0]["NetworkSettings"]["Ports"]
            chosen = [int(ranged["%d/tcp" % n][0]["HostPort"]) for n in (9000, 9001, 9002)]
            assert chosen == list(range(chosen[0], chosen[0] + 3)), ranged
            ask = lambda: docker("exec", ids("app")[0], "sh", "-c", "wget -q -O - $ECS_CONTAINER_METADATA_URI_V4/stats").stdout
            traffic = [json.loads(ask()) for _ in range(2)]
            assert traffic[1]["networks"]["eth0"]["rx_bytes"] > 0, traffic
            assert traffic[1]["network_rate_stats"]["rx_bytes_per_sec"] >= 0, traffic
            quota = "/sys/fs/cgroup/cpu%s/cpu.cfs_quota_us" % found["HostConfig"]["CgroupParent"]
            if os.path.exists("/sys/fs/cgroup/cpu"):
                with open(quota) as microseconds:
                    assert microseconds.read() == "50000\n", quota
            docker("exec", ids("app")[0], "touch", "/data/done")
            end = view(process)
        finally:
            process.kill()
        assert end["code"] == 0, end
        lines = [r["log"] for r in machine.records("out", "app.log")]
        mib = str(64 << 20)
        assert lines[:7] == ["0:7 /tmp shop 100 hello a=b c", "1", "1", "peer", "1", "router", "readonly"], lines
        assert lines[7:] in ([mib, "300"], [mib]), lines
        assert found["Name"].startswith("/ecs-rich-1-app-") and found["Config"]["Labels"]["team"] == "shop", found
        assert found["Config"]["Labels"]["com.amazonaws.ecs.task-arn"] == end["taskArn"], found
        machine.assert_clean()


def containers_of_awsvpc_share_one_network_and_the_router_is_on_loopback():
    script = ("until wget -q -O - http://127.0.0.1:8000/ 2>/dev/null; do sleep 0.1; done; echo $FLUENT_HOST:$FLUENT_PORT;"
              "nc -w 2 $FLUENT_HOST $FLUENT_PORT </dev/null && echo router; cat /proc/1/comm; sleep 1")
    definition = example("hello", family="vpc", networkMode="awsvpc", pidMode="task")
    app = definition["containerDefinitions"][0]
    app["command"] = [script]
    web = {"name": "web", "image": "busybox", "memory": 32, "essential": False, "entryPoint": ["/bin/sh", "-c"],
           "command": ["mkdir /tmp/w; echo page > /tmp/w/index.html; exec httpd -f -p 8000 -h /tmp/w"], "stopTimeout": 2}
    definition["containerDefinitions"].append(web)
    with Machine() as machine:
        end = machine.run(machine.file("vpc", visible(definition, machine.path("out"))))
        assert end["code"] == 0, end
        lines = [r["log"] for r in machine.records("out", "app.log")]
        # The first process of the shared namespace is the pause container's.
        assert lines == ["page", "127.0.0.1:24224", "router", "pause"], lines
        machine.assert_clean()


def a_router_logs_through_itself_where_ecs_lets_it():
    """In awsvpc and host mode. In bridge mode ECS wants the router's address before there is a router, and so it does for an
    app that nothing makes wait for its router: both fail at once."""
    through = lambda file: {"logDriver": "awsfirelens", "options": {
        "Name": "file", "Path": "${OUT_DIR}", "File": file, "Format": "plain", "Mkdir": "on"}}
    with Machine() as machine:
        def definition(mode):
            found = visible(example("hello", networkMode=mode), machine.path("out"))
            found["containerDefinitions"][1]["logConfiguration"] = through("router.log")
            return found

        for mode in ("awsvpc", "host"):
            end = machine.run(machine.file("itself", definition(mode)))
            assert end["code"] == 0, "%s: %s" % (mode, end)
            apps, own = machine.records("out", "app.log"), machine.records("out", "router.log")
            assert len(apps) == 4 and own, "%s: %s %s" % (mode, apps, own)
            assert {record["source"] for record in own} == {"stderr"}, own
            shutil.rmtree(machine.path("out"))
        end = machine.run(machine.file("itself", definition("bridge")))
        assert end["code"] == 2 and "[1].logConfiguration.logDriver: unable to get BridgeIP" in end["messages"], end

        early = example("hello")
        early["containerDefinitions"][1]["dependsOn"] = [{"containerName": "db", "condition": "START"}]
        early["containerDefinitions"].append(
            {"name": "db", "image": "busybox", "memory": 32, "command": ["sleep", "60"], "stopTimeout": 2})
        end = machine.run(machine.file("early", early))
        assert (end["code"], end["stopCode"]) == (1, "TaskFailedToStart"), end
        reason = "DockerClientConfigError: unable to get BridgeIP for task in bridge mode: "
        assert end["containers"][0]["reason"].startswith(reason), end
        machine.assert_clean()


def a_task_that_is_asked_to_stop_stops_the_router_last():
    definition = example("hello", family="stops")
    app = definition["containerDefinitions"][0]
    app["command"] = ["trap 'echo last words; sleep 1; exit 3' TERM; echo ready; while :; do sleep 0.1; done"]
    with Machine() as machine:
        process = machine.start(machine.file("stops", visible(definition, machine.path("out"))))
        eventually("the app is ready", lambda: os.path.exists(machine.path("out", "app.log")), 60)
        process.terminate()
        end = view(process)
        assert (end["code"], end["stopCode"]) == (0, "UserInitiated"), end
        app, router = end["containers"]
        assert (app["exitCode"], router["exitCode"]) == (3, 0), end
        assert app["finishedAt"] <= router["finishedAt"], end
        assert [r["log"] for r in machine.records("out", "app.log")] == ["ready", "last words"]
        machine.assert_clean()


def what_a_killed_command_has_left_is_named_with_what_removes_it():
    """And only that: a command that lives, in the same directory too, has left nothing."""
    left = dict(alone(command=["while :; do sleep 0.1; done"], essential=True,
                      mountPoints=[{"sourceVolume": "data", "containerPath": "/data"}]), volumes=[{"name": "data"}])
    with Machine() as machine:
        docker = machine.engine.docker
        file, other = machine.file("left", left), machine.file("other", alone())
        running = lambda: docker("ps", "-q", "--filter", "label=com.amazonaws.ecs.container-name=app").stdout
        told = lambda end: [line for line in end["messages"].splitlines() if "was left behind" in line]
        process = machine.start(file)
        try:
            eventually("the app runs", lambda: running() or process.poll() is not None, 60)
            end = machine.run(other)
            assert end["code"] == 0 and not told(end), end
        finally:
            process.kill()
            process.communicate()
        assert running(), "the containers end with their command"
        end = machine.run(other)
        assert end["code"] == 0 and len(told(end)) == 1, end
        assert " task arn:aws:ecs:" in told(end)[0] and machine.path("d") in told(end)[0], end
        removes = told(end)[0].split("to remove its containers: ")[1]
        subprocess.run(removes, shell=True, check=True, capture_output=True, env=machine.engine.environment)
        machine.assert_clean()
        assert not told(machine.run(other))


def what_cannot_run_has_ecs_s_reason_and_leaves_nothing():
    port = free_port()
    router = {"name": "router", "image": ROUTER, "memory": 64, "firelensConfiguration": {"type": "fluentbit"}}
    registry = "127.0.0.1:%d/none" % free_port()
    log = lambda driver, **options: {"logConfiguration": {"logDriver": driver, "options": options}}
    cases = [
        ("a missing image", {"image": registry}, "CannotPullContainerError: Error response from daemon: Get "),
        ("no image's name", {"image": "a b"}, "CannotPullContainerError: Error response from daemon: invalid reference"),
        ("a bad entry point", {"entryPoint": ["/no/such"]}, "CannotStartContainerError: Error response from daemon: "),
        ("a port in use", {"portMappings": [{"containerPort": 80, "hostPort": port}]},
         "CannotStartContainerError: Error response from daemon: driver failed programming external connectivity"),
        ("a bad user", {"user": "nobody-here"}, "CannotStartContainerError: Error response from daemon: unable to find user"),
        ("a bad option", log("gelf", **{"gelf-address": "nonsense"}),
         "CannotCreateContainerError: Error response from daemon: "),
        ("no address", log("fluentd", **{"fluentd-address": "127.0.0.1:%d" % free_port()}),
         "CannotStartContainerError: Error response from daemon: failed to initialize logging driver"),
        ("memory", {"memory": 16, "command": ["dd if=/dev/zero of=/dev/null bs=64M count=1"]},
         "OutOfMemoryError: Container killed due to memory usage"),
    ]
    with Machine() as machine, socket.socket() as taken:
        taken.bind(("0.0.0.0", port))
        taken.listen()
        for title, fields, reason in cases:
            definition = alone(**fields)
            definition["containerDefinitions"].append(dict(router, essential=False))
            definition["volumes"] = [{"name": "data"}]
            definition["containerDefinitions"][0]["mountPoints"] = [{"sourceVolume": "data", "containerPath": "/data"}]
            end = machine.run(machine.file("alone", definition), "--image", "router=" + ROUTER)
            assert "containers" in end, "%s: %s" % (title, end)
            app = end["containers"][0]
            assert (app["reason"] or "").startswith(reason), "%s: %s\n%s" % (title, app, end["messages"])
            code = ("EssentialContainerExited", 137) if title == "memory" else ("TaskFailedToStart", 1)
            assert (end["stopCode"], end["code"]) == code, "%s: %s" % (title, end)
            machine.assert_clean()
        together = alone(command=["dd if=/dev/zero of=/dev/null bs=64M count=1"])
        together["memory"] = "32"
        del together["containerDefinitions"][0]["memory"]
        end = machine.run(machine.file("together", together))
        assert (end["containers"][0]["reason"] or "").startswith("OutOfMemoryError"), end
        groups = [os.path.join(top, folder) for top, folders, _ in os.walk("/sys/fs/cgroup") for folder in folders
                  if folder == end["taskArn"].split("/")[-1]]
        assert not groups, "left behind: %s" % groups
        machine.assert_clean()
        absent = alone()
        absent["volumes"] = [{"name": "common", "dockerVolumeConfiguration": {"scope": "shared", "autoprovision": False}}]
        end = machine.run(machine.file("absent", absent))
        assert end["code"] == 1 and "InvalidVolumeError: there is no docker volume common" in end["messages"], end
        machine.assert_clean()


def a_full_disk_of_the_engine_has_ecs_s_reason_and_leaves_nothing():
    with Engine(network=True, size="24m") as engine, tempfile.TemporaryDirectory(prefix="fl-tasks-") as folder:
        file = os.path.join(folder, "alone.json")
        with open(file, "w") as out:
            json.dump(dict(alone(command=["echo well"]), volumes=[{"name": "data"}]), out)
        run = lambda: view(subprocess.Popen([BINARY, "task", "run", file, "--runtime", "docker", "--json", "--dir", folder],
                                            env=engine.environment, text=True, stdin=subprocess.DEVNULL,
                                            stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        end = run()
        assert end["code"] == 0, end
        fill = os.path.join(engine.base, "data", "fill")
        # It ends where there is no room.
        subprocess.run(["dd", "if=/dev/zero", "of=" + fill, "bs=4k"], capture_output=True)
        end = run()
        reason = "CannotCreateContainerError: Error response from daemon: no space left on device"
        assert (end["containers"][0]["reason"] or "").startswith(reason), end
        assert (end["stopCode"], end["code"]) == ("TaskFailedToStart", 1), end
        left = engine.docker("ps", "-aq").stdout + engine.docker("volume", "ls", "-q").stdout
        assert not left, "left behind: %s" % left
        os.remove(fill)
        end = run()
        assert end["code"] == 0, end


def a_router_of_type_fluentd_has_its_configuration_socket_and_environment():
    """A stand-in that prints them; what the app prints goes to its socket, as dockerd's driver sends it."""
    script = ("cat /fluentd/etc/fluent.conf; echo uid $FLUENT_UID key $key_0; ls -d /var/run;"
              "touch /var/run/seen; until [ -e /var/run/done ]; do sleep 0.1; done")
    log = {"logDriver": "awsfirelens", "options": {"@type": "stdout", "exclude-pattern": "^debug"},
           "secretOptions": [{"name": "key", "valueFrom": "arn:key"}]}
    with Machine() as machine:
        definition = alone(command=["echo from the app; until [ -e /tmp/no ]; do sleep 0.1; done"], logConfiguration=log,
                           stopTimeout=1)
        definition["containerDefinitions"].append(
            {"name": "router", "image": "busybox", "memory": 64, "entryPoint": ["/bin/sh", "-c"], "command": [script],
             "firelensConfiguration": {"type": "fluentd"}})
        process = machine.start(machine.file("fluentd", definition), "--secret", "key=hush")
        folder = machine.path("d", "firelens")
        sockets = lambda: [os.path.join(folder, task, "socket") for task in os.listdir(folder)]
        try:
            eventually("the router runs", lambda: process.poll() is not None or os.path.exists(folder) and sockets() and
                       os.path.exists(os.path.join(sockets()[0], "seen")), 60)
            assert process.poll() is None, view(process)
            with socket.socket(socket.AF_UNIX) as receiver:
                receiver.bind(os.path.join(sockets()[0], "fluent.sock"))
                receiver.listen()
                receiver.settimeout(60)
                message = b""
                # The agent looks whether someone listens, and closes.
                while not message:
                    with receiver.accept()[0] as connection:
                        connection.settimeout(60)
                        message = connection.recv(4096)
            with open(os.path.join(sockets()[0], "done"), "w"):
                pass
            end = view(process)
        finally:
            process.kill()
        task = end["taskArn"].split("/")[-1]
        assert all(part.encode() in message for part in ("app-firelens-" + task, "from the app", "stdout")), message
        with open(machine.path("d", task, "logs", "router-json.log")) as lines:
            said = "".join(json.loads(line)["log"] for line in lines)
        for part in ("<source>\n    @type unix\n    path /var/run/fluent.sock\n</source>", "bind 0.0.0.0\n    port 24224",
                     "<filter app-firelens**>\n    @type  grep\n    <exclude>\n        key log\n        pattern ^debug",
                     "<match app-firelens**>\n    @type stdout\n    key \"#{ENV['key_0']}\"\n</match>",
                     "ecs_task_arn " + end["taskArn"], "uid 0 key hush\n", "\n/var/run\n"):
            assert part in said, "%s is not in\n%s" % (part, said)
        machine.assert_clean()


def lines_are_followed_and_a_lost_engine_ends_the_task():
    definition = alone(command=["echo to be seen; while :; do sleep 0.1; done"])
    with Machine() as machine:
        file = machine.file("followed", definition)
        process = machine.start(file, "--follow")
        try:
            assert process.stdout.readline() == "app | to be seen\n"
            # Its containers end with it, and it tells when it is back.
            machine.engine.process.terminate()
            machine.engine.process.wait(60)
            machine.engine.start()
            end = view(process)
        finally:
            process.kill()
        assert end["stopCode"] == "EssentialContainerExited" and end["containers"][0]["lastStatus"] == "STOPPED", end
        machine.assert_clean()


def an_agent_shows_the_lines_of_what_runs_whatever_its_driver():
    """Docker has a copy of what goes to the router, and none where the driver is none."""
    app = example("hello")["containerDefinitions"][0]
    script = "echo to the router; until [ -e /tmp/go ]; do sleep 0.1; done; echo at the end; sleep 1"
    router = {"name": "log_router", "image": ROUTER, "memory": 64, "firelensConfiguration": {"type": "fluentbit"},
              "logConfiguration": {"logDriver": "none"}}
    definition = {"family": "shown", "containerDefinitions": [dict(app, command=[script]), router]}
    with Machine() as machine, Daemon(machine) as agent:
        file = machine.file("shown", visible(definition, machine.path("out")))
        task = agent.ask("run", file, "--runtime", "docker", "--router-image", ROUTER, "--env", "OUT_DIR=" + machine.path("out"))
        task = task.strip().split("/")[-1]
        so_far = lambda: agent.run("logs", task)
        eventually("the line is shown", lambda: "app | to the router" in so_far().stdout, 30)
        assert "container log_router: docker does not show its lines (log driver none)" in so_far().stderr, so_far()
        assert agent.ask("logs", task, "app") == "app | to the router\n"
        follows = subprocess.Popen(agent.command("logs", "--follow", task, "app"), env=machine.engine.environment, text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert follows.stdout.readline() == "app | to the router\n"
            label = "label=com.amazonaws.ecs.container-name=app"
            found = machine.engine.docker("ps", "-q", "--filter", label).stdout.decode().strip()
            machine.engine.docker("exec", found, "touch", "/tmp/go")
            out, messages = follows.communicate(timeout=60)
        finally:
            follows.kill()
        assert (out, follows.returncode) == ("app | at the end\n", 0), (out, messages)
        machine.assert_clean()


def an_agent_killed_amid_a_million_lines_finds_its_containers():
    """Ten containers print a million lines while the agent is killed and another comes: none is lost, none is started
    twice, the router stops last."""
    # At its end docker's driver discards what is queued, so each ends when all has arrived.
    script = "awk 'BEGIN { for (i = 0; i < 112000; i++) print \"line\", i }'; until [ -e /go/end ]; do sleep 0.2; done; exit 4"
    with Machine() as machine:
        os.mkdir(machine.path("go"))
        log = {"logDriver": "awsfirelens",
               "options": {"Name": "file", "Path": machine.path("out"), "Format": "template", "Template": "{container_name} {log}",
                           "mkdir": "on"}}
        apps = [{"name": "app%d" % n, "image": "busybox", "memory": 64, "entryPoint": ["/bin/sh", "-c"], "command": [script],
                 "mountPoints": [{"sourceVolume": "go", "containerPath": "/go"}], "logConfiguration": log} for n in range(9)]
        router = {"name": "log_router", "image": ROUTER, "memory": 256, "firelensConfiguration": {"type": "fluentbit"}}
        definition = {"family": "million", "containerDefinitions": apps + [router],
                      "volumes": [{"name": "go", "host": {"sourcePath": machine.path("go")}}]}
        file = machine.file("million", visible(definition, machine.path("out")))

        def lines():
            folder, found = machine.path("out"), []
            for name in os.listdir(folder) if os.path.isdir(folder) else []:
                with open(os.path.join(folder, name)) as out:
                    found.extend(out)
            return found

        with Daemon(machine) as first:
            first.ask("run", file, "--runtime", "docker", "--router-image", ROUTER)
            eventually("lines come", lambda: len(lines()) > 50000, 60)
            before = first.task()
            first.kill()
        with Daemon(machine) as agent:
            eventually("all lines are there", lambda: len(lines()) >= 1008000, 180, 1)
            after = agent.task()
            ids = lambda task: [c["runtimeId"] for c in task["view"]["containers"]]
            assert ids(before) == ids(after) and all(ids(before)), "%s\n%s" % (before, after)
            with open(machine.path("go", "end"), "w"):
                pass
            eventually("the task has ended", lambda: agent.task()["stoppedAt"], 60)
            end = agent.task()
        containers = end["view"]["containers"]
        assert [c["exitCode"] for c in containers] == [4] * 9 + [0], end
        assert max(c["finishedAt"] for c in containers) == containers[-1]["finishedAt"], end
        found = lines()
        assert len(found) == len(set(found)) == 1008000, "%d lines, %d different" % (len(found), len(set(found)))
        with open(machine.path("agent.log")) as log:
            assert "adopted=1" in log.read()
        machine.assert_clean()
    return "%d lines of 9 containers" % len(found)


def the_runtime_finds_a_task_again_whose_agent_has_gone():
    """tests/it/docker_runtime.rs against an engine of ours."""
    if not shutil.which("cargo"):
        raise Skip("no cargo")
    with Engine(network=True) as engine:
        environment = dict(engine.environment, FIRELANE_TEST_DOCKER="unix://" + engine.socket)
        done = subprocess.run(["cargo", "test", "--locked", "--profile", "ci", "--quiet", "--test", "it", "docker_runtime", "--", "--ignored"],
                              cwd=TOP, env=environment, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0 and "3 passed" in done.stdout, (done.stdout + done.stderr)[-3000:]
        left = engine.docker("ps", "-aq").stdout + engine.docker("volume", "ls", "-q").stdout
        assert not left, "left behind: %s" % left


# What an app asks that has nothing but the variables it was given.
ASKS = r"""
import boto3, json, os, urllib.request
get = lambda url: json.load(urllib.request.urlopen(url, timeout=10))
own = os.environ["ECS_CONTAINER_METADATA_URI_V4"]
found = boto3.Session(region_name="eu-west-1").get_credentials()
keys = found.get_frozen_credentials()
print(json.dumps({"uri": own, "task": get(own + "/task"), "own": get(own), "v3": get(os.environ["ECS_CONTAINER_METADATA_URI"]),
                  "method": found.method, "key": keys.access_key, "token": bool(keys.token)}))
"""


def boto3_in_containers_gets_the_roles_credentials_and_the_metadata():
    """In bridge, awsvpc and host mode, from the first instruction on; STS is moto's."""
    python = os.path.join(TOP, "target", "venv-aws", "bin", "python")
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    with Machine() as machine, moto(machine.base) as endpoint:
        machine.engine.environment.update(keys)
        with open(machine.path("asks.py"), "w") as script:
            script.write(ASKS)
        for mode in ("bridge", "awsvpc", "host"):
            # This machine's Python and boto3, seen from inside.
            definition = alone(command=["exec chroot /machine %s %s" % (os.path.abspath(python), machine.path("asks.py"))],
                               memory=256, environment=[{"name": "AWS_EC2_METADATA_DISABLED", "value": "true"}],
                               mountPoints=[{"sourceVolume": "machine", "containerPath": "/machine", "readOnly": True}])
            definition.update(networkMode=mode, taskRoleArn="arn:aws:iam::123456789012:role/shop",
                              volumes=[{"name": "machine", "host": {"sourcePath": "/"}}])
            end = machine.run(machine.file("asks", definition), "--endpoint", "sts=" + endpoint)
            folder = machine.path("d", end["taskArn"].split("/")[-1], "logs")
            with open(os.path.join(folder, "app-json.log")) as log:
                said = "".join(json.loads(line)["log"] for line in log)
            assert end["code"] == 0, "%s: %s %s" % (mode, end, said)
            heard = json.loads(said)
            base = "http://127.0.0.1:" if mode == "host" else "http://169.254.170.2/v4/"
            assert heard["uri"].startswith(base), heard["uri"]
            assert heard["method"] == "container-role" and heard["token"] and heard["key"] != "test", heard
            assert heard["task"]["TaskARN"] == end["taskArn"] and heard["task"]["Family"] == "alone", heard["task"]
            own = heard["own"]
            assert own["Name"] == heard["v3"]["Name"] == "app" and own["KnownStatus"] == "RUNNING", own
            assert own["DockerId"] == end["containers"][0]["runtimeId"] and own["DockerName"].startswith("ecs-alone-1-app-"), own
            assert own["Networks"][0]["NetworkMode"] == mode, own
            machine.assert_clean()


TESTS = [
    boto3_in_containers_gets_the_roles_credentials_and_the_metadata,
    an_agent_killed_amid_a_million_lines_finds_its_containers,
    an_agent_shows_the_lines_of_what_runs_whatever_its_driver,
    examples_have_the_same_records_in_both_runtimes,
    logs_and_metrics_reach_cloudwatch_from_both_runtimes,
    ten_containers_lose_nothing_and_the_router_stops_last,
    containers_have_what_the_definition_gives_them,
    containers_of_awsvpc_share_one_network_and_the_router_is_on_loopback,
    a_router_logs_through_itself_where_ecs_lets_it,
    a_task_that_is_asked_to_stop_stops_the_router_last,
    what_a_killed_command_has_left_is_named_with_what_removes_it,
    what_cannot_run_has_ecs_s_reason_and_leaves_nothing,
    a_full_disk_of_the_engine_has_ecs_s_reason_and_leaves_nothing,
    a_router_of_type_fluentd_has_its_configuration_socket_and_environment,
    lines_are_followed_and_a_lost_engine_ends_the_task,
    the_runtime_finds_a_task_again_whose_agent_has_gone,
]
