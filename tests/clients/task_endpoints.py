"""The endpoints of the bundled agent, as an app sees them that has nothing but the variables it was given."""
import json
import os
import signal
import subprocess
import tempfile

from support import suite
from support.moto import BIN, moto, read
from support.router import BINARY, FOREIGN

ROLE = "arn:aws:iam::123456789012:role/shop"
# What an app runs: it asks for everything and writes down what it heard.
APP = r'''
import json, os, sys, urllib.error, urllib.request
import boto3
from botocore.config import Config

def get(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        return error.code, json.loads(text) if text.startswith(("{", '"')) else text

heard = {"env": dict(os.environ)}
for name in ("ECS_CONTAINER_METADATA_URI", "ECS_CONTAINER_METADATA_URI_V4"):
    for what in ("", "/task", "/stats", "/task/stats"):
        heard[name + what] = get(os.environ[name] + what)
full = os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
if full:
    heard["credentials"] = get(full)
    heard["wrong"] = get(full[:-1] + ("0" if full[-1] != "0" else "1"))
if "--boto3" in sys.argv:
    session = boto3.Session(region_name="eu-west-1")
    found = session.get_credentials()
    frozen = found.get_frozen_credentials()
    heard["boto3"] = {"method": found.method, "key": frozen.access_key, "token": bool(frozen.token)}
    sts = session.client("sts", endpoint_url=os.environ["MOTO"], config=Config(retries={"max_attempts": 1}))
    heard["identity"] = sts.get_caller_identity()["Arn"]
if "--flood" in sys.argv:
    url = os.environ["ECS_CONTAINER_METADATA_URI_V4"] + "/flood"
    heard["flood"] = [get(url)[0] for _ in range(200)]
with open(os.environ["HEARD"], "w") as file:
    json.dump(heard, file)
'''


def definition(folder, arguments, **fields):
    python = os.path.join(BIN, "python")
    if FOREIGN:
        raise suite.Skip("tasks are firelane's own")
    if not os.path.exists(python):
        raise suite.Skip("no target/venv-aws: run scripts/setup test")
    app = os.path.join(folder, "app.py")
    with open(app, "w") as file:
        file.write(APP)
    container = {
        "name": "app", "image": "python:3", "memory": 128, "cpu": 1,
        "entryPoint": [python, app, *arguments], "portMappings": [{"containerPort": 8080}],
        "restartPolicy": {"enabled": True, "ignoredExitCodes": [0, 1]},
        "logConfiguration": {"logDriver": "json-file", "options": {"max-size": "1m"}},
    }
    task = dict({"family": "shop", "cpu": "512", "containerDefinitions": [container]}, **fields)
    file = os.path.join(folder, "task.json")
    with open(file, "w") as out:
        json.dump(task, out)
    return file


def run(folder, file, *arguments, env=()):
    """Runs the task; gives what its app heard, and what the agent said."""
    heard = os.path.join(folder, "heard.json")
    environment = dict(os.environ, AWS_EC2_METADATA_DISABLED="true", NO_PROXY="127.0.0.1", **dict(env))
    environment.pop("AWS_PROFILE", None)
    done = subprocess.run(
        [BINARY, "task", "run", file, "--json", "--dir", os.path.join(folder, "d"), "--region", "eu-west-1",
         "--env", "HEARD=" + heard, "--env", "AWS_EC2_METADATA_DISABLED=true", "--env", "NO_PROXY=127.0.0.1", *arguments],
        capture_output=True, text=True, timeout=90, env=environment)
    logs = subprocess.run(["sh", "-c", "cat %s/d/*/logs/*" % folder], capture_output=True, text=True).stdout
    assert done.returncode == 0, "exit code %d: %s%s%s" % (done.returncode, done.stdout, done.stderr, logs[-2000:])
    with open(heard) as file:
        return json.load(file), json.loads(done.stdout), done.stderr


KEYS = [("AWS_ACCESS_KEY_ID", "agent"), ("AWS_SECRET_ACCESS_KEY", "secret")]


