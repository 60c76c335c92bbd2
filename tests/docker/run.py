#!/usr/bin/env python3
"""End-to-end tests with a real Docker engine: its `fluentd` and `awslogs` log drivers, and tasks in its containers.

    run.py [NAME ...]        all tests, or those whose names match (globs)

Needs root and Debian's docker.io, busybox-static and debootstrap (scripts/setup test installs them); else the tests are skipped.
DOCKER_LINES sets the lines of the large runs (100000). KEEP=1 keeps the files of a failed test.
"""
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import awslogs
import drivers
import durable
import encoding
import image
import lossless
import pulls
import restart
import small
import tasks
from support import suite


def stop(*_):
    sys.exit("interrupted")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    sys.exit(suite.run(encoding.TESTS + lossless.TESTS + restart.TESTS + durable.TESTS + small.TESTS + awslogs.TESTS
                       + drivers.TESTS + tasks.TESTS + pulls.TESTS + image.TESTS,
                       sys.argv[1:]))
