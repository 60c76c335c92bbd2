//! The forward protocol's handshake, server side: HELO, PING, PONG.
//!
//! Enters: the client's PING bytes. Leaves: the replies and the verdict. The nonce is 16 printable ASCII characters:
//! clients that decode strings as text (JavaScript) hash something else for raw bytes. Digests are 128 lower-case hex
//! digits of SHA-512 and are compared in constant time. Forward protocol v1, "Handshake messages".

use std::sync::Arc;

use sha2::{Digest, Sha512};

use super::msgpack::{self, Broken, Skip, Value};

/// Largest PING: six short strings are far below it.
const MAX_PING: usize = 4096;

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

pub(super) fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha512::new();
    for part in parts {
        hash.update(part);
    }
    let digit = |n: u8| char::from(if n < 10 { b'0' + n } else { b'a' + n - 10 });
    hash.finalize().iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
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
        // As fluentd, not as Fluent Bit: fluent-forward-go takes nothing but bin, and Node's fluent-logger hashes a password
        // only if the salt is one. Whoever reads text has it, too: the bytes are printable.
        msgpack::write_bin(&mut out, self.nonce.as_bytes());
        msgpack::write_str(&mut out, b"auth");
        msgpack::write_bin(&mut out, self.salt.as_bytes());
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
        let consumed = match Skip::at(0).run(bytes, MAX_PING) {
            Ok(end) => end,
            Err(Broken::Short) => return Ping::NeedMore,
            Err(_) => return refused(None, "malformed PING"),
        };
        let Some([b"PING", host, salt, key_digest, user, password_digest]) = strings(bytes) else {
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
        raw_ping(["PING", "cli", "cs", &proof, user, &pass])
    }

    // From Python: hashlib.sha512(b"".join(parts)).hexdigest()
    /// `cs`, `cli`, `nonce-nonce-1234`, `key`: what the client proves.
    const PROOF: &str = "806bebb0fc5cb2aa1c79b3e552ebcb9c74c87c6393cd653d3772ac1b8092fd0d\
                         a980b2755c681ed9d021ebd97b8cea3accce1005987bba281ed052520e8fe2a0";
    /// `cs`, `cli`, `nonce-nonce-1234` and no key.
    const PROOF_OF_NOTHING: &str = "04d53511715cc3610b6150cde61fe6bd0d100c4474a833ed978a1e14423131d4\
                                    7154c63bdf2891bacfcf38324080f56ba9a6061124e160628b1890233d4635ea";
    /// `cs`, `srv`, `nonce-nonce-1234`, `key`: what the server proves.
    const COUNTER_PROOF: &str = "ae3ea42ae35b9b51f01fa294876a4b3f9145dfdca2e4392ca01116046c417400\
                                 b241f87c462a007e6aaac343a8918d3ee8e98fc010263b682a909677eded1e01";
    /// `salt-salt-salt-1`, `u`, `p`.
    const PASSWORD: &str = "7ca4138586a0f95751c21a61ab3c1461e581de208a6ff58390b9cc6438eb9f54\
                            48c1ae8446148db12f59409e7cbdee347a5f6dabbb46020506894cdba9495b77";

    fn raw_ping(fields: [&str; 6]) -> Vec<u8> {
        let mut out = Vec::new();
        msgpack::write_array(&mut out, 6);
        for field in fields {
            msgpack::write_str(&mut out, field.as_bytes());
        }
        out
    }

    #[test]
    fn digests_are_those_that_other_implementations_compute() {
        let ping = raw_ping(["PING", "cli", "cs", PROOF, "u", PASSWORD]);
        let Ping::Ok { reply, .. } = server(&[("u", "p")]).ping(&ping) else { panic!() };
        let mut pong = b"\x95\xa4PONG\xc3\xa0\xa3srv".to_vec();
        msgpack::write_str(&mut pong, COUNTER_PROOF.as_bytes());
        assert_eq!(reply, pong);
    }

    #[test]
    fn an_empty_shared_key_is_proved_like_any_other() {
        let credentials =
            Credentials { shared_key: String::new(), hostname: "srv".into(), users: Vec::new() };
        let server = Server::new(Arc::new(credentials), "nonce-nonce-1234".into(), String::new());
        let ping = raw_ping(["PING", "cli", "cs", PROOF_OF_NOTHING, "", ""]);
        assert!(matches!(server.ping(&ping), Ping::Ok { .. }));
        let ping = raw_ping(["PING", "cli", "cs", PROOF, "", ""]);
        assert!(matches!(server.ping(&ping), Ping::Refused { reply: None, .. }));
    }

    #[test]
    fn the_helo_carries_nonce_and_salt() {
        let helo =
            b"\x92\xa4HELO\x83\xa5nonce\xc4\x10nonce-nonce-1234\xa4auth\xc4\x10salt-salt-salt-1\xa9keepalive\xc3";
        assert_eq!(server(&[]).helo(), helo);
    }

    #[test]
    fn a_ping_in_single_bytes_is_understood_at_its_last_one() {
        let ping = raw_ping(["PING", "cli", "cs", PROOF, "", ""]);
        for n in 0..ping.len() {
            assert_eq!(server(&[]).ping(&ping[..n]), Ping::NeedMore, "{n}");
        }
        assert!(matches!(server(&[]).ping(&ping), Ping::Ok { .. }));
    }

    #[test]
    fn a_ping_that_declares_too_much_is_refused_at_its_header() {
        assert!(matches!(server(&[]).ping(b"\x96\xdb\x7f\xff\xff\xff"), Ping::Refused { reply: None, .. }));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = server(&[("u", "p")]).ping(&bytes);
        }
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
