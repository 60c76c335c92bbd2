//! A listener at ECS's own address inside another network namespace.
//!
//! Enters: a process that lives there. Leaves: a socket that listens on 169.254.170.2:80 there, and is served from here: a
//! socket stays in the namespace where it was made. The address is put on the namespace's loopback, so it belongs to that
//! task alone and no packet leaves the machine. Can go wrong: we are not root, the process is gone, the namespace is the
//! machine's own (which must not get that address), or somebody listens there.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::watch;

use super::directory::Directory;
use super::server::serve;

/// Where containers of ECS ask.
pub const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 170, 2), 80);

/// The loopback device is the first of every namespace.
const LOOPBACK: u32 = 1;
// linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const ERROR: u16 = 2;
const REQUEST_WITH_ANSWER: u16 = 1 | 4;
const MADE_NEW: u16 = 0x200 | 0x400;
const UP: u32 = 1;
const SCOPE_HOST: u8 = 254;
const IPV4: u8 = 2;
const ATTRIBUTE_ADDRESS: u16 = 1;
const ATTRIBUTE_LOCAL: u16 = 2;
const HEADER: usize = 16;

/// Answers in a namespace, as long as it lives.
#[derive(Debug)]
pub struct Serving {
    _end: watch::Sender<()>,
}

/// Answers at [`ADDRESS`] in the network namespace of a process, until what this gives is dropped.
///
/// # Errors
/// See [`listener_in`].
pub async fn serve_in(pid: i32, directory: &Arc<Directory>) -> io::Result<Serving> {
    let listener = tokio::task::spawn_blocking(move || listener_in(pid)).await??;
    let (end, mut ended) = watch::channel(());
    let served = serve(listener, Arc::clone(directory));
    directory.spawner.spawn("the metadata endpoint of a task", async move {
        tokio::select! {
            // Its sender is gone.
            _ = ended.changed() => {}
            Err(e) = served => tracing::warn!(pid, cause = %e, "the metadata endpoint of a task has ended"),
        }
    });
    Ok(Serving { _end: end })
}

/// Listens on [`ADDRESS`] in the network namespace of a process. Blocks for some milliseconds.
///
/// # Errors
/// With what was tried; `PermissionDenied` where we are not root.
pub fn listener_in(pid: i32) -> io::Result<TcpListener> {
    within(pid, || {
        loopback_up().map_err(|e| said("cannot start the loopback device", &e))?;
        add_address(*ADDRESS.ip())
            .map_err(|e| said(&format!("cannot add the address {}", ADDRESS.ip()), &e))?;
        TcpListener::bind(ADDRESS).map_err(|e| said(&format!("cannot listen on {ADDRESS}"), &e))
    })
}

fn said(what: &str, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{what}: {e}"))
}

/// Runs `work` on a thread that is in the network namespace of a process, and ends with it.
fn within<T: Send + 'static>(
    pid: i32,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let path = format!("/proc/{pid}/ns/net");
    let theirs = File::open(&path).map_err(|e| said(&format!("cannot open {path}"), &e))?;
    let ours = File::open("/proc/thread-self/ns/net")?;
    let id = |file: &File| file.metadata().map(|m| (m.dev(), m.ino()));
    if id(&theirs)? == id(&ours)? {
        let text = format!(
            "process {pid} has the machine's own network; only a namespace of a task gets the address"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let thread = std::thread::Builder::new().name("namespace".to_owned()).spawn(move || {
        move_into_link_name_space(theirs.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| said("cannot enter the task's network namespace", &e.into()))?;
        work()
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
}

fn loopback_up() -> io::Result<()> {
    let mut body = vec![0, 0];
    body.extend(0_u16.to_ne_bytes());
    body.extend(LOOPBACK.to_ne_bytes());
    // The flags, and which of them are meant.
    body.extend(UP.to_ne_bytes());
    body.extend(UP.to_ne_bytes());
    ask(NEW_LINK, 0, &body)
}

fn add_address(address: Ipv4Addr) -> io::Result<()> {
    let mut body = vec![IPV4, 32, 0, SCOPE_HOST];
    body.extend(LOOPBACK.to_ne_bytes());
    for attribute in [ATTRIBUTE_LOCAL, ATTRIBUTE_ADDRESS] {
        body.extend(8_u16.to_ne_bytes());
        body.extend(attribute.to_ne_bytes());
        body.extend(address.octets());
    }
    match ask(NEW_ADDRESS, MADE_NEW, &body) {
        // From an agent before us.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// One request to the kernel's rtnetlink, and its answer.
fn ask(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    // Protocol 0 of netlink is rtnetlink.
    let socket: OwnedFd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let len = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(len.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST_WITH_ANSWER | flags).to_ne_bytes());
    // Its number, and ours, which the kernel knows.
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 1024];
    let (len, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    let answer = answer.get(..len).unwrap_or_default();
    let half = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let code = answer.get(HEADER..HEADER + 4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    match (half(4), code) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(io::Error::other("the kernel's answer is none of rtnetlink's")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpStream;
    use std::process::{Child, Command, Stdio};

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            // It may have ended by itself.
            let _gone = self.0.kill();
            let _gone = self.0.wait();
        }
    }

    #[allow(clippy::print_stderr, reason = "says why a test has not run")]
    fn skipped(why: &str) {
        eprintln!("skipped: {why}");
    }

    /// A process in a network namespace of its own; `None`, and why, where there can be none.
    fn unshared() -> Option<(Killed, i32)> {
        if !rustix::process::geteuid().is_root() {
            skipped("only root may enter a network namespace");
            return None;
        }
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo up; read x"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => Killed(child),
            Err(e) => {
                skipped(&format!("no unshare here: {e}"));
                return None;
            }
        };
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "up\n" {
            skipped("this machine gives no network namespace");
            return None;
        }
        let pid = i32::try_from(child.0.id()).unwrap();
        Some((child, pid))
    }

    #[test]
    fn a_task_reaches_ecss_address_in_its_own_namespace_and_nobody_else_does() {
        let Some((_child, pid)) = unshared() else { return };
        let listener = listener_in(pid).unwrap();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"hello").unwrap();
            listener
        });
        let heard = within(pid, || {
            let mut text = String::new();
            TcpStream::connect(ADDRESS)?.read_to_string(&mut text)?;
            Ok(text)
        });
        assert_eq!(heard.unwrap(), "hello");
        let listener = serving.join().unwrap();
        assert!(listener_in(pid).unwrap_err().to_string().contains("cannot listen on 169.254.170.2:80"));
        // Another agent finds the address there.
        drop(listener);
        listener_in(pid).unwrap();
    }

    #[tokio::test]
    async fn a_namespace_is_served_until_nobody_wants_it() {
        let Some((_child, pid)) = unshared() else { return };
        let tasks = crate::rt::Tasks::new();
        let directory = Directory::new(&tasks);
        let serving = serve_in(pid, &directory).await.unwrap();
        let ask = move || {
            within(pid, || {
                let mut stream = TcpStream::connect(ADDRESS)?;
                stream.write_all(b"GET /v4/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
                let mut text = String::new();
                stream.read_to_string(&mut text)?;
                Ok(text)
            })
        };
        let heard = tokio::task::spawn_blocking(ask).await.unwrap().unwrap();
        assert!(heard.starts_with("HTTP/1.1 404 "), "{heard}");
        drop(serving);
        tasks.all_ended().await;
        assert!(ask().is_err());
    }

    #[test]
    fn the_machines_own_network_does_not_get_the_address() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(listener_in(own).unwrap_err().to_string().contains("the machine's own network"));
    }
}
