#!/usr/bin/env python3
"""Apache Kafka of the tests' own: one node in KRaft mode on free ports, killed and restarted at will, read with kcat.

Run as a command it fetches the jars (Maven, into ~/.cache) unless they are there. `run` holds a broker for another
program: it prints the address and stays until its input ends; `kill` and `up` on its input do so.

    kafka.py            fetch
    kafka.py run [PROPERTY=VALUE ...]
"""
import base64
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from support import suite
from support.router import TOP, free_port

VERSION = "4.1.1"
JARS = os.path.expanduser("~/.cache/firelane-kafka-" + VERSION)
PYTHON = os.path.join(TOP, "target", "venv-kafka", "bin", "python")
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>firelane</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies><dependency>
    <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>%s</version>
  </dependency></dependencies>
</project>
""" % VERSION
SERVER = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{control}
listeners={listeners},CONTROLLER://127.0.0.1:{control}
advertised.listeners={listeners}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,SASLTLS:SASL_SSL
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/kafka
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
num.partitions=4
"""


def fetch():
    """The jars, from Maven's repositories unless they are there."""
    if os.path.isdir(JARS):
        return
    print("fetching Apache Kafka " + VERSION, file=sys.stderr)
    folder = tempfile.mkdtemp(prefix="fl-kafka-")
    try:
        with open(folder + "/pom.xml", "w") as pom:
            pom.write(POM)
        subprocess.run(["mvn", "-q", "-B", "-f", folder + "/pom.xml", "dependency:copy-dependencies",
                        "-DoutputDirectory=" + folder + "/lib"], check=True, stdout=sys.stderr)
        os.makedirs(os.path.dirname(JARS), exist_ok=True)
        shutil.move(folder + "/lib", JARS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Broker:
    """A broker in a folder. `more` are properties of the server; `sasl`: a second listener with PLAIN and SCRAM (user
    `alice`, password `secret`)."""

    def __init__(self, folder, more=(), sasl=False):
        self.folder, self.port, self.sasl_port, self.process = folder, free_port(), free_port(), None
        self.address = "127.0.0.1:%d" % self.port
        self.conf = folder + "/server.properties"
        listeners = "PLAINTEXT://" + self.address
        if sasl:
            listeners += ",SASL://127.0.0.1:%d" % self.sasl_port
        text = SERVER.format(control=free_port(), listeners=listeners, folder=folder)
        if sasl:
            jaas = "org.apache.kafka.common.security.%s.%sLoginModule required"
            text += "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n"
            text += "listener.name.sasl.plain.sasl.jaas.config=%s user_alice=\"secret\";\n" % (jaas % ("plain", "Plain"))
            for kind in ("256", "512"):
                text += "listener.name.sasl.scram-sha-%s.sasl.jaas.config=%s;\n" % (kind, jaas % ("scram", "Scram"))
            text += ("listener.name.sasl.oauthbearer.sasl.jaas.config=%s unsecuredLoginStringClaim_sub=\"broker\";\n"
                     % (jaas % ("oauthbearer", "OAuthBearer")))
        with open(self.conf, "w") as f:
            f.write(text + "".join(line + "\n" for line in more))
        # Its first letter is given: one in 64 would be a dash, and taken for an option.
        cluster = "k" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        scram = ["--add-scram", "SCRAM-SHA-256=[name=alice,password=secret]",
                 "--add-scram", "SCRAM-SHA-512=[name=alice,password=secret]"] if sasl else []
        status = self.java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", self.conf, *scram).wait(60)
        assert status == 0, "the storage was not made: " + self.words()

    def java(self, *arguments):
        with open(self.folder + "/kafka.log", "ab") as log:
            return subprocess.Popen(["java", "-Xmx512m", "-cp", JARS + "/*", *arguments], stdin=subprocess.DEVNULL,
                                    stdout=log, stderr=log, start_new_session=True)

    def words(self):
        with open(self.folder + "/kafka.log", errors="replace") as log:
            return log.read()[-2000:]

    def up(self):
        """Starts it and waits until it answers."""
        self.process = self.java("kafka.Kafka", self.conf)
        suite.eventually(lambda: "Kafka answers: " + self.words(), self.answers, 90, every=0.2)
        return self

    def answers(self):
        assert self.process.poll() is None, "Kafka has ended: " + self.words()
        asked = ["kcat", "-b", self.address, "-L", "-m", "2"]
        return subprocess.run(asked, capture_output=True).returncode == 0

    def kill(self):
        """kill -9."""
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait(20)

    def freeze(self, number):
        self.process.send_signal(number)

    def topic(self, name, partitions=1, **config):
        """Makes a topic."""
        script = ("import sys, json; from confluent_kafka.admin import AdminClient, NewTopic\n"
                  "name, partitions, config = json.loads(sys.argv[2])\n"
                  "a = AdminClient({'bootstrap.servers': sys.argv[1]})\n"
                  "[f.result(30) for f in a.create_topics([NewTopic(name, num_partitions=partitions, replication_factor=1,"
                  " config=config)]).values()]\n")
        import json
        wanted = json.dumps([name, partitions, {k.replace("_", "."): str(v) for k, v in config.items()}])
        done = subprocess.run([PYTHON, "-c", script, self.address, wanted], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr[-1500:]

    def read(self, topic, form="%s\\n", *more):
        """What kcat reads of a topic from its beginning to its end, in kcat's format."""
        asked = ["kcat", "-b", self.address, "-t", topic, "-C", "-e", "-q", "-o", "beginning", "-f", form, *more]
        done = subprocess.run(asked, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode()[-1500:]
        return done.stdout

    def count(self, topic, partitions=1):
        """Records in a topic, by its offsets."""
        asked = ["kcat", "-b", self.address, "-Q"]
        for p in range(partitions):
            asked += ["-t", "%s:%d:-1" % (topic, p)]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60)
        return sum(int(line.rsplit("offset", 1)[1]) for line in done.stdout.splitlines() if "offset" in line)


def tools():
    """Skips the test where something is missing."""
    missing = [t for t in ("java", "kcat") if not shutil.which(t)]
    missing += [p for p in (JARS, PYTHON) if not os.path.exists(p)]
    if missing:
        raise suite.Skip("no %s: run scripts/setup test" % ", ".join(missing))


@contextlib.contextmanager
def kafka(more=(), sasl=False):
    """A running broker in a folder of its own."""
    tools()
    folder = tempfile.mkdtemp(prefix="fl-kafka-")
    broker = Broker(folder, more, sasl)
    try:
        yield broker.up()
    finally:
        broker.kill()
        shutil.rmtree(folder, ignore_errors=True)


def hold(more):
    with kafka(more) as broker:
        print(broker.address, flush=True)
        for line in sys.stdin:
            {"kill": broker.kill, "up": broker.up}[line.strip()]()
            print("ok", flush=True)


if __name__ == "__main__":
    fetch()
    if sys.argv[1:2] == ["run"]:
        hold(sys.argv[2:])
