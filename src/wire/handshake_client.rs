//! The forward protocol's handshake, client side: HELO, PING, PONG.
//!
//! Enters: the server's HELO and PONG bytes. Leaves: the PING and the verdict. A nonce and a salt are any bytes, in a str
//! or a bin: many servers send raw ones as str. The server proves that it knows the key, too. Can go wrong: no HELO, a
//! refusal, a server that does not know the key; the message says which key to look at.

use super::handshake::{digest, equal};
use super::msgpack::{self, Broken, Skip, Value};

/// Largest HELO or PONG.
const MAX: usize = 4096;

/// What a client proves.
#[derive(Clone, Debug)]
pub struct Login {
    /// `Shared_Key`
    pub shared_key: String,
    /// `Self_Hostname`
    pub hostname: String,
    /// `Username`
    pub user: String,
    /// `Password`
    pub password: String,
}

/// One handshake, after the PING.
#[derive(Debug)]
pub struct Waiting<'l> {
    login: &'l Login,
    salt: String,
    nonce: Vec<u8>,
}

/// What was read so far comes to this.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// The message is not whole.
    NeedMore,
    /// Done, and how many bytes that took.
    Done(T, usize),
    /// The server is not to be talked to: why, and what to do.
    Refused(String),
}

fn whole(bytes: &[u8], what: &str) -> Result<Option<usize>, String> {
    match bytes.first() {
        None => return Ok(None),
        Some(0x90..=0x9f) => {}
        Some(_) => {
            return Err(format!("the peer sent no {what}; check Host and Port, and whether it wants TLS"));
        }
    }
    match Skip::at(0).run(bytes, MAX) {
        Ok(end) => Ok(Some(end)),
        Err(Broken::Short) => Ok(None),
        Err(_) => Err(format!("the peer's {what} is malformed")),
    }
}

impl Login {
    /// Reads the HELO and makes the PING. `salt` is random text, new for each handshake.
    pub fn helo(&self, bytes: &[u8], salt: String) -> Step<(Vec<u8>, Waiting<'_>)> {
        let end = match whole(bytes, "HELO") {
            Ok(Some(end)) => end,
            Ok(None) => return Step::NeedMore,
            Err(e) => return Step::Refused(e),
        };
        let Some((nonce, auth)) = read_helo(bytes) else {
            return Step::Refused("the peer sent no HELO; does it use a shared key?".to_owned());
        };
        let mut ping = Vec::with_capacity(512);
        let (host, key) = (self.hostname.as_bytes(), self.shared_key.as_bytes());
        let proof = digest(&[salt.as_bytes(), host, nonce, key]);
        let (user, password) = if auth.is_empty() {
            ("", String::new())
        } else {
            (self.user.as_str(), digest(&[auth, self.user.as_bytes(), self.password.as_bytes()]))
        };
        msgpack::write_array(&mut ping, 6);
        for text in ["PING", &self.hostname, &salt, &proof, user, &password] {
            msgpack::write_str(&mut ping, text.as_bytes());
        }
        Step::Done((ping, Waiting { login: self, salt, nonce: nonce.to_vec() }), end)
    }
}

impl Waiting<'_> {
    /// Reads the PONG.
    pub fn pong(&self, bytes: &[u8]) -> Step<()> {
        let end = match whole(bytes, "PONG") {
            Ok(Some(end)) => end,
            Ok(None) => return Step::NeedMore,
            Err(e) => return Step::Refused(e),
        };
        match read_pong(bytes) {
            None => Step::Refused("the peer sent no PONG".to_owned()),
            Some(Pong { good: false, reason, .. }) => Step::Refused(format!(
                "the peer refused the handshake: {}; check Shared_Key, Username and Password",
                String::from_utf8_lossy(reason)
            )),
            Some(Pong { host, proof, .. }) => {
                let key = self.login.shared_key.as_bytes();
                let wanted = digest(&[self.salt.as_bytes(), host, &self.nonce, key]);
                if equal(wanted.as_bytes(), proof) {
                    Step::Done((), end)
                } else {
                    Step::Refused("the peer does not know the shared key; check Shared_Key".to_owned())
                }
            }
        }
    }
}

/// Nonce and salt (empty: no user is asked for).
fn read_helo(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (Value::Array { count: 2.., at }, _) = msgpack::read(bytes, 0)? else { return None };
    let (word, at) = msgpack::read(bytes, at)?;
    if word.text()? != b"HELO" {
        return None;
    }
    let (Value::Map { count, at }, _) = msgpack::read(bytes, at)? else { return None };
    let (mut nonce, mut auth) = (None, &[][..]);
    let mut pos = at;
    for _ in 0..count {
        let value_at = msgpack::skip(bytes, pos).ok()?;
        let end = msgpack::skip(bytes, value_at).ok()?;
        let text = msgpack::value(bytes.get(value_at..end)?).and_then(Value::text);
        match msgpack::content(bytes.get(pos..value_at)?) {
            b"nonce" => nonce = text,
            b"auth" => auth = text.unwrap_or_default(),
            _ => {}
        }
        pos = end;
    }
    Some((nonce?, auth))
}

