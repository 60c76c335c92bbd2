//! One accepted connection.
//!
//! Enters: bytes of a peer. Leaves: the same bytes, in a buffer that is asked for only when there is something to read.
//! Can go wrong: the peer goes away, or its TLS is broken.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{BufMut, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::ServerTls;

/// A connection of any kind.
#[derive(Debug)]
pub struct Conn {
    stream: Stream,
    peer: String,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Conn {
    pub(super) fn tcp(stream: TcpStream, peer: String) -> Self {
        // Acks are small and must not wait for company. A socket that refuses the option works without.
        let _refused = stream.set_nodelay(true);
        Conn { stream: Stream::Tcp(stream), peer }
    }

    pub(super) fn unix(stream: UnixStream) -> Self {
        Conn { stream: Stream::Unix(stream), peer: "unix".into() }
    }

    /// The peer's address, or `unix`.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Waits until [`Conn::try_read`] may have something. Holds no buffer meanwhile.
    ///
    /// # Errors
    /// The socket's.
    pub async fn readable(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(s) => s.readable().await,
            Stream::Unix(s) => s.readable().await,
            Stream::Tls(s) => {
                let (tcp, tls) = s.get_ref();
                // Decrypted bytes may be waiting while the socket is quiet.
                if tls.wants_read() { tcp.readable().await } else { Ok(()) }
            }
        }
    }

    /// Reads what is there into the spare room of `buf`, at most `most` bytes; `WouldBlock` when nothing is.
    ///
    /// # Errors
    /// The socket's.
    pub fn try_read(&mut self, buf: &mut BytesMut, most: usize) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Tcp(s) => try_read(s, buf, most),
            Stream::Unix(s) => try_read(s, buf, most),
            Stream::Tls(s) => try_read(s.as_mut(), buf, most),
        }
    }

    /// Waits for bytes and reads some.
    ///
    /// # Errors
    /// The socket's.
    pub async fn read(&mut self, buf: &mut BytesMut) -> io::Result<usize> {
        buf.reserve(1024);
        match &mut self.stream {
            Stream::Tcp(s) => s.read_buf(buf).await,
            Stream::Unix(s) => s.read_buf(buf).await,
            Stream::Tls(s) => s.read_buf(buf).await,
        }
    }

    /// Waits until [`Conn::try_write`] may get on.
    ///
    /// # Errors
    /// The socket's.
    pub async fn writable(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(s) => s.writable().await,
            Stream::Unix(s) => s.writable().await,
            Stream::Tls(s) => s.get_ref().0.writable().await,
        }
    }

    /// Writes what is taken of `bytes` at once, in one write; `WouldBlock` when that is nothing. What TLS has taken may wait
    /// for the socket: [`Conn::has_unsent`].
    ///
    /// # Errors
    /// The socket's.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = match &mut self.stream {
            Stream::Tcp(s) => return s.try_write(bytes),
            Stream::Unix(s) => return s.try_write(bytes),
            Stream::Tls(s) => at_once(|cx| Pin::new(s.as_mut()).poll_write(cx, bytes)),
        };
        match taken {
            Poll::Ready(taken) => {
                let taken = taken?;
                self.try_send()?;
                Ok(taken)
            }
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Whether bytes that were taken wait for the socket.
    pub fn has_unsent(&self) -> bool {
        match &self.stream {
            Stream::Tls(s) => s.get_ref().1.wants_write(),
            Stream::Tcp(_) | Stream::Unix(_) => false,
        }
    }

    /// Sends of what waits for the socket as much as it takes.
    ///
    /// # Errors
    /// The socket's.
    pub fn try_send(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tls(s) => match at_once(|cx| Pin::new(s.as_mut()).poll_flush(cx)) {
                Poll::Ready(sent) => sent,
                Poll::Pending => Ok(()),
            },
            Stream::Tcp(_) | Stream::Unix(_) => Ok(()),
        }
    }

    /// Writes everything in as few writes as the socket takes.
    ///
    /// # Errors
    /// The socket's.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(s) => s.write_all(bytes).await,
            Stream::Unix(s) => s.write_all(bytes).await,
            Stream::Tls(s) => {
                s.write_all(bytes).await?;
                s.flush().await
            }
        }
    }

    /// On a unix socket: the peer's next write fails, what it has written can still be read to the end. Says whether
    /// that was done (it cannot be on TCP).
    pub fn shutdown_read(&self) -> bool {
        match &self.stream {
            Stream::Unix(s) => rustix::net::shutdown(s, rustix::net::Shutdown::Read).is_ok(),
            Stream::Tcp(_) | Stream::Tls(_) => false,
        }
    }

    /// A way to learn that the peer has closed the connection, also while bytes of it wait to be read. It takes a
    /// descriptor of its own.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn hang_up(&self) -> io::Result<HangUp> {
        Ok(HangUp(self.socket().try_clone_to_owned()?))
    }

    /// Ends the connection for the peer, both ways; what is left of it here goes on.
    pub fn close(&self) {
        // It may be closed already.
        let _closed = rustix::net::shutdown(self.socket(), rustix::net::Shutdown::Both);
    }

    fn socket(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Tcp(s) => s.as_fd(),
            Stream::Unix(s) => s.as_fd(),
            Stream::Tls(s) => s.get_ref().0.as_fd(),
        }
    }

    /// Makes a TCP connection a TLS one. `None` when the peer left without a word (a health check).
    ///
    /// # Errors
    /// What is wrong with the peer's handshake.
    pub async fn accept_tls(self, tls: &ServerTls) -> Result<Option<Conn>, String> {
        match self.stream {
            Stream::Tcp(stream) => {
                let mut probe = [0; 1];
                if matches!(stream.peek(&mut probe).await, Ok(0) | Err(_)) {
                    return Ok(None);
                }
                let stream = tls.accept(stream).await.map_err(|e| refusal(&e))?;
                Ok(Some(Conn { stream: Stream::Tls(Box::new(stream)), peer: self.peer }))
            }
            stream @ (Stream::Unix(_) | Stream::Tls(_)) => Ok(Some(Conn { stream, peer: self.peer })),
        }
    }
}

