"""A registry of one image, which one user may pull: the Registry HTTP API v2 with basic authentication.

It listens on loopback without TLS, which dockerd takes for addresses that begin with 127.
"""
import base64
import gzip
import hashlib
import http.server
import io
import json
import socket
import tarfile
import threading

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
# How a connection begins that wants TLS.
HANDSHAKE = b"\x16"


class Registry:
    """Use as a context. `saved`: what `docker save` prints of the image; `name` and `tag`: what it is called here; `login`:
    user and password. `calls` has the method, the path and the status of every call."""

    def __init__(self, saved, name, tag, login):
        self.name, self.tag, self.calls, self.blobs = name, tag, [], {}
        self.wanted = "Basic " + base64.b64encode(":".join(login).encode()).decode()
        with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
            read = lambda member: tar.extractfile(member).read()
            image = json.loads(read("manifest.json"))[0]
            config = self.blob(CONFIG, read(image["Config"]))
            layers = [self.blob(LAYER, gzip.compress(read(layer), mtime=0)) for layer in image["Layers"]]
        body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        self.manifest = json.dumps(body).encode()
        self.digest = digest(self.manifest)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.image = "127.0.0.1:%d/%s:%s" % (self.server.server_address[1], name, tag)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def blob(self, kind, content):
        """Keeps it. Returns what a manifest says of it."""
        self.blobs[digest(content)] = content
        return {"mediaType": kind, "size": len(content), "digest": digest(content)}

    def answer(self, path, authorization):
        """Status, headers and body."""
        if authorization != self.wanted:
            return 401, {"WWW-Authenticate": 'Basic realm="registry"'}, error("UNAUTHORIZED", "incorrect username or password")
        below = "/v2/%s/" % self.name
        if path == "/v2/":
            return 200, {}, b"{}"
        if path in (below + "manifests/" + self.tag, below + "manifests/" + self.digest):
            return 200, {"Content-Type": MANIFEST, "Docker-Content-Digest": self.digest}, self.manifest
        content = self.blobs.get(path[len(below + "blobs/"):]) if path.startswith(below + "blobs/") else None
        if content is not None:
            return 200, {"Content-Type": "application/octet-stream"}, content
        return 404, {}, error("NAME_UNKNOWN", "there is only " + self.name)

    def handler(registry):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self):
                if self.connection.recv(1, socket.MSG_PEEK) == HANDSHAKE:
                    # What a server without TLS says: dockerd then tries without.
                    self.connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                    return
                super().handle()

            def do_GET(self):
                status, headers, body = registry.answer(self.path, self.headers.get("Authorization"))
                registry.calls.append((self.command, self.path, status))
                self.send_response(status)
                self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
                for name, value in dict({"Content-Type": "application/json"}, **headers).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        return Handler


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def error(code, message):
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()
