//! Listeners and connections, theirs and ours: TCP, unix sockets, TLS; the HTTP client, and AWS behind it.
//!
//! Enters: an address. Leaves: connections that can be waited on without holding a buffer. Can go wrong: the address
//! is taken, the path too long, a certificate unreadable; every message says what to do.

mod aws;
mod client;
mod client_tls;
mod conn;
mod http;
#[cfg(feature = "kafka")]
pub mod kafka;
mod listener;
#[cfg(test)]
pub(crate) mod test_certs;
mod tls;

pub use aws::{Aws, AwsOptions, KeptCredentials, assume_role, aws};
pub use client::{ClientConn, Dialer, Did, Target, TcpKeepalive};
pub use client_tls::{ClientTls, ClientTlsFiles};
pub use conn::{Conn, HangUp};
pub use http::{HttpClient, HttpError, HttpOptions};
pub use listener::Listener;
pub use tls::{ServerTls, TlsFiles};

/// An error with everything that it says was its cause, in one line. (Libraries' errors often say only "dispatch failure"
/// themselves.)
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// `N` random bytes, from the kernel.
///
/// # Errors
/// When the kernel has no randomness to give.
pub fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    // The kernel gives up to 256 bytes whole.
    const { assert!(N <= 256) };
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| format!("no random numbers from the kernel: {e}"))?;
    Ok(bytes)
}

/// `N` random printable ASCII characters, from the kernel.
///
/// # Errors
/// When the kernel has no randomness to give.
pub fn random_printable<const N: usize>() -> Result<String, String> {
    // 64 characters: every byte maps without bias.
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    Ok(random::<N>()?.iter().map(|b| char::from(LETTERS[usize::from(b & 63)])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_text_is_printable_and_differs() {
        let (a, b) = (random_printable::<16>().unwrap(), random_printable::<16>().unwrap());
        assert_eq!(a.len(), 16);
        assert!(a.bytes().all(|c| c.is_ascii_graphic()));
        assert_ne!(a, b);
    }
}
