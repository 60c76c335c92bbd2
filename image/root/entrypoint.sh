#!/bin/sh
# What the image runs unless a task definition says otherwise. Arguments are given to the router.
echo "FireLens log router image: $(/fluent-bit/bin/fluent-bit --version)"
exec /fluent-bit/bin/fluent-bit -c /fluent-bit/etc/fluent-bit.conf "$@"
