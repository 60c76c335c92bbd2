"""TLS, SASL and ACLs, of the output and of the input."""
import socket

import msgpack

from common import Feed, counted, fed, judged, router, wanted
from support import kafka, suite
from support.router import free_port

USER = "rdkafka.sasl.username %s\nrdkafka.sasl.password %s\n"
SASL = "rdkafka.security.protocol %s\nrdkafka.sasl.mechanism %s\n"
ALICE = USER % ("alice", "secret")
# Whoever comes by the plain listener is ANONYMOUS, and may do everything: the tests themselves.
ACLS = ["authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users=User:ANONYMOUS",
        "auto.create.topics.enable=false"]


def section(kind, name, more="", **keys):
    """A section of a configuration; `more` are lines that go in as they are."""
    lines = ["Name %s" % name] + ["%s %s" % pair for pair in keys.items()] + more.splitlines()
    return "[%s]\n%s" % (kind, "".join("    %s\n" % line for line in lines))


def front(port, service="", input=""):
    return ("[SERVICE]\n    Flush 1\n%s" % "".join("    %s\n" % line for line in service.splitlines())
            + section("INPUT", "forward", input, Listen="127.0.0.1", Port=port))


def there_and_back(topic, address, more):
    """Sections: records of tag `out.TOPIC` into that topic, and from there into a file of that name."""
    out = section("OUTPUT", "kafka", more, Alias="to-" + topic, Match="out." + topic, Brokers=address, Topics=topic,
                  Message_Key_Field="k")
    into = section("INPUT", "kafka", more + "rdkafka.auto.offset.reset earliest\n", Alias="from-" + topic, Tag="in." + topic,
                   Brokers=address, Topics=topic, Group_Id="g-" + topic, Format="json", Payload_Only="on")
    return out + into + section("OUTPUT", "file", Match="in." + topic, Path="{dir}", File=topic, Format="plain")


def came_back(r, topic, feed):
    """Waits until every record of the feed is in the file that the input fills."""
    counts = {}

    def all_there():
        counts.clear()
        return set(counted(r.folder + "/" + topic, counts)) >= wanted([feed])
    suite.eventually(lambda: "%s came back: %d\n%s" % (topic, len(counts), r.messages()[-3000:]), all_there, 60, every=0.2)
    assert set(counts) == wanted([feed])


def all_there_and_back(r, port, topics):
    """Sends records through each of the topics and stops the router, which has no error to tell. The feeds, by topic."""
    feeds = {name: Feed(port, name, 5, tag="out." + name) for name in topics}
    [f.start() for f in feeds.values()]
    fed(feeds.values(), 60)
    for name, feed in feeds.items():
        came_back(r, name, feed)
    r.stop()
    assert " error " not in r.messages(), r.messages()
    return feeds


def lines_of(r, label):
    """What the router says of one output or input."""
    return "".join(line for line in r.messages().splitlines(True) if "=%s " % label in line)


def it_signs_in():
    """TLS with a client's certificate; PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER within TLS, PLAIN without."""
    with kafka.kafka(secure=True) as broker:
        trust = "rdkafka.ssl.ca.location %s/ca.crt\n" % broker.folder
        client = "rdkafka.ssl.certificate.location {0}/client.crt\nrdkafka.ssl.key.location {0}/client.key\n"
        ways = [("tls", broker.tls_port, "rdkafka.security.protocol ssl\n" + trust + client.format(broker.folder)),
                ("plain", broker.sasl_port, SASL % ("sasl_plaintext", "PLAIN") + ALICE)]
        for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"):
            who = "rdkafka.sasl.oauthbearer.config principal=alice\n" if mechanism == "OAUTHBEARER" else ALICE
            ways.append(("tls-" + mechanism.lower(), broker.sasl_tls_port, SASL % ("sasl_ssl", mechanism) + trust + who))
        port = free_port()
        text = front(port) + "".join(there_and_back(name, "localhost:%d" % at, more) for name, at, more in ways)
        for name, *_ in ways:
            broker.topic(name, 2)
        with router(text, [port]) as r:
            feeds = all_there_and_back(r, port, [name for name, *_ in ways])
        for name, feed in feeds.items():
            judged(broker, name, wanted([feed]))
        return ", ".join(feeds)


