//! What inputs that listen share: their address and TLS settings, and the loop that accepts.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::InputContext;
use crate::config::{Diagnostics, Settings, TLS_SPOKEN_OF};
use crate::net::{Conn, Listener, ServerTls, TlsFiles};

/// A client must have finished its TLS handshake by then.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after an accept that failed: out of descriptors or the like, others must close first.
const RETRY: Duration = Duration::from_millis(100);

/// Where to listen and how.
pub(super) struct Address {
    place: Place,
    tls: Option<ServerTls>,
    /// Connections at a time.
    most: usize,
}

/// Where to listen.
#[derive(Debug)]
pub(super) enum Place {
    /// Address and port.
    Tcp(String, u16),
    /// Path and permissions of a unix socket.
    Unix(String, Option<u32>),
}

impl Address {
    /// Reads `listen`, `port`, `unix_path`, `unix_perm` and `tls.*`. `None` after an error.
    pub(super) fn read(s: &Settings, diags: &mut Diagnostics) -> Option<Address> {
        let place = Place::read(s, diags)?;
        let tls = server_tls(s, diags)?;
        Some(Address { place, tls, most: Semaphore::MAX_PERMITS })
    }

    /// Accepts no more connections at a time; others wait in the kernel's queue.
    pub(super) fn most(self, most: usize) -> Address {
        Address { most, ..self }
    }

    /// Whether nobody on another machine can connect.
    pub(super) fn is_local(&self) -> bool {
        match &self.place {
            Place::Unix(..) => true,
            Place::Tcp(host, _) => {
                host.eq_ignore_ascii_case("localhost")
                    || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
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
        let listener = self.place.open().await?;
        tracing::info!(input = %cx.label, address = %listener.name(), "listening");
        let tasks = cx.tasks.clone();
        let room = Arc::new(Semaphore::new(self.most));
        tasks.spawn(format!("{} listener", cx.label), accept(listener, self.tls, room, cx, serve));
        Ok(())
    }
}

/// Reads `tls.*`. The outer `None` is an error, the inner one no TLS.
#[allow(clippy::option_option, reason = "refused, or absent, or present")]
pub(super) fn server_tls(s: &Settings, diags: &mut Diagnostics) -> Option<Option<ServerTls>> {
    if !s.bool("tls") {
        return Some(None);
    }
    let files = TlsFiles {
        cert: s.str("tls.crt_file"),
        key: s.str("tls.key_file"),
        ca: s.str("tls.ca_file"),
        verify_client: s.bool("tls.verify_client_cert"),
        min_version: s.str("tls.min_version"),
        max_version: s.str("tls.max_version"),
    };
    ServerTls::new(&files).map_err(|e| s.error_among(diags, TLS_SPOKEN_OF, &e)).ok().map(Some)
}

impl Place {
    /// Opens the port or the socket.
    ///
    /// # Errors
    /// A sentence with the address and what to do.
    pub(super) async fn open(&self) -> Result<Listener, String> {
        match self {
            Place::Tcp(host, port) => Listener::tcp(host, *port).await,
            Place::Unix(path, perm) => Listener::unix(path, *perm).await,
        }
    }

    /// Reads `listen`, `port`, `unix_path` and `unix_perm`. `None` after an error.
    pub(super) fn read(s: &Settings, diags: &mut Diagnostics) -> Option<Place> {
        if let Some(path) = s.str("unix_path") {
            let perm = match s.str("unix_perm").map(|p| u32::from_str_radix(p, 8)) {
                Some(Ok(perm)) if perm <= 0o7777 => Some(perm),
                None => None,
                Some(_) => {
                    s.error(diags, "unix_perm", "permissions are octal digits such as 0666");
                    return None;
                }
            };
            return Some(Place::Unix(path.to_owned(), perm));
        }
        let Some(port) = s.int("port").and_then(|p| u16::try_from(p).ok()) else {
            let port = s.int("port").unwrap_or_default();
            s.error(diags, "port", format!("port {port} cannot be: a port is a number from 0 to 65535"));
            return None;
        };
        Some(Place::Tcp(s.str("listen").unwrap_or("0.0.0.0").to_owned(), port))
    }
}

async fn accept<F>(
    listener: Listener,
    tls: Option<ServerTls>,
    room: Arc<Semaphore>,
    cx: InputContext,
    serve: impl Fn(InputContext, Conn) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let begin = |conn: Conn, permit| {
        cx.totals.pipeline.connections.fetch_add(1, Relaxed);
        let (tls, serve, connection_cx) = (tls.clone(), serve.clone(), cx.clone());
        cx.tasks.spawn(format!("{} connection", cx.label), async move {
            let _permit = permit;
            if let Some(conn) = open(conn, tls.as_ref(), &connection_cx).await {
                serve(connection_cx, conn).await;
            }
        });
    };
    let mut stop = cx.stop.clone();
    loop {
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            listener.accept().await.map(|conn| (conn, permit.ok()))
        };
        tokio::select! {
            biased;
            _ = stop.draining() => break,
            accepted = accepted => match accepted {
                Ok((conn, permit)) => begin(conn, permit),
                Err(e) => {
                    tracing::warn!(input = %cx.label, cause = %e, "cannot accept a connection, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            },
        }
    }
    // Those that the kernel has queued are served: their clients believe that they are connected.
    listener.close_for_drain().into_iter().for_each(|conn| begin(conn, None));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::{forward, testing};

    #[test]
    fn an_error_of_tls_stands_at_the_key_that_it_names_before_one_whose_value_it_lists() {
        let keys = [
            ("tls", "on"),
            ("tls.min_version", "TLSv1.2"),
            ("tls.max_version", "x"),
            ("tls.crt_file", "/no/cert"),
        ];
        let settings = testing::settings(&forward::KIND.info, &keys);
        for (message, line) in [
            ("tls.max_version \"x\" is not offered; use TLSv1.2 or TLSv1.3", 4),
            ("cannot read /no/cert: not found", 5),
            ("something else", 2),
        ] {
            let mut diags = Diagnostics::new();
            settings.error_among(&mut diags, TLS_SPOKEN_OF, message);
            let said = diags.iter().map(ToString::to_string).collect::<String>();
            assert!(said.starts_with(&format!("test.conf:{line}: ")), "{said}");
        }
    }
}
