//! What runs things: the byte budget, the stop signal, supervised tasks.

mod budget;
pub mod limits;
mod meter;
mod stop;
mod tasks;

pub use budget::{Budget, Charge};
pub use meter::{Meter, MeterCharge};
pub use stop::{Phase, Stop, Stopper};
pub use tasks::Tasks;
