//! What inputs that listen share: their address and TLS settings, and the loop that accepts.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::InputContext;
use crate::config::{Diagnostics, Settings};
use crate::net::{Conn, Listener, ServerTls, TlsFiles};

/// A client must have finished its TLS handshake by then.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after an accept that failed: out of descriptors or the like, others must close first.
const RETRY: Duration = Duration::from_millis(100);

/// Where to listen and how.
pub(super) struct Address {
    host: String,
    port: u16,
    tls: Option<ServerTls>,
}

impl Address {
    /// Reads `listen`, `port` and `tls.*`. `None` after an error.
    pub(super) fn read(s: &Settings, diags: &mut Diagnostics) -> Option<Address> {
        let Some(port) = s.int("port").and_then(|p| u16::try_from(p).ok()) else {
            s.error(diags, "port", "a port is a number from 0 to 65535");
            return None;
        };
        let tls = if s.bool("tls") {
            let files = TlsFiles {
                cert: s.str("tls.crt_file"),
                key: s.str("tls.key_file"),
                ca: s.str("tls.ca_file"),
                verify_client: s.bool("tls.verify_client_cert"),
                min_version: s.str("tls.min_version"),
                max_version: s.str("tls.max_version"),
            };
            Some(ServerTls::new(&files).map_err(|e| s.error(diags, "tls", e)).ok()?)
        } else {
            None
        };
        Some(Address { host: s.str("listen").unwrap_or("0.0.0.0").to_owned(), port, tls })
    }

    /// Opens the port and starts the task that accepts; `serve` is run for each connection until it ends.
    ///
    /// # Errors
    /// A sentence with the address and what to do.
    pub(super) async fn start<F>(
        self,
        cx: InputContext,
        serve: impl Fn(InputContext, Conn) -> F + Clone + Send + Sync + 'static,
    ) -> Result<(), String>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = Listener::tcp(&self.host, self.port).await?;
        tracing::info!(input = %cx.label, address = %listener.name(), "listening");
        let tasks = cx.tasks.clone();
        tasks.spawn(format!("{} listener", cx.label), accept(listener, self.tls, cx, serve));
        Ok(())
    }
}

async fn accept<F>(
    listener: Listener,
    tls: Option<ServerTls>,
    cx: InputContext,
    serve: impl Fn(InputContext, Conn) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let begin = |conn: Conn| {
        cx.totals.pipeline.connections.fetch_add(1, Relaxed);
        let (tls, serve, connection_cx) = (tls.clone(), serve.clone(), cx.clone());
        cx.tasks.spawn(format!("{} connection", cx.label), async move {
            if let Some(conn) = open(conn, tls.as_ref(), &connection_cx).await {
                serve(connection_cx, conn).await;
            }
        });
    };
    let mut stop = cx.stop.clone();
    loop {
        tokio::select! {
            biased;
            _ = stop.draining() => break,
            accepted = listener.accept() => match accepted {
                Ok(conn) => begin(conn),
                Err(e) => {
                    tracing::warn!(input = %cx.label, cause = %e, "cannot accept a connection, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            },
        }
    }
    // Those that the kernel has queued are served: their clients believe that they are connected.
    listener.close_for_drain().into_iter().for_each(begin);
}

/// The TLS handshake, where configured. `None`: the peer left without a word, or it failed and was reported.
async fn open(conn: Conn, tls: Option<&ServerTls>, cx: &InputContext) -> Option<Conn> {
    let Some(tls) = tls else { return Some(conn) };
    let peer = conn.peer().to_owned();
    let mut stop = cx.stop.clone();
    let stopped = async { tokio::time::sleep_until(stop.draining().await).await };
    let opened = tokio::select! {
        opened = tokio::time::timeout(HANDSHAKE, conn.accept_tls(tls)) => opened,
        () = stopped => return None,
    };
    opened.unwrap_or_else(|_| Err("TLS handshake took longer than 10 s".into())).unwrap_or_else(|cause| {
        cx.totals.pipeline.broken_connections.fetch_add(1, Relaxed);
        tracing::warn!(input = %cx.label, %peer, %cause, "connection refused");
        None
    })
}
