//! The process runtime: containers as supervised process groups, where no Docker engine answers.
//!
//! ```text
//! agent -> client ==unix socket==> supervisor -> container -> launch -> stage (exec-stage) -> the program
//!                                      |             |-> health        |-> rootfs, users
//!                                      |-> reap      |-> cgroup, processes
//!                                                    |-> drivers
//! ```
//!
//! Enters: what a runtime is to start. Leaves: processes with docker's environment, user, limits, mounts, log drivers, health
//! checks and exit codes. One supervisor for each task holds the pipes; it survives the agent, which finds it again by the
//! task's directory. Can go wrong: what ECS has names for; they are used.

mod cgroup;
mod client;
mod container;
mod health;
mod launch;
mod processes;
mod reap;
mod rootfs;
mod spec;
mod stage;
mod supervisor;
mod users;

pub use stage::run as exec_stage;
pub use supervisor::supervise;
