//! p
mod intake;
