//! A receiver of forward messages that misbehaves as told.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use firelane::wire::forward::{Body, Decoder, Next, each};
use firelane::wire::msgpack;

use super::{LIMIT, eventually, forward};

/// What it does with a message that it has read.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Acks it.
    Ack,
    /// Says nothing.
    Silence,
    /// Keeps it to itself until the next `Reversed`.
    Keep,
    /// Acks this one and then what it has kept, the newest first.
    Reversed,
    /// Sends these bytes and acks it then.
    Say(Vec<u8>),
    /// Closes the connection.
    Close,
}

/// A message: connection, `log` values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) connection: usize,
    pub(crate) logs: Vec<String>,
}

/// A running receiver; it ends with the test.
pub(crate) struct Peer {
    got: Arc<Mutex<Vec<Got>>>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Peer {
    /// Listens on the port and asks `reply` about each message: number of its connection, and number within it.
    pub(crate) fn start(port: u16, reply: impl Fn(usize, usize) -> Reply + Send + Sync + 'static) -> Peer {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let peer = Peer { got: Arc::default(), connections: Arc::default() };
        let (got, connections) = (Arc::clone(&peer.got), Arc::clone(&peer.connections));
        std::thread::spawn(move || {
            let reply = Arc::new(reply);
            for (connection, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                lock(&connections).push(stream.try_clone().unwrap());
                let (got, reply) = (Arc::clone(&got), Arc::clone(&reply));
                std::thread::spawn(move || serve(stream, connection, &got, reply.as_ref()));
            }
        });
        peer
    }

    /// What it has read so far.
    pub(crate) fn got(&self) -> Vec<Got> {
        lock(&self.got).clone()
    }

    /// Waits for so many records, repeated ones counted, and gives their `log` values.
    pub(crate) fn logs(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} records at the peer"), || {
            let logs: Vec<_> = self.got().into_iter().flat_map(|g| g.logs).collect();
            (logs.len() >= count).then_some(logs)
        })
    }

    /// Closes every connection that it has.
    pub(crate) fn close_all(&self) {
        for stream in lock(&self.connections).drain(..) {
            // It may be gone already.
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(
    mut stream: TcpStream,
    connection: usize,
    got: &Mutex<Vec<Got>>,
    reply: &dyn Fn(usize, usize) -> Reply,
) {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let (mut buf, mut kept, mut number) = (Vec::new(), Vec::<Vec<u8>>::new(), 0);
    let mut decoder = Decoder::new(1 << 24);
    loop {
        let frame = match decoder.next(&buf).unwrap() {
            Next::Frame(frame) => frame,
            Next::Incomplete { .. } => {
                let mut room = [0; 65536];
                match stream.read(&mut room) {
                    Ok(0) | Err(_) => return,
                    Ok(n) => buf.extend_from_slice(&room[..n]),
                }
                continue;
            }
            other => panic!("{other:?}"),
        };
        let Body::Forward(run) = frame.body else { panic!("Forward mode is expected: {frame:?}") };
        let run = &buf[run];
        let mut logs = Vec::new();
        each(run, |entry| {
            let record = &run[entry.unwrap().record];
            // {"log": text}
            let (text, _) = msgpack::read(record, 5).unwrap();
            logs.push(String::from_utf8(text.text().unwrap().to_vec()).unwrap());
        });
        let ack = frame.chunk.map(|id| [&b"\x81\xa3ack"[..], &buf[id]].concat()).unwrap_or_default();
        buf.drain(..frame.end);
        lock(got).push(Got { connection, logs });
        let mut say = |bytes: &[u8]| drop(stream.write_all(bytes));
        match reply(connection, number) {
            Reply::Ack => say(&ack),
            Reply::Silence => {}
            Reply::Keep => kept.push(ack),
            Reply::Reversed => {
                say(&ack);
                kept.drain(..).rev().for_each(|ack| say(&ack));
            }
            Reply::Say(bytes) => {
                say(&bytes);
                say(&ack);
            }
            Reply::Close => {
                drop(stream.shutdown(std::net::Shutdown::Both));
                return;
            }
        }
        number += 1;
    }
}

/// An ack for an id that nobody asked about.
pub(crate) fn wrong_ack() -> Vec<u8> {
    forward::ack("AAAAAAAAAAAAAAAAAAAAAA==")
}
