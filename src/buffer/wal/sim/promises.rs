//! Single promises of the log, each on its own.
//!
//! Enters: a few steps. Leaves: the promise that is broken. Can go wrong: nothing else.

use std::time::{Duration, Instant};

use bytes::Bytes;
use smallvec::smallvec;

use super::disk::{Disk, Faults};
use super::image::Mood;
use super::world::{Order, SEGMENT, Shape, Step, World, options};
use crate::buffer::wal::scan::Gap;
use crate::buffer::wal::{AppendError, Damage, Harm, Kind, Log, NewFrame, OpenError, Options, OwnerId, Seq};
use crate::buffer::wal::{frame as bytes_of, quarantine};
use crate::record::{Seg, Tag};
use crate::rt::Marks;

fn frame(owners: &[usize], bytes: usize) -> Shape {
    Shape { owners: owners.to_vec(), bytes, holds: 0, frees: 0 }
}

fn steps(world: &mut World, steps: &[Step]) {
    for step in steps {
        world.step(step).unwrap_or_else(|why| panic!("{step:?}: {why}"));
    }
}

fn plain(owner: OwnerId, bytes: usize, id: u64) -> NewFrame {
    NewFrame {
        kind: Kind::Records,
        owners: smallvec![owner],
        segs: smallvec![Seg { tag: Tag::new(b"t"), end: bytes, count: 1 }],
        body: Bytes::from(vec![id as u8; bytes]),
        holds: Vec::new(),
        frees: Vec::new(),
        time_ms: id,
    }
}

/// Reads, hands out and settles everything.
fn deliver(log: &mut Log, owner: OwnerId, from: Seq) -> Seq {
    let mut reader = log.reader(owner);
    let mut next = from;
    loop {
        let read = reader.read(next, 1 << 20);
        let seqs: Vec<Seq> = read.frames.iter().map(|frame| frame.seq).collect();
        next = read.next;
        log.handed_out(owner, &seqs, next);
        log.settle(owner, &seqs);
        if read.caught_up {
            return next;
        }
    }
}

#[test]
fn a_second_process_is_refused_until_the_first_is_gone() {
    let disk = Disk::new(1);
    let (log, _) = Log::open(disk.mount(), options()).unwrap();
    match Log::open(disk.mount(), options()) {
        Err(e @ OpenError::Locked { .. }) => assert!(e.to_string().contains("another process"), "{e}"),
        other => panic!("{:?}", other.map(|(_, opened)| opened)),
    }
    drop(log);
    Log::open(disk.mount(), options()).unwrap();
}

#[test]
fn a_group_costs_one_sync() {
    let disk = Disk::new(1);
    let (mut log, _) = Log::open(disk.mount(), options()).unwrap();
    let owner = log.owner("a", 1).unwrap();
    log.append(&[plain(owner, 10, 1)]).unwrap();
    disk.set_trace(true);
    log.append(&[plain(owner, 10, 2), plain(owner, 5000, 3), plain(owner, 1, 4)]).unwrap();
    let calls = disk.trace();
    assert_eq!(calls.iter().filter(|call| call.starts_with("sync")).count(), 1, "{calls:?}");
    assert_eq!(calls.len(), 2, "{calls:?}");
}

#[test]
fn eight_mebibytes_of_disk_take_four_megabytes_of_records_and_go_on_when_they_are_delivered() {
    let disk = Disk::new(1);
    disk.set_volume(Some(8 << 20));
    let open = || Log::open(disk.mount(), Options { background: false, ..Options::default() }).unwrap();
    let (mut log, _) = open();
    let owner = log.owner("a", 1).unwrap();
    let now = Instant::now() + Duration::from_secs(3600);
    let mut from = 1;
    for round in 0..3 {
        let mut stored = 0;
        loop {
            match log.append(&[plain(owner, 60_000, 7), plain(owner, 500, 8)]) {
                Ok(_) => stored += 60_500,
                Err(AppendError::Full) => break,
                Err(e) => panic!("{e}"),
            }
            log.maintain(now).unwrap();
        }
        assert!(stored >= 4_000_000, "round {round}: {stored} bytes");
        // Full is full: it says so again, breaks nothing, and cursors need no room.
        assert!(matches!(log.append(&[plain(owner, 60_000, 7)]), Err(AppendError::Full)));
        from = deliver(&mut log, owner, from);
        let freed = log.maintain(now + Duration::from_secs(10 * (round + 1))).unwrap();
        assert!(freed.segments > 0, "{freed:?}");
    }
    log.close().unwrap();
    let (_, opened) = open();
    assert!(opened.backlog.iter().all(|&(.., bytes)| bytes == 0), "{:?}", opened.backlog);
}

