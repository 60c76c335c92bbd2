//! The forward protocol's handshake, server side: HELO, PING, PONG.
//!
//! Enters: the client's PING bytes. Leaves: the replies and the verdict. The nonce is 16 printable ASCII characters:
//! clients that decode strings as text (JavaScript) hash something else for raw bytes. Digests are 128 lower-case hex
//! digits of SHA-512 and are compared in constant time. Forward protocol v1, "Handshake messages".

use std::sync::Arc;

use sha2::{Digest, Sha512};

use super::msgpack::{self, Broken, Skip, Value};

/// What clients must prove.
#[derive(Debug)]
pub struct Credentials {
    /// `Shared_Key`; empty with `Empty_Shared_Key`.
    pub shared_key: String,
    /// `Self_Hostname`
    pub hostname: String,
    /// `Security.Users`: names and passwords; empty: no user is asked for.
    pub users: Vec<(String, String)>,
}

/// One handshake.
pub struct Server {
    credentials: Arc<Credentials>,
    nonce: String,
    salt: String,
}

/// What a PING came to.
#[derive(Debug, PartialEq)]
pub enum Ping {
    /// It is not whole yet.
    NeedMore,
    /// The client is who it should be.
    Ok {
        /// The PONG to send.
        reply: Vec<u8>,
        /// Bytes of the PING; what follows are frames.
        consumed: usize,
    },
    /// It is not: close the connection.
    Refused {
        /// A PONG that says so (none for a wrong shared key, as in Fluent Bit).
        reply: Option<Vec<u8>>,
        /// For the log.
        reason: String,
    },
}

fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha512::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}

impl Server {
    /// `nonce` and `salt` are 16 random printable characters each; `salt` is empty where no user is asked for.
    pub fn new(credentials: Arc<Credentials>, nonce: String, salt: String) -> Self {
        Server { credentials, nonce, salt }
    }

    /// The HELO, to be sent before anything is read.
    pub fn helo(&self) -> Vec<u8> {
        let mut out = Vec::new();
        msgpack::write_array(&mut out, 2);
        msgpack::write_str(&mut out, b"HELO");
        msgpack::write_map(&mut out, 3);
        msgpack::write_str(&mut out, b"nonce");
        msgpack::write_str(&mut out, self.nonce.as_bytes());
        msgpack::write_str(&mut out, b"auth");
        msgpack::write_str(&mut out, self.salt.as_bytes());
        msgpack::write_str(&mut out, b"keepalive");
        msgpack::write_bool(&mut out, true);
        out
    }

    fn pong(&self, salt: &[u8], refused: Option<&str>) -> Vec<u8> {
        let mut out = Vec::new();
        msgpack::write_array(&mut out, 5);
        msgpack::write_str(&mut out, b"PONG");
        msgpack::write_bool(&mut out, refused.is_none());
        msgpack::write_str(&mut out, refused.unwrap_or_default().as_bytes());
        let c = &self.credentials;
        let (host, proof) = match refused {
            Some(_) => ("", String::new()),
            None => (
                c.hostname.as_str(),
                digest(&[salt, c.hostname.as_bytes(), self.nonce.as_bytes(), c.shared_key.as_bytes()]),
            ),
        };
        msgpack::write_str(&mut out, host.as_bytes());
        msgpack::write_str(&mut out, proof.as_bytes());
        out
    }