/// A PONG as it came.
struct Pong<'b> {
    good: bool,
    reason: &'b [u8],
    host: &'b [u8],
    proof: &'b [u8],
}

fn read_pong(bytes: &[u8]) -> Option<Pong<'_>> {
    let (Value::Array { count: 5.., at }, _) = msgpack::read(bytes, 0)? else { return None };
    let (word, at) = msgpack::read(bytes, at)?;
    let (good, at) = msgpack::read(bytes, at)?;
    let (reason, at) = msgpack::read(bytes, at)?;
    let (host, at) = msgpack::read(bytes, at)?;
    let (proof, _) = msgpack::read(bytes, at)?;
    if word.text()? != b"PONG" {
        return None;
    }
    Some(Pong {
        good: good == Value::Bool(true),
        reason: reason.text().unwrap_or_default(),
        host: host.text().unwrap_or_default(),
        proof: proof.text().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::handshake::{Credentials, Ping, Server};
    use std::sync::Arc;

    fn login(key: &str, user: &str, password: &str) -> Login {
        Login { shared_key: key.into(), hostname: "cli".into(), user: user.into(), password: password.into() }
    }

    /// A handshake with our own server, whose key is `key` and whose only user is `u` with `p`.
    fn shake(login: &Login, users: bool) -> Result<(), String> {
        let credentials = Credentials {
            shared_key: "key".into(),
            hostname: "srv".into(),
            users: if users { vec![("u".into(), "p".into())] } else { Vec::new() },
        };
        let salt = if users { "salt-salt-salt-1" } else { "" };
        let server = Server::new(Arc::new(credentials), "nonce-nonce-1234".into(), salt.into());
        let (ping, waiting) = match login.helo(&server.helo(), "client-salt".into()) {
            Step::Done((ping, waiting), end) if end == server.helo().len() => (ping, waiting),
            other => return Err(format!("{other:?}")),
        };
        let pong = match server.ping(&ping) {
            Ping::Ok { reply, .. } | Ping::Refused { reply: Some(reply), .. } => reply,
            Ping::Refused { reply: None, reason } => return Err(reason),
            Ping::NeedMore => return Err("the PING is not whole".into()),
        };
        for n in 0..pong.len() {
            assert_eq!(waiting.pong(&pong[..n]), Step::NeedMore);
        }
        match waiting.pong(&pong) {
            Step::Done((), _) => Ok(()),
            Step::Refused(reason) => Err(reason),
            Step::NeedMore => Err("the PONG is not whole".into()),
        }
    }

    #[test]
    fn our_own_server_lets_the_right_key_and_user_in_and_no_others() {
        assert_eq!(shake(&login("key", "", ""), false), Ok(()));
        assert_eq!(shake(&login("key", "u", "p"), true), Ok(()));
        assert_eq!(shake(&login("kez", "", ""), false), Err("shared key mismatch".into()));
        assert!(shake(&login("key", "u", "q"), true).unwrap_err().contains("username/password mismatch"));
    }

    #[test]
    fn a_nonce_of_raw_bytes_is_taken_from_a_str_or_a_bin() {
        for header in [&b"\xb0"[..], b"\xc4\x10"] {
            let nonce: Vec<u8> = (240..=255).collect();
            let helo = [&b"\x92\xa4HELO\x81\xa5nonce"[..], header, &nonce].concat();
            let login = login("key", "", "");
            let Step::Done((ping, waiting), _) = login.helo(&helo, "s".into()) else { panic!() };
            let proof = digest(&[b"s", b"cli", &nonce, b"key"]);
            assert!(ping.windows(128).any(|w| w == proof.as_bytes()));
            let answer = digest(&[b"s", b"srv", &nonce, b"key"]);
            let mut pong = b"\x95\xa4PONG\xc3\xa0\xa3srv".to_vec();
            msgpack::write_str(&mut pong, answer.as_bytes());
            assert_eq!(waiting.pong(&pong), Step::Done((), pong.len()));
        }
    }

    #[test]
    fn a_server_that_does_not_know_the_key_is_not_trusted() {
        let login = login("key", "", "");
        let helo = b"\x92\xa4HELO\x81\xa5nonce\xa1n";
        let Step::Done((_, waiting), _) = login.helo(helo, "s".into()) else { panic!() };
        let pong = b"\x95\xa4PONG\xc3\xa0\xa3srv\xa3abc";
        assert!(matches!(waiting.pong(pong), Step::Refused(text) if text.contains("does not know")));
        assert!(matches!(login.helo(b"HTTP/1.1", "s".into()), Step::Refused(_)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let login = login("key", "u", "p");
            let _ = login.helo(&bytes, "s".into());
            let waiting = Waiting { login: &login, salt: "s".into(), nonce: b"n".to_vec() };
            let _ = waiting.pong(&bytes);
        }
    }
}
