"""A suite of named tests that ends with `N passed, N failed`, as the corpus runner does.

A test is a function whose docstring is its title. It passes by returning, fails by raising, and raises `Skip` with the
reason when this machine cannot run it.
"""
import fnmatch
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor


class Skip(Exception):
    """This machine cannot run the test; the message says why."""


def run(tests, only=(), at_once=1):
    """Runs the tests and prints a line for each, in their order; `at_once` of them at a time, where they wait more than they
    work. Returns the exit status."""
    wanted = [t for t in tests if not only or any(fnmatch.fnmatchcase(t.__name__, pattern) for pattern in only)]
    count = {"PASS": 0, "FAIL": 0, "skipped": 0}
    with ThreadPoolExecutor(at_once) as pool:
        for verdict in pool.map(judged, wanted):
            count[verdict.split()[0]] += 1
            print(verdict)
            sys.stdout.flush()
    passed, failed, skipped = count.values()
    if skipped:
        print("(%d skipped)" % skipped)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed + skipped else 0


def judged(test):
    """The line of one test."""
    name, start = test.__name__, time.monotonic()
    took = lambda: "%s (%.1f s)" % (name, time.monotonic() - start)
    try:
        note = test()
        return "PASS %s%s" % (took(), ": " + note if note else "")
    except Skip as why:
        return "skipped %s: %s" % (name, why)
    except Exception as error:
        verdict = "FAIL %s: %s" % (took(), error)
        return verdict if isinstance(error, AssertionError) else verdict + "\n" + traceback.format_exc()


def eventually(what, condition, timeout, every=0.05):
    """Waits until `condition()` is true and returns its value; fails with `what` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("after %g s still not: %s" % (timeout, what() if callable(what) else what))
        time.sleep(every)
