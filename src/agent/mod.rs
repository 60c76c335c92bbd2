//! Task definitions -> running tasks, with FireLens wired as ECS wires it.

pub mod drivers;
pub mod process;
