//! End-to-end tests of the process on this machine's loopback, the house rules, and the sample configurations.
//!
//! Each test starts the binary with a configuration of its own in a temporary directory, speaks the forward protocol
//! to it, and stops it; every stop asserts the two sums of the summary line. dockerd and client libraries have their
//! own tests beside this directory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod acks;
mod agent;
mod bad_input;
mod cloudwatch_in;
mod cloudwatch_out;
mod cloudwatch_out_batches;
mod cloudwatch_out_crash;
mod cloudwatch_out_credentials;
mod cloudwatch_out_errors;
mod cloudwatch_out_memory;
mod cloudwatch_out_names;
mod dead_letters;
mod disk_full;
mod docker_runtime;
mod forward_out;
mod forward_peer;
mod linked;
mod memory;
mod pieces;
mod process_runtime;
mod repeats;
mod samples;
mod shutdown;
mod storage;
mod strict_cloudwatch;
mod support;
mod tasks;
mod walls;
