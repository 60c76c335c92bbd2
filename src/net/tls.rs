//! TLS for listeners: rustls with ring, TLS 1.2 and 1.3.
//!
//! Enters: names of PEM files. Leaves: what makes a TCP connection a TLS one. Can go wrong: a file is missing, holds no
//! certificate or key, or the two do not belong together; the message names the file.

use std::fs;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Files and limits as configured (`tls.*`).
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsFiles<'a> {
    /// `tls.crt_file`: the certificate chain, PEM.
    pub cert: Option<&'a str>,
    /// `tls.key_file`: its key, PEM.
    pub key: Option<&'a str>,
    /// `tls.ca_file`: who signs clients' certificates.
    pub ca: Option<&'a str>,
    /// `tls.verify_client_cert`
    pub verify_client: bool,
    /// `tls.min_version`: `TLSv1.2` or `TLSv1.3`.
    pub min_version: Option<&'a str>,
    /// `tls.max_version`
    pub max_version: Option<&'a str>,
}

/// A server's half of TLS, files read and checked.
#[derive(Clone)]
pub struct ServerTls(TlsAcceptor);

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// A sentence that names the key or file and what is wrong with it.
    pub fn new(files: &TlsFiles<'_>) -> Result<ServerTls, String> {
        let cert = files.cert.ok_or("tls on needs tls.crt_file")?;
        let key = files.key.ok_or("tls on needs tls.key_file")?;
        let chain = certificates(cert)?;
        let key_der = private_key(key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions(files.min_version, files.max_version)?)
            .map_err(|e| format!("TLS versions: {e}"))?;
        let builder = if files.verify_client {
            let ca = files.ca.ok_or("tls.verify_client_cert on needs tls.ca_file")?;
            let mut roots = RootCertStore::empty();
            for cert in certificates(ca)? {
                roots.add(cert).map_err(|e| format!("bad certificate in {ca}: {e}"))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|e| format!("cannot verify clients with {ca}: {e}"))?;
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder
            .with_single_cert(chain, key_der)
            .map_err(|e| format!("{cert} and {key} do not work together: {e}"))?;
        // A client that only writes never reads its tickets. Closing with unread bytes, its kernel resets the connection and
        // throws away what it has not sent yet: records that nobody here could know of.
        config.send_tls13_tickets = 0;
        Ok(ServerTls(TlsAcceptor::from(Arc::new(config))))
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

pub(super) fn private_key(path: &str) -> Result<PrivateKeyDer<'static>, String> {
    let pem = fs::read(path).map_err(|e| format!("cannot read {path}: {e}"))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|e| match e {
        rustls::pki_types::pem::Error::NoItemsFound => {
            format!("no private key in {path}; one in PEM without a passphrase is needed")
        }
        e => format!("bad private key in {path}: {e}"),
    })
}

pub(super) fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    // Read first: a missing file should say so, not "no certificate".
    let pem = fs::read(path).map_err(|e| format!("cannot read {path}: {e}"))?;
    let list: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("bad certificate in {path}: {e}"))?;
    if list.is_empty() { Err(format!("no certificate in {path}")) } else { Ok(list) }
}

