#!/usr/bin/env python3
"""Cost per record over many connections and many tags.

    benches/spread.py [OPTIONS] [-- COMMAND {conf}]

Sends the same number of FireLens-shaped records over 1 to 500 connections, then with 1 to 5,000 tags, each time to a
fresh router, and prints its CPU microseconds per record (start and stop of an idle router taken off; the generator's
own work does not count), the median of some rounds, and how much more that is than with one. COMMAND defaults to
target/release/firelane run -c {conf}. Needs nothing but Python.
"""
import argparse
import os
import random
import selectors
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CYCLE = 100_000   # different records; then they come again
PIECE = 64 * 1024  # what one connection sends before the next one's turn
OUTPUTS = {"null": "    Name null", "file": "    Name file\n    Path {dir}\n    File out.log\n    Format plain"}


def text(data):
    size = len(data)
    if size < 32:
        return bytes([0xA0 | size]) + data
    return (b"\xd9" + bytes([size]) if size < 256 else b"\xda" + struct.pack(">H", size)) + data


def message(tag, number, rng):
    """One record as docker's driver sends it: about 400 bytes, two in three of them JSON."""
    if number % 3:
        log = '{"level":"info","path":"/api/items/%d","status":200,"ms":%.3f,"seq":%d}' % (
            rng.randrange(10 ** 6), rng.random() * 100, number)
    else:
        log = '10.0.%d.%d - - "GET /cart/%d HTTP/1.1" 200 %d "-" "curl/8.5.0"' % (
            rng.randrange(256), rng.randrange(256), rng.randrange(10 ** 6), rng.randrange(10 ** 5))
    fields = (b"container_id", b"%064x" % 7), (b"container_name", b"/ecs-shop-42-web"), (b"source", b"stdout"), (
        b"log", log.ljust(180, "x").encode())
    record = b"\x84" + b"".join(text(k) + text(v) for k, v in fields)
    return b"\x94" + text(tag) + struct.pack(">BBII", 0xD7, 0, 1_760_000_000 + number // 1000, number) + record + b"\x80"


class Cycle:
    """Encoded records with their bounds; record i has tag i modulo the number of tags."""

    def __init__(self, tags):
        rng = random.Random(1)
        names = [b"web%d-firelens-0123456789abcdef0123456789abcdef" % i for i in range(tags)]
        messages = [message(names[i % tags], i, rng) for i in range(CYCLE)]
        self.data, self.ends = memoryview(b"".join(messages)), [0]
        for encoded in messages:
            self.ends.append(self.ends[-1] + len(encoded))

    def parts(self, start, count):
        """Records from `start` on, as views."""
        start %= CYCLE
        while count > 0:
            here = min(count, CYCLE - start)
            yield self.data[self.ends[start]:self.ends[start + here]]
            start, count = 0, count - here


def send(path, cycle, connections, records):
    """All connections at once, each its share, a piece at a time."""
    selector, share = selectors.DefaultSelector(), records // connections
    for number in range(connections):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.setblocking(False)
        parts = cycle.parts(number * share, share)
        selector.register(connection, selectors.EVENT_WRITE, [next(parts), parts])
    open_connections = connections
    while open_connections:
        for key, _ in selector.select():
            view, parts = key.data
            sent = key.fileobj.send(view[:PIECE])
            view = view[sent:] or next(parts, None)
            key.data[0] = view
            if view is None:
                selector.unregister(key.fileobj)
                key.fileobj.close()
                open_connections -= 1
    return share * connections


def processor_seconds(pid):
    return time.clock_gettime((~pid << 3) | 2)  # the process's own clock


def peak_kib(pid):
    with open("/proc/%d/status" % pid) as status:
        return next(int(x.split()[1]) for x in status if x.startswith("VmHWM"))


def run(command, output, cycle, connections, records):
    """One fresh router. Returns its processor seconds, peak KiB, records that it got."""
    with tempfile.TemporaryDirectory(prefix="fl-spread-") as folder:
        conf, sock = os.path.join(folder, "spread.conf"), os.path.join(folder, "in.sock")
        with open(conf, "w") as f:
            f.write("[SERVICE]\n    Grace 30\n    Log_Level warn\n[INPUT]\n    Name forward\n    Unix_Path %s\n"
                    "[OUTPUT]\n    Match *\n%s\n" % (sock, OUTPUTS[output].replace("{dir}", folder)))
        with open(os.path.join(folder, "log"), "w+") as log:
            process = subprocess.Popen([a.replace("{conf}", conf) for a in command], stdout=log, stderr=log)
            while not ready(sock):
                assert process.poll() is None, "the router did not start: " + open(log.name).read()
                time.sleep(0.02)
            sent = send(sock, cycle, connections, records) if records else 0
            before, now = -1, processor_seconds(process.pid)
            while now - before > 0.012:  # until it has nothing more to do; timers cost some
                time.sleep(0.4)
                before, now = now, processor_seconds(process.pid)
            peak = peak_kib(process.pid)
            process.send_signal(signal.SIGTERM)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            log.seek(0)
            summary = [x for x in log.read().splitlines() if x.startswith("summary ")]
    got = " routed=%d " % sent
    assert not summary or got in summary[-1].split("|")[0], "%d were sent: %s" % (sent, summary[-1])
    return used.ru_utime + used.ru_stime, peak, sent


def ready(sock):
    with socket.socket(socket.AF_UNIX) as s:
        return s.connect_ex(sock) == 0


def numbers(words):
    return [int(x) for x in words.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=numbers, default=[1, 10, 100, 500])
    parser.add_argument("--tags", type=numbers, default=[1, 100, 5000])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", choices=OUTPUTS, default="null")
    parser.add_argument("command", nargs="*", help="the router; {conf} is its configuration")
    options = parser.parse_args()
    command = options.command or [os.path.join(TOP, "target", "release", "firelane"), "run", "-c", "{conf}"]
    idle = statistics.median(run(command, options.output, None, 0, 0)[0] for _ in range(options.rounds))
    print("idle: %.0f ms of CPU for start and stop" % (idle * 1000))
    print("%11s %6s %13s %9s %10s" % ("connections", "tags", "us per record", "more", "peak MiB"))
    points = [(n, 1) for n in options.connections] + [(1, n) for n in options.tags if n > 1]
    base, cycles = None, {}
    for connections, tags in points:
        if tags not in cycles:
            cycles[tags] = Cycle(tags)
        rounds = [run(command, options.output, cycles[tags], connections, options.records) for _ in range(options.rounds)]
        cost = statistics.median((used - idle) * 1e6 / sent for used, _, sent in rounds)
        base = base or cost
        print("%11d %6d %13.3f %8.0f%% %10.1f" % (
            connections, tags, cost, (cost / base - 1) * 100, max(peak for _, peak, _ in rounds) / 1024))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
