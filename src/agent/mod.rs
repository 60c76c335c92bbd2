//! Task definitions -> running tasks, with FireLens wired as ECS wires it.
//!
//! ```text
//! file -> definition -> plan ----> engine ==runtime==> process (supervisors), docker (dockerd)
//!                    -> firelens --^                      \-> drivers (docker's log drivers)
//!                                  view -> endpoints (metadata and credentials, for the task's containers)
//! ```

pub mod daemon;
pub mod definition;
pub mod docker;
pub mod drivers;
pub mod endpoints;
pub mod engine;
pub mod firelens;
pub mod launch;
mod open_files;
pub mod plan;
pub mod planning;
pub mod process;
pub mod runtime;
pub mod secrets;
