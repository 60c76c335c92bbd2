//! A listener of the endpoints: HTTP/1.1.
//!
//! Enters: connections. Leaves: answers. Can go wrong: clients that are slow, ask too often, or send what is no request;
//! each loses its connection or its turn, and disturbs nobody. Times are the ECS agent's: five seconds to read a request
//! (and between two), five to write an answer.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::directory::Directory;
use super::routes::{self, Answer};
use super::timed::Timed;

/// To send a request's head, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections at a time; more wait to be accepted.
const CONNECTIONS: usize = 256;
/// Most bytes of a request's head.
const HEAD_MAX: usize = 16 << 10;
/// Most headers.
const HEADERS_MAX: usize = 64;
/// When no file descriptor is left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A listener on the loopback whose port is kept in a file: containers that run find the next agent where the last one was.
///
/// # Errors
/// No port can be had, or the disk's.
pub fn listener(file: &Path) -> io::Result<std::net::TcpListener> {
    let known = fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u16>().ok());
    if let Some(port) = known {
        match std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return Ok(listener),
            Err(e) => tracing::warn!(
                port, cause = %e, "the metadata endpoint gets another port: containers that run do not find it any more"
            ),
        }
    }
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    fs::write(file, listener.local_addr()?.port().to_string())?;
    Ok(listener)
}

/// Answers on a listener until the future is dropped; connections that are open then are answered to their end.
///
/// # Errors
/// The listener cannot be waited on.
pub async fn serve(listener: std::net::TcpListener, directory: Arc<Directory>) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return std::future::pending().await };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let served = connection(stream, peer.ip(), Arc::clone(&directory));
                directory.spawner.spawn("a client of the metadata endpoint", async move {
                    let _place = place;
                    served.await;
                });
            }
            Err(e) => {
                tracing::warn!(cause = %e, "the metadata endpoint cannot accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, client: IpAddr, directory: Arc<Directory>) {
    let service = service_fn(|request| {
        let directory = &directory;
        async move { Ok::<_, Infallible>(response(answer(directory, client, &request).await)) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Timed::new(stream, PATIENCE)), service)
        .await;
    if let Err(e) = served {
        tracing::debug!(%client, cause = %crate::net::causes(&e), "a client of the metadata endpoint is gone");
    }
}

async fn answer(directory: &Arc<Directory>, client: IpAddr, request: &Request<Incoming>) -> Answer {
    let uri = request.uri();
    if !directory.limit.admits(client, uri.path()) {
        return routes::too_often();
    }
    let answer = routes::answer(directory, request.method(), uri.path(), uri.query()).await;
    // The path of credentials is a secret.
    tracing::debug!(%client, status = answer.status.as_u16(), "answered a client of the metadata endpoint");
    answer
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let kind = if answer.json { "application/json" } else { "text/plain; charset=utf-8" };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(location) = answer.location.and_then(|l| HeaderValue::from_str(&l).ok()) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::Tasks;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn started() -> (std::net::SocketAddr, Tasks) {
        let tasks = Tasks::new();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let directory = Directory::new(&tasks);
        tasks.spawn("endpoints", async move { drop(serve(listener, directory).await) });
        (address, tasks)
    }

    async fn exchange(address: std::net::SocketAddr, text: &str) -> String {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn requests_are_answered_over_http_and_the_sixty_first_at_once_is_too_many() {
        let (address, _tasks) = started().await;
        let get = "GET /v4/nobody HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answer = exchange(address, get).await;
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
        assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
        let many = "GET /v4/many HTTP/1.1\r\nHost: x\r\n\r\n".repeat(99)
            + "GET /v4/many HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answer = exchange(address, &many).await;
        let (found, refused) = (answer.matches(" 404 Not").count(), answer.matches(" 429 Too").count());
        assert!(found >= 60 && refused >= 30 && found + refused == 100, "{found} {refused}");
        assert!(answer.contains("You have reached maximum request limit."), "{answer}");
        let moved =
            exchange(address, "GET //v4//x?y=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(moved.starts_with("HTTP/1.1 301 ") && moved.contains("location: /v4/x?y=1\r\n"), "{moved}");
    }

    #[test]
    fn the_next_agent_listens_where_the_last_one_did() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("endpoints");
        let first = listener(&file).unwrap();
        let port = first.local_addr().unwrap().port();
        assert_ne!(listener(&file).unwrap().local_addr().unwrap().port(), port);
        fs::write(&file, port.to_string()).unwrap();
        drop(first);
        assert_eq!(listener(&file).unwrap().local_addr().unwrap().port(), port);
    }

    #[tokio::test]
    async fn a_head_without_end_and_a_head_too_large_are_refused() {
        let (address, _tasks) = started().await;
        let large = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(2 * HEAD_MAX));
        let answer = exchange(address, &large).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_left_after_five_seconds() {
        let (address, _tasks) = started().await;
        let since = tokio::time::Instant::now();
        assert_eq!(exchange(address, "GET / HT").await, "");
        assert_eq!(since.elapsed().as_secs(), 5);
    }
}
