//! Gives back the pages of code that only the start needed.
//!
//! Enters: `/proc/self/smaps`. Leaves: mapped pages of this binary and of the libraries that it loads; what is still used
//! is mapped again at its next use, from the page cache. Can go wrong: no `/proc`, or pages that are locked: then nothing
//! is given back, and nothing else happens.
//!
//! Reading the command line and the configuration, compiling patterns and setting up TLS go through code all over a large
//! binary, and the kernel maps 64 KiB around each place: 13 MiB of an idle router's 15. Given back at the end of the start
//! it is 4 to 5 in all. It costs one system call for each mapping and some two hundred page faults, once.
//!
//! This is a place with unsafe code: `madvise` has no safe form, since most advice changes what memory holds. Proof that this
//! one does not: `MADV_DONTNEED` on a private mapping of a file discards the process's own changes and keeps what the file
//! holds. Only mappings are given that cannot be written and of which the kernel says that they hold no page of the
//! process's own (`Anonymous: 0 kB`), so there is nothing to discard; the relocated data, which hold some, are left alone.
//! No such mapping goes between the look and the call: libraries are loaded before `main`, and nothing unloads one. The
//! `smaps` fuzz target reads any text.

use std::ops::Range;

use rustix::mm::{Advice, madvise};

/// Gives back what is mapped of files, cannot be written, and holds nothing that is not in the file.
pub fn give_back_code() {
    let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") else { return };
    for range in clean_code(&smaps) {
        let at = std::ptr::with_exposed_provenance_mut(range.start);
        #[allow(unsafe_code, reason = "no safe form; see the module's proof")]
        // SAFETY: the mapping cannot be written and holds nothing of the process's own: no byte changes.
        let given = unsafe { madvise(at, range.len(), Advice::LinuxDontNeed) };
        if let Err(cause) = given {
            tracing::debug!(%cause, "the pages of code that is not used any more are kept");
            return;
        }
    }
}

/// The mappings of files in `/proc/PID/smaps` that cannot be written and hold no page of the process's own.
/// <https://man7.org/linux/man-pages/man5/proc_pid_smaps.5.html>
pub fn clean_code(smaps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut open = None;
    for line in smaps.lines() {
        if let Some(mapping) = file_without_writes(line) {
            open = Some(mapping);
        } else if line.split(' ').next().is_some_and(|word| !word.ends_with(':')) {
            // Another mapping begins.
            open = None;
        } else if let Some(kib) = line.strip_prefix("Anonymous:")
            && let Some(mapping) = open.take()
            && kib.trim() == "0 kB"
        {
            found.push(mapping);
        }
    }
    found
}

/// Where a mapping lies, if this line begins one of a file that is private and cannot be written:
/// `55d0c0000000-55d0c1000000 r-xp 00800000 fe:00 131 /usr/bin/firelane`.
fn file_without_writes(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let may = words.next()?.as_bytes();
    let path = words.nth(3)?;
    let address = |hex: &str| usize::from_str_radix(hex, 16).ok();
    let range = address(from)?..address(to)?;
    (may.first() == Some(&b'r')
        && may.get(1) == Some(&b'-')
        && may.get(3) == Some(&b'p')
        && path.starts_with('/')
        && !range.is_empty())
    .then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMAPS: &str = "\
1000-3000 r--p 00000000 fe:00 131 /usr/bin/firelane
Size:                  8 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd
3000-5000 r-xp 00002000 fe:00 131 /usr/bin/firelane
Anonymous:             0 kB
5000-6000 r--p 00004000 fe:00 131 /usr/bin/firelane
Anonymous:             4 kB
6000-7000 rw-p 00005000 fe:00 131 /usr/bin/firelane
Anonymous:             0 kB
7000-8000 r--s 00000000 fe:00 200 /var/cache/shared
Anonymous:             0 kB
8000-9000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
9000-a000 r--p 00000000 00:00 0
Anonymous:             0 kB
a000-b000 r-xp 00000000 fe:00 7 /usr/lib/a library.so
Anonymous:             0 kB
";

    #[test]
    fn only_files_that_cannot_be_written_and_hold_no_page_of_ours_are_given_back() {
        assert_eq!(clean_code(SMAPS), [0x1000..0x3000, 0x3000..0x5000, 0xa000..0xb000]);
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text in "[0-9a-f-]{0,20} ?[rwxp-]{0,5} ?[a-zA-Z0-9:/ ]{0,30}\n?Anonymous: {0,3}0? kB\n?") {
            clean_code(&text);
        }
    }
}