#[test]
fn a_backlog_gives_its_space_back_while_the_volume_is_short_and_what_is_left_is_enough_to_work_with() {
    let disk = Disk::new(1);
    disk.set_volume(Some(8 << 20));
    let (mut log, _) = Log::open(disk.mount(), Options { background: false, ..Options::default() }).unwrap();
    let owner = log.owner("a", 1).unwrap();
    let mut stored = 0;
    while log.append(&[plain(owner, 60_000, 7)]).is_ok() {
        stored += 1;
    }
    assert!(disk.room() >= log.reserve() && disk.room() >= 1 << 20, "{}", disk.room());
    // The output writes to the same volume, all that is left, and has delivered the first half then.
    disk.put("out", &vec![1; (disk.room() / 4096 * 4096) as usize]);
    let mut now = Instant::now() + Duration::from_secs(9999);
    let mut reader = log.reader(owner);
    let mut settled = |log: &mut Log, until: Seq| {
        let mut next = log.owners.get(&owner).unwrap().read;
        while next <= until {
            let read = reader.read(next, 1);
            next = read.next;
            let seqs: Vec<Seq> = read.frames.iter().map(|frame| frame.seq).collect();
            log.handed_out(owner, &seqs, next);
            log.settle(owner, &seqs);
        }
        now += Duration::from_secs(10);
        log.maintain(now).unwrap()
    };
    let freed = settled(&mut log, stored / 2);
    assert!(freed.segments >= 2, "{freed:?}");
    assert!(disk.room() >= freed.bytes, "{} of {freed:?}", disk.room());
    disk.put("more", &vec![1; (disk.room() / 4096 * 4096) as usize]);
    assert!(matches!(log.append(&[plain(owner, 60_000, 7)]), Err(AppendError::Full)));
    // Without a backlog the log keeps what it has, and goes on.
    settled(&mut log, stored);
    for _ in 0..100 {
        let seqs = log.append(&[plain(owner, 60_000, 7)]).unwrap();
        settled(&mut log, seqs.start);
    }
}

#[test]
fn a_full_disk_takes_what_lets_go_of_held_records_and_goes_on() {
    let disk = Disk::new(1);
    disk.set_volume(Some(4 << 20));
    let (mut log, _) = Log::open(disk.mount(), options()).unwrap();
    let owner = log.owner("a", 1).unwrap();
    // In each segment one record that a filter holds; all else is delivered.
    let held = |id: u64| {
        let body = Bytes::from(vec![0xc0; 1]);
        let segs = smallvec![Seg { tag: Tag::new(b"t"), end: body.len(), count: 1 }];
        let (owners, frees) = (smallvec![], Vec::new());
        NewFrame { kind: Kind::Held, owners, segs, body, holds: vec![id], frees, time_ms: id }
    };
    let mut ids = Vec::new();
    let mut next = log.next_seq();
    let mut now = Instant::now();
    loop {
        let id = ids.len() as u64 + 1;
        match log.append(&[held(id)]) {
            Ok(_) => ids.push(id),
            Err(AppendError::Full) => break,
            Err(e) => panic!("{e}"),
        }
        while log.append(&[plain(owner, 50_000, 0)]).is_ok() && log.next_seq() - next < 6 {}
        next = deliver(&mut log, owner, next);
        now += Duration::from_secs(2);
        log.maintain(now).unwrap();
    }
    assert!(ids.len() >= 8, "{} held", ids.len());
    assert!(matches!(log.append(&[plain(owner, 1000, 0)]), Err(AppendError::Full)));
    let joined = NewFrame { frees: ids, ..plain(owner, 1000, 0) };
    log.append(&[joined]).unwrap();
    let next = deliver(&mut log, owner, next);
    let freed: u64 = (0..20)
        .map(|_| {
            now += Duration::from_secs(2);
            log.maintain(now).unwrap().segments
        })
        .sum();
    assert!(freed >= 8, "{freed} freed");
    log.append(&[plain(owner, 100_000, 0), plain(owner, 100_000, 0)]).unwrap();
    deliver(&mut log, owner, next);
}

#[test]
fn a_full_disk_takes_a_new_owner_or_refuses_it_and_goes_on() {
    let disk = Disk::new(1);
    disk.set_volume(Some(4 << 20));
    let (mut log, _) = Log::open(disk.mount(), options()).unwrap();
    let owner = log.owner("a", 1).unwrap();
    while log.append(&[plain(owner, 60_000, 7)]).is_ok() {}
    // The reserve is for this.
    log.owner("b", 1).unwrap();
    disk.put("somebody else's", &vec![1; (disk.room() / 4096 * 4096) as usize]);
    log.owner("c", 1).unwrap_err();
    deliver(&mut log, owner, 1);
    log.maintain(Instant::now() + Duration::from_secs(9999)).unwrap();
    log.owner("c", 1).unwrap();
    log.append(&[plain(owner, 60_000, 7)]).unwrap();
}

