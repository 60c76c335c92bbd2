"""What speaks CloudWatch Logs against the input of that name: boto3, watchtower, the AWS CLI, with keys that are right and
keys that are not."""
import json
import logging
import os
import shutil
import subprocess
import tempfile
import time

from support import suite
from support.router import Router, free_port

# PyPI has only version 1, which cannot tail.
AWS = "/usr/bin/aws"
KEY, SECRET, OTHER, OTHER_SECRET, TOKEN = "AKIDONE", "one/secret+1", "AKIDTWO", "two/secret+2", "session/token=="
CONF = """
[SERVICE]
    Flush 0.2
[INPUT]
    Name awslogs
    Listen 127.0.0.1
    Port {port}
    Credentials_File {dir}/credentials
[OUTPUT]
    Name file
    Match awslogs.*
    Path {dir}
    File out.log
    Format plain
"""


class Task:
    """A router that knows two keys."""

    def __init__(self):
        self.dir, self.port = tempfile.mkdtemp(prefix="fl-cw-"), free_port()
        self.url = "http://127.0.0.1:%d" % self.port
        with open(self.path("credentials"), "w") as f:
            f.write("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n\n[other]\naws_access_key_id=%s\n"
                    "aws_secret_access_key=%s\naws_session_token=%s\n" % (KEY, SECRET, OTHER, OTHER_SECRET, TOKEN))
        with open(self.path("router.conf"), "w") as f:
            f.write(CONF.format(dir=self.dir, port=self.port))
        self.router = Router(self.path("router.conf"), self.path("router.log"), [self.port])

    def __enter__(self):
        self.router.start()
        return self

    def __exit__(self, *_):
        self.router.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.dir, name)

    def boto(self, key=KEY, secret=SECRET, token=None):
        try:
            import boto3
        except ImportError:
            raise suite.Skip("no boto3: run scripts/setup test, and this with target/venv/bin/python")
        return boto3.client("logs", endpoint_url=self.url, region_name="eu-west-1", aws_access_key_id=key,
                            aws_secret_access_key=secret, aws_session_token=token)

    def aws(self, *words, key=KEY, secret=SECRET):
        """The command line of a call with the AWS CLI, and its environment."""
        if not os.path.exists(AWS):
            raise suite.Skip("no %s: run scripts/setup test" % AWS)
        clean = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        environment = dict(clean, AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret, AWS_DEFAULT_REGION="eu-west-1",
                           AWS_EC2_METADATA_DISABLED="true", AWS_MAX_ATTEMPTS="1", AWS_PAGER="", HOME=self.dir,
                           PYTHONUNBUFFERED="1")  # It does not flush what it follows when that goes into a file.
        return [AWS, "--endpoint-url", self.url, "logs", *words], environment

    def run(self, *words, **keys):
        command, environment = self.aws(*words, **keys)
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL)

    def ok(self, *words, **keys):
        done = self.run(*words, **keys)
        assert done.returncode == 0, "aws logs %s: %s" % (" ".join(words), done.stderr)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def stop(self, records):
        ledger = self.router.stop()
        assert ledger["routed"] == records, ledger.line
        with open(self.path("out.log"), encoding="utf-8") as f:
            return [json.loads(line) for line in f]


def now():
    return int(time.time() * 1000)


def name_of(call, *arguments, **keys):
    """The name of the error that a boto3 call ends with."""
    import botocore.exceptions
    try:
        call(*arguments, **keys)
    except botocore.exceptions.ClientError as e:
        return e.response["Error"]["Code"]
    return None


def boto3_puts_and_reads():
    with Task() as task:
        logs, at = task.boto(), now()
        put = dict(logGroupName="/ecs/shop", logStreamName="web/1")
        events = [{"timestamp": at + i, "message": 'line %d "é" \U0001f600\n\t\\' % i} for i in range(2_500)]
        assert name_of(logs.put_log_events, logEvents=events, **put) == "ResourceNotFoundException"
        logs.create_log_group(logGroupName="/ecs/shop")
        logs.create_log_stream(**put)
        assert name_of(logs.create_log_stream, **put) == "ResourceAlreadyExistsException"
        for i in range(0, 2_500, 500):
            answer = logs.put_log_events(logEvents=events[i:i + 500], **put)
            assert len(answer["nextSequenceToken"]) == 56 and "rejectedLogEventsInfo" not in answer, answer
        old = [{"timestamp": at - 15 * 86_400_000, "message": "old"}, {"timestamp": at, "message": "now"},
               {"timestamp": at + 3 * 3_600_000, "message": "ahead"}]
        info = logs.put_log_events(logEvents=old, **put)["rejectedLogEventsInfo"]
        assert info == {"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 2}, info
        assert name_of(logs.put_log_events, logEvents=old[::-1], **put) == "InvalidParameterException"
        stream = logs.describe_log_streams(logGroupName="/ecs/shop")["logStreams"][0]
        assert stream["logStreamName"] == "web/1" and stream["lastEventTimestamp"] == at + 2_499, stream
        page = logs.get_log_events(limit=10, startFromHead=True, **put)
        assert [e["message"] for e in page["events"]][1:3] == ["now", events[1]["message"]], page
        again = logs.get_log_events(limit=10, nextToken=page["nextForwardToken"], **put)
        assert again["events"][0]["message"] == events[9]["message"], again
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName="/ecs/shop", filterPattern='"line 7" -"line 77"', PaginationConfig={"PageSize": 5})
        found = [e["message"] for page in pages for e in page["events"]]
        assert found == [e["message"] for e in events if "line 7" in e["message"] and "line 77" not in e["message"]]
        logs.put_retention_policy(logGroupName="/ecs/shop", retentionInDays=1)
        info = logs.put_log_events(logEvents=[{"timestamp": at - 2 * 86_400_000, "message": "x"}], **put)
        assert info["rejectedLogEventsInfo"] == {"expiredLogEventEndIndex": 1}, info
        logs.delete_log_stream(**put)
        logs.delete_log_group(logGroupName="/ecs/shop")
        records = task.stop(2_501)
        assert records[-1] == {"log": "now", "log_group": "/ecs/shop", "log_stream": "web/1"}
        assert [r["log"] for r in records[:-1]] == [e["message"] for e in events]
        assert task.router.messages().count("refused=3") >= 1


