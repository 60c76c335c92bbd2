//! What runs things: the byte budget, the stop signal, supervised tasks, the bounded queue in front of an output.

mod budget;
pub mod limits;
mod meter;
mod queue;
mod stop;
mod tasks;

pub use budget::{Budget, Charge};
pub use meter::{Meter, MeterCharge};
pub use queue::{Delivery, Receiver, Sender, queue};
pub use stop::{Phase, Stop, Stopper};
pub use tasks::Tasks;
