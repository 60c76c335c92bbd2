//! The way to the peer: connect, prove who we are.
//!
//! Enters: where to and with which key. Leaves: a connection that is ready for messages. Can go wrong: nobody there, TLS
//! refused, wrong key; the message says what to do.

use std::time::Duration;

use bytes::{Buf, BytesMut};

use crate::net::{ClientConn, Dialer, Did, random_printable};
use crate::wire::handshake_client::{Login, Step};

/// How long the handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A connection and what has come on it.
pub(super) struct Link {
    pub(super) conn: ClientConn,
    pub(super) input: BytesMut,
}

/// Connects and shakes hands.
pub(super) async fn open(dialer: &Dialer, login: Option<&Login>) -> Result<Link, String> {
    let conn = dialer.connect().await?;
    let mut link = Link { conn, input: BytesMut::new() };
    if let Some(login) = login {
        match tokio::time::timeout(HANDSHAKE, shake(&mut link, login)).await {
            Ok(result) => result.map_err(|e| format!("handshake with {}: {e}", dialer.target))?,
            Err(_) => {
                return Err(format!(
                    "no handshake with {} within {HANDSHAKE:?}; does the peer use a shared key?",
                    dialer.target
                ));
            }
        }
    }
    Ok(link)
}

async fn shake(link: &mut Link, login: &Login) -> Result<(), String> {
    let (ping, waiting) = loop {
        read(link).await?;
        match login.helo(&link.input, random_printable::<16>()?) {
            Step::NeedMore => {}
            Step::Refused(reason) => return Err(reason),
            Step::Done(done, n) => {
                link.input.advance(n);
                break done;
            }
        }
    };
    link.conn.write_all(&ping).await.map_err(|e| e.to_string())?;
    loop {
        match waiting.pong(&link.input) {
            Step::NeedMore => read(link).await?,
            Step::Refused(reason) => return Err(reason),
            Step::Done((), n) => {
                link.input.advance(n);
                return Ok(());
            }
        }
    }
}

async fn read(link: &mut Link) -> Result<(), String> {
    match link.conn.step(&[], false, &mut link.input).await {
        Ok(Did::Read(0)) => {
            Err("the peer closed the connection; check Shared_Key, Username and Password".to_owned())
        }
        Ok(_) => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}
