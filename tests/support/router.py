"""The router under test as a process: start, wait until it accepts, stop, read its ledger.

The command is `target/release/firelane run -c {conf}`; FIRELANE names another build of it. ROUTER names another
router, for example ROUTER="fluent-bit -c {conf}", to see what it does with the same work; its ledger is not looked at.
"""
import os
import random
import shlex
import signal
import socket
import subprocess

from .ledger import Ledger
from .suite import eventually

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("FIRELANE") or os.path.join(TOP, "target", "release", "firelane")
COMMAND = os.environ.get("ROUTER") or shlex.quote(BINARY) + " run -c {conf}"
FOREIGN = "ROUTER" in os.environ


def command(conf):
    """The argument list that starts the router with `conf`."""
    assert FOREIGN or os.path.exists(BINARY), "no %s: cargo build --release" % BINARY
    return [a.replace("{conf}", conf) for a in shlex.split(COMMAND)]


def free_port():
    """A TCP port of the loopback that nobody has now, below those that the kernel gives to clients."""
    while True:
        port = random.randint(12000, 19999)
        try:
            with socket.socket() as s:
                s.bind(("127.0.0.1", port))
            return port
        except OSError:
            pass


def accepts(address):
    """Whether someone accepts on a unix path or a TCP port."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as s:
        s.settimeout(2)
        return s.connect_ex(address if isinstance(address, str) else ("127.0.0.1", address)) == 0


def peak_kib(pid):
    """A process's peak resident memory."""
    with open("/proc/%d/status" % pid) as status:
        return next(int(x.split()[1]) for x in status if x.startswith("VmHWM"))


class Router:
    """One run of the router. `log` collects its messages over all runs of one test; `env` is its environment."""

    def __init__(self, conf, log, addresses, env=None):
        self.conf, self.log, self.addresses, self.env = conf, log, addresses, env
        self.process, self.since = None, 0

    def start(self):
        """Starts it and waits until every address accepts."""
        self.since = os.path.getsize(self.log) if os.path.exists(self.log) else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command(self.conf), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env,
                start_new_session=True)
        for address in self.addresses:
            eventually(lambda: "the router accepts on %s:\n%s" % (address, self.messages()[-2000:]),
                       lambda: self.process.poll() is not None or accepts(address), 20)
        assert self.process.poll() is None, "the router ended at start: " + self.messages()[-2000:]
        return self

    def messages(self):
        """What this run has said."""
        with open(self.log, "rb") as log:
            log.seek(self.since)
            return log.read().decode("utf-8", "replace")

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def ended(self, timeout=40):
        """Waits for the end; checks exit status 0 and both sums. Returns the ledger (None for a foreign router)."""
        code = self.process.wait(timeout)
        if FOREIGN:
            return None
        ledger = Ledger(self.messages()).check()
        assert code == 0, "exit status %d: %s" % (code, self.messages()[-2000:])
        return ledger

    def stop(self):
        """SIGTERM, and its end."""
        self.signal()
        return self.ended()

    def kill(self):
        """For a test that failed: the process must not outlive it."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
