"""A moto_server of the tests' own, and what boto3 reads from it."""
import contextlib
import json
import os
import subprocess

from support import suite
from support.router import FOREIGN, TOP, accepts, free_port

BIN = os.path.join(TOP, "target", "venv-aws", "bin")


@contextlib.contextmanager
def moto(folder):
    """A running moto_server; gives its address."""
    if FOREIGN:
        raise suite.Skip("the configuration has keys of firelane's own")
    if not os.path.exists(os.path.join(BIN, "moto_server")):
        raise suite.Skip("no target/venv-aws: run scripts/setup test")
    port = free_port()
    with open(os.path.join(folder, "moto.log"), "wb") as log:
        process = subprocess.Popen([os.path.join(BIN, "moto_server"), "-H", "127.0.0.1", "-p", str(port)],
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        suite.eventually("moto_server accepts", lambda: accepts(port), 60)
        yield "http://127.0.0.1:%d" % port
    finally:
        process.kill()
        process.wait(10)


def read(endpoint, group, stream):
    """What boto3 reads of a stream and its group: see tests/clients/read_logs.py."""
    reader = [os.path.join(BIN, "python"), os.path.join(TOP, "tests", "clients", "read_logs.py"), endpoint, group, stream]
    done = subprocess.run(reader, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, "boto3 failed: " + done.stderr[-1500:]
    return json.loads(done.stdout)
