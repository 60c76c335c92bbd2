//! A listening socket, TCP or unix.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::Conn;

/// Connections the kernel queues before they are accepted.
const BACKLOG: u32 = 1024;
/// Longest path of a unix socket (`sun_path` is 108 bytes with its NUL).
const MAX_UNIX_PATH: usize = 107;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    name: String,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix { listener: UnixListener, path: PathBuf, inode: u64 },
}

impl Listener {
    /// Listens on `host:port`; host is an address or a name.
    ///
    /// # Errors
    /// A sentence with the address and what to do.
    pub async fn tcp(host: &str, port: u16) -> Result<Listener, String> {
        let addresses = tokio::net::lookup_host((host, port))
            .await
            .map_err(|e| format!("cannot resolve listen address {host}: {e}"))?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match listen_tcp(address) {
                Ok(listener) => {
                    let name = listener.local_addr().map_or_else(|_| address.to_string(), |a| a.to_string());
                    return Ok(Listener { kind: Kind::Tcp(listener), name });
                }
                Err(e) => last = e,
            }
        }
        let hint = match last.kind() {
            io::ErrorKind::AddrInUse => "; another process listens there: stop it or choose another Port",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: choose another Port",
            _ => "",
        };
        Err(format!("cannot listen on {host}:{port}: {last}{hint}"))
    }

    /// Listens on a unix socket. A socket file that nobody listens on any more is replaced, nothing else is.
    ///
    /// # Errors
    /// A sentence with the path and what to do.
    pub async fn unix(path: &str, perm: Option<u32>) -> Result<Listener, String> {
        if path.len() > MAX_UNIX_PATH {
            return Err(format!(
                "cannot listen on {path}: {} bytes are too long for a unix socket, {MAX_UNIX_PATH} fit; choose a shorter path",
                path.len()
            ));
        }
        let file = Path::new(path);
        match fs::symlink_metadata(file) {
            Ok(meta) if meta.file_type().is_socket() => {
                if tokio::net::UnixStream::connect(file).await.is_ok() {
                    return Err(format!(
                        "cannot listen on {path}: another process listens there; stop it first"
                    ));
                }
                fs::remove_file(file).map_err(|e| format!("cannot replace the stale socket {path}: {e}"))?;
            }
            Ok(_) => {
                return Err(format!("cannot listen on {path}: it exists and is no socket; move it away"));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(dir) = file.parent().filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
                    return Err(format!(
                        "cannot listen on {path}: directory {} does not exist",
                        dir.display()
                    ));
                }
            }
            Err(e) => return Err(format!("cannot look at {path}: {e}")),
        }
        let listen = || -> io::Result<(UnixListener, u64)> {
            let listener = UnixListener::bind(file)?;
            if let Some(perm) = perm {
                fs::set_permissions(file, fs::Permissions::from_mode(perm))?;
            }
            let inode = fs::symlink_metadata(file)?.ino();
            Ok((listener, inode))
        };
        let (listener, inode) = listen().map_err(|e| format!("cannot listen on {path}: {e}"))?;
        Ok(Listener { kind: Kind::Unix { listener, path: file.to_owned(), inode }, name: path.to_owned() })
    }

    /// The address, for log lines; with the real port where 0 was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next connection.
    ///
    /// # Errors
    /// The socket's, for example when no file descriptor is left.
    pub async fn accept(&self) -> io::Result<Conn> {
        match &self.kind {
            Kind::Tcp(l) => l.accept().await.map(|(s, from)| Conn::tcp(s, from.to_string())),
            Kind::Unix { listener, .. } => listener.accept().await.map(|(s, _)| Conn::unix(s)),
        }
    }

    /// Stops listening and gives the connections that the kernel has queued: their clients believe that they are
    /// connected and may have written. On a unix socket no connection can slip in between.
    pub fn close_for_drain(&mut self) -> Vec<Conn> {
        let mut queued = Vec::new();
        match &self.kind {
            Kind::Tcp(listener) => {
                while let Some((stream, from)) = ready(listener.poll_accept(&mut noop())) {
                    queued.push(Conn::tcp(stream, from.to_string()));
                }
            }
            Kind::Unix { listener, path, inode } => {
                // The path may already be the next process's.
                if fs::symlink_metadata(path).is_ok_and(|m| m.ino() == *inode)
                    && let Err(e) = fs::remove_file(path)
                {
                    tracing::debug!(path = %path.display(), cause = %e, "cannot remove the socket");
                }
                // Connects fail from here on; those in the queue are still handed out.
                if let Err(e) = rustix::net::shutdown(listener, rustix::net::Shutdown::Read) {
                    tracing::debug!(path = %path.display(), cause = %e, "cannot stop listening");
                }
                while let Some((stream, _)) = ready(listener.poll_accept(&mut noop())) {
                    queued.push(Conn::unix(stream));
                }
            }
        }
        queued
    }
}

fn noop() -> std::task::Context<'static> {
    std::task::Context::from_waker(std::task::Waker::noop())
}

fn ready<T>(poll: std::task::Poll<io::Result<T>>) -> Option<T> {
    match poll {
        std::task::Poll::Ready(Ok(v)) => Some(v),
        std::task::Poll::Ready(Err(_)) | std::task::Poll::Pending => None,
    }
}

fn listen_tcp(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s").display().to_string();
        let first = Listener::unix(&path, Some(0o600)).await.unwrap();
        let second = Listener::unix(&path, None).await;
        assert!(second.unwrap_err().contains("another process listens there"));
        drop(first);
        Listener::unix(&path, None).await.unwrap();
    }

    #[tokio::test]
    async fn connections_in_the_queue_are_served_after_the_listener_closes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s").display().to_string();
        let mut listener = Listener::unix(&path, None).await.unwrap();
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut queued = listener.close_for_drain();
        assert!(UnixStream::connect(&path).await.is_err());
        let mut buf = bytes::BytesMut::new();
        let mut conn = queued.pop().unwrap();
        conn.read(&mut buf).await.unwrap();
        assert_eq!(&buf[..], b"hello");
        assert!(conn.shutdown_read());
        assert!(client.write_all(b"more").await.is_err());
    }

    #[tokio::test]
    async fn a_path_too_long_for_a_socket_says_so() {
        let e = Listener::unix(&"x".repeat(120), None).await.unwrap_err();
        assert!(e.contains("107 fit"), "{e}");
    }
}
