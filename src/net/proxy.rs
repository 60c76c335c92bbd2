//! HTTP proxies from the environment: `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`, in capitals or not.
//!
//! Enters: the variables, and where a request goes. Leaves: the proxy to go through, and a tunnel through it. As in Fluent
//! Bit, `HTTP_PROXY` serves `https://` too where `HTTPS_PROXY` is not set. This machine and link-local addresses (metadata
//! and credentials of ECS and EC2) are asked directly, whatever is set: no proxy reaches them. Can go wrong: the address of
//! a proxy is none; a proxy refuses. <https://www.rfc-editor.org/rfc/rfc9110#name-connect>

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Uri;
use http::header::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Target;

/// The longest answer to CONNECT, without a body.
const ANSWER_MAX: usize = 8192;

/// An HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// `Proxy-Authorization`, if the address has a user.
    pub(super) authorization: Option<HeaderValue>,
}

/// Which requests go through which proxy. By default none does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    direct: Vec<Rule>,
}

/// A part of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    All,
    /// A name and what is under it, at a port if one is given.
    Name(String, Option<u16>),
    /// Addresses that begin with these bits.
    Net(IpAddr, u32),
}

impl Proxies {
    /// As the environment says. A bad `HTTPS_PROXY` is a warning, for Fluent Bit, which does not look at it, starts.
    ///
    /// # Errors
    /// A sentence: `HTTP_PROXY` is no address of a proxy, and why.
    pub fn from_env() -> Result<Proxies, String> {
        let (proxies, warning) = Self::read(|name| std::env::var(name).ok())?;
        if let Some(why) = warning {
            tracing::warn!("{why}; passed over");
        }
        Ok(proxies)
    }

    fn read(env: impl Fn(&str) -> Option<String>) -> Result<(Proxies, Option<String>), String> {
        let find = |name: &str| {
            let lower = name.to_ascii_lowercase();
            [name, &lower].into_iter().find_map(|n| env(n).filter(|v| !v.trim().is_empty()))
        };
        let proxy = |name: &str| match find(name) {
            // The address may hold a password, so it is not shown.
            Some(address) => Proxy::parse(&address)
                .map(Some)
                .map_err(|why| format!("{name} is no address of a proxy: {why}; use http://host:port")),
            None => Ok(None),
        };
        let http = proxy("HTTP_PROXY")?;
        let (https, warning) = match proxy("HTTPS_PROXY") {
            Ok(https) => (https, None),
            Err(why) => (None, Some(why)),
        };
        let https = https.or_else(|| http.clone());
        let direct = find("NO_PROXY").unwrap_or_default();
        let direct = direct.split([',', ' ']).filter_map(Rule::parse).collect();
        Ok((Proxies { http, https, direct }, warning))
    }

    /// The proxy for requests to this host.
    pub(super) fn of(&self, secure: bool, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = if secure { &self.https } else { &self.http }.as_ref()?;
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|a| a.to_canonical());
        if host == "localhost" || address.is_some_and(is_near) {
            return None;
        }
        let is_direct = self.direct.iter().any(|rule| rule.matches(&host, address, port));
        (!is_direct).then_some(proxy)
    }
}

/// This machine, or what only this machine's network reaches.
fn is_near(address: IpAddr) -> bool {
    /// Metadata and credentials by IPv6: `fd00:ec2::/32` is EC2's own.
    const EC2: [u16; 2] = [0xfd00, 0x0ec2];
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => {
            let [a, b, ..] = v6.segments();
            v6.is_loopback() || v6.is_unicast_link_local() || [a, b] == EC2
        }
    }
}

impl Rule {
    fn parse(text: &str) -> Option<Rule> {
        let text = text.trim().to_ascii_lowercase();
        if text.is_empty() {
            return None;
        }
        if text == "*" {
            return Some(Rule::All);
        }
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        if let Some((net, bits)) = bare.split_once('/')
            && let (Ok(net), Ok(bits)) = (net.parse::<IpAddr>(), bits.parse())
        {
            return Some(Rule::Net(net, bits));
        }
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Rule::Net(address, 128));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => (name, port.parse().ok()),
            _ => (text.as_str(), None),
        };
        Some(Rule::Name(name.trim_start_matches("*.").trim_matches('.').to_owned(), port))
    }

    fn matches(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        match self {
            Rule::All => true,
            Rule::Net(net, bits) => address.is_some_and(|address| is_in(address, *net, *bits)),
            Rule::Name(name, at) => {
                let under = host.strip_suffix(name.as_str());
                at.is_none_or(|at| at == port)
                    && under.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
        }
    }
}

