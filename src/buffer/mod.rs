//! Where chunks wait for an output: one bounded queue each.

mod queue;

pub use queue::{Delivery, Receiver, Sender, queue};