#[test]
fn thousands_of_unsettled_frames_survive_though_a_cursor_has_no_room_for_them() {
    for mood in [Mood::AllOld, Mood::AllNew, Mood::Anything] {
        let disk = Disk::new(1);
        let (mut log, _) = Log::open(disk.mount(), options()).unwrap();
        let owner = log.owner("a", 1).unwrap();
        for n in 0..150 {
            log.append(&(0..100).map(|k| plain(owner, 20, n * 100 + k)).collect::<Vec<_>>()).unwrap();
        }
        let all: Vec<Seq> = (1..=15_000).collect();
        log.handed_out(owner, &all, 15_001);
        let settled: Vec<Seq> = all.iter().copied().filter(|seq| seq % 3 == 0).collect();
        log.settle(owner, &settled);
        log.maintain(Instant::now() + Duration::from_secs(3600)).unwrap();
        disk.crash_as(&mut super::rng::Rng::new(1), mood);
        let (mut log, opened) = Log::open(disk.mount(), options()).unwrap();
        let from = opened.backlog[0].1;
        let mut reader = log.reader(owner);
        let mut seqs = Vec::new();
        let mut next = from;
        loop {
            let read = reader.read(next, 10_000);
            seqs.extend(read.frames.iter().map(|frame| frame.seq));
            next = read.next;
            if read.caught_up {
                break;
            }
        }
        assert!(seqs.is_sorted_by(|a, b| a < b));
        assert!(all.iter().filter(|&seq| seq % 3 != 0).all(|seq| seqs.binary_search(seq).is_ok()));
        // What fits is known to be settled: the first 8,000 unsettled have 4,000 settled ones between them.
        assert!(seqs.len() <= 15_000 - 4_000, "{} of 15000 again", seqs.len());
        deliver(&mut log, owner, from);
        log.close().unwrap();
        let (_, opened) = Log::open(disk.mount(), options()).unwrap();
        assert!(opened.backlog.iter().all(|&(.., bytes)| bytes == 0), "{:?}", opened.backlog);
    }
}

#[test]
fn records_that_an_owner_has_of_an_unsettled_frame_are_known_after_a_crash_and_no_others() {
    for mood in [Mood::AllOld, Mood::AllNew, Mood::Anything] {
        let disk = Disk::new(1);
        let (mut log, _) = Log::open(disk.mount(), options()).unwrap();
        let owner = log.owner("a", 1).unwrap();
        for n in 0..3 {
            log.append(&[plain(owner, 20, n)]).unwrap();
        }
        log.handed_out(owner, &[1, 2, 3], 4);
        let marks = |records: &[usize]| {
            let mut marks = Marks::default();
            records.iter().for_each(|n| marks.set(*n));
            marks
        };
        // Of frame 9 nobody knows; frame 3 is settled later.
        log.settle_partly(owner, vec![(1, marks(&[0, 9])), (3, marks(&[1])), (9, marks(&[1]))]);
        log.settle_partly(owner, vec![(1, marks(&[2]))]);
        log.settle(owner, &[3]);
        log.maintain(Instant::now() + Duration::from_secs(3600)).unwrap();
        // This one may or may not have reached the disk.
        log.settle_partly(owner, vec![(2, marks(&[5]))]);
        log.maintain(Instant::now()).unwrap();
        disk.crash_as(&mut super::rng::Rng::new(1), mood);
        let done = |log: &Log| -> Vec<(Seq, Option<Marks>)> {
            log.reader(owner).read(1, 10_000).frames.iter().map(|f| (f.seq, f.done.clone())).collect()
        };
        let (log, _) = Log::open(disk.mount(), options()).unwrap();
        let found = done(&log);
        assert_eq!(found[0], (1, Some(marks(&[0, 2, 9]))));
        assert!(found[1] == (2, None) || found[1] == (2, Some(marks(&[5]))), "{found:?}");
        assert_eq!(found.len(), 2);
        // They are not forgotten by a start that tells the log nothing about them.
        log.close().unwrap();
        let (log, _) = Log::open(disk.mount(), options()).unwrap();
        assert_eq!(done(&log), found);
    }
}

