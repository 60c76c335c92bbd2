//! A listening socket, TCP or unix.
//!
//! Enters: an address or a path. Leaves: connections. Can go wrong: the address is taken, the path is no socket of ours,
//! file descriptors run out.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::SocketFlags;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

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
    Unix { listener: UnixListener, path: PathBuf, file: FileId },
}

/// Device and inode of a socket file: whose path it is.
type FileId = (u64, u64);

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
            Ok(meta) if meta.file_type().is_socket() => replace_stale(file).await?,
            Ok(_) => {
                return Err(format!("cannot listen on {path}: it exists and is no socket; move it away"));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(dir) = file.parent().filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
                    return Err(format!(
                        "cannot listen on {path}: directory {} does not exist; create it",
                        dir.display()
                    ));
                }
            }
            Err(e) => return Err(format!("cannot look at {path}: {e}")),
        }
        let listen = || -> io::Result<(UnixListener, FileId)> {
            let listener = UnixListener::bind(file)?;
            rustix::net::listen(&listener, BACKLOG as i32)?;
            if let Some(perm) = perm {
                fs::set_permissions(file, fs::Permissions::from_mode(perm))?;
            }
            let meta = fs::symlink_metadata(file)?;
            Ok((listener, (meta.dev(), meta.ino())))
        };
        let (listener, id) = listen().map_err(|e| format!("cannot listen on {path}: {e}"))?;
        Ok(Listener { kind: Kind::Unix { listener, path: file.to_owned(), file: id }, name: path.to_owned() })
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
    pub fn close_for_drain(self) -> Vec<Conn> {
        match &self.kind {
            Kind::Tcp(listener) => queued(listener, |socket| {
                let stream = std::net::TcpStream::from(socket);
                let from = stream.peer_addr()?;
                Ok(Conn::tcp(TcpStream::from_std(stream)?, from.to_string()))
            }),
            Kind::Unix { listener, path, file } => {
                // The path may already be the next process's.
                if fs::symlink_metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == *file)
                    && let Err(e) = fs::remove_file(path)
                {
                    tracing::debug!(path = %path.display(), cause = %e, "cannot remove the socket");
                }
                // Connects fail from here on; those in the queue are still handed out.
                if let Err(e) = rustix::net::shutdown(listener, rustix::net::Shutdown::Read) {
                    tracing::debug!(path = %path.display(), cause = %e, "cannot stop listening");
                }
                queued(listener, |socket| {
                    Ok(Conn::unix(UnixStream::from_std(std::os::unix::net::UnixStream::from(socket))?))
                })
            }
        }
    }
}

/// Empties the kernel's queue. The socket is asked itself: the runtime's idea of its readiness may be behind.
fn queued(listener: impl AsFd, wrap: impl Fn(OwnedFd) -> io::Result<Conn>) -> Vec<Conn> {
    let mut found = Vec::new();
    loop {
        match rustix::net::accept_with(&listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(socket) => match wrap(socket) {
                Ok(conn) => found.push(conn),
                // It left while it waited.
                Err(e) => tracing::debug!(cause = %e, "a queued connection is gone"),
            },
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            // A unix socket that has been shut down says INVAL when its queue is empty.
            Err(Errno::AGAIN | Errno::INVAL) => return found,
            Err(e) => {
                tracing::warn!(cause = %e, "connections that were waiting to be accepted are lost");
                return found;
            }
        }
    }
}

/// Removes a socket file that nobody listens on. Only a refused connection proves that.
async fn replace_stale(file: &Path) -> Result<(), String> {
    let path = file.display();
    match UnixStream::connect(file).await {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(file).map_err(|e| format!("cannot replace the stale socket {path}: {e}"))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Err(format!("cannot tell whether the socket {path} is in use: {e}; remove it if it is not"))
        }
        // A full queue, or a datagram socket: somebody is there.
        Ok(_) | Err(_) => {
            Err(format!("cannot listen on {path}: another process listens there; stop it first"))
        }
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
        let listener = Listener::unix(&path, None).await.unwrap();
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
    async fn a_whole_queue_is_handed_out_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s").display().to_string();
        let listener = Listener::unix(&path, None).await.unwrap();
        // More than a task may accept before it has to yield, and never polled before.
        let clients: Vec<_> =
            (0..300).map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap()).collect();
        assert_eq!(listener.close_for_drain().len(), clients.len());

        let listener = Listener::tcp("127.0.0.1", 0).await.unwrap();
        let clients: Vec<_> =
            (0..300).map(|_| std::net::TcpStream::connect(listener.name()).unwrap()).collect();
        assert_eq!(listener.close_for_drain().len(), clients.len());
    }

    #[tokio::test]
    async fn a_path_that_belongs_to_the_next_process_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s").display().to_string();
        let old = Listener::unix(&path, None).await.unwrap();
        fs::remove_file(&path).unwrap();
        let _new = Listener::unix(&path, None).await.unwrap();
        assert!(old.close_for_drain().is_empty());
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn only_a_socket_that_refuses_is_taken_for_stale() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let name = path.display().to_string();
        let _datagrams = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        assert!(Listener::unix(&name, None).await.unwrap_err().contains("another process listens there"));
        let file = dir.path().join("f").display().to_string();
        fs::write(&file, "precious").unwrap();
        assert!(Listener::unix(&file, None).await.unwrap_err().contains("is no socket"));
        let nowhere = dir.path().join("no/s").display().to_string();
        assert!(Listener::unix(&nowhere, None).await.unwrap_err().contains("does not exist; create it"));
    }

    #[tokio::test]
    async fn permissions_are_those_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = Listener::unix(&path.display().to_string(), Some(0o622)).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o622);
    }

    #[tokio::test]
    async fn a_taken_port_says_what_to_do() {
        let first = Listener::tcp("127.0.0.1", 0).await.unwrap();
        let port = first.name().rsplit(':').next().unwrap().parse().unwrap();
        let e = Listener::tcp("127.0.0.1", port).await.unwrap_err();
        assert!(e.contains("another process listens there"), "{e}");
    }

    #[tokio::test]
    async fn a_path_too_long_for_a_socket_says_so() {
        let e = Listener::unix(&"x".repeat(120), None).await.unwrap_err();
        assert!(e.contains("107 fit"), "{e}");
    }
}