fn is_in(address: IpAddr, net: IpAddr, bits: u32) -> bool {
    let (size, a, b) = match (address, net) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (Ipv4Addr::BITS, u128::from(a.to_bits()), u128::from(b.to_bits())),
        (IpAddr::V6(a), IpAddr::V6(b)) => (Ipv6Addr::BITS, a.to_bits(), b.to_bits()),
        _ => return false,
    };
    (a ^ b).checked_shr(size - bits.min(size)).unwrap_or(0) == 0
}

impl Proxy {
    /// `[http://][user[:password]@]host[:port]`; the port is 80 unless given.
    fn parse(text: &str) -> Result<Proxy, String> {
        let text = text.trim();
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri = Uri::try_from(text).map_err(|e| e.to_string())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err("TLS to the proxy itself is not supported".to_owned()),
            other => return Err(format!("unknown scheme {}", other.unwrap_or_default())),
        }
        let authority = uri.authority().ok_or("it names no host")?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err("it names no host".to_owned());
        }
        let port = match (authority.port_u16(), authority.as_str().ends_with(authority.host())) {
            (Some(port), _) => port,
            (None, true) => 80,
            (None, false) => return Err("its port is none".to_owned()),
        };
        let authorization = authority.as_str().rsplit_once('@').map(|(who, _)| {
            let (user, password) = who.split_once(':').unwrap_or((who, ""));
            let pair = [&plain(user)[..], b":", &plain(password)[..]].concat();
            let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair)))
                .map_err(|e| e.to_string())?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        });
        Ok(Proxy { host, port, authorization: authorization.transpose()? })
    }

    /// Has the proxy connect to `target`: from then on the stream is one to there.
    pub(super) async fn tunnel(&self, stream: &mut TcpStream, target: &Target) -> Result<(), String> {
        let mut ask = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
        if let Some(value) = &self.authorization {
            ask.extend_from_slice(b"Proxy-Authorization: ");
            ask.extend_from_slice(value.as_bytes());
            ask.extend_from_slice(b"\r\n");
        }
        ask.extend_from_slice(b"\r\n");
        let broke = |e: std::io::Error| format!("the proxy {self} broke the connection: {e}");
        stream.write_all(&ask).await.map_err(broke)?;
        let mut answer = Vec::new();
        // The peer says nothing before we do, so what comes is the proxy's answer alone.
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() >= ANSWER_MAX {
                return Err(format!("the answer of the proxy {self} is too long"));
            }
            match stream.read_buf(&mut answer).await.map_err(broke)? {
                0 => return Err(format!("the proxy {self} closed the connection")),
                _ if is_refused(&answer) => break,
                _ => {}
            }
        }
        let line = answer.split(|b| *b == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let hint = match line.split(' ').nth(1) {
            Some(code) if code.starts_with('2') => return Ok(()),
            Some("407") => "; put user and password into its address",
            _ => "; does it allow this host? Else name the host in NO_PROXY",
        };
        Err(format!("the proxy {self} does not connect to {target}: {line}{hint}"))
    }
}

/// Whether an answer's first line is there and says no: then its body does not matter.
fn is_refused(answer: &[u8]) -> bool {
    let Some(end) = memchr::memchr(b'\n', answer) else { return false };
    answer
        .get(..end)
        .is_some_and(|line| line.split(|b| *b == b' ').nth(1).is_none_or(|code| !code.starts_with(b"2")))
}

impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", Target::Tcp(self.host.clone(), self.port))
    }
}