    /// Looks at what has been received so far.
    pub fn ping(&self, bytes: &[u8]) -> Ping {
        let refused = |reply, reason: &str| Ping::Refused { reply, reason: reason.to_owned() };
        if !matches!(bytes.first(), None | Some(0x90..=0x9f | 0xdc | 0xdd)) {
            return refused(None, "expected a PING: the client does not use a shared key");
        }
        let consumed = match Skip::at(0).run(bytes, 4096) {
            Ok(end) => end,
            Err(Broken::Short) => return Ping::NeedMore,
            Err(_) => return refused(None, "malformed PING"),
        };
        let Some(fields) = strings(bytes) else {
            return refused(None, "expected a PING: the client does not use a shared key");
        };
        let [b"PING", host, salt, key_digest, user, password_digest] = fields else {
            return refused(None, "expected a PING: the client does not use a shared key");
        };
        let c = &self.credentials;
        let wanted = digest(&[salt, host, self.nonce.as_bytes(), c.shared_key.as_bytes()]);
        if !equal(wanted.as_bytes(), key_digest) {
            return refused(None, "shared key mismatch");
        }
        if !c.users.is_empty() {
            // Every user is tried, so that the time taken does not tell which names exist.
            let known = c.users.iter().fold(false, |found, (name, password)| {
                let wanted = digest(&[self.salt.as_bytes(), name.as_bytes(), password.as_bytes()]);
                found | (equal(name.as_bytes(), user) & equal(wanted.as_bytes(), password_digest))
            });
            if !known {
                let reason = "username/password mismatch";
                return refused(Some(self.pong(salt, Some(reason))), reason);
            }
        }
        Ping::Ok { reply: self.pong(salt, None), consumed }
    }
}

fn strings(bytes: &[u8]) -> Option<[&[u8]; 6]> {
    let (Value::Array { count: 6, at }, _) = msgpack::read(bytes, 0)? else { return None };
    let mut out = [&[][..]; 6];
    let mut pos = at;
    for slot in &mut out {
        let (value, end) = msgpack::read(bytes, pos)?;
        *slot = value.text()?;
        pos = end;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(users: &[(&str, &str)]) -> Server {
        let credentials = Credentials {
            shared_key: "key".into(),
            hostname: "srv".into(),
            users: users.iter().map(|(u, p)| ((*u).into(), (*p).into())).collect(),
        };
        Server::new(Arc::new(credentials), "nonce-nonce-1234".into(), "salt-salt-salt-1".into())
    }

    fn ping(key: &str, user: &str, password: &str) -> Vec<u8> {
        let proof = digest(&[b"cs", b"cli", b"nonce-nonce-1234", key.as_bytes()]);
        let pass = digest(&[b"salt-salt-salt-1", user.as_bytes(), password.as_bytes()]);
        let mut out = Vec::new();
        msgpack::write_array(&mut out, 6);
        for s in ["PING", "cli", "cs", &proof, user, &pass] {
            msgpack::write_str(&mut out, s.as_bytes());
        }
        out
    }

    #[test]
    fn the_digest_is_that_of_the_protocol() {
        // From Python's hashlib: sha512(b"cs" + b"cli" + b"nonce-nonce-1234" + b"key").
        assert_eq!(digest(&[b"abc"]), digest(&[b"a", b"bc"]));
        assert!(digest(&[b"abc"]).starts_with("ddaf35a193617abacc417349ae204131"));
    }

    #[test]
    fn the_right_key_is_let_in_and_what_follows_the_ping_is_kept() {
        let mut bytes = ping("key", "", "");
        let n = bytes.len();
        bytes.extend_from_slice(b"\x93");
        let Ping::Ok { consumed, reply } = server(&[]).ping(&bytes) else { panic!() };
        assert_eq!(consumed, n);
        assert_eq!(&reply[..7], b"\x95\xa4PONG\xc3");
        assert_eq!(server(&[]).ping(&bytes[..n - 1]), Ping::NeedMore);
    }

    #[test]
    fn a_wrong_key_gets_no_answer_and_a_wrong_user_a_pong_that_says_so() {
        assert!(matches!(server(&[]).ping(&ping("kez", "", "")), Ping::Refused { reply: None, .. }));
        let users = server(&[("u", "p")]);
        assert!(matches!(users.ping(&ping("key", "u", "p")), Ping::Ok { .. }));
        let Ping::Refused { reply: Some(pong), .. } = users.ping(&ping("key", "u", "q")) else { panic!() };
        assert_eq!(&pong[..7], b"\x95\xa4PONG\xc2");
    }

    #[test]
    fn frames_without_a_handshake_are_refused() {
        assert!(matches!(server(&[]).ping(b"\x93\xa1t\x01\x80"), Ping::Refused { .. }));
        assert!(matches!(server(&[]).ping(b"GET"), Ping::Refused { .. }));
    }
}