#[test]
fn a_failed_write_or_sync_is_made_good_in_another_segment_and_the_log_goes_on() {
    let faults = [
        Faults { sync: 1000, ..Faults::default() },
        Faults { write: 1000, ..Faults::default() },
        Faults { short_write: 1000, ..Faults::default() },
    ];
    for (n, faults) in faults.into_iter().enumerate() {
        let mut world = World::new(n as u64).unwrap();
        steps(&mut world, &[Step::NewOwner, Step::Append(vec![frame(&[0], 3000)])]);
        // Everything fails for a while: nothing is stored.
        let before = world.model.owed_bytes();
        steps(
            &mut world,
            &[Step::SetFaults(faults), Step::Append(vec![frame(&[0], 3000), frame(&[0], 4000)])],
        );
        assert_eq!(world.model.owed_bytes(), before, "{faults:?}");
        // The disk works again; one call fails, and the append does not.
        steps(&mut world, &[Step::SetFaults(Faults::default()), Step::Append(vec![frame(&[0], 3000)])]);
        for call in 0..2 {
            let (before, hit) = (world.model.owed_bytes(), world.disk.faults_hit());
            steps(
                &mut world,
                &[Step::FailCallIn(call), Step::Append(vec![frame(&[0], 3000), frame(&[0], 4000)])],
            );
            assert!(world.disk.faults_hit() > hit && world.model.owed_bytes() > before, "call {call}");
        }
        for (mood, seed) in [(Mood::AllOld, 1), (Mood::AllNew, 2), (Mood::OldOrNew, 3)] {
            let mut world = world.fork();
            world.power_cut_as(seed, mood).unwrap();
            world.start(true).unwrap();
            world.finish().unwrap();
        }
    }
}

#[test]
fn what_is_appended_after_a_segment_that_could_not_be_begun_is_there_after_a_power_cut() {
    let large = || Step::Append(vec![frame(&[0], 60_000); 4]);
    let mut began = World::new(7).unwrap();
    steps(&mut began, &[Step::NewOwner, Step::Append(vec![frame(&[0], 60_000)])]);
    // As many calls as two attempts take, each failing together with each later one.
    let mut refused = 0;
    for (first, second) in (0..24).flat_map(|n| (n + 1..24).map(move |m| (n, m))) {
        let mut world = began.fork();
        world.start(false).unwrap();
        let before = world.model.owed_bytes();
        steps(&mut world, &[Step::FailCallIn(first), Step::FailCallIn(second), large()]);
        refused += u32::from(world.model.owed_bytes() == before);
        world.disk.set_faults(Faults::default());
        steps(&mut world, &[Step::Append(vec![frame(&[0], 100)])]);
        // How many of the changes to the directory are on the disk is up to the seed.
        for seed in 0..20 {
            let mut world = world.fork();
            let outcome = world.power_cut_as(seed, Mood::OldOrNew).and_then(|()| world.start(true));
            outcome.unwrap_or_else(|why| panic!("calls {first} and {second}, seed {seed}: {why}"));
        }
    }
    assert!(refused > 10, "{refused} groups were refused");
}

/// A log with two frames, the second at the place that is given; a test changes its bytes.
fn changed(handed_out: bool, change: impl FnOnce(&mut [u8])) -> (Disk, OwnerId, u64, Vec<u8>) {
    let disk = Disk::new(1);
    let (mut log, _) = Log::open(disk.mount(), options()).unwrap();
    let owner = log.owner("a", 1).unwrap();
    log.append(&[plain(owner, 5000, 1)]).unwrap();
    log.append(&[plain(owner, 3000, 2)]).unwrap();
    if handed_out {
        log.handed_out(owner, &[1, 2], 3);
    }
    log.close().unwrap();
    let name = "0000000000000001.wal";
    let mut bytes = disk.bytes_of(name).unwrap();
    let at = 4096 + bytes_of::size(&plain(owner, 5000, 1)) as usize;
    change(&mut bytes[at..at + bytes_of::size(&plain(owner, 3000, 2)) as usize]);
    disk.take(name);
    disk.put(name, &bytes);
    (disk, owner, at as u64, bytes.split_off(at))
}

/// Opens the log: what is said, after a look whether the frame before is there and the log goes on.
fn found(disk: &Disk, owner: OwnerId) -> Damage {
    let (mut log, opened) = Log::open(disk.mount(), options()).unwrap();
    let [damage] = &opened.damage[..] else { panic!("{:?}", opened.damage) };
    let read = log.reader(owner).read(1, 1 << 20);
    assert_eq!(read.frames.iter().map(|frame| frame.seq).collect::<Vec<_>>(), [1]);
    let next = log.append(&[plain(owner, 100, 3)]).unwrap().start;
    assert!(next > 1);
    drop(log);
    let (log, opened) = Log::open(disk.mount(), options()).unwrap();
    let read = log.reader(owner).read(1, 1 << 20);
    assert_eq!(read.frames.iter().map(|frame| frame.seq).collect::<Vec<_>>(), [1, next]);
    let again = opened.damage.iter().chain(&read.damage).find(|damage| damage.harm == Harm::Torn);
    assert_eq!(again, None, "an end that was cut is said once");
    damage.clone()
}

