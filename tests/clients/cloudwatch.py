"""The CloudWatch Logs outputs against moto_server: put through the router, read back with boto3."""
import json
import os
import shutil
import subprocess
import tempfile

import send
from support.moto import moto, read
from support.router import TOP, Router

HERE = os.path.dirname(os.path.abspath(__file__))
COUNT = 5_000
CONF = """
[SERVICE]
    Flush 1
[INPUT]
    Name forward
    Unix_Path {dir}/in.sock
[OUTPUT]
    Match app.web
    region eu-west-1
    endpoint {endpoint}
    auto_create_group on
    log_retention_days 7
"""


def put_and_read_back(lines, group, stream, message):
    """Sends records through the router and compares what boto3 reads. Returns what it has read."""
    folder = tempfile.mkdtemp(prefix="fl-cloudwatch-")
    path = lambda name: os.path.join(folder, name)
    environment = dict(os.environ, AWS_ACCESS_KEY_ID="writer", AWS_SECRET_ACCESS_KEY="secret",
                       AWS_EC2_METADATA_DISABLED="true", NO_PROXY="127.0.0.1")
    router = None
    try:
        with moto(folder) as endpoint:
            with open(path("router.conf"), "w") as f:
                f.write((CONF + "".join("    %s\n" % line for line in lines))
                        .replace("{dir}", folder).replace("{endpoint}", endpoint))
            router = Router(path("router.conf"), path("router.log"), [path("in.sock")], environment).start()
            client = [os.path.join(TOP, "target", "venv", "bin", "python"), os.path.join(HERE, "send.py"),
                      "fluent_logger", "unix://" + path("in.sock"), "0", str(COUNT)]
            subprocess.run(client, check=True, capture_output=True, timeout=120)
            ledger = router.stop()
            read_back = read(endpoint, group, stream)
        assert ledger["routed"] == COUNT, ledger.line
        times = [time for time, _ in read_back["events"]]
        assert times == sorted(times)
        came = [text for _, text in read_back["events"]]
        # moto sorts by time, and the times of this client are seconds.
        want = sorted(message(send.record(i)) for i in range(COUNT))
        assert len(came) == COUNT, "%d events expected, %d came" % (COUNT, len(came))
        for got, expected in zip(sorted(came), want):
            assert got == expected, "expected %r, came %r" % (expected, got)
        return read_back
    finally:
        if router:
            router.kill()
        shutil.rmtree(folder, ignore_errors=True)


def compact(record):
    return json.dumps(record, separators=(",", ":"))


def cloudwatch_logs_to_moto():
    """Whole records as JSON; the group's retention; one stream for the tag."""
    read = put_and_read_back(["Name cloudwatch_logs", "log_group_name /app/web", "log_stream_prefix from-"],
                             "/app/web", "from-app.web", compact)
    assert (read["groups"], read["streams"], read["retention"]) == (["/app/web"], ["from-app.web"], 7), read


def cloudwatch_in_the_go_plugins_dialect_to_moto():
    """Names with $(...), one field as the message, tags, and a role that moto's STS gives."""
    read = put_and_read_back(
        ["Name cloudwatch", "log_group_name /go/$(tag[1])", "log_stream_name $(flag)-$(ecs_task_id)",
         "default_log_stream_name other", "new_log_group_tags team=web", "log_key text",
         "role_arn arn:aws:iam::123456789012:role/writer", "sts_endpoint {endpoint}"],
        "/go/web", "other", lambda record: record["text"])
    assert (read["streams"], read["tags"]) == (["other"], {"team": "web"}), read


TESTS = [cloudwatch_logs_to_moto, cloudwatch_in_the_go_plugins_dialect_to_moto]
