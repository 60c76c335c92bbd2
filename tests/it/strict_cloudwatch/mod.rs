//! A CloudWatch Logs of the tests' own: stricter than the real one, and as unkind as it is told to be.
//!
//! Enters: requests over HTTP or TLS, and [`Rule`]s of what to do wrong. Leaves: answers as AWS gives them, what was
//! stored, and every call that was made. Can go wrong: a request that the real service would refuse; that is a violation,
//! and the test fails by it when the server is dropped. Nothing of the router's own code is used.

mod faults;
mod identity;
mod rules;
mod serve;
mod sigv4;
mod store;
mod tests;

pub(crate) use faults::{Answer, Rule};
pub(crate) use identity::TOKEN;
pub(crate) use rules::{BATCH_BYTES, BATCH_EVENTS, Event, OVERHEAD};
pub(crate) use sigv4::{Key, signature};
pub(crate) use store::{Call, Group, Identity, Store};

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio_rustls::TlsAcceptor;

use crate::support::certs;

/// The key that is known from the start.
pub(crate) const KEY: (&str, &str) = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");

/// How it is to be.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) region: String,
    pub(crate) tls: bool,
    /// 0: any that is free.
    pub(crate) port: u16,
    /// How long the credentials hold that it gives.
    pub(crate) lifetime: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options { region: "eu-west-1".to_owned(), tls: false, port: 0, lifetime: Duration::from_secs(3600) }
    }
}

/// What connections share.
pub(crate) struct Shared {
    options: Options,
    port: u16,
    store: Mutex<Store>,
    /// All connections are to be closed.
    cut: Notify,
}

impl Shared {
    fn with<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        change(&mut self.store.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn violation(&self, what: String) {
        self.with(|store| store.violations.push(what));
    }
}

/// A running server. When it is dropped, no violation may be left.
pub(crate) struct CloudWatch {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl CloudWatch {
    /// Starts one without TLS.
    pub(crate) fn start() -> CloudWatch {
        CloudWatch::start_with(Options::default())
    }

    pub(crate) fn start_with(options: Options) -> CloudWatch {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", options.port))).unwrap();
        let tls = options.tls.then(acceptor);
        let port = listener.local_addr().unwrap().port();
        let key = Key { secret: KEY.1.to_owned(), token: None, expires: None, allowed: true };
        let store = Store { keys: [(KEY.0.to_owned(), key)].into(), ..Store::default() };
        let shared = Arc::new(Shared { options, port, store: Mutex::new(store), cut: Notify::new() });
        let (stop, stopped) = oneshot::channel();
        let serving = serve::listen(listener, tls, Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serving => {}
                    _ = stopped => {}
                }
            });
        });
        CloudWatch { shared, stop: Some(stop), thread: Some(thread) }
    }

    /// Where it is: `http://127.0.0.1:port`, or `https://localhost:port`, for which the certificate is.
    pub(crate) fn endpoint(&self) -> String {
        let port = self.shared.port;
        if self.shared.options.tls {
            format!("https://localhost:{port}")
        } else {
            format!("http://127.0.0.1:{port}")
        }
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.shared.port
    }

    /// The address of ECS's credentials endpoint.
    pub(crate) fn credentials_uri(&self) -> String {
        self.endpoint() + identity::CREDENTIALS
    }

    /// The address of ECS's metadata endpoint.
    pub(crate) fn metadata_uri(&self) -> String {
        self.endpoint() + identity::METADATA
    }

    /// Reads or changes what it knows.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        self.shared.with(change)
    }

    /// Does something wrong from now on. Earlier rules come first.
    pub(crate) fn fault(&self, rule: Rule) {
        self.with(|store| store.rules.push(rule));
    }

    /// Does everything right from now on.
    pub(crate) fn heal(&self) {
        self.with(|store| store.rules.clear());
    }

    /// A group and streams in it, as if somebody had created them.
    pub(crate) fn create(&self, group: &str, streams: &[&str]) {
        self.with(|store| {
            let group = store.groups.entry(group.to_owned()).or_default();
            for stream in streams {
                group.streams.entry((*stream).to_owned()).or_default();
            }
        });
    }

    /// Whether it is not there: connections are closed as they come.
    pub(crate) fn away(&self, away: bool) {
        self.with(|store| store.away = away);
    }

    /// Closes every connection that there is now.
    pub(crate) fn cut(&self) {
        self.shared.cut.notify_one();
    }

    /// A group as it is now.
    pub(crate) fn group(&self, name: &str) -> Group {
        self.with(|store| store.groups.get(name).cloned().unwrap_or_default())
    }

    /// The events of a stream, in the order in which they came.
    pub(crate) fn events(&self, group: &str, stream: &str) -> Vec<Event> {
        self.group(group).streams.remove(stream).unwrap_or_default()
    }

    /// The messages of a stream, in the order in which they came.
    pub(crate) fn messages(&self, group: &str, stream: &str) -> Vec<String> {
        self.events(group, stream).into_iter().map(|e| e.message).collect()
    }

    /// Events stored in all streams.
    pub(crate) fn stored(&self) -> usize {
        self.with(|store| store.groups.values().flat_map(|g| g.streams.values()).map(Vec::len).sum())
    }

    /// The calls of an operation, in the order in which they were answered.
    pub(crate) fn calls(&self, operation: &str) -> Vec<Call> {
        self.with(|store| store.calls.iter().filter(|c| c.operation == operation).cloned().collect())
    }

    /// Calls of PutLogEvents that were on their way at once: in all, and in the stream that had the most.
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        self.with(|store| (store.puts.most, store.by_stream.values().map(|f| f.most).max().unwrap_or(0)))
    }

    /// What was asked of its other endpoints.
    pub(crate) fn identity(&self) -> Identity {
        self.with(|store| store.identity.clone())
    }

    /// The rules that were broken; they are forgotten.
    pub(crate) fn take_violations(&self) -> Vec<String> {
        self.with(|store| std::mem::take(&mut store.violations))
    }
}

impl Drop for CloudWatch {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(ended.is_some_and(|e| e.is_ok()), "the server has panicked");
            assert_eq!(self.take_violations(), Vec::<String>::new());
        }
    }
}

fn acceptor() -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_slice(certs::SERVER.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certs::SERVER_KEY.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
