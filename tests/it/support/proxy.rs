//! An HTTP proxy that takes everything to one address, whatever it is asked for, and remembers what that was.
//!
//! Enters: CONNECT, and requests with whole addresses. Leaves: bytes to and from the address. Can go wrong: a user that is
//! not the one it wants; it answers 407.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The proxy; its thread ends with the process.
pub(crate) struct Proxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// One that goes to this port of the machine, and lets in whoever has these credentials (in Base64), if any.
    pub(crate) fn to(upstream: u16, user: Option<&'static str>) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = Arc::clone(&heard);
                std::thread::spawn(move || serve(stream, upstream, user, &heard));
            }
        });
        Proxy { port, asked }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// First lines of what it was asked, one for each connection.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut client: TcpStream, upstream: u16, user: Option<&str>, heard: &Mutex<Vec<String>>) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let text = String::from_utf8(head.clone()).ok()?;
    heard.lock().unwrap().push(text.lines().next()?.to_owned());
    let wanted = user.map(|user| format!("\r\nproxy-authorization: basic {}\r\n", user.to_ascii_lowercase()));
    if wanted.is_some_and(|wanted| !text.to_ascii_lowercase().contains(&wanted)) {
        client.write_all(b"HTTP/1.1 407 Who are you?\r\nContent-Length: 0\r\n\r\n").ok()?;
        return None;
    }
    let mut server = TcpStream::connect(("127.0.0.1", upstream)).ok()?;
    if text.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").ok()?;
    } else {
        // What a proxy makes of it: the path alone. One request a connection is enough here.
        let (method, rest) = text.split_once(" http://")?;
        let (_, path) = rest.split_once('/')?;
        let without: String =
            path.split_inclusive("\r\n").filter(|l| !l.to_ascii_lowercase().starts_with("proxy-")).collect();
        server.write_all(format!("{method} /{without}").as_bytes()).ok()?;
    }
    let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    let there = std::thread::spawn(move || {
        let _over = std::io::copy(&mut from, &mut to);
        let _gone = to.shutdown(Shutdown::Write);
    });
    let _over = std::io::copy(&mut server, &mut client);
    let _gone = client.shutdown(Shutdown::Both);
    there.join().ok()
}
