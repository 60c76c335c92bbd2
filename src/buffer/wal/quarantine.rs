//! Where damaged bytes are kept for a person to look at.
//!
//! Enters: a range of a segment. Leaves: a file `corrupt-SEGMENT-OFFSET.bin`. Bounded: the first MiB of a range, and
//! [`FILES`] files. Can go wrong: no room; then they are not kept, and the report says so.

use std::io::{self, IoSlice};

use smallvec::SmallVec;

use super::scan::Gap;
use super::types::{Damage, Harm, Seq};
use super::vfs::{File, Vfs};

/// Files kept; beyond it new damage is reported and not kept.
const FILES: usize = 16;
/// Torn ends are kept only while there are fewer: every crash may leave one, and what was stored once matters more.
const TORN: usize = FILES / 2;
/// Bytes kept of one range.
const MOST: u64 = 1 << 20;

/// Whether a file is one of these.
pub(super) fn is_kept(name: &str) -> bool {
    name.starts_with("corrupt-")
}

/// Keeps the bytes of a gap and gives the report.
pub(super) fn keep(vfs: &dyn Vfs, file: &dyn File, name: &str, gap: Gap, harm: Harm) -> Damage {
    let most = if harm == Harm::Torn { TORN } else { FILES };
    let kept = copy(vfs, file, name, gap, most).ok().flatten();
    let torn = harm == Harm::Torn;
    // Numbers are not used twice, and few are not used at all.
    let frames = gap.next.map_or(1, |next| next.saturating_sub(gap.first));
    Damage {
        file: name.to_owned(),
        offset: gap.at,
        bytes: gap.bytes,
        frames: if torn { 0 } else { frames },
        records: if torn { 0 } else { gap.records },
        first_seq: gap.first,
        next_seq: gap.next,
        harm,
        owners: SmallVec::new(),
        kept,
    }
}

/// The gap without the zeros it ends with: nothing was written there. One of zeros alone stays as it is.
pub(super) fn without_zeros(file: &dyn File, gap: Gap) -> io::Result<Gap> {
    let mut block = vec![0; usize::try_from(gap.bytes.min(MOST)).unwrap_or(0)];
    let (mut at, end, mut written) = (gap.at, gap.at + gap.bytes, gap.at);
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(block.len());
        let n = file.read_at(block.get_mut(..want).unwrap_or_default(), at)?;
        if n == 0 {
            break;
        }
        if let Some(last) = block.get(..n).and_then(|read| read.iter().rposition(|byte| *byte != 0)) {
            written = at + last as u64 + 1;
        }
        at += n as u64;
    }
    Ok(if written > gap.at { Gap { bytes: written - gap.at, ..gap } } else { gap })
}

fn copy(vfs: &dyn Vfs, file: &dyn File, name: &str, gap: Gap, most: usize) -> io::Result<Option<String>> {
    let stem = name.trim_end_matches(".wal");
    let kept = format!("corrupt-{stem}-{}.bin", gap.at);
    let mut bytes = vec![0; usize::try_from(gap.bytes.min(MOST)).unwrap_or(0)];
    let n = file.read_at(&mut bytes, gap.at)?;
    bytes.truncate(n);
    if n == 0 {
        return Ok(None);
    }
    let there = vfs.list()?;
    let out = if there.contains(&kept) {
        let out = vfs.open(&kept)?;
        // One that a crash left empty is written again.
        if out.size()? >= n as u64 {
            return Ok(Some(kept));
        }
        out
    } else if there.iter().filter(|name| is_kept(name)).count() < most {
        vfs.create(&kept)?
    } else {
        return Ok(None);
    };
    // The next append may write over where they were: from then on this is the only copy.
    if let Err(e) = out.write_at(&[IoSlice::new(&bytes)], 0).and_then(|()| out.sync()) {
        drop(vfs.remove(&kept));
        return Err(e);
    }
    Ok(Some(kept))
}

impl Damage {
    /// A whole file that cannot be read.
    pub(super) fn whole(name: &str, harm: Harm, bytes: u64, kept: Option<String>, first_seq: Seq) -> Damage {
        let file = name.to_owned();
        let owners = SmallVec::new();
        Damage {
            file,
            offset: 0,
            bytes,
            frames: 0,
            records: 0,
            first_seq,
            next_seq: None,
            harm,
            owners,
            kept,
        }
    }
}
