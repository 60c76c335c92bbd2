#!/usr/bin/env python3
"""What a record costs: CPU microseconds, peak memory, and the time until the router accepts.

    benches/measure.py [OPTIONS] [WORKLOAD ...] [-- COMMAND {conf}]

Each round starts a fresh router, sends records over loopback as fast as they are taken, waits until all are through, and
stops it. The cost is the router's own CPU time, that of an idle start and stop taken off; the generator's does not count.
Printed is the median of the rounds. Compare only what ran on one machine at one time: run this with each router in turn.

Workloads (default: all):
  message-*   one message a record over a unix socket, as docker's driver sends
  packed-*    chunks of 1,000 records over TCP, as a forwarder sends
  *-null      thrown away          *-file      JSON lines in a file
  firelens-*  messages; health checks left out, three ECS fields added        parse-*  the same, and the JSON in `log` parsed
  spread      messages and chunks, thrown away and into a file: 1 and 500 connections, 1 and 5,000 tags that take turns
  acks        one sender that waits for the ack of each line, into a file: lines a second, beside what the disk syncs

COMMAND defaults to target/release/firelane run -c {conf}; for example: -- fluent-bit -c {conf}. Needs nothing but Python.
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
CYCLE = 100_000    # different records; then they come again
CHUNK = 1_000      # records of a packed chunk
PIECE = 64 * 1024  # what one connection sends before the next one's turn
HEALTH = "/healthz"

UNIX = "[INPUT]\n    Name forward\n    Unix_Path {dir}/in.sock\n"
TCP = "[INPUT]\n    Name forward\n    Listen 127.0.0.1\n    Port {port}\n"
FIRELENS = """[FILTER]
    Name record_modifier
    Match *
    Record ecs_cluster shop
    Record ecs_task_arn arn:aws:ecs:eu-west-1:111122223333:task/shop/0f1e2d3c4b5a69788796a5b4c3d2e1f0
    Record ecs_task_definition shop-web:42
[FILTER]
    Name grep
    Match *
    Exclude log /healthz
"""
PARSE = FIRELENS + """[FILTER]
    Name parser
    Match *
    Key_Name log
    Parser json
    Reserve_Data On
"""
NULL = "[OUTPUT]\n    Name null\n    Match *\n"
FILE = "[OUTPUT]\n    Name file\n    Match *\n    Path {dir}\n    File out.log\n    Format plain\n"
WORKLOADS = {
    "message-null": (UNIX, "", NULL), "packed-null": (TCP, "", NULL),
    "message-file": (UNIX, "", FILE), "packed-file": (TCP, "", FILE),
    "firelens-file": (UNIX, FIRELENS, FILE), "parse-file": (UNIX, PARSE, FILE),
}


def text(data):
    size = len(data)
    if size < 32:
        return bytes([0xA0 | size]) + data
    return (b"\xd9" + bytes([size]) if size < 256 else b"\xda" + struct.pack(">H", size)) + data


def log_line(number, rng):
    """About 180 bytes: seven in ten JSON, two a health check's access log, one text with escapes and non-ASCII."""
    kind = number % 10
    if kind < 7:
        line = '{"level":"%s","msg":"request served","path":"/api/items/%d","status":%d,"ms":%.3f,"seq":"%012d"}' % (
            rng.choice(("info", "warn", "error")), rng.randrange(10 ** 6), rng.choice((200, 404, 500)),
            rng.random() * 100, number)
        return line[:-1] + ',"pad":"%s"}' % ("x" * (171 - len(line)))
    if kind < 9:
        line = '10.0.%d.%d - - "GET %s/%d HTTP/1.1" 200 %d "-" "curl/8.5.0" seq=%012d ' % (
            rng.randrange(256), rng.randrange(256), HEALTH, rng.randrange(100), rng.randrange(10 ** 5), number)
    else:
        line = 'plain text "quoted" \\ back\tslash and unicode \u00e9\u4e2d seq=%012d ' % number
    return line.ljust(180, "x")


