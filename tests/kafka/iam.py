"""Amazon MSK with IAM: a gate before a real broker takes tokens as MSK does, and passes on what comes after them.

The gate speaks TLS. It answers SaslHandshake and SaslAuthenticate itself: a token is good if AWS's own signer makes the
same of the same keys, region and time. Everything else is the broker's answer.
"""
import base64
import contextlib
import datetime
import os
import select
import socket
import ssl
import struct
import threading
from unittest import mock
from urllib.parse import parse_qs, urlsplit

from common import Feed, judged, router, wanted
from security import all_there_and_back, front, lines_of, there_and_back
from support import kafka, suite
from support.router import free_port

HANDSHAKE, AUTHENTICATE, REFUSED = 17, 36, 58
REGION = "eu-central-1"
ARN = "arn:aws:kafka:%s:111122223333:cluster/demo/0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0-2" % REGION
KEYS = {"AWS_ACCESS_KEY_ID": "ASIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s/e+cret=", "AWS_SESSION_TOKEN": "Fwo/G+ZXIv==to+ken"}


def signed_by_aws(at):
    """The address that AWS's signer makes at that time, without the user agent, which is not signed."""
    import botocore.auth
    from aws_msk_iam_sasl_signer import MSKAuthTokenProvider
    from botocore.credentials import CredentialProvider, Credentials

    class Keys(CredentialProvider):
        METHOD = CANONICAL_NAME = "test"

        def load(self):
            return Credentials(*KEYS.values())
    with mock.patch.object(botocore.auth, "get_current_datetime", lambda *a, **k: at):
        token, _ = MSKAuthTokenProvider.generate_auth_token_from_credentials_provider(REGION, Keys())
    return address_of(token)


def address_of(token):
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode().partition("&User-Agent=")[0]


class Gate:
    """Listens on `port` for TLS and passes on to `upstream`. Says in `said` what it thought of each token."""

    def __init__(self, port, folder, upstream):
        self.upstream, self.said = upstream, []
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(folder + "/broker.crt", folder + "/broker.key")
        self.listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.upstream)) as broker:
            with self.tls.wrap_socket(client, server_side=True) as s:
                if self.let_in(s, broker):
                    relay(s, broker)

    def let_in(self, s, broker):
        """Answers what comes until a token has come. Says whether it was good."""
        while True:
            request = message(s)
            key, version, number = struct.unpack(">hhi", request[:8])
            if key == HANDSHAKE:
                answer = struct.pack(">hi", 0, 1) + text(b"OAUTHBEARER")
            elif key == AUTHENTICATE:
                assert version < 2, version
                name = struct.unpack(">h", request[8:10])[0]
                said = request[10 + max(name, 0) + 4:]
                why = self.judge(said.partition(b"auth=Bearer ")[2].partition(b"\1")[0].decode())
                self.said.append(why or "good")
                answer = struct.pack(">h", REFUSED if why else 0) + text(why and why.encode()) + struct.pack(">i", 0)
                answer += struct.pack(">q", 0) if version == 1 else b""
            else:
                broker.sendall(struct.pack(">i", len(request)) + request)
                answer = message(broker)
                s.sendall(struct.pack(">i", len(answer)) + answer)
                continue
            s.sendall(struct.pack(">ii", len(answer) + 4, number) + answer)
            if key == AUTHENTICATE:
                return not why

    def judge(self, token):
        """What is wrong with it."""
        address = address_of(token)
        url, asked = urlsplit(address), parse_qs(urlsplit(address).query)
        if url.hostname != "kafka.%s.amazonaws.com" % REGION or asked["Action"] != ["kafka-cluster:Connect"]:
            return "it is for somebody else: " + address
        at = datetime.datetime.strptime(asked["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ")
        if abs((datetime.datetime.utcnow() - at).total_seconds()) > 60:
            return "it is of another time: " + address
        return None if address == signed_by_aws(at) else "Access denied"


def text(value):
    return struct.pack(">h", -1) if value is None else struct.pack(">h", len(value)) + value


def exactly(s, count):
    data = b""
    while len(data) < count:
        more = s.recv(count - len(data))
        if not more:
            raise OSError("closed")
        data += more
    return data


def message(s):
    return exactly(s, struct.unpack(">i", exactly(s, 4))[0])


def relay(s, broker):
    while True:
        ready = [s] if s.pending() else select.select([s, broker], [], [])[0]
        for source in ready:
            data = source.recv(65536)
            if not data:
                return
            (broker if source is s else s).sendall(data)


@contextlib.contextmanager
def gated():
    port = free_port()
    with kafka.kafka(front=port) as broker:
        gate = Gate(port, broker.folder, broker.front_port)
        try:
            yield broker, gate, "127.0.0.1:%d" % port
        finally:
            gate.listener.close()


def environment(**keys):
    """This process's, with no AWS credentials but these, wherever they might come from."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    return {**clean, "AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nonexistent", **keys}


def msk_lets_its_tokens_in():
    """`aws_msk_iam`, in both spellings, out and in: tokens are those of AWS's signer, and records go there and back. A wrong
    secret and no credentials are told."""
    with gated() as (broker, gate, address):
        trust = "rdkafka.ssl.ca.location %s/ca.crt\naws_msk_iam_cluster_arn %s\n" % (broker.folder, ARN)
        ways = {"key": "aws_msk_iam on\n", "mechanism": "rdkafka.security.protocol SASL_SSL\nrdkafka.sasl.mechanism aws_msk_iam\n"}
        port = free_port()
        conf = front(port, "Grace 2") + "".join(there_and_back(name, address, more + trust) for name, more in ways.items())
        for name in ways:
            broker.topic(name)
        with router(conf, [port], environment(**KEYS)) as r:
            feeds = all_there_and_back(r, port, ways)
        assert set(gate.said) == {"good"}, gate.said
        good = len(gate.said)
        for name, feed in feeds.items():
            judged(broker, name, wanted([feed]))
        for keys, words in (({**KEYS, "AWS_SECRET_ACCESS_KEY": "another"}, "the AWS credentials"), ({}, "no AWS credentials for MSK")):
            with router(conf, [port], environment(**keys)) as r:
                Feed(port, "again", 1, tag="out.key").start()
                for label in ("to-key", "from-key"):
                    suite.eventually(lambda: "%s says %s: %s" % (label, words, lines_of(r, label)),
                                     lambda: words in lines_of(r, label), 40)
        return "%d tokens were good" % good


TESTS = [msk_lets_its_tokens_in]
