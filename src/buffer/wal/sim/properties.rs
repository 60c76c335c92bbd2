//! Properties of the simulated disk itself (a kind disk would prove nothing), and of the log beside its readers.
//!
//! Enters: random operations. Leaves: the operation that breaks a property. Can go wrong: nothing else.

use std::io::IoSlice;

use proptest::prelude::*;

use super::disk::{Disk, Faults};
use super::image::Mood;
use super::rng::Rng;

fn write(file: &dyn crate::buffer::wal::File, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    file.write_at(&[IoSlice::new(bytes)], offset)
}

#[test]
fn what_was_synced_survives_and_what_was_not_may_not() {
    let mut kept = 0;
    for seed in 0..200 {
        let disk = Disk::new(seed);
        let vfs = disk.mount();
        let file = vfs.create("a").unwrap();
        vfs.sync_dir().unwrap();
        write(&*file, 0, &[1; 1000]).unwrap();
        file.sync().unwrap();
        write(&*file, 1000, &[2; 1000]).unwrap();
        vfs.create("b").unwrap();
        disk.crash(seed);
        assert!(file.size().is_err(), "a dead process writes on");
        let after = disk.bytes_of("a").unwrap();
        assert_eq!(after[..1000], [1; 1000]);
        kept += u64::from(after.len() == 2000 && after[1000..] == [2; 1000]);
    }
    assert!((20..180).contains(&kept), "{kept}");
}

#[test]
fn a_name_is_there_after_a_crash_only_once_the_directory_was_synced() {
    let mut there = 0;
    for seed in 0..200 {
        let disk = Disk::new(seed);
        let vfs = disk.mount();
        let file = vfs.create("a").unwrap();
        write(&*file, 0, b"x").unwrap();
        file.sync().unwrap();
        vfs.sync_dir().unwrap();
        vfs.rename("a", "b").unwrap();
        disk.crash(seed);
        let names = disk.names();
        assert!(names == ["a"] || names == ["b"], "{names:?}");
        assert_eq!(disk.bytes_of(&names[0]).as_deref(), Some(&b"x"[..]));
        there += u64::from(names == ["b"]);
    }
    assert!((20..180).contains(&there), "{there}");
}

#[test]
fn a_failed_sync_drops_what_was_written_and_the_next_one_lies() {
    let disk = Disk::new(1);
    let vfs = disk.mount();
    let file = vfs.create("a").unwrap();
    vfs.sync_dir().unwrap();
    let mut lost = false;
    for n in 0..20 {
        write(&*file, n * 512, &[7; 512]).unwrap();
        disk.set_faults(Faults { sync: 1000, ..Faults::default() });
        assert!(file.sync().is_err());
        disk.set_faults(Faults::default());
        file.sync().unwrap();
        let mut back = [0; 512];
        file.read_at(&mut back, n * 512).unwrap();
        lost |= back != [7; 512];
    }
    assert!(lost);
}

#[test]
fn a_full_volume_takes_what_fits_and_says_so_and_writing_over_needs_no_room() {
    let disk = Disk::new(1);
    disk.set_volume(Some(16_384));
    let vfs = disk.mount();
    let file = vfs.create("a").unwrap();
    let e = write(&*file, 100, &[1; 20_000]).unwrap_err();
    assert_eq!(e.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(file.size().unwrap(), 16_384);
    assert_eq!(vfs.space().unwrap(), (0, 16_384));
    write(&*file, 0, &[2; 16_384]).unwrap();
    vfs.remove("a").unwrap();
    assert_eq!(vfs.space().unwrap(), (16_384, 16_384));
}

#[derive(Clone, Debug)]
enum Op {
    Write(u16, u16),
    Size(u16),
    Sync,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..20_000_u16, 1..6000_u16).prop_map(|(at, len)| Op::Write(at, len)),
        1 => (0..20_000_u16).prop_map(Op::Size),
        1 => Just(Op::Sync),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_file_reads_back_as_a_plain_array_and_keeps_its_synced_half(ops in proptest::collection::vec(op(), 1..40), seed in any::<u64>()) {
        let disk = Disk::new(seed);
        let vfs = disk.mount();
        let file = vfs.create("f").unwrap();
        vfs.sync_dir().unwrap();
        let mut rng = Rng::new(seed);
        let (mut plain, mut synced): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
        for op in ops {
            match op {
                Op::Write(at, len) => {
                    let mut bytes = vec![0; usize::from(len)];
                    rng.fill(&mut bytes);
                    let (at, end) = (usize::from(at), usize::from(at) + bytes.len());
                    if plain.len() < end {
                        plain.resize(end, 0);
                    }
                    plain[at..end].copy_from_slice(&bytes);
                    file.write_at(&[IoSlice::new(&bytes[..1]), IoSlice::new(&bytes[1..])], at as u64).unwrap();
                }
                Op::Size(size) => {
                    plain.resize(usize::from(size), 0);
                    file.set_size(size.into()).unwrap();
                }
                Op::Sync => {
                    synced = plain.clone();
                    file.sync().unwrap();
                }
            }
            prop_assert_eq!(disk.bytes_of("f").unwrap(), plain.clone());
        }
        disk.fork().crash_as(&mut rng, Mood::Anything);
        let old = disk.fork();
        old.crash_as(&mut rng, Mood::AllOld);
        prop_assert_eq!(old.bytes_of("f").unwrap(), synced);
        disk.crash_as(&mut rng, Mood::AllNew);
        prop_assert_eq!(disk.bytes_of("f").unwrap(), plain);
    }
}
