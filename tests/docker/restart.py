"""SIGTERM and a new start of the router while three containers write: what the delivery contract says, no more and
no less."""
import re

from engine import Engine
from support.router import FOREIGN
from support.suite import eventually
from workload import Task, count_lines, numbers, plain, same_lines

NAMES = ("web", "api", "db")
# With acks each line waits for the disk.
COUNT, COUNT_WITH_ACKS = 150_000, 15_000
# A sender that never pauses is read for a third of it.
GRACE = 1
# How the router reports that it closed a connection of a client that was still sending.
CUT = re.compile(r"still sending")


def restarted(over, count, *more):
    """Restarts the router twice in mid-stream. Returns the numbers that came for each container, in order, and all
    messages."""
    ledgers, messages = [], ""
    with Engine() as engine, Task(NAMES, join_partial=False, grace=GRACE) as task:
        task.router.start()
        # The last quarter waits for the second restart, however late a busy machine lets us ask for that.
        held = count * 3 // 4
        containers = [task.write(engine, name, lines[:held], over, *more, held=lines[held:])
                      for name, lines in ((name, plain(name, count)) for name in NAMES)]
        total = lambda: sum(count_lines(task.path(name)) for name in NAMES)
        for share in (0.1, 0.3):
            eventually(lambda: "%d lines have come" % total(), lambda: total() >= share * count * 3, 120)
            task.router.signal()
            ledgers.append(task.router.ended())
            messages += task.router.messages()
            task.router.start()
        task.go_on()
        # Lines may be missing without acks: the end of the stream is when the last line is there.
        for name in NAMES:
            eventually(lambda: "the last line of %s has arrived" % name,
                       lambda: last_line(task.path(name)) == count - 1, 120, 0.2)
        task.finish(engine, containers)
        ledgers.append(task.router.stop())
        messages += task.router.messages()
        came = {name: numbers(name, task.logs(name)) for name in NAMES}
    if not FOREIGN:
        written = sum(ledger["routed"] for ledger in ledgers)
        assert written == sum(map(len, came.values())), "routed %d, in the files %s" % (written, came)
        assert all(ledger.lost() == 0 for ledger in ledgers)
    return came, messages


def last_line(path):
    """The number of the last whole line, -1 while there is none."""
    try:
        with open(path, "rb") as f:
            f.seek(max(0, f.seek(0, 2) - 4096))
            found = re.findall(rb'"log":"\w+ (\d{8}) ', f.read())
    except FileNotFoundError:
        return -1
    return int(found[-1]) if found else -1


def a_restart_over_the_unix_socket_is_exactly_once():
    """shutdown(SHUT_RD): the driver gets EPIPE for the message that was not taken, and sends it again."""
    came, _ = restarted("unix", COUNT)
    for name in NAMES:
        same_lines(name, list(range(COUNT)), came[name])
    return "%d lines" % (3 * COUNT)


def a_restart_with_acks_is_at_least_once():
    """Nothing is missing; twice comes at most the one message a restart whose ack was on the way."""
    surplus = 0
    for over in ("unix", "tcp"):
        came, _ = restarted(over, COUNT_WITH_ACKS, "fluentd-request-ack=true")
        for name in NAMES:
            twice = len(came[name]) - COUNT_WITH_ACKS
            seen = sorted(set(came[name]))
            assert seen == list(range(COUNT_WITH_ACKS)), "%s: %d lines are missing" % (name, COUNT_WITH_ACKS - len(seen))
            assert came[name] == sorted(came[name]), "%s: out of order" % name
            assert twice <= 2, "%s: %d lines too many after two restarts" % (name, twice)
            surplus += twice
    return "%d lines, %d of them twice" % (6 * COUNT_WITH_ACKS, surplus)


def a_restart_over_tcp_loses_at_most_what_lay_in_the_socket():
    """Without acks a TCP sender cannot know; the router must say that it closed on someone who was sending."""
    came, messages = restarted("tcp", COUNT)
    limit, lost = socket_bytes(), 0
    for name in NAMES:
        assert all(a < b for a, b in zip(came[name], came[name][1:])), "%s: twice, or out of order" % name
        gaps = [b - a - 1 for a, b in zip([-1] + came[name], came[name]) if b != a + 1]
        assert len(gaps) <= 2, "%s: holes elsewhere than at the two restarts: %s" % (name, gaps)
        # A message is never smaller than its fixed fields.
        assert all(gap * 250 <= limit for gap in gaps), "%s: more is missing than a socket holds: %s" % (name, gaps)
        lost += sum(gaps)
    if lost and not FOREIGN:
        assert CUT.search(messages), "%d lines are missing and no message says so" % lost
    return "%d lines, %d lay in sockets" % (3 * COUNT, lost)


def socket_bytes():
    """The most that a TCP connection holds: the sender's and the receiver's buffer."""
    sizes = []
    for name in ("tcp_rmem", "tcp_wmem"):
        with open("/proc/sys/net/ipv4/" + name) as f:
            sizes.append(int(f.read().split()[2]))
    return sum(sizes)


TESTS = [
    a_restart_over_the_unix_socket_is_exactly_once,
    a_restart_with_acks_is_at_least_once,
    a_restart_over_tcp_loses_at_most_what_lay_in_the_socket,
]
