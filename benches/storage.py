#!/usr/bin/env python3
"""What storage promises, over minutes: runs that are too long for the test suite.

    benches/storage.py [OPTIONS] full|backlog|latency|two|kills [...] [-- COMMAND {conf}]

  full     the disk of log and output is full for a minute under load, then freed
  backlog  a start with 4 GiB that an output is owed: time until it accepts, peak memory, how fast it is sent
  latency  eight senders, 20 MB/s together, every chunk acked after fsync: how long acks take
  two      two outputs, one of them dead: ack times of the other, and disk used beside bytes owed
  kills    a thousand times kill -9 under load (--cycles)

Every record has a number; senders repeat what was not acked. After each run what was acked is looked for in what came
out. Exit code 1: something was lost, or a promise was not kept. COMMAND defaults to target/release/firelane run -c {conf}.
`full` needs root (it mounts a small file system). Needs nothing but Python.
"""
import argparse
import collections
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MIB = 1 << 20
PAD = "".join(random.Random(3).choice("abcdefghijklmnopqrstuvwxyz 0123456789") for _ in range(1000))
LINE = re.compile(rb'"L(\d\d)-(\d{9}) ')

SERVICE = "[SERVICE]\n    Flush 1\n    Grace 10\n    storage.path {storage}\n    storage.sync full\n"
INPUT = "[INPUT]\n    Name forward\n    Listen 127.0.0.1\n    Port {port}\n    storage.type filesystem\n"
FILE = "[OUTPUT]\n    Name file\n    Match %s\n    Path {out}\n    File %s\n    Format plain\n"


def text(s):
    b = s.encode()
    return (bytes([0xa0 | len(b)]) if len(b) < 32 else bytes([0xd9, len(b)])) + b


def frame(tag, lane, first, count, size, chunk):
    """A PackedForward message of numbered records."""
    head = b"\x92\xd7\x00" + struct.pack(">II", int(time.time()), 0) + b"\x81" + text("log") + b"\xda" + struct.pack(">H", size)
    pad = PAD[:size - 14].encode()
    payload = b"".join(head + b"L%02d-%09d " % (lane, n) + pad for n in range(first, first + count))
    return b"\x93" + text(tag) + b"\xc6" + struct.pack(">I", len(payload)) + payload + b"\x81" + text("chunk") + text(chunk)


def ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    found = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return found


class Router:
    def __init__(self, command, directory, conf, port):
        self.directory, self.port, self.peak = directory, port, 0.0
        path = os.path.join(directory, "storage.conf")
        with open(path, "w") as f:
            f.write(conf)
        self.command = [word.replace("{conf}", path) for word in command]

    def start(self):
        """Seconds from exec until it accepts."""
        log = open(os.path.join(self.directory, "messages"), "ab")
        began = time.monotonic()
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory)
        while time.monotonic() - began < 60:
            if self.process.poll() is not None:
                sys.exit("the router ended at start:\n" + self.messages()[-2000:])
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return time.monotonic() - began
            except OSError:
                time.sleep(0.001)
        sys.exit("the router does not accept:\n" + self.messages()[-2000:])

    def messages(self):
        return open(os.path.join(self.directory, "messages"), errors="replace").read()

    def memory(self):
        """Peak resident MB so far."""
        try:
            status = open(f"/proc/{self.process.pid}/status").read()
            self.peak = max(self.peak, int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024)
        except (OSError, TypeError):
            pass
        return self.peak

    def cpu(self):
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def kill(self):
        self.memory()
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.memory()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.kill()
            return None


