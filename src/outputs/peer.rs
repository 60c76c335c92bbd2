//! What outputs that have a peer read alike: `net.*` and `tls.*`.
//!
//! Enters: settings. Leaves: how to connect. Can go wrong: a bad address or file, reported where it stands.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::{Diagnostics, Settings, TLS_SPOKEN_OF};
use crate::net::{ClientTls, ClientTlsFiles, TcpKeepalive};

/// `net.*`
#[derive(Clone, Debug)]
pub(super) struct Net {
    /// How long connecting may take, TLS included.
    pub(super) connect: Duration,
    /// How long a write may stand still; `None`: for ever.
    pub(super) io: Option<Duration>,
    /// How long an idle connection is kept; `None`: not at all.
    pub(super) idle: Option<Duration>,
    /// A connection is used so often; 0: any number of times.
    pub(super) recycle: u64,
    /// Our own address.
    pub(super) source: Option<IpAddr>,
    /// The kernel's probes.
    pub(super) keepalive: Option<TcpKeepalive>,
}

/// Reads `net.*`.
pub(super) fn net(s: &Settings, diags: &mut Diagnostics) -> Option<Net> {
    let source = match s.str("net.source_address").map(str::parse) {
        None => None,
        Some(Ok(address)) => Some(address),
        Some(Err(_)) => {
            s.error(diags, "net.source_address", "net.source_address is an address of this machine");
            return None;
        }
    };
    // Negative: the kernel's.
    let number = |key| s.int(key).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    let seconds = |key| number(key).map(|n| Duration::from_secs(n.into()));
    let keepalive = s.bool("net.tcp_keepalive").then(|| TcpKeepalive {
        time: seconds("net.tcp_keepalive_time"),
        interval: seconds("net.tcp_keepalive_interval"),
        probes: number("net.tcp_keepalive_probes"),
    });
    let time = |key| s.time(key).filter(|t| !t.is_zero());
    Some(Net {
        connect: time("net.connect_timeout").unwrap_or(Duration::from_secs(10)),
        io: time("net.io_timeout"),
        idle: s.bool("net.keepalive").then(|| s.time("net.keepalive_idle_timeout").unwrap_or_default()),
        recycle: s.int("net.keepalive_max_recycle").and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
        source,
        keepalive,
    })
}

/// Reads `tls.*` and the files they name.
pub(super) fn client_tls(s: &Settings, verify_hostname: bool, diags: &mut Diagnostics) -> Option<ClientTls> {
    let files = ClientTlsFiles {
        verify: s.bool("tls.verify"),
        verify_hostname,
        ca_file: s.str("tls.ca_file"),
        ca_path: s.str("tls.ca_path"),
        cert: s.str("tls.crt_file"),
        key: s.str("tls.key_file"),
        vhost: s.str("tls.vhost"),
        min_version: s.str("tls.min_version"),
        max_version: s.str("tls.max_version"),
    };
    match ClientTls::new(&files) {
        Ok(tls) => Some(tls),
        Err(e) => {
            s.error_among(diags, TLS_SPOKEN_OF, &e);
            None
        }
    }
}
