"""Tasks whose secrets, environment files and router's configuration are in AWS, with moto in AWS's place: Secrets Manager, SSM,
S3 and STS. What is missing there stops the task, says so, and leaves nothing behind."""
import json
import os
import shutil
import subprocess
import tempfile

from support import suite
from support.moto import BIN, moto
from support.router import BINARY

REGION = "eu-west-1"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKIDTASKS", "AWS_SECRET_ACCESS_KEY": "no/secret", "AWS_EC2_METADATA_DISABLED": "true",
               "AWS_REGION": REGION, "NO_PROXY": "127.0.0.1"}
HIDDEN = ["pass-w0rd", "t0ken", "l0g-key", "9th-parameter"]
# What a task needs, put there by boto3; prints the ARNs.
FILL = """
import boto3, json, sys
where = dict(endpoint_url=sys.argv[1], region_name="eu-west-1")
manager, ssm, s3 = (boto3.client(name, **where) for name in ("secretsmanager", "ssm", "s3"))
db = manager.create_secret(Name="shop/db", SecretString=json.dumps(
    {"user": "shop", "password": "pass-w0rd", "port": 5432, "rows": 1000000}))["ARN"]
token = manager.create_secret(Name="token", SecretString="t0ken")["ARN"]
for n in range(12):
    ssm.put_parameter(Name="/shop/p%d" % n, Value="%dth-parameter" % n, Type="SecureString")
ssm.put_parameter(Name="plain", Value="l0g-key", Type="String")
arn = ssm.get_parameter(Name="plain")["Parameter"]["ARN"]
s3.create_bucket(Bucket="conf.shop", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
put = lambda key, body: s3.put_object(Bucket="conf.shop", Key=key, Body=body)
put("a b+c/first.env", "# first\\nFROM_FILE=first\\nTWICE=first\\nDB_PASSWORD=from a file\\nPLAIN=from a file\\n")
put("second.env", "TWICE=second\\nONLY_SECOND=2\\n")
put("more.conf", "[FILTER]\\n    Name modify\\n    Match *\\n    Add from_s3 yes\\n[OUTPUT]\\n    Name file\\n    Match app-*\\n"
    "    Path ${OUT_DIR}\\n    File app.log\\n    Format plain\\n    Mkdir on\\n")
print(json.dumps(dict(db=db, token=token, arn=arn)))
"""


def definition(arns, **changes):
    """A task whose app prints its environment and whose router reads a configuration in S3."""
    secret = lambda name, value: {"name": name, "valueFrom": value}
    app = {
        "name": "app", "image": "busybox", "memory": 32, "entryPoint": ["/bin/sh", "-c"], "command": ["env"],
        "environment": [{"name": "PLAIN", "value": "of the definition"}],
        "environmentFiles": [{"value": "arn:aws:s3:::conf.shop/" + key, "type": "s3"}
                             for key in ("a b+c/first.env", "second.env")],
        "secrets": [secret("DB_PASSWORD", arns["db"] + ":password::"), secret("DB_PORT", arns["db"] + ":port::"),
                    secret("DB_ROWS", arns["db"] + ":rows:AWSCURRENT:"), secret("TOKEN", arns["token"]),
                    secret("BY_ARN", arns["arn"])]
        + [secret("P%d" % n, "/shop/p%d" % n) for n in range(12)],
        "logConfiguration": {"logDriver": "awsfirelens", "options": {"Name": "null"},
                             "secretOptions": [secret("alias", "plain")]},
    }
    app.update(changes)
    router = {"name": "log_router", "image": "firelane", "memory": 50, "firelensConfiguration": {
        "type": "fluentbit", "options": {"config-file-type": "s3", "config-file-value": "arn:aws:s3:::conf.shop/more.conf"}}}
    return {"family": "secrets", "executionRoleArn": "arn:aws:iam::123456789012:role/execution",
            "containerDefinitions": [app, router]}


class Place:
    """A moto with everything in it, and a directory."""

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="fl-secrets-")
        self.server = moto(self.dir)
        self.url = self.server.__enter__()
        clean = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        self.env = dict(clean, TMPDIR=self.dir, **ENVIRONMENT)
        done = subprocess.run([os.path.join(BIN, "python"), "-c", FILL, self.url], env=self.env, capture_output=True,
                              text=True, timeout=60)
        assert done.returncode == 0, done.stderr[-1500:]
        self.arns = json.loads(done.stdout)
        return self

    def __exit__(self, *_):
        self.server.__exit__(None, None, None)
        shutil.rmtree(self.dir, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.dir, name)

    def run(self, task, *flags, env=None, endpoint=True):
        with open(self.path("task.json"), "w") as f:
            json.dump(task, f)
        words = [BINARY, "task", "run", self.path("task.json"), "--runtime", "process", "--json",
                 "--env", "OUT_DIR=" + self.path("out"), *flags]
        if endpoint:
            words += ["--endpoint", self.url]
        return subprocess.run(words, env=env or self.env, capture_output=True, text=True, timeout=90,
                              stdin=subprocess.DEVNULL)

    def printed(self, done):
        """The environment that the app has printed, as it came through the router."""
        assert done.returncode == 0, done.stderr[-3000:]
        for value in HIDDEN:
            assert value not in done.stdout + done.stderr, "the value of a secret is told"
        with open(self.path("out/app.log"), encoding="utf-8") as f:
            records = [json.loads(line) for line in f]
        os.unlink(self.path("out/app.log"))
        assert all(r.get("from_s3") == "yes" for r in records), records[:2]
        return dict(r["log"].split("=", 1) for r in records if "=" in r["log"])

    def refused(self, done, *texts):
        """The task did not start, for these reasons, and left nothing behind."""
        assert done.returncode == 1, (done.returncode, done.stderr[-3000:])
        for text in ("ResourceInitializationError", *texts):
            assert text in done.stderr, "%r is not in: %s" % (text, done.stderr)
        for value in HIDDEN:
            assert value not in done.stdout + done.stderr, "the value of a secret is told"
        left = [name for name in os.listdir(self.dir) if name.startswith("firelane")]
        assert not left, "left behind: %s" % left