/// Without the escapes of an address.
fn plain(text: &str) -> Vec<u8> {
    let hex = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<(Proxies, Option<String>), String> {
        Proxies::read(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    fn proxies(vars: &[(&str, &str)]) -> Proxies {
        let (proxies, warning) = read(vars).unwrap();
        assert_eq!(warning, None);
        proxies
    }

    fn way(proxies: &Proxies, secure: bool, host: &str) -> String {
        proxies.of(secure, host, 443).map_or_else(|| "direct".to_owned(), ToString::to_string)
    }

    #[test]
    fn http_proxy_serves_https_too_unless_that_has_one_of_its_own() {
        let one = proxies(&[("HTTP_PROXY", "http://p:3128")]);
        assert_eq!([way(&one, true, "a.b"), way(&one, false, "a.b")], ["p:3128", "p:3128"]);
        let two = proxies(&[("http_proxy", "p"), ("HTTPS_PROXY", "[::1]:8080/")]);
        assert_eq!([way(&two, true, "a.b"), way(&two, false, "a.b")], ["[::1]:8080", "p:80"]);
        let none = proxies(&[("HTTP_PROXY", " "), ("NO_PROXY", "x")]);
        assert_eq!(way(&none, true, "a.b"), "direct");
    }

    #[test]
    fn who_is_named_or_near_is_asked_directly() {
        let no = "logs.eu.amazonaws.com, .corp.example,*.wild.example,10.0.0.0/8,192.0.2.7,host:443,other:80,fd12::/16";
        let p = proxies(&[("HTTP_PROXY", "p:1"), ("no_proxy", no)]);
        for host in [
            "logs.eu.amazonaws.com",
            "LOGS.eu.amazonaws.com.",
            "sub.logs.eu.amazonaws.com",
            "corp.example",
            "a.corp.example",
            "b.wild.example",
            "10.255.0.1",
            "192.0.2.7",
            "host",
            "fd12::1",
            // Never, whatever the variables say.
            "localhost",
            "127.0.0.1",
            "::1",
            "169.254.170.2",
            "169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:169.254.170.2",
        ] {
            assert_eq!(way(&p, true, host), "direct", "{host}");
        }
        for host in ["xlogs.eu.amazonaws.com", "acorp.example", "11.0.0.1", "192.0.2.8", "other", "fd13::1"] {
            assert_eq!(way(&p, true, host), "p:1", "{host}");
        }
        let all = proxies(&[("HTTP_PROXY", "p:1"), ("NO_PROXY", "*")]);
        assert_eq!(way(&all, true, "a.b"), "direct");
    }

    #[test]
    fn user_and_password_are_unescaped_and_not_shown() {
        let p = Proxy::parse("http://me%40x:p%3Aw%25@proxy.corp:3128").unwrap();
        let value = p.authorization.as_ref().unwrap();
        assert_eq!(value.as_bytes(), format!("Basic {}", BASE64_STANDARD.encode("me@x:p:w%")).as_bytes());
        assert!(!format!("{p} {p:?}").contains("Basic"));
    }

    #[test]
    fn what_is_no_proxy_is_told_without_its_password() {
        for (address, why) in [
            ("https://u:secret@p:1", "TLS to the proxy"),
            ("socks5://u:secret@p:1", "unknown scheme socks5"),
            ("http://u:secret@p:99999", ""),
            ("http://", ""),
        ] {
            let error = read(&[("http_proxy", address)]).unwrap_err();
            let (found, warning) = read(&[("HTTPS_PROXY", address), ("HTTP_PROXY", "p:1")]).unwrap();
            assert_eq!(way(&found, true, "a.b"), "p:1");
            assert!(warning.unwrap().ends_with(error.strip_prefix("HTTP_PROXY").unwrap()), "{error}");
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_quoted() {
        for (answer, says) in [
            (
                "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno",
                "put user and password",
            ),
            ("HTTP/1.1 403 Forbidden\r\n", "403 Forbidden; does it allow this host?"),
            ("", "closed the connection"),
            ("HTTP/1.1 200 OK\r\nx", "closed the connection"),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let serve = async {
                let (mut peer, _) = listener.accept().await.unwrap();
                let mut asked = [0; 39];
                peer.read_exact(&mut asked).await.unwrap();
                assert_eq!(&asked, b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n");
                peer.write_all(answer.as_bytes()).await.unwrap();
            };
            let proxy = Proxy::parse("p:1").unwrap();
            let target = Target::Tcp("h".to_owned(), 443);
            let (outcome, ()) = tokio::join!(proxy.tunnel(&mut stream, &target), serve);
            let error = outcome.unwrap_err();
            assert!(error.contains(says) && error.contains("p:1"), "{error}");
        }
    }
}
