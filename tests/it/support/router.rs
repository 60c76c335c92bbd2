//! The process under test in a directory of its own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::ledger::Ledger;
use super::{LIMIT, eventually};

/// A unix and a TCP forward input, and a file `out.log` for everything.
pub(crate) const TO_FILE: &str = "
[SERVICE]
    Flush 0.1
    Grace 10
[INPUT]
    Name forward
    Unix_Path {dir}/in.sock
[INPUT]
    Name forward
    Listen 127.0.0.1
    Port {port}
[OUTPUT]
    Name file
    Match *
    Path {dir}
    File out.log
    Format plain
";

/// A running router. Killed when dropped.
pub(crate) struct Router {
    child: Child,
    dir: TempDir,
    port: u16,
}

/// What it left.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) ledger: Ledger,
    pub(crate) messages: String,
    pub(crate) dir: TempDir,
}

impl Router {
    /// Starts it with a configuration in which `{dir}` and `{port}` are replaced, and waits until it accepts.
    pub(crate) fn start(conf: &str) -> Router {
        Router::start_in(tempfile::tempdir().unwrap(), conf)
    }

    /// The same in a directory that the test has prepared.
    pub(crate) fn start_in(dir: TempDir, conf: &str) -> Router {
        Router::start_with(dir, conf, &[])
    }

    /// The same with environment variables.
    pub(crate) fn start_with(dir: TempDir, conf: &str, env: &[(&str, String)]) -> Router {
        let port = free_port();
        let conf = conf.replace("{dir}", dir.path().to_str().unwrap()).replace("{port}", &port.to_string());
        fs::write(dir.path().join("router.conf"), conf).unwrap();
        let log = File::create(dir.path().join("router.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_firelane"))
            .args(["run", "-c"])
            .arg(dir.path().join("router.conf"))
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut router = Router { child, dir, port };
        eventually("the router accepts", || {
            if let Some(status) = router.child.try_wait().unwrap() {
                panic!("ended at start with {status}:\n{}", router.messages());
            }
            router.messages().contains(" ready ").then_some(())
        });
        router
    }

    /// A path in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Everything it has said.
    pub(crate) fn messages(&self) -> String {
        fs::read_to_string(self.path("router.log")).unwrap()
    }

    /// Waits for words in its messages.
    pub(crate) fn says(&self, words: &str) {
        eventually(&format!("a message with {words:?}"), || self.messages().contains(words).then_some(()));
    }

    /// The port in its configuration.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A new unix connection.
    pub(crate) fn unix(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path("in.sock")).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// A new TCP connection.
    pub(crate) fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for so many whole lines in a file, which may be written just now, and gives their `log` values.
    pub(crate) fn logs(&self, file: &str, count: usize) -> Vec<String> {
        let path = self.path(file);
        eventually(&format!("{count} lines in {file}"), || {
            // A look in the midst of a write may end within a line, and within a character.
            let text = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let whole: String = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
            (whole.lines().count() >= count).then(|| logs(&whole))
        })
    }

    /// Peak resident memory, KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.status_kib("VmHWM")
    }

    /// A line of `/proc/PID/status` that is a number of KiB.
    pub(crate) fn status_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.split(':').next() == Some(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// SIGKILL; gives the directory as it was left.
    pub(crate) fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    /// SIGTERM, then [`Router::ended`].
    pub(crate) fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Waits for the end; both sums must hold.
    pub(crate) fn ended(mut self) -> Ended {
        let status = eventually("the router ends", || self.child.try_wait().unwrap());
        let messages = self.messages();
        let ledger = Ledger::read(&messages);
        ledger.assert_balance();
        assert!(!messages.contains("panicked"), "{messages}");
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        Ended { code: status.code(), ledger, messages, dir }
    }
}

impl Drop for Router {
    #[expect(clippy::print_stderr, reason = "shown for a test that has failed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the router said:\n{}", self.messages());
        }
        // Both fail only when it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Ended {
    /// The `log` values of a file.
    pub(crate) fn logs(&self, file: &str) -> Vec<String> {
        logs(&fs::read_to_string(self.dir.path().join(file)).unwrap_or_default())
    }
}

/// A TCP port that nobody has: below those that the kernel gives to clients, and each only once.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + (std::process::id() % 7_000) as u16;
    (0..1_000)
        .map(|_| first + NEXT.fetch_add(1, Ordering::Relaxed))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}

/// The `log` values of JSON lines; every line must be whole.
fn logs(text: &str) -> Vec<String> {
    assert!(text.is_empty() || text.ends_with('\n'), "a torn last line: {text:?}");
    let log = |line: &str| {
        let record: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line:?}"));
        record["log"].as_str().unwrap_or_else(|| panic!("no log in {line:?}")).to_owned()
    };
    text.lines().map(log).collect()
}

/// Both ends of a connection that tests need.
pub(crate) trait Client: Read + Write {
    /// Bounds the next reads.
    fn wait_at_most(&self, time: Duration);

    /// Sends.
    fn send(&mut self, bytes: &[u8]) {
        self.write_all(bytes).unwrap();
    }

    /// Reads exactly these bytes.
    fn expect(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        self.read_exact(&mut got).unwrap();
        assert_eq!(got, bytes);
    }

    /// Nothing comes for a while.
    fn expect_silence(&mut self) {
        self.wait_at_most(Duration::from_millis(400));
        let got = self.read(&mut [0; 64]);
        assert!(
            matches!(&got, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock),
            "silence expected: {got:?}"
        );
        self.wait_at_most(LIMIT);
    }

    /// The other side closes without another word.
    fn expect_close(&mut self) {
        let start = Instant::now();
        match self.read(&mut [0; 64]) {
            Ok(0) => {}
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => panic!("a close is expected: {other:?} after {:?}", start.elapsed()),
        }
    }
}

impl Client for UnixStream {
    fn wait_at_most(&self, time: Duration) {
        self.set_read_timeout(Some(time)).unwrap();
    }
}

impl Client for TcpStream {
    fn wait_at_most(&self, time: Duration) {
        self.set_read_timeout(Some(time)).unwrap();
    }
}
