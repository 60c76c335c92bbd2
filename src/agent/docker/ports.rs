//! Ports of this machine that follow one another, for a `containerPortRange`: docker would choose each by itself.
//!
//! Enters: how many. Leaves: the first, where nobody listened a moment ago, as the ECS agent looks for them. Can go wrong:
//! there are not so many in a row; or somebody takes one before docker does: then the start fails, by docker's words.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Where the kernel says which ports are given to whoever asks for any.
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// The ECS agent's range where it does not.
const USUAL: (u16, u16) = (49_153, 65_535);

/// Where the next search begins: what was found last may not be bound yet.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// The first of `count` ports of the machine that nobody has.
pub(super) fn contiguous(count: u16, udp: bool) -> Option<u16> {
    let range = range(&fs::read_to_string(RANGE).unwrap_or_default()).unwrap_or(USUAL);
    let next = NEXT.load(Ordering::Relaxed);
    let begin = if (range.0..=range.1).contains(&next) { next } else { range.0 };
    let is_free = |port| match udp {
        true => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok(),
        false => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok(),
    };
    let found = search((begin, range.1), count, is_free).or_else(|| search(range, count, is_free))?;
    NEXT.store(found.saturating_add(count), Ordering::Relaxed);
    Some(found)
}

fn range(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next()?, numbers.next()?) {
        (Ok(first), Ok(last)) if first < last => Some((first, last)),
        _ => None,
    }
}

fn search((first, last): (u16, u16), count: u16, is_free: impl Fn(u16) -> bool) -> Option<u16> {
    let (mut begin, mut found) = (first, 0);
    for port in first..=last {
        if is_free(port) {
            found += 1;
            if found == count {
                return Some(begin);
            }
        } else {
            (begin, found) = (port.saturating_add(1), 0);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_between_those_that_are_taken() {
        let free = |port: u16| ![3, 6, 10].contains(&port);
        let found = [1, 2, 3, 4].map(|count| search((1, 12), count, free));
        assert_eq!(found, [Some(1), Some(1), Some(7), None]);
        assert_eq!(range("32768\t60999\n"), Some((32_768, 60_999)));
        assert_eq!((range(""), range("9 1")), (None, None));
    }

    #[test]
    fn a_search_goes_on_behind_the_last() {
        let (one, two) = (contiguous(3, false).unwrap(), contiguous(3, false).unwrap());
        assert!(two >= one + 3 || two + 3 <= one, "{one} {two}");
        assert!(contiguous(u16::MAX, true).is_none());
    }
}