class Sender(threading.Thread):
    """Sends numbered records in chunks, at most `window` unacked, and repeats after a broken connection."""

    def __init__(self, port, lane, tag="t", rate=1e9, records=50, size=1000, window=8):
        super().__init__(daemon=True)
        self.port, self.lane, self.tag, self.rate, self.records, self.size, self.window = port, lane, tag, rate, records, size, window
        self.next, self.acked, self.acked_bytes = 0, [], 0
        self.unacked = collections.OrderedDict()
        self.delays, self.resets, self.paused, self.halt = [], 0, False, False

    def run(self):
        while not self.halt:
            try:
                s = socket.create_connection(("127.0.0.1", self.port), timeout=2)
            except OSError:
                time.sleep(0.02)
                continue
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self.serve(s)
            except OSError:
                self.resets += 1
            s.close()

    def serve(self, s):
        again, flight, rest = collections.deque(self.unacked), 0, b""
        began, sent = time.monotonic(), 0
        s.setblocking(False)
        out = memoryview(b"")
        while not self.halt:
            if not out and flight < self.window:
                chunk = None
                if again:
                    chunk = again.popleft()
                elif not self.paused and sent <= (time.monotonic() - began) * self.rate:
                    chunk = "%d-%d" % (self.lane, self.next)
                    self.unacked[chunk] = [frame(self.tag, self.lane, self.next, self.records, self.size, chunk), self.next, 0.0]
                    self.next += self.records
                if chunk:
                    entry = self.unacked[chunk]
                    entry[2] = time.monotonic()
                    out = memoryview(entry[0])
                    sent += len(out)
                    flight += 1
            wait = 0.05 if out or flight >= self.window else max(0.0005, min(0.05, sent / self.rate - (time.monotonic() - began)))
            readable, writable, _ = select.select([s], [s] if out else [], [], wait)
            if writable:
                out = out[s.send(out):]
            if readable:
                data = s.recv(65536)
                if not data:
                    raise OSError("closed")
                rest += data
                now = time.monotonic()
                while len(rest) > 6:
                    # {"ack": chunk}: one byte map, four bytes key, then a short string.
                    length, at = (rest[5] & 0x1f, 6) if rest[5] < 0xc0 else (rest[6], 7)
                    if len(rest) < at + length:
                        break
                    entry = self.unacked.pop(rest[at:at + length].decode(), None)
                    rest = rest[at + length:]
                    if entry:
                        flight -= 1
                        self.acked.append(entry[1])
                        self.acked_bytes += len(entry[0])
                        self.delays.append((now, now - entry[2]))

    def finish(self, patience=60):
        """Sends no more, and waits for what is not acked."""
        self.paused = True
        end = time.monotonic() + patience
        while self.unacked and time.monotonic() < end:
            time.sleep(0.05)
        self.halt = True
        self.join(5)


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p / 100))] if values else float("nan")


def came_out(path):
    """How often each record is there, by lane."""
    found, rest = collections.Counter(), b""
    if not os.path.exists(path):
        return found
    with open(path, "rb") as f:
        while block := f.read(1 << 24):
            block = rest + block
            end = block.rfind(b"\n") + 1
            rest = block[end:]
            found.update((int(l), int(n)) for l, n in LINE.findall(block[:end]))
    return found


def settle(path, senders, patience=60):
    """Waits until everything acked came out; gives what is missing, and the surplus."""
    end = time.monotonic() + patience
    while True:
        found = came_out(path)
        lost = sum(1 for s in senders for first in s.acked for n in range(first, first + s.records) if (s.lane, n) not in found)
        if not lost or time.monotonic() > end:
            return lost, sum(found.values()) - len(found)
        time.sleep(1)


def used(directory):
    total = 0
    for name in os.listdir(directory):
        try:
            total += os.stat(os.path.join(directory, name)).st_blocks * 512
        except OSError:
            pass
    return total