#[test]
fn a_wrong_bit_in_the_last_frame_is_told_from_a_torn_end_and_its_bytes_are_kept() {
    for bit in (0..48 * 8).chain((48 * 8..3000 * 8).step_by(1013)) {
        let (disk, owner, at, rest) = changed(false, |frame| frame[bit / 8] ^= 1 << (bit % 8));
        let damage = found(&disk, owner);
        let size = bytes_of::size(&plain(owner, 3000, 2));
        assert_eq!((damage.harm, damage.offset, damage.bytes), (Harm::Damaged, at, size), "bit {bit}");
        assert_eq!((damage.first_seq, damage.next_seq, damage.records), (2, Some(3), 1), "bit {bit}");
        assert_eq!(damage.owners.to_vec(), [owner], "bit {bit}");
        let kept = disk.bytes_of(&damage.kept.unwrap()).unwrap();
        assert!(kept == rest[..size as usize], "bit {bit}");
    }
}

#[test]
fn a_torn_end_is_named_and_kept_as_far_as_it_was_written() {
    for written in [9, 48, 60, 512, 2999] {
        let (disk, owner, at, rest) = changed(false, |frame| frame[written..].fill(0));
        let damage = found(&disk, owner);
        assert_eq!((damage.harm, damage.offset), (Harm::Torn, at), "{written} written");
        let end = rest.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        assert_eq!(damage.bytes, end as u64, "{written} written");
        assert!(disk.bytes_of(&damage.kept.unwrap()).unwrap() == rest[..end], "{written} written");
    }
}

#[test]
fn an_end_that_an_output_had_been_handed_is_damaged_and_not_torn() {
    let (disk, owner, at, _) = changed(true, |frame| frame[1000..].fill(0));
    let damage = found(&disk, owner);
    assert_eq!((damage.harm, damage.offset), (Harm::Damaged, at));
    assert_eq!((damage.first_seq, damage.next_seq), (2, Some(3)));
    assert_eq!(damage.owners.to_vec(), [owner], "who was handed it was owed it");
    // It does not wait for what will never be settled.
    let (mut log, _) = Log::open(disk.mount(), options()).unwrap();
    deliver(&mut log, owner, 1);
    log.close().unwrap();
    let (_, opened) = Log::open(disk.mount(), options()).unwrap();
    assert!(opened.backlog.is_empty(), "{:?}", opened.backlog);
}

#[test]
fn a_segment_that_is_gone_is_missed_once_and_one_that_was_freed_is_not() {
    let later = || Instant::now() + Duration::from_secs(3600);
    let disk = Disk::new(1);
    let open = || Log::open(disk.mount(), options()).unwrap();
    let (mut log, _) = open();
    let (owner, other) = (log.owner("a", 1).unwrap(), log.owner("b", 1).unwrap());
    // Four frames a segment. The first segments are owed to nobody soon, of the others one is taken away.
    for n in 0..8 {
        log.append(&[plain(other, 60_000, n)]).unwrap();
    }
    for n in 8..24 {
        log.append(&[plain(owner, 60_000, n)]).unwrap();
    }
    deliver(&mut log, other, 1);
    assert_eq!(log.maintain(later()).unwrap().segments, 2);
    log.close().unwrap();
    let (log, opened) = open();
    assert_eq!(opened.damage, []);
    drop(log);
    for (taken, numbers) in [(13, 13..17), (21, 21..25)] {
        let fork = disk.fork();
        fork.take(&format!("{taken:016x}.wal"));
        let (mut log, opened) = Log::open(fork.mount(), options()).unwrap();
        let [damage] = &opened.damage[..] else { panic!("{:?}", opened.damage) };
        assert_eq!((damage.harm, damage.frames), (Harm::Missing, 4));
        assert_eq!((damage.first_seq, damage.next_seq), (numbers.start, Some(numbers.end)));
        assert_eq!(opened.next_seq, 25, "no number is used twice");
        let mut reader = log.reader(owner);
        let (mut next, mut seqs) = (1, Vec::new());
        while next < 25 {
            let read = reader.read(next, 1 << 20);
            seqs.extend(read.frames.iter().map(|frame| frame.seq));
            next = if read.caught_up { 25 } else { read.next };
        }
        assert_eq!(seqs, (9..25).filter(|seq| !numbers.contains(seq)).collect::<Vec<_>>());
        log.append(&[plain(owner, 60_000, 99)]).unwrap();
        log.maintain(later()).unwrap();
        log.close().unwrap();
        let (_, opened) = Log::open(fork.mount(), options()).unwrap();
        assert_eq!(opened.damage, [], "it is said once");
    }
}

