"""The image that task definitions name: built by dockerd from the binary that is there, on a base made without a registry."""
import json
import os
import shutil
import subprocess
import tempfile

from engine import Engine, find
from support.router import BINARY, FOREIGN, TOP
from support.suite import Skip, eventually

# Values for the variables that the files of /ecs leave to the task.
ENVIRONMENT = {"AWS_REGION": "eu-west-1", "ECS_CLUSTER": "shop", "ECS_TASK_ARN": "arn", "ECS_TASK_DEFINITION": "shop:1",
               "PARSER_NAME": "json", "AWS_EC2_METADATA_DISABLED": "true"}
# Whole configurations are checked as they are, parts of one between an input and an output.
CHECK = r"""
status=0
for file in /fluent-bit/etc/fluent-bit.conf /ecs/cloudwatch.conf /fluent-bit/configs/*.conf /ecs/*.conf; do
  conf=/tmp/check.conf
  if grep -q '^.OUTPUT' $file; then conf=$file; else
    printf '[INPUT]\n    Name dummy\n\n@INCLUDE %s\n\n[OUTPUT]\n    Name null\n    Match *\n' $file >$conf
  fi
  case $file in */filter-parser.conf) set -- -R /fluent-bit/etc/parsers.conf ;; *) set -- ;; esac
  echo "== $file"
  firelane check -c $conf "$@" 2>&1 || status=1
done
exit $status
"""
# What ECS would write, with a file as the output.
CONFIGURATION = """
[INPUT]
    Name forward
    Mem_Buf_Limit 25MB
    unix_path /var/run/fluent.sock

[INPUT]
    Name tcp
    Tag firelens-healthcheck
    Listen 127.0.0.1
    Port 8877

@INCLUDE /fluent-bit/configs/parse-json.conf

[OUTPUT]
    Name null
    Match firelens-healthcheck

[OUTPUT]
    Name file
    Match app-firelens*
    Path /out
    File app.log
    Format plain
"""


def build(engine):
    """The image, in the engine. Only files of its own are given to the builder: not the gigabytes of target/."""
    base = os.path.join(TOP, "target", "image-base.tar")
    if not os.path.exists(base) and not find("debootstrap"):
        raise Skip("not installed: debootstrap")
    context = os.path.join(engine.base, "context")
    os.mkdir(context)
    done = subprocess.run([os.path.join(TOP, "scripts", "image"), "base", os.path.join(context, "base.tar")],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, "scripts/image: " + done.stderr[-2000:]
    engine.docker("import", os.path.join(context, "base.tar"), "base")
    os.remove(os.path.join(context, "base.tar"))
    for name in ("Dockerfile", "LICENSE"):
        shutil.copy(os.path.join(TOP, name), context)
    os.mkdir(os.path.join(context, "config"))
    shutil.copy(os.path.join(TOP, "config", "parsers.conf"), os.path.join(context, "config"))
    shutil.copytree(os.path.join(TOP, "image"), os.path.join(context, "image"), symlinks=True)
    shutil.copy(BINARY, os.path.join(context, "firelane"))
    engine.environment["DOCKER_BUILDKIT"] = "0"  # the other builder is not part of Debian's package
    engine.docker("build", "--network", "none", "--target", "prebuilt", "--build-arg", "BASE=base", "--build-arg",
                  "BINARY=firelane", "-t", "firelane", context, timeout=300)
    shutil.rmtree(context)


def shell(engine, container, script):
    return engine.docker("exec", container, "sh", "-c", script).stdout.decode()


def routes(engine, user):
    """A FireLens container as ECS starts it, and an app whose log driver sends to its socket."""
    directory = tempfile.mkdtemp(prefix="fl-image-", dir=engine.base)
    os.chmod(directory, 0o755)
    conf, socket, out = (os.path.join(directory, name) for name in ("fluent.conf", "socket", "out"))
    with open(conf, "w") as f:
        f.write(CONFIGURATION)
    os.chmod(conf, 0o644)
    uid = int(user.split(":")[0]) if user else 0
    for folder in (socket, out):
        os.mkdir(folder, 0o755)
        os.chown(folder, uid, uid)  # the ECS agent does so with the socket's
    router = engine.docker("run", "-d", "--network", "none", *(["--user", user] if user else []),
                           "-v", conf + ":/fluent-bit/etc/fluent-bit.conf", "-v", socket + ":/var/run",
                           "-v", out + ":/out", "firelane").stdout.decode().strip()
    engine.containers.append(router)
    said = lambda: engine.docker("logs", router).stderr.decode() + engine.docker("logs", router).stdout.decode()
    path = os.path.join(socket, "fluent.sock")
    eventually(lambda: "the router made its socket: " + said(), lambda: os.path.exists(path), 20)
    assert shell(engine, router, "id -u").strip() == str(uid)
    assert os.stat(path).st_uid == uid
    # The health checks of task definitions.
    shell(engine, router, "nc -z 127.0.0.1 8877 && echo x | nc -w 1 127.0.0.1 8877 || exit 1")
    shell(engine, router, "curl -fsS file:///entrypoint.sh >/dev/null || exit 1")
    app = engine.run(["--log-driver", "fluentd", "--log-opt", "fluentd-address=unix://" + path, "--log-opt",
                      "tag=app-firelens-1"], "sh", "-c", "echo '{\"answer\": 42}'; echo plain; sleep 1")
    engine.wait(app)
    records = os.path.join(out, "app.log")
    read = lambda: open(records).read().splitlines() if os.path.exists(records) else []
    eventually(lambda: "2 records: %s\n%s" % (read(), said()), lambda: len(read()) >= 2, 20)
    parsed, plain = map(json.loads, read())
    assert parsed["answer"] == 42 and parsed["source"] == "stdout" and plain["log"] == "plain", (parsed, plain)
    engine.docker("stop", "-t", "30", router)
    assert engine.state(router)["ExitCode"] == 0, said()
    assert "FireLens log router image: firelane " in said(), said()


def the_image_runs_as_root_and_as_any_user_with_sh_curl_and_nc():
    """Built on a local base; every configuration in it is right; the socket, the health checks, the stop."""
    if FOREIGN:
        raise Skip("another router is not in the image")
    with Engine() as engine:
        build(engine)
        config = json.loads(engine.docker("inspect", "-f", "{{json .Config}}", "firelane").stdout)
        assert config["Cmd"] == ["/entrypoint.sh"] and config["User"] in ("", "root") and "2020/tcp" in config["ExposedPorts"]
        variables = [word for pair in ENVIRONMENT.items() for word in ("-e", "%s=%s" % pair)]
        check = engine.docker("run", "--rm", "--network", "none", *variables, "firelane", "sh", "-c", CHECK, check=False)
        assert check.returncode == 0, check.stdout.decode()[-4000:] + check.stderr.decode()[-1000:]
        checked = check.stdout.decode().count("== ")
        # With arguments of its own, as task definitions give them: plugins of the other image are passed over.
        flags = engine.docker("run", "--rm", "--network", "none", "firelane", "/fluent-bit/bin/fluent-bit", "-e",
                              "/fluent-bit/firehose.so", "-e", "/fluent-bit/cloudwatch.so", "-c",
                              "/fluent-bit/etc/fluent-bit.conf", "--dry-run")
        assert "configuration test is successful" in (flags.stdout + flags.stderr).decode()
        for user in ("", "1000:1000"):
            routes(engine, user)
    return "%d configurations" % checked


TESTS = [the_image_runs_as_root_and_as_any_user_with_sh_curl_and_nc]
