//! firelane: a FireLens log router.
//!
//! ```text
//! cli/         what a person types                      pipeline/    builds and supervises the line below; the only wiring
//! ---- the data's path, left to right ------------------------------------------------------------------------
//! inputs/      forward tcp stdin dummy                  bytes -> chunks
//! filters/     grep modify parser multiline ...         chunks -> chunks
//! router/      tag patterns, the route cache            which filters, which outputs
//! buffer/      write-ahead log, dead letters             what waits, also across a crash
//! outputs/     file forward stdout null                 chunks -> the world
//! ------------------------------------------------------------------------------------------------------------
//! config/      text -> sections -> checked settings     wire/        pure codecs: msgpack, forward frames, JSON
//! record/      chunk, tag, record view, ack handle      observe/     counters, logs
//! text/        parsers, multiline, times, accessors     net/         listeners, connections, TLS
//! rt/          supervised tasks, stop signal, budget, queues
//! agent/       task definition -> running task; knows the router only by its socket and its configuration file
//! ```
//!
//! The floor (`record rt observe wire text net`) imports only the floor; `config` the floor; a room on the path the
//! floor and `config`, never another room; `agent` the same; `pipeline` imports rooms; `cli` imports `pipeline` and
//! `agent`. A test reads the sources and enforces it.

pub mod agent;
pub mod buffer;
pub mod cli;
pub mod config;
pub mod filters;
pub mod inputs;
pub mod net;
pub mod observe;
pub mod outputs;
pub mod pipeline;
pub mod record;
pub mod router;
pub mod rt;
pub mod text;
pub mod wire;
