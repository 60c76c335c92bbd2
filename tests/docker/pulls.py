"""Images behind a password: `repositoryCredentials`, whose secret is in Secrets Manager (moto's)."""
import json
import os
import subprocess

from registry import Registry
from support.moto import BIN, moto
from tasks import Daemon, Machine, alone

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
USER, PASSWORD, WRONG = "puller", "0pen-sesame", "0pen-barley"
# Puts secrets there by boto3; prints their ARNs.
FILL = """
import boto3, json, sys
manager = boto3.client("secretsmanager", endpoint_url=sys.argv[1], region_name="eu-west-1")
put = lambda password: manager.create_secret(
    Name="login-" + password, SecretString=json.dumps({"username": sys.argv[2], "password": password}))["ARN"]
print(json.dumps([put(password) for password in sys.argv[3:]]))
"""


def secrets(endpoint, *passwords):
    """ARNs of secrets with these passwords."""
    done = subprocess.run([os.path.join(BIN, "python"), "-c", FILL, endpoint, USER, *passwords], capture_output=True,
                          text=True, timeout=60, env=dict(os.environ, **KEYS))
    assert done.returncode == 0, done.stderr[-1500:]
    return json.loads(done.stdout)


def an_image_behind_a_password_is_pulled_with_that_of_its_secret_and_with_no_other():
    """By the command and by the daemon; the registry's refusal has ECS's reason and leaves nothing behind."""
    with Machine() as machine, moto(machine.base) as endpoint:
        docker = machine.engine.docker
        machine.engine.environment.update(KEYS)
        right, wrong = secrets(endpoint, PASSWORD, WRONG)
        options = ["--endpoint", endpoint, "--region", "eu-west-1"]
        saved = docker("save", "busybox").stdout
        with Registry(saved, "shop/app", "7", (USER, PASSWORD)) as registry:
            def file(arn):
                fields = {"repositoryCredentials": {"credentialsParameter": arn}} if arn else {}
                script = "wget -q -O - $ECS_CONTAINER_METADATA_URI_V4/task"
                return machine.file("pulled", alone(image=registry.image, command=[script], **fields))

            for arn, why in ((wrong, "unauthorized"), (None, "no basic auth credentials")):
                end = machine.run(file(arn), *options)
                assert (end["code"], end["stopCode"]) == (1, "TaskFailedToStart"), end
                reason = end["containers"][0]["reason"]
                assert reason.startswith("CannotPullContainerError: Error response from daemon: ") and why in reason, reason
                assert WRONG not in json.dumps(end), end
                assert not docker("images", "-q", registry.image).stdout, "there is an image"
                machine.assert_clean()
            assert {status for _, _, status in registry.calls} == {401}, registry.calls

            end = machine.run(file(right), *options)
            assert end["code"] == 0, end
            assert 200 in {status for _, _, status in registry.calls}, registry.calls
            with open(machine.path("d", end["taskArn"].split("/")[-1], "logs", "app-json.log")) as log:
                task = json.loads("".join(json.loads(line)["log"] for line in log))
            assert task["PullStartedAt"] < task["PullStoppedAt"] <= task["Containers"][0]["CreatedAt"], task
            assert PASSWORD not in json.dumps([end, task]), "the password is told"
            machine.assert_clean()

            docker("rmi", registry.image)
            with Daemon(machine) as agent:
                done = agent.run("run", file(wrong), "--runtime", "docker", "--wait", *options)
                assert done.returncode == 1 and "CannotPullContainerError: " in done.stdout, done
                done = agent.run("run", file(right), "--runtime", "docker", "--wait", *options)
                assert done.returncode == 0, done
            assert docker("images", "-q", registry.image).stdout, "there is no image"
            machine.assert_clean()


TESTS = [an_image_behind_a_password_is_pulled_with_that_of_its_secret_and_with_no_other]
