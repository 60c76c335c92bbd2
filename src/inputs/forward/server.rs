//! Listening: accepting connections, the handshake before the first frame, the drain of the listener.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::BytesMut;

use super::Forward;
use super::conn::Connection;
use super::frames::Settings;
use super::repeats::{Repeats, Sender};
use crate::inputs::InputContext;
use crate::inputs::listen::Place;
use crate::net::{Conn, Listener, ServerTls, random_printable};
use crate::wire::handshake::{Credentials, Ping, Server};

/// A client must have finished TLS and handshake by then.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Bytes a client may send before it has proved who it is.
const MAX_PREAUTH: usize = 4096;

struct Shared {
    settings: Arc<Settings>,
    repeats: Arc<Repeats>,
    tls: Option<ServerTls>,
    credentials: Option<Arc<Credentials>>,
}

pub(super) async fn start(forward: Forward, cx: InputContext) -> Result<(), String> {
    let listener = forward.place.open().await?;
    if forward.udp_heartbeat
        && let Place::Tcp(host, port) = &forward.place
    {
        let socket = tokio::net::UdpSocket::bind((host.as_str(), *port))
            .await
            .map_err(|e| format!("cannot bind udp {host}:{port} for heartbeats: {e}"))?;
        cx.tasks.spawn(format!("{} heartbeat", cx.label), heartbeat(socket, cx.clone()));
    }
    tracing::info!(input = %cx.label, address = %listener.name(), "listening");
    let shared = Arc::new(Shared {
        settings: Arc::new(Settings {
            max_frame: forward.max_frame,
            tag_prefix: forward.tag_prefix.into_bytes(),
            tag: forward.tag.map(String::into_bytes),
        }),
        repeats: Arc::default(),
        tls: forward.tls,
        credentials: forward.credentials,
    });
    let tasks = cx.tasks.clone();
    tasks.spawn(format!("{} listener", cx.label), listen(listener, shared, cx));
    Ok(())
}

async fn listen(listener: Listener, shared: Arc<Shared>, cx: InputContext) {
    let mut stop = cx.stop.clone();
    loop {
        tokio::select! {
            biased;
            _ = stop.draining() => break,
            accepted = listener.accept() => match accepted {
                Ok(conn) => serve(conn, &shared, &cx),
                Err(e) => {
                    // Out of descriptors or the like: others must close first.
                    tracing::warn!(input = %cx.label, cause = %e, "cannot accept a connection, trying again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    // Those that the kernel has queued are served: their clients believe that they are connected.
    for conn in listener.close_for_drain() {
        serve(conn, &shared, &cx);
    }
}

fn serve(conn: Conn, shared: &Arc<Shared>, cx: &InputContext) {
    cx.totals.pipeline.connections.fetch_add(1, Relaxed);
    let (shared, connection_cx) = (Arc::clone(shared), cx.clone());
    cx.tasks.spawn(format!("{} connection", cx.label), async move {
        let peer = conn.peer().to_owned();
        let opened = tokio::time::timeout(HANDSHAKE, open(conn, &shared)).await;
        match opened.unwrap_or_else(|_| Err("handshake took longer than 10 s".into())) {
            Ok(Some((conn, received))) => {
                let sender = Sender::new(Arc::clone(&shared.repeats));
                Connection::new(connection_cx, Arc::clone(&shared.settings), sender, conn)
                    .serve(received)
                    .await;
            }
            // Connected and closed without a word: a health check or a heartbeat.
            Ok(None) => {}
            Err(cause) => {
                connection_cx.totals.pipeline.broken_connections.fetch_add(1, Relaxed);
                tracing::warn!(input = %connection_cx.label, %peer, %cause, "connection refused");
            }
        }
    });
}

/// TLS and the forward handshake, where configured. Gives the connection and what came after the PING.
async fn open(conn: Conn, shared: &Shared) -> Result<Option<(Conn, BytesMut)>, String> {
    let mut conn = match &shared.tls {
        Some(tls) => match conn.accept_tls(tls).await? {
            Some(conn) => conn,
            None => return Ok(None),
        },
        None => conn,
    };
    let mut buf = BytesMut::new();
    let Some(credentials) = &shared.credentials else { return Ok(Some((conn, buf))) };
    let salt = if credentials.users.is_empty() { String::new() } else { random_printable::<16>()? };
    let server = Server::new(Arc::clone(credentials), random_printable::<16>()?, salt);
    let lost = |e: std::io::Error| format!("connection lost in the handshake: {e}");
    conn.write_all(&server.helo()).await.map_err(lost)?;
    loop {
        if conn.read(&mut buf).await.map_err(lost)? == 0 {
            return if buf.is_empty() { Ok(None) } else { Err("closed within the handshake".into()) };
        }
        match server.ping(&buf) {
            Ping::NeedMore if buf.len() > MAX_PREAUTH => return Err("PING is larger than 4 KiB".into()),
            Ping::NeedMore => {}
            Ping::Ok { reply, consumed } => {
                conn.write_all(&reply).await.map_err(lost)?;
                drop(buf.split_to(consumed));
                return Ok(Some((conn, buf)));
            }
            Ping::Refused { reply, reason } => {
                if let Some(reply) = reply {
                    conn.write_all(&reply).await.map_err(lost)?;
                }
                return Err(reason);
            }
        }
    }
}

/// Any datagram is answered by one zero byte; fluentd's `heartbeat_type udp`.
async fn heartbeat(socket: tokio::net::UdpSocket, cx: InputContext) {
    let mut stop = cx.stop.clone();
    let mut buf = [0; 16];
    loop {
        tokio::select! {
            _ = stop.draining() => return,
            got = socket.recv_from(&mut buf) => {
                if let Ok((_, from)) = got
                    && let Err(e) = socket.send_to(&[0], from).await
                {
                    tracing::debug!(input = %cx.label, cause = %e, "cannot answer a heartbeat");
                }
            }
        }
    }
}