def full(a, d):
    """Log and output on one small file system, which is full for a while. What senders could not send meanwhile comes as
    fast as it is taken: more than half of what the disk holds."""
    disk = os.path.join(d, "disk")
    os.mkdir(disk)
    image = os.path.join(d, "image")
    if a.tmpfs:
        mount = ["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", disk]
    else:
        with open(image, "wb") as f:
            f.truncate(512 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        mount = ["mount", "-o", "loop", image, disk]
    subprocess.run(mount, check=True)
    try:
        (port,) = ports(1)
        conf = (SERVICE + INPUT + FILE % ("*", "out.log")).replace("{storage}", disk + "/log").replace("{out}", disk).replace("{port}", str(port))
        router = Router(a.command, d, conf, port)
        router.start()
        senders = [Sender(port, lane, rate=1e6) for lane in range(4)]
        for s in senders:
            s.start()
        time.sleep(5)
        ballast = open(os.path.join(disk, "ballast"), "wb", buffering=0)
        began = time.monotonic()
        at_full = None
        while time.monotonic() - began < a.seconds:
            try:
                while True:
                    ballast.write(b"\xff" * (64 << 10))
            except OSError:
                pass
            if at_full is None and time.monotonic() - began > 5:
                at_full = sum(len(s.acked) for s in senders)
            router.memory()
            time.sleep(0.2)
        during = sum(len(s.acked) for s in senders) - at_full
        refused = sum(len(s.unacked) for s in senders)
        ballast.close()
        os.remove(ballast.name)
        freed = time.monotonic()
        count = lambda: sum(len(s.acked) for s in senders)
        before = count()
        while count() == before and time.monotonic() - freed < 30:
            time.sleep(0.01)
        again = time.monotonic() - freed
        time.sleep(10)
        for s in senders:
            s.finish()
        lost, twice = settle(os.path.join(disk, "out.log"), senders)
        resets = sum(s.resets for s in senders)
        code = router.stop()
        alive = code == 0
        return {
            "seconds_full": a.seconds, "acked_records": count() * 50, "acked_chunks_in_last_part_of_full": during, "unacked_chunks_when_full": refused,
            "acks_again_after_s": round(again, 2), "lost_acked": lost, "twice": twice, "connections_closed": resets,
            "never_acked_chunks": sum(len(s.unacked) for s in senders), "exit": code, "peak_mb": round(router.peak, 1),
        }, lost == 0 and alive and resets == 0 and refused > 0 and again < 10
    finally:
        subprocess.run(["umount", "-l", disk])


class Discard(threading.Thread):
    """A forward peer that reads and throws away."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.bytes, self.last = 0, time.monotonic()
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port))
        self.listener.listen()

    def run(self):
        room = bytearray(1 << 20)
        while True:
            c, _ = self.listener.accept()
            while n := c.recv_into(room):
                self.bytes += n
                self.last = time.monotonic()


def backlog(a, d):
    """A start with a large backlog."""
    port, dead = ports(2)
    conf = SERVICE + INPUT + f"[OUTPUT]\n    Name forward\n    Match *\n    Host 127.0.0.1\n    Port {dead}\n    storage.total_limit_size {2 * a.gib}G\n"
    conf = conf.replace("{storage}", d + "/log").replace("{port}", str(port))
    router = Router(a.command, d, conf, port)
    router.start()
    began = time.monotonic()
    senders = [Sender(port, lane, records=500, window=16) for lane in range(2)]
    for s in senders:
        s.start()
    while sum(s.acked_bytes for s in senders) < a.gib << 30:
        time.sleep(0.2)
    for s in senders:
        s.finish()
    made = time.monotonic() - began
    owed = sum(s.acked_bytes for s in senders)
    filling = router.memory()
    router.kill()
    names = [os.path.join(d, "log", n) for n in os.listdir(os.path.join(d, "log")) if n.endswith((".wal", ".cur"))]

    def forget():
        os.sync()
        for name in names:
            fd = os.open(name, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)

    forget()
    began = time.monotonic()
    room = bytearray(MIB)
    for name in names:
        with open(name, "rb", buffering=0) as f:
            while f.readinto(room):
                pass
    disk = sum(os.path.getsize(n) for n in names) / (time.monotonic() - began)
    forget()
    peer = Discard(dead)
    router.peak = 0.0
    accepts = router.start()
    began = time.monotonic()
    peer.start()
    probe = Sender(port, 9, records=1)
    probe.start()
    while not probe.acked and time.monotonic() - began < 30:
        time.sleep(0.001)
    first_ack = time.monotonic() - began
    probe.finish()
    idle = router.memory()
    while time.monotonic() - peer.last < 3 and time.monotonic() - began < 600:
        time.sleep(0.1)
        router.memory()
    took = peer.last - began
    code = router.stop()
    summary = [line for line in router.messages().splitlines() if line.startswith("summary ")][-1]
    held = int(re.search(r"output=forward.0 .*?held=(\d+)", summary)[1])
    recovered = int(re.search(r"output=forward.0 .*?recovered=(\d+)", summary)[1])
    lost = sum(len(s.acked) * s.records for s in senders) - recovered
    return {
        "owed_gib": round(owed / (1 << 30), 2), "stored_mb_s": round(owed / made / 1e6), "peak_mb_filling": round(filling, 1), "accepts_s": round(accepts, 3), "first_ack_s": round(first_ack, 3), "peak_mb_at_start": round(idle, 1),
        "peak_mb": round(router.peak, 1), "sent_mb_s": round(peer.bytes / took / 1e6), "disk_reads_mb_s": round(disk / 1e6), "lost_acked": lost, "held": held, "exit": code,
    }, accepts < 1 and lost <= 0 and held == 0 and router.peak < 64


def latency(a, d):
    """Ack times at a steady rate."""
    (port,) = ports(1)
    conf = (SERVICE + INPUT + FILE % ("*", "out.log")).replace("{storage}", d + "/log").replace("{out}", d).replace("{port}", str(port))
    router = Router(a.command, d, conf, port)
    router.start()
    senders = [Sender(port, lane, rate=a.rate * 1e6 / 8, records=a.records) for lane in range(8)]
    cpu = router.cpu()
    for s in senders:
        s.start()
    time.sleep(2)
    from_then = time.monotonic()
    tracer = None
    if a.count_syncs:
        tracer = subprocess.Popen(["strace", "-f", "-c", "-e", "trace=fdatasync,fsync,pwritev,pwrite64,write,writev", "-p", str(router.process.pid)], stderr=subprocess.PIPE, text=True)
    bytes_before = sum(s.acked_bytes for s in senders)
    time.sleep(a.seconds)
    got = sum(s.acked_bytes for s in senders) - bytes_before
    syncs = None
    if tracer:
        tracer.send_signal(signal.SIGINT)
        table = tracer.communicate()[1]
        print(table, file=sys.stderr)
        syncs = sum(int(line.split()[3]) for line in table.splitlines() if line.rstrip().endswith(("fdatasync", "fsync")))
    cpu = router.cpu() - cpu
    for s in senders:
        s.finish()
    lost, twice = settle(os.path.join(d, "out.log"), senders)
    delays = [delay * 1e3 for s in senders for at, delay in s.delays if at > from_then]
    code = router.stop()
    p99 = percentile(delays, 99)
    return {
        "mb_s": round(got / a.seconds / 1e6, 1), "chunks": len(delays), "ack_ms_p50": round(percentile(delays, 50), 2), "ack_ms_p99": round(p99, 2),
        "ack_ms_max": round(max(delays), 1), "syncs_per_mb": syncs and round(syncs / (got / 1e6), 2), "cpu_s": round(cpu, 2), "lost_acked": lost, "twice": twice,
        "peak_mb": round(router.peak, 1), "exit": code,
    }, lost == 0 and p99 < 20


def two(a, d):
    """One output is dead: the other's acks, and the disk."""
    good, bad = ports(2)
    conf = SERVICE + INPUT + INPUT.replace("{port}", "{bad}") + FILE % ("good", "good.log") + FILE % ("bad", "bad.log")
    conf = conf.replace("{storage}", d + "/log").replace("{out}", d).replace("{port}", str(good)).replace("{bad}", str(bad))
    router = Router(a.command, d, conf, good)
    figures = {}

    def run(name):
        router.start()
        senders = [Sender(good, lane, tag="good", rate=2.5e6) for lane in range(2)]
        dead = Sender(bad, 9, tag="bad", rate=5e5)
        for s in [*senders, dead]:
            s.start()
        time.sleep(2)
        from_then, most, last = time.monotonic(), 0.0, collections.deque(maxlen=10)
        while time.monotonic() - from_then < a.seconds:
            time.sleep(0.2)
            if name == "dead":
                owed = dead.acked_bytes
                last.append((used(os.path.join(d, "log")) - 2 * 16 * MIB) / max(owed, 1))
                if len(last) == 10:
                    # The log has a second after each segment.
                    most = max(most, min(last))
        for s in [*senders, dead]:
            s.finish()
        delays = [delay * 1e3 for s in senders for at, delay in s.delays if at > from_then]
        figures[f"ack_ms_p99_{name}"] = round(percentile(delays, 99), 2)
        figures[f"ack_ms_p50_{name}"] = round(percentile(delays, 50), 2)
        if name == "dead":
            figures["owed_mb"] = round(dead.acked_bytes / 1e6, 1)
            figures["disk_mb"] = round(used(os.path.join(d, "log")) / 1e6, 1)
            figures["disk_above_two_segments_per_owed"] = round(most, 2)
        return senders, dead

    senders, dead = run("both_alive")
    lost = settle(d + "/good.log", senders)[0] + settle(d + "/bad.log", [dead])[0]
    router.stop()
    os.remove(d + "/bad.log")
    os.remove(d + "/good.log")
    os.symlink("/dev/full", d + "/bad.log")
    senders, dead = run("dead")
    lost += settle(d + "/good.log", senders)[0]
    router.stop()
    os.remove(d + "/bad.log")
    router.start()
    missing, twice = settle(d + "/bad.log", [dead])
    lost += missing
    figures |= {"lost_acked": lost, "twice": twice, "exit": router.stop(), "peak_mb": round(router.peak, 1)}
    unchanged = figures["ack_ms_p99_dead"] < max(20, 2 * figures["ack_ms_p99_both_alive"])
    return figures, lost == 0 and unchanged and figures["disk_above_two_segments_per_owed"] <= 4


def kills(a, d):
    """SIGKILL again and again."""
    (port,) = ports(1)
    conf = (SERVICE + INPUT + FILE % ("*", "out.log")).replace("{storage}", d + "/log").replace("{out}", d).replace("{port}", str(port))
    router = Router(a.command, d, conf, port)
    rng = random.Random(a.seed)
    senders = [Sender(port, lane, rate=5e5, records=10, size=300) for lane in range(3)]
    router.start()
    for s in senders:
        s.start()
    slowest = 0.0
    for _ in range(a.cycles):
        time.sleep(rng.uniform(0, 0.25))
        router.kill()
        slowest = max(slowest, router.start())
    for s in senders:
        s.finish()
    lost, twice = settle(os.path.join(d, "out.log"), senders)
    torn = sum(1 for line in open(os.path.join(d, "out.log"), "rb") if not line.endswith(b"}\n"))
    code = router.stop()
    corrupt = router.messages().count("damaged frame")
    return {
        "kills": a.cycles, "acked_records": sum(len(s.acked) * s.records for s in senders), "lost_acked": lost, "twice": twice, "torn_lines": torn, "damage_reported": corrupt,
        "slowest_start_s": round(slowest, 3), "peak_mb": round(router.peak, 1), "exit": code,
    }, lost == 0 and torn == 0


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("runs", nargs="*", choices=["full", "backlog", "latency", "two", "kills"])
    parser.add_argument("--seconds", type=float, default=0, help="length of full (60), latency (20) and two (30)")
    parser.add_argument("--gib", type=int, default=4, help="backlog, GiB (4)")
    parser.add_argument("--cycles", type=int, default=1000, help="kills (1000)")
    parser.add_argument("--rate", type=float, default=20, help="latency: MB/s (20)")
    parser.add_argument("--records", type=int, default=50, help="latency: records of 1 KB in a chunk (50)")
    parser.add_argument("--count-syncs", action="store_true", help="latency: count syncs with strace, which slows them down")
    parser.add_argument("--tmpfs", action="store_true", help="full: on a tmpfs, not on ext4")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", help="where scratch directories go")
    parser.add_argument("--keep", action="store_true", help="keep the scratch directory")
    words = sys.argv[1:]
    command = [os.path.join(TOP, "target/release/firelane"), "run", "-c", "{conf}"]
    if "--" in words:
        at = words.index("--")
        words, command = words[:at], words[at + 1:]
    a = parser.parse_args(words)
    a.command = command
    # Senders are threads: they must not wait for one another when an ack comes.
    sys.setswitchinterval(0.0002)
    good = True
    seconds = {"full": 60, "latency": 20, "two": 30}
    given = a.seconds
    for run in a.runs:
        a.seconds = given or seconds.get(run, 0)
        d = tempfile.mkdtemp(prefix="firelane-storage-", dir=a.directory)
        figures, kept = globals()[run](a, d)
        print(json.dumps({"run": run, "good": kept, **figures}), flush=True)
        good &= kept
        if a.keep or not kept:
            print(d, file=sys.stderr)
        else:
            shutil.rmtree(d, ignore_errors=True)
    sys.exit(not good)


if __name__ == "__main__":
    main()
