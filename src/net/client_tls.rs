//! TLS for connections that we make: rustls with ring, TLS 1.2 and 1.3.
//!
//! Enters: names of PEM files and what to verify. Leaves: what makes a TCP connection a TLS one. Can go wrong: a file is
//! missing or holds no certificate; the message names it. As in Fluent Bit the certificate is verified unless
//! `tls.verify off`, its name only with `tls.verify_hostname on`.

use std::fs;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::{certificates, private_key, versions};

/// Where systems keep the certificates that they trust.
const SYSTEM: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Files and checks as configured (`tls.*`).
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientTlsFiles<'a> {
    /// `tls.verify`
    pub verify: bool,
    /// `tls.verify_hostname`
    pub verify_hostname: bool,
    /// `tls.ca_file`: who is trusted; the system's list when neither this nor `ca_path` is set.
    pub ca_file: Option<&'a str>,
    /// `tls.ca_path`: a directory of such files.
    pub ca_path: Option<&'a str>,
    /// `tls.crt_file`: our own certificate chain.
    pub cert: Option<&'a str>,
    /// `tls.key_file`: its key.
    pub key: Option<&'a str>,
    /// `tls.vhost`: the name asked for and checked, instead of the host's.
    pub vhost: Option<&'a str>,
    /// `tls.min_version`: `TLSv1.2` or `TLSv1.3`.
    pub min_version: Option<&'a str>,
    /// `tls.max_version`
    pub max_version: Option<&'a str>,
}

/// A client's half of TLS, files read and checked.
#[derive(Clone)]
pub struct ClientTls {
    connector: TlsConnector,
    vhost: Option<String>,
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// A sentence that names the key or file and what is wrong with it.
    pub fn new(files: &ClientTlsFiles<'_>) -> Result<ClientTls, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions(files.min_version, files.max_version)?)
            .map_err(|e| format!("TLS versions: {e}"))?;
        let builder = if files.verify && files.verify_hostname {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(files)?), provider)
                .build()
                .map_err(|e| format!("cannot verify the peer: {e}"))?;
            builder.dangerous().with_custom_certificate_verifier(verifier)
        } else {
            let roots = if files.verify { Some(roots(files)?) } else { None };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName { roots, provider }))
        };
        let config = match (files.cert, files.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(certificates(cert)?, private_key(key)?)
                .map_err(|e| format!("{cert} and {key} do not work together: {e}"))?,
            (Some(_), None) => return Err("tls.crt_file needs tls.key_file".into()),
            (None, Some(_)) => return Err("tls.key_file needs tls.crt_file".into()),
        };
        Ok(ClientTls {
            connector: TlsConnector::from(Arc::new(config)),
            vhost: files.vhost.map(str::to_owned),
        })
    }

    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = self.vhost.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name.clone()).map_err(|e| {
            std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("bad server name {name}: {e}"))
        })?;
        self.connector.connect(name, stream).await
    }
}

fn roots(files: &ClientTlsFiles<'_>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = files.ca_file {
        for cert in certificates(ca)? {
            roots.add(cert).map_err(|e| format!("bad certificate in {ca}: {e}"))?;
        }
    }
    if let Some(dir) = files.ca_path {
        let found = fs::read_dir(dir).map_err(|e| format!("cannot read tls.ca_path {dir}: {e}"))?;
        for path in found.filter_map(Result::ok).map(|e| e.path()).filter(|p| p.is_file()) {
            // Such directories hold other files as well.
            if let Ok(list) = certificates(&path.display().to_string()) {
                roots.add_parsable_certificates(list);
            }
        }
    }
    if files.ca_file.is_none() && files.ca_path.is_none() {
        let list = SYSTEM.iter().find_map(|file| certificates(file).ok()).unwrap_or_default();
        roots.add_parsable_certificates(list);
    }
    if roots.is_empty() {
        return Err("no certificate authority is known; set tls.ca_file".into());
    }
    Ok(roots)
}