def boto3_in_a_task_gets_its_roles_credentials():
    """The role by STS (moto), only from the variables; metadata of both versions; errors of wrong ids."""
    with tempfile.TemporaryDirectory(prefix="fl-endp-") as folder, moto(folder) as endpoint:
        file = definition(folder, ["--boto3"], taskRoleArn="shop")
        heard, view, said = run(folder, file, "--endpoint", "sts=" + endpoint, "--env", "MOTO=" + endpoint,
                                "--account", "123456789012", env=KEYS)
    assert "not handed out" not in said, said
    assert heard["boto3"] == {"method": "container-role", "key": heard["credentials"][1]["AccessKeyId"],
                              "token": True}, heard["boto3"]
    task_id = view["taskArn"].rsplit("/", 1)[1]
    assert heard["identity"].endswith(":assumed-role/shop/" + task_id), heard["identity"]
    status, credentials = heard["credentials"]
    assert status == 200 and set(credentials) == {"RoleArn", "AccessKeyId", "SecretAccessKey", "Token", "Expiration"}
    assert credentials["RoleArn"] == ROLE, credentials["RoleArn"]
    assert heard["wrong"] == [400, {"code": "InvalidIdInRequest", "HTTPErrorCode": 400,
                                    "message": "CredentialsV2Request: Credentials not found"}], heard["wrong"]
    assert not any(name in heard["env"] for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE")), "the agent's own keys"
    status, container = heard["ECS_CONTAINER_METADATA_URI_V4"]
    assert status == 200 and container["Name"] == "app" and len(container["DockerId"]) == 64, container
    assert (container["KnownStatus"], container["Limits"]) == ("RUNNING", {"CPU": 2, "Memory": 128}), container
    assert container["Ports"] == [{"ContainerPort": 8080, "Protocol": "tcp", "HostPort": 8080}], container["Ports"]
    assert (container["LogDriver"], container["LogOptions"]) == ("json-file", {"max-size": "1m"}), container
    assert container["RestartCount"] == 0 and "ExitCode" not in container, container
    older = heard["ECS_CONTAINER_METADATA_URI"][1]
    newer = {"LogDriver", "LogOptions", "ContainerARN", "RestartCount"}
    assert set(container) - set(older) == newer, set(container) ^ set(older)
    task = heard["ECS_CONTAINER_METADATA_URI_V4/task"][1]
    assert (task["TaskARN"], task["Limits"], task["Revision"]) == (view["taskArn"], {"CPU": 0.5}, "1"), task
    assert [c["DockerId"] for c in task["Containers"]] == [container["DockerId"]], task
    for name in ("ECS_CONTAINER_METADATA_URI", "ECS_CONTAINER_METADATA_URI_V4"):
        status, stats = heard[name + "/stats"]
        assert status == 200 and (stats is None or stats["id"] == container["DockerId"]), stats
        assert stats is None or {"cpu_stats", "precpu_stats", "memory_stats"} <= set(stats), stats
        assert list(heard[name + "/task/stats"][1]) == [container["DockerId"]], heard[name + "/task/stats"]


def a_role_that_cannot_be_taken_on_is_an_error_of_the_endpoint():
    """STS is not there: the app gets the endpoint's error, whoever runs the agent is told, the task goes on."""
    with tempfile.TemporaryDirectory(prefix="fl-endp-") as folder:
        file = definition(folder, [], taskRoleArn=ROLE)
        heard, _, said = run(folder, file, "--endpoint", "http://127.0.0.1:1", env=KEYS)
    status, error = heard["credentials"]
    assert (status, error["code"], error["HTTPErrorCode"]) == (500, "InternalServerError", 500), error
    assert "task role %s: " % ROLE in said and "--task-role own" in said, said


def the_agents_own_credentials_in_place_of_a_role():
    """--task-role own, and none."""
    with tempfile.TemporaryDirectory(prefix="fl-endp-") as folder:
        file = definition(folder, [], taskRoleArn=ROLE)
        heard, _, _ = run(folder, file, "--task-role", "own", env=KEYS)
        assert (heard["credentials"][0], heard["credentials"][1]["AccessKeyId"]) == (200, "agent"), heard["credentials"]
        heard, _, _ = run(folder, file, "--task-role", "none", env=KEYS)
        assert not any(name.startswith("AWS_CONTAINER_") for name in heard["env"]), heard["env"]


def the_endpoint_refuses_a_flood():
    """40 requests a second, 60 at once, for a path."""
    with tempfile.TemporaryDirectory(prefix="fl-endp-") as folder:
        heard, _, _ = run(folder, definition(folder, ["--flood"]))
    first, refused = heard["flood"][:60], heard["flood"].count(429)
    assert set(first) == {404} and refused > 0, heard["flood"]


def an_interrupt_leaves_nothing_behind():
    """The listener ends with the agent, also where the app keeps a connection open."""
    with tempfile.TemporaryDirectory(prefix="fl-endp-") as folder:
        file = definition(folder, [])
        with open(os.path.join(folder, "app.py"), "w") as app:
            app.write("import os, socket, time, urllib.parse\n"
                      "at = urllib.parse.urlparse(os.environ['ECS_AGENT_URI'])\n"
                      "s = socket.create_connection((at.hostname, at.port))\n"
                      "open(os.environ['HEARD'], 'w').write('up')\ntime.sleep(60)\n")
        heard = os.path.join(folder, "heard.json")
        process = subprocess.Popen([BINARY, "task", "run", file, "--json", "--dir", os.path.join(folder, "d"),
                                    "--env", "HEARD=" + heard], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            suite.eventually("the app is connected", lambda: os.path.exists(heard), 20)
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=45)
        finally:
            process.kill()
            process.wait(10)
        assert process.returncode == 0 and json.loads(out)["stopCode"] == "UserInitiated", said


def a_router_writes_to_cloudwatch_in_its_tasks_role():
    """Nobody has given the router keys: it finds the role's as every SDK does."""
    with tempfile.TemporaryDirectory(prefix="fl-endp-") as folder, moto(folder) as endpoint:
        file, end = definition(folder, [], taskRoleArn=ROLE), os.path.join(folder, "end")
        with open(file) as task:
            task = json.load(task)
        app = task["containerDefinitions"][0]
        app["entryPoint"] = ["/bin/sh", "-c", "echo hello; until [ -e %s ]; do sleep 0.1; done" % end]
        app["logConfiguration"] = {"logDriver": "awsfirelens", "options": {
            "Name": "cloudwatch_logs", "region": "eu-west-1", "log_group_name": "/role", "log_stream_name": "s",
            "auto_create_group": "on", "log_key": "log", "endpoint": endpoint}}
        task["containerDefinitions"].append({"name": "log_router", "image": "x", "memory": 64,
                                             "firelensConfiguration": {"type": "fluentbit"}})
        with open(file, "w") as out:
            json.dump(task, out)
        environment = dict(os.environ, AWS_EC2_METADATA_DISABLED="true", NO_PROXY="127.0.0.1", **dict(KEYS))
        process = subprocess.Popen([BINARY, "task", "run", file, "--json", "--dir", os.path.join(folder, "d"),
                                    "--region", "eu-west-1", "--endpoint", endpoint, "--env", "NO_PROXY=127.0.0.1"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

        def events():
            try:
                return [text for _, text in read(endpoint, "/role", "s")["events"]]
            except AssertionError:  # The group is not there yet.
                return []
        try:
            suite.eventually("the line is in CloudWatch", lambda: events() == ["hello"], 40, every=0.5)
            open(end, "w").close()
            _, said = process.communicate(timeout=45)
        finally:
            process.kill()
            process.wait(10)
        assert process.returncode == 0, said


TESTS = [boto3_in_a_task_gets_its_roles_credentials, a_role_that_cannot_be_taken_on_is_an_error_of_the_endpoint,
         the_agents_own_credentials_in_place_of_a_role, the_endpoint_refuses_a_flood,
         a_router_writes_to_cloudwatch_in_its_tasks_role, an_interrupt_leaves_nothing_behind]
