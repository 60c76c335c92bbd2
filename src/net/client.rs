//! Connections that we make: TCP, TLS over it, unix sockets.
//!
//! Enters: where to, and how long that may take. Leaves: a connection that reads and writes at once. Can go wrong: the
//! name does not resolve, nobody listens, the certificate is not trusted; the message says what to look at.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::{ClientTls, Proxy};

/// Bytes of one read: what comes back to a client is small.
const READ: usize = 2048;
/// How long a polite end may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `host:port`; host is an address or a name.
    Tcp(String, u16),
    /// A unix socket.
    Unix(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Target::Tcp(host, port) => write!(f, "{host}:{port}"),
            Target::Unix(path) => f.write_str(path),
        }
    }
}

/// `net.tcp_keepalive` and its numbers; `None`: the kernel's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Between probes.
    pub interval: Option<Duration>,
    /// How many.
    pub probes: Option<u32>,
}

/// How connections are made.
#[derive(Clone)]
pub struct Dialer {
    /// Where to.
    pub target: Target,
    /// The HTTP proxy that makes the connection, if any.
    pub via: Option<Proxy>,
    /// TLS, if any.
    pub tls: Option<ClientTls>,
    /// `net.connect_timeout`, TLS included.
    pub timeout: Duration,
    /// `net.source_address`
    pub source: Option<IpAddr>,
    /// `net.tcp_keepalive`
    pub keepalive: Option<TcpKeepalive>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that we made.
#[derive(Debug)]
pub struct ClientConn(Stream);

/// What a [`ClientConn::step`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// So many bytes came; 0: the peer has closed.
    Read(usize),
    /// So many bytes were taken.
    Wrote(usize),
    /// Everything that was taken before is out.
    Flushed,
}

impl Dialer {
    /// Connects.
    ///
    /// # Errors
    /// What is wrong and what to do.
    pub async fn connect(&self) -> Result<ClientConn, String> {
        match tokio::time::timeout(self.timeout, self.dial()).await {
            Ok(result) => result,
            Err(_) => Err(format!(
                "no connection to {} within {:?}; check the address and the firewall (net.connect_timeout)",
                self.target, self.timeout
            )),
        }
    }

    async fn dial(&self) -> Result<ClientConn, String> {
        let target = &self.target;
        let hint = |e: &io::Error| match e.kind() {
            io::ErrorKind::ConnectionRefused => {
                "; nobody listens there: start the receiver, or check the address"
            }
            io::ErrorKind::NotFound => "; the socket does not exist: start the receiver, or check Unix_Path",
            io::ErrorKind::PermissionDenied => "; check its permissions",
            _ => "",
        };
        let failed = |e: io::Error| format!("cannot connect to {target}: {e}{}", hint(&e));
        match target {
            Target::Unix(path) => {
                UnixStream::connect(path).await.map(|s| ClientConn(Stream::Unix(s))).map_err(failed)
            }
            Target::Tcp(host, port) => {
                let stream = match &self.via {
                    None => self.reach(host, *port).await?.map_err(failed)?,
                    Some(proxy) => {
                        let reached = self.reach(&proxy.host, proxy.port).await?;
                        let mut stream =
                            reached.map_err(|e| format!("cannot connect to the proxy {proxy}: {e}"))?;
                        proxy.tunnel(&mut stream, target).await?;
                        stream
                    }
                };
                self.secure(stream, host).await
            }
        }
    }

    /// Connects to the first of the name's addresses that takes it.
    async fn reach(&self, host: &str, port: u16) -> Result<io::Result<TcpStream>, String> {
        let addresses = tokio::net::lookup_host((host, port))
            .await
            .map_err(|e| format!("cannot resolve {host}: {e}; check Host"))?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match self.tcp(address).await {
                Ok(stream) => return Ok(Ok(stream)),
                Err(e) => last = e,
            }
        }
        Ok(Err(last))
    }

    async fn tcp(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = self.source.filter(|s| s.is_ipv4() == address.is_ipv4()) {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(address).await?;
        // Messages are whole writes and must not wait for company.
        stream.set_nodelay(true)?;
        if let Some(keepalive) = self.keepalive {
            sockopt::set_socket_keepalive(&stream, true)?;
            if let Some(time) = keepalive.time {
                sockopt::set_tcp_keepidle(&stream, time)?;
            }
            if let Some(interval) = keepalive.interval {
                sockopt::set_tcp_keepintvl(&stream, interval)?;
            }
            if let Some(probes) = keepalive.probes {
                sockopt::set_tcp_keepcnt(&stream, probes)?;
            }
        }
        Ok(stream)
    }

    async fn secure(&self, stream: TcpStream, host: &str) -> Result<ClientConn, String> {
        let Some(tls) = &self.tls else { return Ok(ClientConn(Stream::Tcp(stream))) };
        match tls.connect(stream, host).await {
            Ok(stream) => Ok(ClientConn(Stream::Tls(Box::new(stream)))),
            Err(e) => Err(format!(
                "TLS with {} failed: {e}; check tls.ca_file, tls.vhost and that the peer speaks TLS",
                self.target
            )),
        }
    }
}