WANTED = {"DB_PASSWORD": "pass-w0rd", "DB_PORT": "5432", "DB_ROWS": "1e+06", "TOKEN": "t0ken", "BY_ARN": "l0g-key",
          "FROM_FILE": "first", "TWICE": "first", "ONLY_SECOND": "2", "PLAIN": "of the definition",
          **{"P%d" % n: "%dth-parameter" % n for n in range(12)}}


def check(found):
    different = {k: (v, found.get(k)) for k, v in WANTED.items() if found.get(k) != v}
    assert not different, "expected and found: %s" % different


def task_gets_secrets_files_and_configuration():
    """With the agent's own rights, `--endpoint` for all."""
    with Place() as place:
        check(place.printed(place.run(definition(place.arns))))


def task_takes_on_its_execution_role():
    """AssumeRole at moto's STS; endpoints from the environment, one of them of a service."""
    with Place() as place:
        env = dict(place.env, AWS_ENDPOINT_URL="http://127.0.0.1:9", **{
            "AWS_ENDPOINT_URL_" + name: place.url for name in ("SECRETS_MANAGER", "SSM", "S3", "STS")})
        task, nobody = definition(place.arns), dict(env, AWS_ENDPOINT_URL_STS="http://127.0.0.1:9")
        place.refused(place.run(task, "--assume-execution-role", env=nobody, endpoint=False),
                      "unable to find execution role credentials", "127.0.0.1:9")
        check(place.printed(place.run(task, "--assume-execution-role", env=env, endpoint=False)))


def secret_by_hand_is_not_asked_for():
    """--secret stands in for what AWS does not have."""
    with Place() as place:
        task = definition(place.arns, secrets=[{"name": "X", "valueFrom": place.arns["db"].replace("shop/db", "none")}])
        found = place.printed(place.run(task, "--secret", "X=by hand"))
        assert found["X"] == "by hand" and found["DB_PASSWORD"] == "from a file", found


def what_is_missing_stops_the_task():
    """Every failure in one run: a key, a secret, a parameter, a file, the router's configuration."""
    with Place() as place:
        missing = place.arns["token"].replace(":secret:token", ":secret:nothing")
        task = definition(place.arns, secrets=[
            {"name": "A", "valueFrom": place.arns["db"] + ":pasword::"}, {"name": "B", "valueFrom": missing},
            {"name": "C", "valueFrom": "/shop/none"}, {"name": "D", "valueFrom": place.arns["token"] + ":key::"},
            {"name": "E", "valueFrom": "arn:aws:sqs:eu-west-1:1:queue"}],
            environmentFiles=[{"value": "arn:aws:s3:::conf.shop/none.env", "type": "s3"}])
        options = task["containerDefinitions"][1]["firelensConfiguration"]["options"]
        options["config-file-value"] = "arn:aws:s3:::no-bucket/x.conf"
        place.refused(
            place.run(task), "unable to pull secrets or registry auth: execution resource retrieval failed",
            "did not contain json key pasword (for container app as A; --secret A=VALUE stands in for it)",
            "ResourceNotFoundException: The task can't retrieve the secret with ARN '%s'" % missing,
            "invalid parameters: /shop/none (for container app as C", "no JSON object, and json key key is wanted",
            "is an ARN of \"sqs\"",
            "failed to download env files: unable to download env file with key none.env from bucket conf.shop, error: NoSuchKey",
            "unable to download firelens s3 config file: unable to download s3 config x.conf from bucket no-bucket: NoSuchBucket")


def nobody_answers_or_there_are_no_credentials():
    """A wrong endpoint, no keys, a role that is not named: each says what to do."""
    with Place() as place:
        task = definition(place.arns)
        place.refused(place.run(task, "--endpoint", "http://127.0.0.1:9", endpoint=False), "127.0.0.1:9", "retried 3 time(s)")
        keyless = {k: v for k, v in place.env.items() if "KEY" not in k}
        keyless["HOME"] = place.dir
        place.refused(place.run(task, env=keyless), "unable to find execution role credentials", "--secret NAME=VALUE")
        del task["executionRoleArn"]
        place.refused(place.run(task, "--assume-execution-role"), "needs executionRoleArn")


TESTS = [task_gets_secrets_files_and_configuration, task_takes_on_its_execution_role, secret_by_hand_is_not_asked_for,
         what_is_missing_stops_the_task, nobody_answers_or_there_are_no_credentials]
