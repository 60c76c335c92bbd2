# The image that takes the place of aws-for-fluent-bit in ECS task definitions; image/README.md says what is in it.
#
#   docker build -t firelane .
#
# Without a registry, and without compiling, from a binary that is there (built for the same release of Debian) and a base
# that scripts/image makes:
#
#   scripts/image base base.tar && docker import base.tar base
#   docker build -t firelane --target prebuilt --build-arg BASE=base --build-arg BINARY=target/release/firelane .
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS base
# For the health checks of task definitions, and for TLS. A base that has them needs no network.
RUN command -v curl && command -v nc && test -e /etc/ssl/certs/ca-certificates.crt || { \
      apt-get update \
      && apt-get install -y --no-install-recommends ca-certificates curl netcat-openbsd \
      && rm -rf /var/lib/apt/lists/*; }
COPY image/root/ /
# /fluent-bit/etc has a link to it: on Fargate ECS lays its own directory over that one.
COPY config/parsers.conf /fluent-bit/parsers/parsers.conf
EXPOSE 2020
# ECS makes the directory of the socket as root. Whatever user a task definition sets works, too.
USER root
CMD ["/entrypoint.sh"]

# Not part of the usual build. Builders that build every stage copy a file here that is always there.
FROM base AS prebuilt
ARG BINARY=LICENSE
COPY ${BINARY} /usr/local/bin/firelane

FROM rust:1-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ make libssl-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --locked --profile dist --bin firelane

FROM base
COPY --from=build /src/target/dist/firelane /usr/local/bin/firelane