#[test]
fn torn_ends_leave_room_in_quarantine_for_what_was_stored_once() {
    let disk = Disk::new(1);
    for n in 0..16 {
        disk.put(&format!("corrupt-{n:016x}-4096.bin"), b"earlier");
        let vfs = disk.mount();
        let file = vfs.create(&format!("{n}.wal")).unwrap();
        file.write_at(&[std::io::IoSlice::new(&[7; 100])], 0).unwrap();
        let gap = Gap { at: 0, bytes: 100, records: 0, first: 1, next: None };
        let keep = |harm| {
            let kept = quarantine::keep(&*vfs, &*file, &format!("{n}.wal"), gap, harm).kept;
            kept.inspect(|name| disk.take(name)).is_some()
        };
        assert_eq!((keep(Harm::Torn), keep(Harm::Damaged)), (n < 7, n < 15), "{} kept before", n + 1);
    }
}

#[test]
fn a_group_of_copies_that_a_power_cut_tore_costs_no_frame() {
    let mut thin = World::new(3).unwrap();
    steps(&mut thin, &[Step::NewOwner, Step::NewOwner]);
    for _ in 0..12 {
        let group = (0..12).map(|_| frame(&[0], 300)).chain([frame(&[1], 50_000)]).collect();
        steps(
            &mut thin,
            &[Step::Append(group), Step::Pull(1, 1 << 20), Step::Settle(1, usize::MAX, Order::Oldest)],
        );
    }
    // With all of it on the disk.
    steps(&mut thin, &[Step::Close]);
    let mut copied = false;
    for (cut, seed) in (0..40).flat_map(|cut| (0..20).map(move |seed| (cut, seed))) {
        let mut world = thin.fork();
        world.start(false).unwrap();
        steps(&mut world, &[Step::PowerCutIn(cut)]);
        for _ in 0..3 {
            world.act(&Step::Maintain(1500)).unwrap();
        }
        copied |= world.disk.names().iter().any(|name| name.starts_with("side-"));
        let outcome = world.power_cut_as(seed, Mood::OldOrNew).and_then(|()| world.start(true));
        outcome.unwrap_or_else(|why| panic!("power cut at {cut}, seed {seed}: {why}"));
    }
    assert!(copied);
}

#[test]
fn an_owner_whose_name_was_not_synced_when_it_was_made_is_there_after_a_power_cut() {
    for (call, seed) in (0..8).flat_map(|call| (0..20).map(move |seed| (call, seed))) {
        let mut world = World::new(seed).unwrap();
        // Its frames come into a segment that is there.
        steps(&mut world, &[Step::NewOwner, Step::Append(vec![frame(&[0], 100)])]);
        steps(&mut world, &[Step::FailCallIn(call), Step::NewOwner, Step::Kill]);
        // The next process finds what is there.
        world.find_owner(1).unwrap();
        steps(&mut world, &[Step::Append(vec![frame(&[1], 100)])]);
        let outcome = world.power_cut_as(seed, Mood::OldOrNew).and_then(|()| world.start(true));
        outcome.unwrap_or_else(|why| panic!("call {call}, seed {seed}: {why}"));
    }
}

