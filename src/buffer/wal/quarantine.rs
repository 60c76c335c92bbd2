//! Where damaged bytes are kept for a person to look at.
//!
//! Enters: a range of a segment. Leaves: a file `corrupt-SEGMENT-OFFSET.bin`. Bounded: the first MiB of a range, and
//! [`FILES`] files. Can go wrong: no room; then they are not kept, and the report says so.

use std::io::{self, IoSlice};

use super::scan::Gap;
use super::types::{Damage, Seq};
use super::vfs::{File, Vfs};

/// Files kept; beyond it new damage is reported and not kept.
const FILES: usize = 16;
/// Bytes kept of one range.
const MOST: u64 = 1 << 20;

/// Whether a file is one of these.
pub(super) fn is_kept(name: &str) -> bool {
    name.starts_with("corrupt-")
}

/// Keeps the bytes of a gap and gives the report.
pub(super) fn keep(vfs: &dyn Vfs, file: &dyn File, name: &str, gap: Gap, torn: bool) -> Damage {
    let kept = if torn { None } else { copy(vfs, file, name, gap).ok().flatten() };
    Damage {
        file: name.to_owned(),
        offset: gap.at,
        bytes: gap.bytes,
        records: gap.records,
        first_seq: gap.first,
        next_seq: gap.next,
        torn,
        kept,
    }
}

fn copy(vfs: &dyn Vfs, file: &dyn File, name: &str, gap: Gap) -> io::Result<Option<String>> {
    let stem = name.trim_end_matches(".wal");
    let kept = format!("corrupt-{stem}-{}.bin", gap.at);
    let there = vfs.list()?;
    if there.contains(&kept) {
        return Ok(Some(kept));
    }
    if there.iter().filter(|n| is_kept(n)).count() >= FILES {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(gap.bytes.min(MOST)).unwrap_or(0)];
    let n = file.read_at(&mut bytes, gap.at)?;
    bytes.truncate(n);
    let out = vfs.create(&kept)?;
    if let Err(e) = out.write_at(&[IoSlice::new(&bytes)], 0) {
        drop(vfs.remove(&kept));
        return Err(e);
    }
    Ok(Some(kept))
}

impl Damage {
    /// A whole file that cannot be read.
    pub(super) fn whole(name: &str, bytes: u64, kept: Option<String>, first_seq: Seq) -> Damage {
        let file = name.to_owned();
        Damage { file, offset: 0, bytes, records: 0, first_seq, next_seq: None, torn: false, kept }
    }
}