def time_and_record(number, rng):
    fields = ((b"container_id", b"%064x" % 7), (b"container_name", b"/ecs-shop-42-web-0f1e2d3c4b5a69788796"),
              (b"source", b"stdout" if number % 5 else b"stderr"), (b"log", log_line(number, rng).encode()))
    stamp = struct.pack(">BBII", 0xD7, 0, 1_760_000_000 + number // 1000, number)
    return stamp + b"\x84" + b"".join(text(k) + text(v) for k, v in fields)


class Cycle:
    """Encoded frames with their bounds; frame i has tag i modulo the number of tags."""

    def __init__(self, packed, tags):
        rng = random.Random(1)
        names = [text(b"web%d-firelens-0f1e2d3c4b5a69788796a5b4c3d2e1f0" % i) for i in range(tags)]
        records = [time_and_record(i, rng) for i in range(CYCLE)]
        self.records_a_frame = CHUNK if packed else 1
        if packed:
            frames = []
            for start in range(0, CYCLE, CHUNK):
                payload = b"".join(b"\x92" + r for r in records[start:start + CHUNK])
                frames.append(b"\x93" + names[len(frames) % tags] + b"\xc6" + struct.pack(">I", len(payload)) + payload
                              + b"\x81" + text(b"size") + b"\xcd" + struct.pack(">H", CHUNK))
        else:
            frames = [b"\x94" + names[i % tags] + r + b"\x80" for i, r in enumerate(records)]
        self.data, self.ends = memoryview(b"".join(frames)), [0]
        for frame in frames:
            self.ends.append(self.ends[-1] + len(frame))

    def parts(self, start, count):
        """Frames from `start` on, as views."""
        frames = len(self.ends) - 1
        start %= frames
        while count > 0:
            here = min(count, frames - start)
            yield self.data[self.ends[start]:self.ends[start + here]]
            start, count = 0, count - here


def send(address, cycle, connections, records):
    """All connections at once, each its share, a piece at a time. Returns the records sent."""
    selector, share = selectors.DefaultSelector(), records // connections // cycle.records_a_frame
    for number in range(connections):
        connection = connect(address)
        connection.setblocking(False)
        parts = cycle.parts(number * share, share)
        selector.register(connection, selectors.EVENT_WRITE, [next(parts), parts])
    while selector.get_map():
        for key, _ in selector.select():
            view, parts = key.data
            view = view[key.fileobj.send(view[:PIECE]):] or next(parts, None)
            key.data[0] = view
            if view is None:
                selector.unregister(key.fileobj)
                key.fileobj.close()
    return share * connections * cycle.records_a_frame


def send_and_wait(address, lines):
    """One line at a time, each when the one before is acked, as docker's driver with fluentd-request-ack. Lines/s."""
    rng = random.Random(1)
    frames = [b"\x94" + text(b"web-firelens") + time_and_record(i, rng) + b"\x81" + text(b"chunk") + text(b"%016x" % i)
              for i in range(lines)]
    start = time.monotonic()
    with connect(address) as s:
        for frame in frames:
            s.sendall(frame)
            if not s.recv(256):
                sys.exit("the router closed the connection")
    return lines / (time.monotonic() - start)


def syncs_a_second(folder, lines=1_000):
    """Appended lines with fdatasync: the bound for one sender that waits."""
    fd = os.open(os.path.join(folder, "sync"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    start = time.monotonic()
    for _ in range(lines):
        os.write(fd, b"x" * 300)
        os.fdatasync(fd)
    os.close(fd)
    return lines / (time.monotonic() - start)


def connect(address):
    s = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    try:
        s.connect(address)
    except OSError:
        s.close()
        raise
    return s


def processor_seconds(pid):
    return time.clock_gettime((~pid << 3) | 2)  # the process's own clock


def peak_kib(pid):
    with open("/proc/%d/status" % pid) as status:
        return next(int(x.split()[1]) for x in status if x.startswith("VmHWM"))


class Round:
    """One fresh router: `cpu` seconds, `peak` KiB, `ready` seconds after exec, `sent` records.

    With `acked` lines one sender waits for each ack: `acks` and `syncs` are lines a second.
    """

    def __init__(self, command, workload, cycle=None, connections=1, records=0, acked=0):
        source, filters, output = WORKLOADS[workload]
        with tempfile.TemporaryDirectory(prefix="fl-measure-") as folder, socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            free.close()
            address = os.path.join(folder, "in.sock") if source is UNIX else ("127.0.0.1", port)
            with open(os.path.join(folder, "parsers.conf"), "w") as f:
                f.write("[PARSER]\n    Name json\n    Format json\n")
            conf = "[SERVICE]\n    Grace 30\n    Log_Level warn\n    Parsers_File parsers.conf\n"
            conf += (source + filters + output).replace("{dir}", folder).replace("{port}", str(port))
            path = os.path.join(folder, "measure.conf")
            with open(path, "w") as f:
                f.write(conf)
            with open(os.path.join(folder, "messages"), "w+") as messages:
                start = time.monotonic()
                process = subprocess.Popen([a.replace("{conf}", path) for a in command], stdout=messages, stderr=messages)
                try:
                    self.wait_ready(process, address, messages)
                    self.ready = time.monotonic() - start
                    if acked:
                        self.acks, self.syncs = send_and_wait(address, acked), syncs_a_second(folder)
                    self.sent = send(address, cycle, connections, records) if records else 0
                    self.wait_quiet(process)
                    self.peak = peak_kib(process.pid)
                    process.send_signal(signal.SIGTERM)
                    _, status, used = os.wait4(process.pid, 0)
                    process.returncode = os.waitstatus_to_exitcode(status)
                finally:
                    if process.returncode is None:
                        process.kill()
                        process.wait()
            self.cpu = used.ru_utime + used.ru_stime
            if output is FILE and records:
                self.check(os.path.join(folder, "out.log"), filters)

    @staticmethod
    def wait_ready(process, address, messages):
        while True:
            try:
                return connect(address).close()
            except OSError:
                if process.poll() is not None:
                    messages.seek(0)
                    sys.exit("the router did not start: " + messages.read())
                time.sleep(0.0005)

    @staticmethod
    def wait_quiet(process):
        """Until it has nothing more to do. Timers cost a little."""
        before, now = -1, processor_seconds(process.pid)
        while now - before > 0.012:
            time.sleep(0.4)
            before, now = now, processor_seconds(process.pid)

    def check(self, path, filters):
        health = sum(1 for i in range(10) if 7 <= i < 9) * self.sent // 10 if filters else 0
        with open(path, "rb") as f:
            lines = sum(block.count(b"\n") for block in iter(lambda: f.read(1 << 22), b""))
        if lines != self.sent - health:
            print("%d records were to come out, %d did" % (self.sent - health, lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("workload", nargs="*", help="%s, spread or acks" % ", ".join(WORKLOADS))
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    options, command = parser.parse_args(words[:cut]), words[cut + 1:]
    command = command or [os.path.join(TOP, "target", "release", "firelane"), "run", "-c", "{conf}"]
    points = []
    for name in options.workload or [*WORKLOADS, "spread", "acks"]:
        if name == "spread":
            for kind in ("message-null", "packed-null", "message-file", "packed-file"):
                points += [(kind, 1, 1), (kind, 500, 1), (kind, 1, 5_000)]
        elif name == "acks":
            rounds = [Round(command, "message-file", acked=3_000) for _ in range(options.rounds)]
            print("acks: %.0f lines/s; the disk syncs %.0f appended lines/s" % (
                statistics.median(r.acks for r in rounds), statistics.median(r.syncs for r in rounds)), flush=True)
        elif name in WORKLOADS:
            points.append((name, 1, 1))
        else:
            parser.error("no workload %s" % name)
    cycles = {}
    if not points:
        return
    print("%-14s %11s %6s %13s %9s %9s" % ("workload", "connections", "tags", "us per record", "peak MiB", "ready ms"))
    for name, connections, tags in points:
        key = (name.startswith("packed"), tags)
        if key not in cycles:
            cycles[key] = Cycle(*key)
        idle = statistics.median(Round(command, name).cpu for _ in range(options.rounds))
        rounds = [Round(command, name, cycles[key], connections, options.records) for _ in range(options.rounds)]
        cost = statistics.median((r.cpu - idle) * 1e6 / r.sent for r in rounds)
        print("%-14s %11d %6d %13.3f %9.1f %9.1f" % (
            name, connections, tags, cost, max(r.peak for r in rounds) / 1024,
            statistics.median(r.ready for r in rounds) * 1000), flush=True)


if __name__ == "__main__":
    main()
