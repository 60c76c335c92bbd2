//! Pure codecs: no socket, no file, no clock.

pub mod cloudwatch_in;
pub mod entry;
pub mod forward;
pub mod forward_send;
pub mod handshake;
pub mod handshake_client;
pub mod inflate;
pub mod json;
pub mod json_in;
pub mod json_scan;
pub mod msgpack;
pub mod msk_iam;
pub mod print;
pub mod sigv4;
mod unescape;
