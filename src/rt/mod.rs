//! What runs things: the byte budget, the stop signal, supervised tasks.

mod budget;
mod stop;
mod tasks;

pub use budget::{Budget, Charge};
pub use stop::{Phase, Stop, Stopper};
pub use tasks::Tasks;
