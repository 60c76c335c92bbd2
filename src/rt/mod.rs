//! What runs things: the byte budget, the stop signal, supervised tasks, the bounded queue in front of an output.

mod budget;
mod letters;
pub mod limits;
mod marks;
mod meter;
pub mod pages;
mod queue;
mod stop;
mod tasks;

pub use budget::{Budget, Charge};
pub use letters::{Content, Letter, LetterBox, Letters};
pub use marks::{Marks, Places};
pub use meter::{Meter, MeterCharge};
pub use queue::{Delivery, Keeper, Lost, Receiver, Sender, queue};
pub use stop::{Phase, Stop, Stopper};
pub use tasks::Tasks;