def what_is_wrong_is_told():
    """A wrong password, user, authority, name, mechanism, protocol or no certificate: output and input say what to do, the
    router goes on, and what was acked is delivered once it is set right."""
    with kafka.kafka(secure=True) as broker:
        trust = "rdkafka.ssl.ca.location %s/ca.crt\n" % broker.folder
        other = "rdkafka.ssl.ca.location %s/other.crt\n" % broker.folder
        sasl, tls = "localhost:%d" % broker.sasl_port, "localhost:%d" % broker.sasl_tls_port
        plain, scram = SASL % ("sasl_ssl", "PLAIN"), SASL % ("sasl_ssl", "SCRAM-SHA-512")
        user, authority, protocol = "the user and the password", "rdkafka.ssl.ca.location", "rdkafka.security.protocol"
        cases = [
            ("password", tls, plain + trust + USER % ("alice", "wrong"), user),
            ("scram-password", tls, scram + trust + USER % ("alice", "wrong"), user),
            ("nobody", tls, scram + trust + USER % ("mallory", "secret"), user),
            ("authority", tls, plain + other + ALICE, authority),
            ("authority-of-the-system", tls, plain + ALICE, authority),
            ("name", "127.1:%d" % broker.sasl_tls_port, plain + trust + ALICE, "the name in Brokers"),
            ("mechanism", sasl, SASL % ("sasl_plaintext", "SCRAM-SHA-256") + ALICE, "rdkafka.sasl.mechanism"),
            ("no-tls", tls, SASL % ("sasl_plaintext", "PLAIN") + ALICE, protocol),
            ("too-much-tls", sasl, plain + trust + ALICE, protocol),
            ("no-sasl", sasl, "", protocol),
            ("certificate", "localhost:%d" % broker.tls_port, protocol + " ssl\n" + trust, "rdkafka.ssl.certificate.location"),
        ]
        port = free_port()
        store = "storage.type filesystem"
        head = lambda: front(port, "Grace 2\nstorage.path {dir}/log", store)
        for name, *_ in cases:
            broker.topic(name)
        with router(head() + "".join(there_and_back(*case[:3]) for case in cases), [port]) as r:
            feeds = {name: Feed(port, name, 1, tag="out." + name) for name, *_ in cases}
            [f.start() for f in feeds.values()]
            fed(feeds.values(), 30)
            for name, _, _, advice in cases:
                for label in ("to-" + name, "from-" + name):
                    suite.eventually(lambda: "%s says \"%s\": %s" % (label, advice, lines_of(r, label)),
                                     lambda: advice in lines_of(r, label), 30)
            for name, *_ in cases:
                for label in ("to-" + name, "from-" + name):
                    assert lines_of(r, label).count(" error ") <= 2, lines_of(r, label)
            r.stop()
            good = plain + trust + ALICE
            with open(r.conf, "w") as f:
                text = head() + "".join(there_and_back(name, tls, good) for name, *_ in cases)
                f.write(text.replace("{dir}", r.folder))
            r.start()
            for name, feed in feeds.items():
                came_back(r, name, feed)
            r.stop()
        for name, feed in feeds.items():
            judged(broker, name, wanted([feed]))
        return "%d ways" % len(cases)


def who_may_not_waits_until_he_may():
    """ACLs of a StandardAuthorizer. A topic not for us, to write or to read, and a group not for us: a line says what to
    give, and all goes on once it is given; a topic that a record named is a dead letter."""
    with kafka.kafka(ACLS, secure=True) as broker:
        address = "localhost:%d" % broker.sasl_port
        bob = SASL % ("sasl_plaintext", "PLAIN") + USER % ("bob", "hush") + "rdkafka.topic.metadata.refresh.interval.ms 2000\n"
        for name in ("topic", "group", "secret"):
            broker.topic(name)
        broker.allow("bob", "TOPIC", "group", "WRITE")
        broker.allow("bob", "TOPIC", "group", "READ")
        broker.allow("bob", "GROUP", "g-topic", "READ")
        port = free_port()
        text = (front(port, "dead_letter.path {dir}/dead") + there_and_back("topic", address, bob)
                + there_and_back("group", address, bob)).replace(
                    "Message_Key_Field k", "Message_Key_Field k\n    Topic_Key t\n    Dynamic_Topic on")
        with router(text, [port]) as r:
            feeds = {name: Feed(port, name, 3, tag="out." + name) for name in ("topic", "group")}
            [f.start() for f in feeds.values()]
            fed([feeds["group"]], 30)
            with socket.create_connection(("127.0.0.1", port)) as s:
                s.sendall(msgpack.packb(["out.group", msgpack.packb([5, {"k": "x", "n": 1, "t": "secret"}]), {"chunk": "c"}]))
                s.settimeout(60)
                assert msgpack.unpackb(s.recv(1000)) == {"ack": "c"}
            for label, advice in (("to-topic", "Write on the topic"), ("from-topic", "Read or Write on the topic"),
                                  ("from-group", "Read on the group")):
                suite.eventually(lambda: "%s says so: %s" % (label, lines_of(r, label)),
                                 lambda: advice in lines_of(r, label), 30)
            assert feeds["topic"].acked == 0
            broker.allow("bob", "TOPIC", "topic", "WRITE")
            broker.allow("bob", "TOPIC", "topic", "READ")
            broker.allow("bob", "GROUP", "g-group", "READ")
            fed(feeds.values(), 60)
            for name, feed in feeds.items():
                came_back(r, name, feed)
            ledger = r.stop()
            assert ledger.outputs["to-group"]["dead_lettered_rejected"] == 1, ledger.line
            assert not broker.read("secret")
        for name, feed in feeds.items():
            judged(broker, name, wanted([feed]))


TESTS = [it_signs_in, what_is_wrong_is_told, who_may_not_waits_until_he_may]
