"""A suite of named tests that ends with `N passed, N failed`, as the corpus runner does.

A test is a function whose docstring is its title. It passes by returning, fails by raising, and raises `Skip` with the
reason when this machine cannot run it.
"""
import fnmatch
import sys
import time
import traceback


class Skip(Exception):
    """This machine cannot run the test; the message says why."""


def run(tests, only=()):
    """Runs the tests in order and prints a line for each. Returns the exit status."""
    passed = failed = skipped = 0
    for test in tests:
        name = test.__name__
        if only and not any(fnmatch.fnmatchcase(name, pattern) for pattern in only):
            continue
        start = time.monotonic()
        try:
            note = test()
            passed += 1
            verdict = "PASS %s (%.1f s)%s" % (name, time.monotonic() - start, ": " + note if note else "")
        except Skip as why:
            skipped += 1
            verdict = "skipped %s: %s" % (name, why)
        except Exception as error:
            failed += 1
            verdict = "FAIL %s (%.1f s): %s" % (name, time.monotonic() - start, error)
            if not isinstance(error, AssertionError):
                verdict += "\n" + traceback.format_exc()
        print(verdict)
        sys.stdout.flush()
    if skipped:
        print("(%d skipped)" % skipped)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed + skipped else 0


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
