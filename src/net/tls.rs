//! TLS for listeners: rustls with ring.

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
        let key_der =
            PrivateKeyDer::from_pem_file(key).map_err(|e| format!("cannot read the key in {key}: {e}"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions(files)?)
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
        let config = builder
            .with_single_cert(chain, key_der)
            .map_err(|e| format!("{cert} and {key} do not work together: {e}"))?;
        Ok(ServerTls(TlsAcceptor::from(Arc::new(config))))
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    // Read first: a missing file should say so, not "no certificate".
    let pem = fs::read(path).map_err(|e| format!("cannot read {path}: {e}"))?;
    let list: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("bad certificate in {path}: {e}"))?;
    if list.is_empty() { Err(format!("no certificate in {path}")) } else { Ok(list) }
}

fn versions(files: &TlsFiles<'_>) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let number = |name: Option<&str>, default| match name.map(|n| n.to_ascii_lowercase()).as_deref() {
        None => Ok(default),
        Some("tlsv1.2") => Ok(2),
        Some("tlsv1.3") => Ok(3),
        Some(other) => Err(format!("TLS version \"{other}\" is not offered; use TLSv1.2 or TLSv1.3")),
    };
    let (min, max) = (number(files.min_version, 2)?, number(files.max_version, 3)?);
    if min > max {
        return Err("tls.min_version is above tls.max_version".into());
    }
    let all = [(2, &rustls::version::TLS12), (3, &rustls::version::TLS13)];
    Ok(all.into_iter().filter(|(n, _)| (min..=max).contains(n)).map(|(_, v)| v).collect())
}