impl ClientConn {
    /// Reads what comes into `input`, else writes some of `out`, else flushes if asked to; whichever can be done first.
    /// Dropped before it is done, it has done nothing.
    ///
    /// # Errors
    /// The socket's.
    pub async fn step(&mut self, out: &[IoSlice<'_>], flush: bool, input: &mut BytesMut) -> io::Result<Did> {
        std::future::poll_fn(|cx| self.poll_step(cx, out, flush, input)).await
    }

    fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
        out: &[IoSlice<'_>],
        flush: bool,
        input: &mut BytesMut,
    ) -> Poll<io::Result<Did>> {
        let mut room = [0; READ];
        let mut room = ReadBuf::new(&mut room);
        match self.poll_read(cx, &mut room) {
            Poll::Ready(Ok(())) => {
                input.extend_from_slice(room.filled());
                return Poll::Ready(Ok(Did::Read(room.filled().len())));
            }
            // A peer that closes without close_notify has closed all the same.
            Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Poll::Ready(Ok(Did::Read(0)));
            }
            Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
            Poll::Pending => {}
        }
        if !out.is_empty() {
            let n = ready!(self.poll_write(cx, out))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            return Poll::Ready(Ok(Did::Wrote(n)));
        }
        if flush {
            ready!(self.poll_flush(cx))?;
            return Poll::Ready(Ok(Did::Flushed));
        }
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Stream::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Stream::Tcp(s) => Pin::new(s).poll_write_vectored(cx, out),
            Stream::Unix(s) => Pin::new(s).poll_write_vectored(cx, out),
            Stream::Tls(s) => Pin::new(s).poll_write_vectored(cx, out),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Stream::Tcp(s) => Pin::new(s).poll_flush(cx),
            Stream::Unix(s) => Pin::new(s).poll_flush(cx),
            Stream::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    /// Writes everything and flushes.
    ///
    /// # Errors
    /// The socket's.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Stream::Tcp(s) => s.write_all(bytes).await,
            Stream::Unix(s) => s.write_all(bytes).await,
            Stream::Tls(s) => {
                s.write_all(bytes).await?;
                s.flush().await
            }
        }
    }

    /// Asks the kernel, not the runtime, whose idea of the socket may be behind: is there something to read, bytes or
    /// the peer's end?
    pub fn has_news(&self) -> bool {
        let mut byte = [0; 1];
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        let peeked = match &self.0 {
            Stream::Tcp(s) => rustix::net::recv(s, &mut byte, flags),
            Stream::Unix(s) => rustix::net::recv(s, &mut byte, flags),
            Stream::Tls(s) => rustix::net::recv(s.get_ref().0, &mut byte, flags),
        };
        !matches!(peeked, Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR))
    }

    /// Ends the connection politely; what was written is still delivered.
    pub async fn close(mut self) {
        let ending = async {
            match &mut self.0 {
                Stream::Tcp(s) => s.shutdown().await,
                Stream::Unix(s) => s.shutdown().await,
                Stream::Tls(s) => s.shutdown().await,
            }
        };
        // A peer that is gone already is as good as closed.
        let _gone = tokio::time::timeout(GOODBYE, ending).await;
    }
}

impl AsyncRead for ClientConn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ClientConn::poll_read(&mut self, cx, buf)
    }
}

impl AsyncWrite for ClientConn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ClientConn::poll_write(&mut self, cx, &[IoSlice::new(buf)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ClientConn::poll_flush(&mut self, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Stream::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Stream::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Stream::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ClientConn::poll_write(&mut self, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