pub(super) fn versions(
    min: Option<&str>,
    max: Option<&str>,
) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let min = match min.map(str::to_ascii_lowercase).as_deref() {
        // Older ones are not offered: a minimum below the oldest is the oldest.
        None | Some("sslv2" | "sslv3" | "tlsv1" | "tlsv1.0" | "tlsv1.1" | "tlsv1.2") => 2,
        Some("tlsv1.3") => 3,
        Some(other) => return Err(format!("tls.min_version \"{other}\" is unknown; use TLSv1.2 or TLSv1.3")),
    };
    let max = match max.map(str::to_ascii_lowercase).as_deref() {
        None | Some("tlsv1.3") => 3,
        Some("tlsv1.2") => 2,
        Some(other) => {
            return Err(format!("tls.max_version \"{other}\" is not offered; use TLSv1.2 or TLSv1.3"));
        }
    };
    if min > max {
        return Err("tls.min_version is above tls.max_version".into());
    }
    let all = [(2, &rustls::version::TLS12), (3, &rustls::version::TLS13)];
    Ok(all.into_iter().filter(|(n, _)| (min..=max).contains(n)).map(|(_, v)| v).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::test_certs::{CA, CLIENT, CLIENT_KEY, SERVER, SERVER_KEY};
    use crate::net::{Conn, Listener};
    use bytes::BytesMut;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Dir(tempfile::TempDir);

    impl Dir {
        fn new() -> Dir {
            Dir(tempfile::tempdir().unwrap())
        }

        fn file(&self, name: &str, text: &str) -> String {
            let path = self.0.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        }
    }

    fn client(identity: bool) -> tokio_rustls::TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(CA.as_bytes()).unwrap()).unwrap();
        let builder =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots);
        let config = if identity {
            let cert = CertificateDer::from_pem_slice(CLIENT.as_bytes()).unwrap();
            builder.with_client_auth_cert(
                vec![cert],
                PrivateKeyDer::from_pem_slice(CLIENT_KEY.as_bytes()).unwrap(),
            )
        } else {
            Ok(builder.with_no_client_auth())
        };
        tokio_rustls::TlsConnector::from(Arc::new(config.unwrap()))
    }

    /// What the server makes of a client that sends 100,000 bytes and closes.
    async fn talk(tls: &ServerTls, identity: bool) -> Result<usize, String> {
        let listener = Listener::tcp("127.0.0.1", 0).await.unwrap();
        let address = listener.name().to_owned();
        let connector = client(identity);
        let sending = async move {
            let tcp = TcpStream::connect(address).await.unwrap();
            let mut stream = connector.connect("localhost".try_into().unwrap(), tcp).await?;
            stream.write_all(&[b'x'; 100_000]).await?;
            stream.shutdown().await
        };
        let receiving = async {
            let conn = listener.accept().await.unwrap();
            let mut conn: Conn = conn.accept_tls(tls).await?.unwrap();
            let (mut total, mut buf) = (0, BytesMut::with_capacity(4096));
            loop {
                conn.readable().await.map_err(|e| e.to_string())?;
                match conn.try_read(&mut buf, usize::MAX) {
                    Ok(0) => return Ok(total),
                    Ok(n) => total += n,
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e.to_string()),
                }
                buf.clear();
            }
        };
        let (_, received) = tokio::join!(sending, receiving);
        received
    }

    #[tokio::test]
    async fn every_byte_arrives_over_tls() {
        let dir = Dir::new();
        let (cert, key) = (dir.file("crt", SERVER), dir.file("key", SERVER_KEY));
        for max_version in [None, Some("TLSv1.2")] {
            let files = TlsFiles { cert: Some(&cert), key: Some(&key), max_version, ..TlsFiles::default() };
            assert_eq!(talk(&ServerTls::new(&files).unwrap(), false).await, Ok(100_000));
        }
    }

    #[tokio::test]
    async fn a_client_without_a_certificate_is_turned_away_where_one_is_asked_for() {
        let dir = Dir::new();
        let (cert, key, ca) = (dir.file("crt", SERVER), dir.file("key", SERVER_KEY), dir.file("ca", CA));
        let files = TlsFiles {
            cert: Some(&cert),
            key: Some(&key),
            ca: Some(&ca),
            verify_client: true,
            ..TlsFiles::default()
        };
        let tls = ServerTls::new(&files).unwrap();
        assert_eq!(talk(&tls, true).await, Ok(100_000));
        assert!(talk(&tls, false).await.unwrap_err().contains("TLS handshake failed"));
    }

    #[tokio::test]
    async fn a_client_that_only_writes_has_nothing_to_read_and_what_a_socket_does_not_take_at_once_is_sent_later()
     {
        let dir = Dir::new();
        let (cert, key) = (dir.file("crt", SERVER), dir.file("key", SERVER_KEY));
        let files = TlsFiles { cert: Some(&cert), key: Some(&key), ..TlsFiles::default() };
        let tls = ServerTls::new(&files).unwrap();
        let listener = Listener::tcp("127.0.0.1", 0).await.unwrap();
        let tcp = TcpStream::connect(listener.name()).await.unwrap();
        let accepting = async { listener.accept().await.unwrap().accept_tls(&tls).await };
        let connecting = client(false);
        let connecting = connecting.connect("localhost".try_into().unwrap(), tcp);
        let (conn, stream) = tokio::join!(accepting, connecting);
        let (mut conn, mut stream) = (conn.unwrap().unwrap(), stream.unwrap());

        // More than all the buffers between the two hold.
        let all: Vec<u8> = (0..20_000_000_u32).map(|i| (i % 251) as u8).collect();
        let mut sent = 0;
        while let Ok(n) = conn.try_write(&all[sent..]) {
            sent += n;
        }
        assert!(sent < all.len() && conn.has_unsent(), "{sent}");
        let sending = async {
            while sent < all.len() || conn.has_unsent() {
                conn.writable().await.unwrap();
                conn.try_send().unwrap();
                match conn.try_write(&all[sent..]) {
                    Ok(n) => sent += n,
                    Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock),
                }
            }
        };
        let mut got = vec![0; all.len()];
        let (_, read) = tokio::join!(sending, stream.read_exact(&mut got));
        read.unwrap();
        assert!(got == all);
        // They would have come before the first byte.
        let session = stream.get_ref().1;
        assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(session.tls13_tickets_received(), 0);
    }

    #[test]
    fn messages_name_the_key_or_the_file() {
        let dir = Dir::new();
        let (cert, key) = (dir.file("crt", SERVER), dir.file("key", SERVER_KEY));
        let (other, empty) = (dir.file("other", CLIENT_KEY), dir.file("empty", "no pem"));
        let error = |cert, key, min_version, verify_client| {
            let files = TlsFiles { cert, key, min_version, verify_client, ..TlsFiles::default() };
            ServerTls::new(&files).err().unwrap_or_default()
        };
        let (cert, key) = (Some(cert.as_str()), Some(key.as_str()));
        assert!(error(None, key, None, false).contains("tls.crt_file"));
        assert!(error(cert, None, None, false).contains("tls.key_file"));
        assert!(error(Some("/nowhere/crt"), key, None, false).contains("/nowhere/crt"));
        assert!(error(Some(&empty), key, None, false).contains("no certificate in"));
        assert!(error(cert, Some(&empty), None, false).contains("no private key in"));
        assert!(error(cert, Some(&other), None, false).contains("do not work together"));
        assert!(error(cert, key, Some("TLSv9"), false).contains("tls.min_version"));
        assert!(error(cert, key, None, true).contains("tls.ca_file"));
        assert_eq!(error(cert, key, Some("TLSv1.1"), false), "");
    }
}