/// Polls once, with a waker that is idle: `writable` is what waits. Not under tokio's budget for a task: used up, it would say
/// that the socket takes nothing while `writable` says that it does.
fn at_once<T>(poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    pin!(tokio::task::coop::unconstrained(std::future::poll_fn(poll)))
        .poll(&mut Context::from_waker(Waker::noop()))
}

/// Why a client's handshake came to nothing, in words that it can act on.
fn refusal(e: &io::Error) -> String {
    let text = e.to_string();
    if e.kind() == io::ErrorKind::UnexpectedEof {
        return "TLS handshake failed: the client left in the midst of it".to_owned();
    }
    if text.contains("UnsupportedCertVersion") {
        return "TLS handshake failed: the client's certificate is of X.509 version 1, which is not taken; one with extensions \
                (openssl x509 -req -extfile FILE) is of version 3"
            .to_owned();
    }
    format!("TLS handshake failed: {text}")
}

/// See [`Conn::hang_up`].
#[derive(Debug)]
pub struct HangUp(OwnedFd);

impl HangUp {
    /// Of any descriptor with two ends.
    #[cfg(test)]
    pub(crate) fn of(fd: OwnedFd) -> Self {
        HangUp(fd)
    }

    /// Whether the peer has closed the connection, or its half of it. One `poll`, without waiting.
    pub fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // HUP and ERR are told unasked. A poll that fails tells nothing.
        poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0)
    }
}

/// For libraries that read and write by themselves.
impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Tls(s) => match Pin::new(s.as_mut()).poll_read(cx, buf) {
                // A peer that closes without close_notify has closed all the same.
                Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                other => other,
            },
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(s) => Pin::new(s).poll_write(cx, bytes),
            Stream::Unix(s) => Pin::new(s).poll_write(cx, bytes),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(s) => Pin::new(s).poll_flush(cx),
            Stream::Unix(s) => Pin::new(s).poll_flush(cx),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Stream::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
        }
    }
}

/// Not the stream's own `try_read_buf`: that one believes that there is more after a short read, so that every read
/// would be followed by one that finds nothing.
fn try_read<S: AsyncRead + Unpin>(stream: &mut S, buf: &mut BytesMut, most: usize) -> io::Result<usize> {
    // The waker is idle: `readable` is what waits, on the socket itself.
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(stream.read_buf(&mut buf.limit(most))).poll(&mut cx) {
        Poll::Ready(Ok(n)) => Ok(n),
        // A peer that closes without close_notify has closed all the same.
        Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        Poll::Ready(Err(e)) => Err(e),
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
