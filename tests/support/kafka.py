#!/usr/bin/env python3
"""Apache Kafka of the tests' own: one node in KRaft mode on free ports, killed and restarted at will, read with kcat.

Run as a command it fetches the jars (Maven, into ~/.cache) unless they are there. `run` holds a broker for another
program: it prints the address and stays until its input ends; `kill` and `up` on its input do so.

    kafka.py            fetch
    kafka.py run [PROPERTY=VALUE ...]
"""
import base64
import contextlib
import json
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
advertised.listeners={advertised}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,FRONT:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,SASLTLS:SASL_SSL
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


SASL = """sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl.sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config={jaas}.plain.PlainLoginModule required user_alice="secret" user_bob="hush";
listener.name.sasltls.plain.sasl.jaas.config={jaas}.plain.PlainLoginModule required user_alice="secret" user_bob="hush";
listener.name.sasltls.scram-sha-256.sasl.jaas.config={jaas}.scram.ScramLoginModule required;
listener.name.sasltls.scram-sha-512.sasl.jaas.config={jaas}.scram.ScramLoginModule required;
listener.name.sasltls.oauthbearer.sasl.jaas.config={jaas}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
"""
TLS = """ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.crt
listener.name.tls.ssl.client.auth=required
"""


def certificates(folder):
    """What TLS needs, in `folder`: `ca.crt`; `broker.pem` for 127.0.0.1 and localhost; `client.crt` and `client.key` of
    CN=carol; `other.crt`, an authority that has signed nothing."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    for name in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=" + name,
                "-keyout", name + ".key", "-out", name + ".crt")
    for name, subject in (("broker", "localhost"), ("client", "carol")):
        with open(folder + "/" + name + ".ext", "w") as f:
            f.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=" + subject,
                "-keyout", name + ".key", "-out", name + ".csr")
        openssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", name + ".ext", "-out", name + ".crt")
    with open(folder + "/broker.pem", "w") as pem:
        for part in ("broker.key", "broker.crt", "ca.crt"):
            with open(folder + "/" + part) as f:
                pem.write(f.read())


class Broker:
    """A broker in a folder. `more` are properties of the server. `secure`: it has listeners besides the plain one, with
    ports of their own: `sasl_port` with PLAIN (users alice with the password `secret`, bob with `hush`), `sasl_tls_port`
    with PLAIN, SCRAM and OAUTHBEARER within TLS, and `tls_port`, TLS with a certificate of the client's. `front`: a
    listener whose clients are told to come to that port, where somebody else passes on what they say."""

    def __init__(self, folder, more=(), secure=False, front=None):
        self.folder, self.port, self.process = folder, free_port(), None
        self.address = "127.0.0.1:%d" % self.port
        self.conf = folder + "/server.properties"
        listeners = {"PLAINTEXT": self.port}
        if secure:
            self.sasl_port, self.sasl_tls_port, self.tls_port = (free_port() for _ in range(3))
            listeners.update(SASL=self.sasl_port, SASLTLS=self.sasl_tls_port, TLS=self.tls_port)
        if front:
            self.front_port = listeners["FRONT"] = free_port()
        address = lambda ports: ",".join("%s://127.0.0.1:%d" % pair for pair in ports.items())
        advertised = {**listeners, **({"FRONT": front} if front else {})}
        text = SERVER.format(control=free_port(), listeners=address(listeners), advertised=address(advertised),
                             folder=folder)
        if secure or front:
            certificates(folder)
        if secure:
            text += TLS.format(folder=folder)
            text += SASL.format(jaas="org.apache.kafka.common.security")
        with open(self.conf, "w") as f:
            f.write(text + "".join(line + "\n" for line in more))
        # Its first letter is given: one in 64 would be a dash, and taken for an option.
        cluster = "k" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        scram = []
        if secure:
            for user in ("name=alice,password=secret", "name=bob,password=hush"):
                for bits in ("256", "512"):
                    scram += ["--add-scram", "SCRAM-SHA-%s=[%s]" % (bits, user)]
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

    def admin(self, script, *arguments):
        """Runs a script that has a confluent_kafka AdminClient `a` and its arguments in `given`."""
        head = ("import sys, json; from confluent_kafka.admin import *; from confluent_kafka import *\n"
                "given = json.loads(sys.argv[2])\na = AdminClient({'bootstrap.servers': sys.argv[1]})\n")
        done = subprocess.run([PYTHON, "-c", head + script, self.address, json.dumps(arguments)], capture_output=True,
                              text=True, timeout=60)
        assert done.returncode == 0, done.stderr[-1500:]
        return done.stdout

    def topic(self, name, partitions=1, **config):
        """Makes a topic."""
        self.admin("name, partitions, config = given\n"
                   "[f.result(30) for f in a.create_topics([NewTopic(name, num_partitions=partitions,"
                   " replication_factor=1, config=config)]).values()]\n",
                   name, partitions, {k.replace("_", "."): str(v) for k, v in config.items()})

    def allow(self, user, kind, name, operation):
        """Lets a user do something: allow("bob", "TOPIC", "logs", "WRITE")."""
        self.admin("user, kind, name, what = given\n"
                   "acl = AclBinding(ResourceType[kind], name, ResourcePatternType.LITERAL, 'User:' + user, '*',"
                   " AclOperation[what], AclPermissionType.ALLOW)\n"
                   "[f.result(30) for f in a.create_acls([acl]).values()]\n", user, kind, name, operation)

    def committed(self, group, topic, partitions):
        """A group's positions in a topic, by partition."""
        said = self.admin("group, topic, count = given\n"
                          "wanted = [TopicPartition(topic, p) for p in range(count)]\n"
                          "f = a.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, wanted)])[group]\n"
                          "print(json.dumps([[t.partition, max(t.offset, 0)] for t in f.result(30).topic_partitions]))\n",
                          group, topic, partitions)
        return dict(json.loads(said))

    def read(self, topic, form="%s\\n", *more):
        """What kcat reads of a topic from its beginning to its end, in kcat's format."""
        asked = ["kcat", "-b", self.address, "-t", topic, "-C", "-e", "-q", "-o", "beginning", "-f", form, *more]
        done = subprocess.run(asked, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode()[-1500:]
        return done.stdout

    def ends(self, topic, partition):
        """The offset after the last record."""
        asked = ["kcat", "-b", self.address, "-Q", "-t", "%s:%d:-1" % (topic, partition)]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60)
        return sum(int(line.rsplit("offset", 1)[1]) for line in done.stdout.splitlines() if "offset" in line)

    def count(self, topic, partitions=1):
        """Records in a topic, by its offsets."""
        return sum(self.ends(topic, p) for p in range(partitions))


def tools():
    """Skips the test where something is missing."""
    missing = [t for t in ("java", "kcat", "openssl") if not shutil.which(t)]
    missing += [p for p in (JARS, PYTHON) if not os.path.exists(p)]
    if missing:
        raise suite.Skip("no %s: run scripts/setup test" % ", ".join(missing))


@contextlib.contextmanager
def kafka(more=(), secure=False, front=None):
    """A running broker in a folder of its own."""
    tools()
    folder = tempfile.mkdtemp(prefix="fl-kafka-")
    broker = Broker(folder, more, secure, front)
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
