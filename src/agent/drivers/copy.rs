//! From a pipe of a process to its log driver.
//!
//! Enters: the read end. Leaves: messages, in order, each waited for where the driver blocks: then the pipe fills and the
//! process waits, as under docker. Ends at the stream's end. Can go wrong: the pipe; that ends the stream.

use std::io;
use std::sync::Arc;

use tokio::net::unix::pipe::Receiver;

use super::split::Splitter;
use super::{Driver, Source, Words};
use crate::record::Time;

/// Copies until the stream ends.
///
/// # Errors
/// The pipe's.
pub(in crate::agent) async fn copy(
    from: Receiver,
    source: Source,
    driver: Arc<Driver>,
    words: Arc<Words>,
) -> io::Result<()> {
    let mut splitter = Splitter::new(source, driver.part());
    let mut bytes = [0; 2048];
    loop {
        let room = bytes.get_mut(..splitter.room()).unwrap_or_default();
        let read = match from.try_read(room) {
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                from.readable().await?;
                continue;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let new = room.get(..read).unwrap_or_default();
        words.add(new);
        splitter.feed(new);
        while let Some(message) = splitter.next(Time::now()) {
            driver.log(message).await;
        }
        if read == 0 {
            return Ok(());
        }
        // A loud container must not keep the others waiting, nor a driver that could send what it has by now.
        tokio::task::yield_now().await;
    }
}
