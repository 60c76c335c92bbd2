//! A tag as a file name. Clients choose tags, so the name must be one plain name in the directory, whatever the tag.
//!
//! Ordinary tags are their own name. `/`, `%`, control characters and DEL become `%XX` (upper case), and so do the dots
//! of `.` and `..`. The empty tag is `%empty`. A name longer than 200 bytes is cut and ends with `%~` and 128 bits of
//! the tag's SHA-256. Different tags have different names, but for collisions of that hash.

use sha2::{Digest, Sha256};

/// Longest name. File systems allow 255 bytes; the rest is for what rotation tools append.
const LONGEST: usize = 200;

/// The name of the file for a tag.
pub(super) fn of_tag(tag: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if tag.is_empty() {
        return b"%empty".to_vec();
    }
    let dots = tag == b"." || tag == b"..";
    let mut name = Vec::with_capacity(tag.len().min(LONGEST));
    for &b in tag {
        if dots || b < 0x20 || matches!(b, b'/' | b'%' | 0x7f) {
            name.extend_from_slice(&[b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
        } else {
            name.push(b);
        }
        if name.len() > LONGEST {
            name.truncate(LONGEST - 34);
            name.extend_from_slice(b"%~");
            for b in Sha256::digest(tag).iter().take(16) {
                name.extend_from_slice(&[HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
            }
            break;
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_tags_are_their_own_name_and_others_are_spelled_out() {
        for tag in ["app.one", "web-firelens-0f1e2d3c", "ключ", "...", ".hidden", "a b"] {
            assert_eq!(of_tag(tag.as_bytes()), tag.as_bytes());
        }
        let name = |tag: &[u8]| String::from_utf8(of_tag(tag)).unwrap();
        assert_eq!(name(b""), "%empty");
        assert_eq!(name(b".."), "%2E%2E");
        assert_eq!(name(b"../../etc/passwd"), "..%2F..%2Fetc%2Fpasswd");
        assert_eq!(name(b"a\0b\nc%2F"), "a%00b%0Ac%252F");
    }

    #[test]
    fn overlong_tags_keep_their_beginning_and_differ() {
        let (a, b) = ([b'a'; 5000], [b'a'; 5001]);
        let (x, y) = (of_tag(&a), of_tag(&b));
        assert_eq!((x.len(), y.len()), (200, 200));
        assert_ne!(x, y);
        assert!(x.starts_with(&[b'a'; 100]));
    }

    proptest! {
        #[test]
        fn any_tag_is_one_plain_name_of_its_own(
            tags in proptest::collection::vec(proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'/'), Just(b'.'), Just(b'%')], 0..400), 2)
        ) {
            let names: Vec<_> = tags.iter().map(|t| of_tag(t)).collect();
            for n in &names {
                prop_assert!(!n.is_empty() && n.len() <= 200 && n != b"." && n != b"..");
                prop_assert!(n.iter().all(|b| *b >= 0x20 && *b != b'/'));
            }
            prop_assert_eq!(tags[0] == tags[1], names[0] == names[1]);
        }
    }
}