def boto3_with_right_and_wrong_keys():
    with Task() as task:
        for keys, want in [((), None), ((OTHER, OTHER_SECRET, TOKEN), None),
                           ((OTHER, OTHER_SECRET), "UnrecognizedClientException"),
                           ((OTHER, OTHER_SECRET, "wrong"), "UnrecognizedClientException"),
                           ((KEY, "wrong"), "InvalidSignatureException"),
                           (("NOBODY", SECRET), "UnrecognizedClientException")]:
            assert name_of(task.boto(*keys).describe_log_groups) == want, keys
        # A large body of a stranger: the answer must get through.
        big = [{"timestamp": now(), "message": "x" * 1000}] * 900
        put = dict(logGroupName="g", logStreamName="s", logEvents=big)
        assert name_of(task.boto(KEY, "wrong").put_log_events, **put) == "InvalidSignatureException"
        assert name_of(task.boto("NOBODY").put_log_events, **put) == "UnrecognizedClientException"
        task.router.stop()


def watchtower_sends_every_line():
    with Task() as task:
        client = task.boto()
        try:
            import watchtower
        except ImportError:
            raise suite.Skip("no watchtower: run scripts/setup test")
        handler = watchtower.CloudWatchLogHandler(log_group_name="app", log_stream_name="web", boto3_client=client,
                                                  send_interval=1, max_batch_count=500)
        logger = logging.getLogger("shop")
        logger.propagate = False
        logger.addHandler(handler)
        for i in range(5_000):
            logger.warning("line %d é", i)
            if i == 0:
                handler.flush()  # The first call makes the stream; watchtower drops what is logged meanwhile.
        handler.close()
        logger.removeHandler(handler)
        assert [r["log"] for r in task.stop(5_000)] == ["line %d é" % i for i in range(5_000)]


def aws_cli_puts_describes_and_tails():
    with Task() as task:
        at = now()
        task.ok("create-log-group", "--log-group-name", "cli")
        task.ok("create-log-stream", "--log-group-name", "cli", "--log-stream-name", "s")
        put = lambda *messages: task.ok("put-log-events", "--log-group-name", "cli", "--log-stream-name", "s",
                                        "--log-events", json.dumps([{"timestamp": now(), "message": m} for m in messages]))
        assert "nextSequenceToken" in put("first ERROR", "second")
        streams = task.ok("describe-log-streams", "--log-group-name", "cli")["logStreams"]
        assert [s["logStreamName"] for s in streams] == ["s"] and streams[0]["lastEventTimestamp"] >= at
        assert [g["logGroupName"] for g in task.ok("describe-log-groups")["logGroups"]] == ["cli"]
        tail = task.run("tail", "cli", "--format", "short", "--filter-pattern", "ERROR")
        assert tail.returncode == 0 and "first ERROR" in tail.stdout and "second" not in tail.stdout, tail
        command, environment = task.aws("tail", "cli", "--follow", "--since", "5m")
        with open(task.path("tail.out"), "w") as out:
            follow = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            def said(words):
                with open(task.path("tail.out")) as f:
                    return words in f.read()
            suite.eventually("tail shows what is there", lambda: said("second"), 30)
            put("third")
            suite.eventually("tail follows", lambda: said("third"), 30)
        finally:
            follow.terminate()
            follow.wait(20)
        with open(task.path("tail.out")) as f:
            shown = f.read()
        assert shown.count("first ERROR") == 1, shown
        wrong = task.run("tail", "cli", secret="wrong")
        assert wrong.returncode and "InvalidSignatureException" in wrong.stderr, wrong
        wrong = task.run("put-log-events", "--log-group-name", "cli", "--log-stream-name", "s", "--log-events",
                         "timestamp=%d,message=x" % at, key="NOBODY")
        assert wrong.returncode and "UnrecognizedClientException" in wrong.stderr, wrong
        missing = task.run("tail", "nosuch")
        assert missing.returncode and "ResourceNotFoundException" in missing.stderr, missing
        task.stop(3)


TESTS = [boto3_puts_and_reads, boto3_with_right_and_wrong_keys, watchtower_sends_every_line,
         aws_cli_puts_describes_and_tails]
