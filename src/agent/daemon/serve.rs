//! The socket of a daemon.
//!
//! Enters: connections of clients, one question each. Leaves: answers. Can go wrong: a client that says nothing or rubbish;
//! it is told and cut off, others go on. A daemon that is told to end leaves its tasks running.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::protocol::{Ask, Said, line};
use super::{Agent, Record};
use crate::agent::endpoints;

/// Clients that are served at once; more wait.
const CLIENTS: usize = 64;
/// How long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often ended tasks are looked through.
const SWEEP: Duration = Duration::from_secs(60);

/// Serves clients until `end` comes.
///
/// # Errors
/// The socket cannot be opened.
pub async fn serve(agent: Arc<Agent>, end: impl Future<Output = ()>) -> io::Result<()> {
    let path = agent.store.socket();
    // The lock is ours: what lies there is a dead daemon's.
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    let places = Arc::new(Semaphore::new(CLIENTS));
    let mut sweep = tokio::time::interval(SWEEP);
    tokio::pin!(end);
    let asked = agent.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
    let asked = async {
        match asked {
            Some(listener) => endpoints::serve(listener, Arc::clone(&agent.directory)).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(asked);
    loop {
        tokio::select! {
            () = &mut end => break,
            Err(e) = &mut asked => return Err(e),
            _ = sweep.tick() => agent.sweep(),
            accepted = accept(&listener, &places) => match accepted {
                Ok((stream, place)) => {
                    let this = Arc::clone(&agent);
                    agent.supervised.spawn("client", async move {
                        let _place = place;
                        if let Err(e) = answer(&this, stream).await {
                            tracing::debug!(cause = %e, "a client was cut off");
                        }
                    });
                }
                // Out of descriptors, perhaps: what runs goes on, and the next client may have better luck.
                Err(e) => {
                    tracing::error!(cause = %e, "cannot accept a client");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    fs::remove_file(&path)
}

async fn accept(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.accept().await?.0, place))
}

async fn answer(agent: &Arc<Agent>, stream: UnixStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let asked = tokio::time::timeout(PATIENCE, line(&mut stream)).await??;
    let Some(asked) = asked else { return Ok(()) };
    let mut stream = stream.into_inner();
    let ask: Ask = match serde_json::from_slice(&asked) {
        Ok(ask) => ask,
        Err(e) => return say(&mut stream, &Said::Refused(format!("cannot understand: {e}"))).await,
    };
    let task = |result: Result<Record, String>| match result {
        Ok(record) => Said::Task(Box::new(record.public())),
        Err(why) => Said::Refused(why),
    };
    match ask {
        Ask::Run { definition, runtime, choices } => {
            let said = task(agent.take(&definition, runtime, *choices).await);
            say(&mut stream, &said).await
        }
        Ask::List => say(&mut stream, &Said::Tasks(agent.list())).await,
        Ask::Stop { task: which, reason } => {
            let said = task(agent.stop(&which, &reason));
            say(&mut stream, &said).await
        }
        Ask::Watch { task: which } => match agent.watch(&which) {
            Err(why) => say(&mut stream, &Said::Refused(why)).await,
            Ok(mut changes) => loop {
                let record = changes.borrow_and_update().public();
                let ended = record.has_ended();
                say(&mut stream, &Said::Task(Box::new(record))).await?;
                if ended {
                    return Ok(());
                }
                // A client has nothing more to say: whatever can be read is its end.
                let mut word = [0];
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return Ok(()) },
                    _ = stream.read(&mut word) => return Ok(()),
                }
            },
        },
    }
}

async fn say(stream: &mut UnixStream, said: &Said) -> io::Result<()> {
    let mut line = serde_json::to_vec(said).map_err(io::Error::other)?;
    line.push(b'\n');
    stream.write_all(&line).await
}