/// Takes a certificate for any name: from one of the roots, or, without roots, any at all.
#[derive(Debug)]
struct AnyName {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let cert = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&cert, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::test_certs::{CA, CLIENT, CLIENT_KEY, SERVER, SERVER_KEY};
    use crate::net::{Dialer, Listener, ServerTls, Target, TlsFiles};
    use std::time::Duration;

    struct Files {
        _dir: tempfile::TempDir,
        paths: [String; 5],
    }

    fn files() -> Files {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let paths = [
            file("ca", CA),
            file("crt", SERVER),
            file("key", SERVER_KEY),
            file("ccrt", CLIENT),
            file("ckey", CLIENT_KEY),
        ];
        Files { _dir: dir, paths }
    }

    /// A handshake with our own listener under `host`.
    async fn handshake(ask: ClientTlsFiles<'_>, host: &str, verify_client: bool) -> Result<(), String> {
        let files = files();
        let [ca, crt, key, ..] = files.paths.each_ref().map(String::as_str);
        let server =
            TlsFiles { cert: Some(crt), key: Some(key), ca: Some(ca), verify_client, ..TlsFiles::default() };
        let server = ServerTls::new(&server)?;
        let listener = Listener::tcp("127.0.0.1", 0).await?;
        let port = listener.name().rsplit(':').next().unwrap().parse().unwrap();
        let dialer = Dialer {
            via: None,
            target: Target::Tcp(host.into(), port),
            tls: Some(ClientTls::new(&ask)?),
            timeout: Duration::from_secs(10),
            source: None,
            keepalive: None,
        };
        let accept = async { listener.accept().await.unwrap().accept_tls(&server).await.map(drop) };
        let (made, accepted) = tokio::join!(dialer.connect(), accept);
        made?;
        accepted
    }

    #[tokio::test]
    async fn a_trusted_server_is_taken_and_its_name_matters_only_if_asked() {
        let files = files();
        let ca_file = Some(files.paths[0].as_str());
        let ask = ClientTlsFiles { verify: true, ca_file, ..ClientTlsFiles::default() };
        handshake(ask, "localhost", false).await.unwrap();
        handshake(ask, "127.0.0.1", false).await.unwrap();
        let strict = ClientTlsFiles { verify_hostname: true, ..ask };
        handshake(strict, "localhost", false).await.unwrap();
        assert!(handshake(strict, "127.0.0.1", false).await.unwrap_err().contains("TLS with 127.0.0.1"));
        let vhost = ClientTlsFiles { vhost: Some("localhost"), ..strict };
        handshake(vhost, "127.0.0.1", false).await.unwrap();
    }

    #[tokio::test]
    async fn an_unknown_server_is_refused_unless_verification_is_off() {
        let files = files();
        // The client's certificate is no authority that signed the server's.
        let other =
            ClientTlsFiles { verify: true, ca_file: Some(&files.paths[3]), ..ClientTlsFiles::default() };
        assert!(handshake(other, "localhost", false).await.is_err());
        handshake(ClientTlsFiles::default(), "localhost", false).await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_asks_for_a_certificate_gets_ours() {
        let files = files();
        let [.., cert, key] = files.paths.each_ref().map(|p| Some(p.as_str()));
        for version in ["TLSv1.2", "TLSv1.3"] {
            let ask = ClientTlsFiles { cert, key, max_version: Some(version), ..ClientTlsFiles::default() };
            handshake(ask, "localhost", true).await.unwrap();
        }
    }

    #[test]
    fn messages_name_the_key_or_the_file() {
        let error = |files: ClientTlsFiles<'_>| ClientTls::new(&files).err().unwrap_or_default();
        let base = ClientTlsFiles::default();
        assert!(error(ClientTlsFiles { cert: Some("x"), ..base }).contains("tls.key_file"));
        assert!(
            error(ClientTlsFiles { verify: true, ca_file: Some("/nowhere/ca"), ..base })
                .contains("/nowhere/ca")
        );
        assert!(
            error(ClientTlsFiles { verify: true, ca_path: Some("/nowhere"), ..base }).contains("tls.ca_path")
        );
        assert!(error(ClientTlsFiles { min_version: Some("x"), ..base }).contains("tls.min_version"));
    }
}