#[test]
fn what_a_process_left_unsynced_when_it_was_killed_is_not_lost_to_a_sync_that_fails_later() {
    for seed in 0..40 {
        let mut world = World::new(seed).unwrap();
        steps(&mut world, &[Step::NewOwner, Step::Append(vec![frame(&[0], 100)])]);
        // A part of the group is written, and nothing more: neither its end nor a summary.
        let short = Faults { short_write: 1000, ..Faults::default() };
        steps(&mut world, &[Step::SetFaults(short), Step::Append(vec![frame(&[0], 1000); 8])]);
        world.disk.set_faults(Faults::default());
        steps(&mut world, &[Step::Kill]);
        // The sync of the next group fails, and is made good elsewhere.
        steps(&mut world, &[Step::FailCallIn(1), Step::Append(vec![frame(&[0], 100)])]);
        let read = world.act(&Step::Pull(0, 1 << 20)).and_then(|()| world.act(&Step::Kill));
        read.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

#[test]
fn a_stuck_owner_pins_no_space_for_the_others() {
    let mut world = World::new(3).unwrap();
    steps(&mut world, &[Step::NewOwner, Step::NewOwner, Step::NewOwner]);
    for n in 0..60 {
        let owners: &[usize] = if n % 5 == 0 { &[0, 1, 2] } else { &[0] };
        let group = vec![frame(&[0], 60_000), frame(owners, 300), frame(&[0], 60_000)];
        steps(&mut world, &[Step::Append(group), Step::Pull(0, 1 << 20)]);
        steps(&mut world, &[Step::Settle(0, usize::MAX, Order::Oldest), Step::Maintain(600)]);
        world.check_disk_use().unwrap_or_else(|why| panic!("round {n}: {why}"));
        if n == 30 {
            steps(&mut world, &[Step::PowerCut]);
        }
    }
    assert!(world.model.owed_bytes() > 3000);
    assert!(world.disk.used() < 8 * SEGMENT, "{}", world.disk.used());
    world.finish().unwrap();
}

#[test]
fn a_side_segment_that_cannot_be_removed_is_removed_later() {
    let disk = Disk::new(1);
    let (mut log, _) = Log::open(disk.mount(), options()).unwrap();
    let (fast, slow) = (log.owner("fast", 1).unwrap(), log.owner("slow", 1).unwrap());
    let now = Instant::now();
    let side = || disk.names().iter().filter(|name| name.starts_with("side-")).count();
    let mut next = 1;
    for n in 0..30 {
        log.append(&[plain(slow, 100, n), plain(fast, 60_000, n)]).unwrap();
        next = deliver(&mut log, fast, next);
        log.maintain(now).unwrap();
    }
    assert!(side() > 0);
    deliver(&mut log, slow, 1);
    disk.set_faults(Faults { names: 1000, ..Faults::default() });
    log.maintain(now).unwrap_err();
    assert!(side() > 0);
    disk.set_faults(Faults::default());
    // Not at once: a disk that fails is not asked a hundred times a second.
    assert_eq!(log.maintain(now).unwrap().segments, 0);
    assert!(log.maintain(now + Duration::from_secs(2)).unwrap().segments > 0);
    assert_eq!(side(), 0);
    log.append(&[plain(slow, 100, 99)]).unwrap();
    drop(log);
    let (mut log, opened) = Log::open(disk.mount(), options()).unwrap();
    let from = opened.backlog.iter().find(|(id, ..)| *id == slow).unwrap().1;
    let read = log.reader(slow).read(from, 1 << 20);
    assert_eq!(read.frames.iter().map(|frame| frame.time_ms).collect::<Vec<_>>(), [99]);
    log.append(&[plain(slow, 100, 100)]).unwrap();
}

#[test]
fn an_owner_counts_as_configured_until_it_was_last_said_so() {
    let disk = Disk::new(1);
    let (mut log, _) = Log::open(disk.mount(), options()).unwrap();
    let (a, _) = (log.owner("a", 100).unwrap(), log.owner("b", 100).unwrap());
    log.still_configured(&[a], 5000);
    drop(log);
    disk.crash(5);
    let (log, _) = Log::open(disk.mount(), options()).unwrap();
    let seen: Vec<_> = log.owners().into_iter().map(|o| (o.identity, o.last_configured_unix)).collect();
    assert_eq!(seen, [("a".to_owned(), 5000), ("b".to_owned(), 100)]);
}

#[test]
fn an_output_whose_position_is_lost_gets_everything_again_and_a_new_one_nothing() {
    let cursor = "owner-0001.cur";
    for is_removed in [true, false] {
        let disk = Disk::new(1);
        let (mut log, _) = Log::open(disk.mount(), options()).unwrap();
        let (a, b) = (log.owner("a", 1).unwrap(), log.owner("b", 1).unwrap());
        log.append(&[plain(a, 100, 1), plain(b, 100, 2), plain(a, 100, 3)]).unwrap();
        deliver(&mut log, b, 1);
        log.handed_out(a, &[1], 2);
        log.settle(a, &[1]);
        log.close().unwrap();
        disk.take(cursor);
        if !is_removed {
            disk.put(cursor, &[7; 40_960]);
        }
        let (mut log, opened) = Log::open(disk.mount(), options()).unwrap();
        let said: Vec<_> = opened.damage.iter().map(|d| (d.harm, &*d.file, d.kept.is_some())).collect();
        assert_eq!(said, [(Harm::Position, cursor, !is_removed)]);
        let ids = [log.owner("a", 2), log.owner("b", 2), log.owner("c", 2)].map(Result::unwrap);
        assert_eq!(ids, [a, b, OwnerId(3)]);
        let due: Vec<_> = opened.backlog.iter().map(|(id, from, _)| (*id, *from)).collect();
        assert_eq!(due, [(a, 0)]);
        let seqs = |id| log.reader(id).read(1, 1 << 20).frames.iter().map(|f| f.seq).collect::<Vec<_>>();
        assert_eq!((seqs(a), seqs(b), seqs(ids[2])), (vec![1, 3], vec![], vec![]));
        // It is not forgotten for a time when nobody knows whether it was configured.
        let seen = log.owners()[0].last_configured_unix;
        assert_eq!(seen, 2);
        log.close().unwrap();
        let (_, opened) = Log::open(disk.mount(), options()).unwrap();
        assert_eq!(opened.damage, [], "said once");
    }
}

#[test]
fn what_was_owed_to_an_output_of_which_nothing_is_known_any_more_is_counted() {
    let disk = Disk::new(1);
    let (mut log, _) = Log::open(disk.mount(), options()).unwrap();
    let a = log.owner("a", 1).unwrap();
    log.append(&[plain(a, 100, 1), plain(a, 100, 2)]).unwrap();
    log.close().unwrap();
    for name in ["owner-0001.cur", "owner-0001.id"] {
        disk.take(name);
        disk.put(name, &[7; 5000]);
    }
    let (mut log, opened) = Log::open(disk.mount(), options()).unwrap();
    let [damage] = &opened.damage[..] else { panic!("{:?}", opened.damage) };
    assert_eq!((damage.harm, damage.frames, damage.records), (Harm::Owner, 2, 2));
    assert!(log.owner("a", 2).unwrap() > a, "no number is used twice");
}

#[test]
fn an_owner_that_is_forgotten_owes_nothing_and_comes_back_as_another() {
    let disk = Disk::new(1);
    let (mut log, _) = Log::open(disk.mount(), options()).unwrap();
    let (a, b) = (log.owner("a", 1).unwrap(), log.owner("b", 2).unwrap());
    for n in 0..20 {
        log.append(&[plain(a, 60_000, n), plain(b, 10, n)]).unwrap();
    }
    deliver(&mut log, b, 1);
    let dropped = log.forget_owner(a).unwrap();
    assert_eq!(dropped.records, 20);
    assert!(dropped.bytes >= 1_200_000, "{dropped:?}");
    assert!(log.maintain(Instant::now() + Duration::from_secs(9999)).unwrap().segments >= 3);
    disk.crash(5);
    let (mut log, opened) = Log::open(disk.mount(), options()).unwrap();
    assert!(opened.backlog.iter().all(|&(id, _, bytes)| id != a || bytes == 0), "{:?}", opened.backlog);
    assert!(log.owners().iter().all(|owner| owner.identity != "a"), "{:?}", log.owners());
    let again = log.owner("a", 3).unwrap();
    let mut reader = log.reader(again);
    let read = reader.read(1, 1 << 20);
    assert!(read.frames.is_empty(), "{:?}", read.frames.first());
}

#[test]
fn a_new_owner_begins_at_the_end() {
    let disk = Disk::new(1);
    let (mut log, _) = Log::open(disk.mount(), options()).unwrap();
    let a = log.owner("a", 1).unwrap();
    log.append(&[plain(a, 100, 1)]).unwrap();
    let b = log.owner("b", 2).unwrap();
    let seqs = log.append(&[plain(b, 100, 2)]).unwrap();
    drop(log);
    let (mut log, opened) = Log::open(disk.mount(), options()).unwrap();
    assert_eq!((log.owner("b", 3).unwrap(), log.owner("a", 3).unwrap()), (b, a));
    let from = opened.backlog.iter().find(|(id, ..)| *id == b).unwrap().1;
    let read = log.reader(b).read(from, 1 << 20);
    assert_eq!(read.frames.iter().map(|frame| frame.seq).collect::<Vec<_>>(), [seqs.start]);
}

#[test]
fn an_owner_is_known_by_its_identity_whatever_its_length() {
    let disk = Disk::new(1);
    let names: Vec<String> = [1, 100, 3000].iter().map(|&n| "é".repeat(n / 2 + 1)).collect();
    let (mut log, _) = Log::open(disk.mount(), options()).unwrap();
    let ids: Vec<OwnerId> = names.iter().map(|name| log.owner(name, 1).unwrap()).collect();
    disk.crash(1);
    let (mut log, _) = Log::open(disk.mount(), options()).unwrap();
    for (name, &id) in names.iter().zip(&ids).rev() {
        assert_eq!(log.owner(name, 2).unwrap(), id);
    }
}

#[test]
fn readers_read_beside_the_log_what_is_committed_and_nothing_else() {
    let disk = Disk::new(1);
    let (mut log, _) = Log::open(disk.mount(), options()).unwrap();
    let owner = log.owner("a", 1).unwrap();
    let mut reader = log.reader(owner);
    let thread = std::thread::spawn(move || {
        let (mut next, mut got) = (1, 0);
        while got < 1500 {
            let read = reader.read(next, 5000);
            for frame in &read.frames {
                got += 1;
                assert_eq!(frame.time_ms, got);
                assert!(frame.body.iter().all(|&byte| byte == got as u8));
            }
            assert!(read.damage.is_empty(), "{:?}", read.damage);
            next = read.next;
            std::thread::yield_now();
        }
    });
    for n in 0..500 {
        let group: Vec<NewFrame> =
            (1..=3).map(|k| plain(owner, 1 + (n as usize * 37) % 3000, n * 3 + k)).collect();
        log.append(&group).unwrap();
        log.maintain(Instant::now()).unwrap();
    }
    thread.join().unwrap();
}
