//! What a task's containers can ask the agent: who they are, what they use, and the credentials of their role.
//!
//! ```text
//! view, states --> directory <-- routes <-- server <-- a listener (127.0.0.1, or 169.254.170.2 in the task's own
//!                  |    \-> documents (v4, v3)          network namespace: namespace)
//!                  \-> role (STS)                 variables: how containers are told where that is
//! ```
//!
//! Enters: plans of tasks, their views and states as they change; requests of containers. Leaves: the ECS agent's answers.
//! Can go wrong: an id that nobody has, a role that cannot be taken on, too many requests; each is answered as the ECS
//! agent answers it (facts: its task metadata service, release 1.105.1).

mod directory;
mod documents;
mod limit;
pub mod namespace;
mod role;
mod routes;
mod server;
mod timed;
mod variables;

pub use directory::{Directory, Listed};
pub use role::role_arn;
pub use server::{listener, serve};
pub use variables::Base;
