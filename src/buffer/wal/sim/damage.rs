//! What a bad disk or a careless hand does to the files: every action at every place of every kind of file.
//!
//! Enters: a log with full segments, a side log and cursors. Leaves: which damage costs more than it should, or goes
//! unreported. Can go wrong: nothing else.
//!
//! Frames are found in the files by their bodies, which are random, so that nothing here knows the format.

use super::model::{Stake, Who};
use super::rng::Rng;
use super::world::{Order, Shape, Step, World};
use crate::buffer::wal::Seq;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    FlipBit,
    Zero512,
    Truncate,
    CutLast,
    DuplicateBlock,
    SwapSectors,
    Remove,
    OddName,
}

const ACTIONS: [Action; 8] = [
    Action::FlipBit,
    Action::Zero512,
    Action::Truncate,
    Action::CutLast,
    Action::DuplicateBlock,
    Action::SwapSectors,
    Action::Remove,
    Action::OddName,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Magic,
    Head,
    Summary,
    FirstHeader,
    FirstLength,
    FirstBody,
    MiddleHeader,
    MiddleBody,
    LastHeader,
    LastBody,
}

const PLACES: [Place; 10] = [
    Place::Magic,
    Place::Head,
    Place::Summary,
    Place::FirstHeader,
    Place::FirstLength,
    Place::FirstBody,
    Place::MiddleHeader,
    Place::MiddleBody,
    Place::LastHeader,
    Place::LastBody,
];

/// A frame in a file: where the one before ends, where its body begins and ends, who is owed it.
#[derive(Clone, Debug)]
struct Found {
    start: usize,
    body: usize,
    end: usize,
    owed: Vec<(Who, Seq)>,
}

/// Owner 0 has everything out, some of it settled; owner 1 is stuck since the beginning and has a side log.
fn build() -> World {
    let mut world = World::new(11).unwrap();
    let mut go = |step: Step| world.step(&step).unwrap_or_else(|why| panic!("{step:?}: {why}"));
    let frame = |owners: &[Who], bytes: usize| Shape { owners: owners.to_vec(), bytes, holds: 0, frees: 0 };
    go(Step::NewOwner);
    go(Step::NewOwner);
    for n in 0..8 {
        go(Step::Append(vec![
            frame(&[0], 60_000),
            frame(&[0, 1], 700 + n),
            frame(&[0], 60_000),
            frame(&[1], 300),
        ]));
        go(Step::Pull(0, 1 << 20));
        go(Step::Settle(0, usize::MAX, Order::Oldest));
        go(Step::Maintain(1100));
    }
    for n in 0..16 {
        go(Step::Append(vec![frame(&[0, 1], 20_000 + n), frame(&[0], 500), frame(&[0, 1], 30_000)]));
    }
    go(Step::Append(vec![Shape { owners: Vec::new(), bytes: 900, holds: 3, frees: 0 }, frame(&[0], 9_000)]));
    go(Step::Append(vec![frame(&[0, 1], 3000)]));
    go(Step::Pull(0, 90_000));
    go(Step::Settle(0, 2, Order::Newest));
    go(Step::Part(0, 2));
    go(Step::Maintain(1100));
    go(Step::Pull(1, 2000));
    go(Step::Part(1, 3));
    go(Step::Settle(1, 1, Order::Oldest));
    go(Step::Maintain(1100));
    go(Step::Maintain(1100));
    world.end();
    world.check(false).unwrap();
    world
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

/// The frames in a file that are owed and have enough body to be known again.
fn frames_in(bytes: &[u8], stakes: &[Stake]) -> Vec<Found> {
    let mut found: Vec<Found> = stakes
        .iter()
        .filter(|stake| stake.body.len() >= 16)
        .filter_map(|stake| {
            let body = find(bytes, &stake.body)?;
            Some(Found { start: 0, body, end: body + stake.body.len(), owed: stake.owed.clone() })
        })
        .collect();
    found.sort_by_key(|frame| frame.body);
    for n in 0..found.len() {
        // Headers and lists of a frame are small; without a neighbour before it, this is a bound from below.
        let before = if n == 0 { 4096 } else { found[n - 1].end.next_multiple_of(8) };
        found[n].start = before.max(found[n].body.saturating_sub(400));
    }
    found
}

fn place_in(place: Place, frames: &[Found]) -> Option<usize> {
    let (first, middle, last) = (frames.first()?, &frames[frames.len() / 2], frames.last()?);
    Some(match place {
        Place::Magic => 3,
        Place::Head => 40,
        Place::Summary => 70,
        Place::FirstHeader => first.start + 20,
        Place::FirstLength => first.start + 1,
        Place::FirstBody => usize::midpoint(first.body, first.end),
        Place::MiddleHeader => middle.start + 9,
        Place::MiddleBody => middle.body + 17,
        Place::LastHeader => last.start + 12,
        Place::LastBody => last.end - 3,
    })
}

/// Does the damage; the ranges of bytes that changed.
fn act(bytes: &mut Vec<u8>, action: Action, at: usize, rng: &mut Rng) -> Vec<(usize, usize)> {
    let block = (at / 512 * 512).min((bytes.len() / 512 - 1) * 512);
    match action {
        Action::FlipBit => {
            bytes[at] ^= 1 << rng.below(8);
            vec![(at, at + 1)]
        }
        Action::Zero512 => {
            let end = (block + 512).min(bytes.len());
            bytes[block..end].fill(0);
            vec![(block, end)]
        }
        Action::Truncate => {
            let end = bytes.len();
            bytes.truncate(at);
            vec![(at, end)]
        }
        Action::CutLast => {
            let end = bytes.len();
            bytes.truncate(end - 1 - rng.index(100));
            vec![(bytes.len(), end)]
        }
        Action::DuplicateBlock => {
            let to = if block + 1024 <= bytes.len() { block + 512 } else { block - 512 };
            bytes.copy_within(block..block + 512, to);
            vec![(to, to + 512)]
        }
        Action::SwapSectors => {
            let other = (block + 4096) % (bytes.len() / 512 * 512);
            for n in 0..512 {
                bytes.swap(block + n, other + n);
            }
            vec![(block, block + 512), (other, other + 512)]
        }
        Action::Remove | Action::OddName => vec![(0, bytes.len())],
    }
}

fn hurts(ranges: &[(usize, usize)], start: usize, end: usize) -> bool {
    ranges.iter().any(|&(from, to)| from < end && start < to)
}

/// A segment without its head has frames that nothing binds to it any more.
fn takes_all(action: Action, ranges: &[(usize, usize)]) -> bool {
    matches!(action, Action::Remove | Action::OddName) || hurts(ranges, 0, 64)
}

fn damage_segment(
    world: &World,
    name: &str,
    frames: &[Found],
    (action, place): (Action, Place),
    seed: u64,
) -> Option<Result<(), String>> {
    let before = world.disk.bytes_of(name).unwrap();
    let at = place_in(place, frames)?;
    let mut world = world.fork();
    world.expect_damage();
    let mut bytes = before.clone();
    let mut ranges = act(&mut bytes, action, at, &mut Rng::new(seed));
    // What did not change was not damaged.
    ranges.retain(|&(from, to)| bytes.get(from..to) != before.get(from..to) || action == Action::OddName);
    world.disk.take(name);
    match action {
        Action::Remove => {}
        Action::OddName => world.disk.put(&format!("{name}.old"), &bytes),
        _ => world.disk.put(name, &bytes),
    }
    world.model.forgive = true;
    // The end of a side segment is like an end, and one that is gone like one that was freed.
    let silent =
        name.starts_with("side") && matches!(action, Action::Remove | Action::OddName | Action::Truncate);
    Some(judge(&mut world, name, frames, &ranges, takes_all(action, &ranges), silent))
}

fn judge(
    world: &mut World,
    name: &str,
    frames: &[Found],
    ranges: &[(usize, usize)],
    all: bool,
    silent: bool,
) -> Result<(), String> {
    world.check(false)?;
    let missing = std::mem::take(&mut world.model.missing);
    for lost in &missing {
        let Some(frame) = frames.iter().find(|frame| frame.owed.contains(lost)) else {
            return Err(format!("{lost:?} is lost and was not in {name}"));
        };
        if !all && !hurts(ranges, frame.start, frame.end.next_multiple_of(8)) {
            return Err(format!(
                "{lost:?} at {}..{} is lost, damaged were {ranges:?}",
                frame.start, frame.end
            ));
        }
        let reported = world.damage.iter().any(|damage| {
            let (from, to) = (damage.offset as usize, (damage.offset + damage.bytes) as usize);
            let by_place = damage.file == name && from < frame.end && frame.start < to;
            let by_seq = damage.first_seq <= lost.1 && damage.next_seq.is_none_or(|next| lost.1 < next);
            damage.file == name && (by_place || by_seq)
        });
        if !reported && !silent {
            return Err(format!("{lost:?} is lost and not reported: {:?}", world.damage));
        }
    }
    // The log goes on.
    world.start(false)?;
    world.finish()?;
    match world.model.missing.first() {
        Some(lost) => Err(format!("{lost:?} is lost by the second recovery")),
        None => Ok(()),
    }
}

/// The kinds of files there are: the oldest, a middle and the last segment, a side segment.
fn segments(world: &World) -> Vec<(&'static str, String)> {
    let names = world.disk.names();
    let stakes = world.model.stakes();
    let owed: Vec<&String> = names
        .iter()
        .filter(|name| name.ends_with(".wal") && !name.starts_with("spare"))
        .filter(|name| !frames_in(&world.disk.bytes_of(name).unwrap(), &stakes).is_empty())
        .collect();
    let main: Vec<&&String> = owed.iter().filter(|name| !name.starts_with("side")).collect();
    let side = owed.iter().find(|name| name.starts_with("side")).unwrap();
    assert!(main.len() >= 3, "{names:?}");
    vec![
        ("oldest", (*main[0]).clone()),
        ("middle", (*main[main.len() / 2]).clone()),
        ("last", (**main.last().unwrap()).clone()),
        ("side", (*side).clone()),
    ]
}

#[test]
fn damage_to_a_segment_costs_the_damaged_frames_alone_and_is_reported() {
    let world = build();
    let mut broken = Vec::new();
    let mut cases = 0;
    for (kind, name) in segments(&world) {
        let frames = frames_in(&world.disk.bytes_of(&name).unwrap(), &world.model.stakes());
        for action in ACTIONS {
            for (n, place) in PLACES.into_iter().enumerate() {
                if n > 0 && matches!(action, Action::CutLast | Action::Remove | Action::OddName) {
                    continue;
                }
                let Some(outcome) = damage_segment(&world, &name, &frames, (action, place), n as u64) else {
                    continue;
                };
                cases += 1;
                if let Err(why) = outcome {
                    broken.push(format!("{action:?} at {place:?} of the {kind} segment {name}: {why}"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{} of {cases}:\n{}", broken.len(), broken.join("\n"));
    assert!(cases > 200, "{cases}");
}

#[test]
fn damage_to_a_cursor_repeats_and_loses_nothing() {
    let world = build();
    let mut broken = Vec::new();
    for name in world.disk.names().into_iter().filter(|name| name.ends_with(".cur")) {
        let size = world.disk.size_of(&name) as usize;
        let slot_b = 8192 + (size - 8192) / 2;
        let places = [("slot A", 8192), ("slot B", slot_b), ("both slots", usize::MAX)];
        for action in [Action::FlipBit, Action::Zero512, Action::DuplicateBlock, Action::SwapSectors] {
            for (place, at) in places {
                let mut world = world.fork();
                world.expect_damage();
                let mut bytes = world.disk.bytes_of(&name).unwrap();
                let mut rng = Rng::new(3);
                if at == usize::MAX {
                    act(&mut bytes, action, 8192 + 9, &mut rng);
                    act(&mut bytes, action, slot_b + 9, &mut rng);
                } else {
                    act(&mut bytes, action, at + 9, &mut rng);
                }
                world.disk.take(&name);
                world.disk.put(&name, &bytes);
                world.model.repeats = true;
                let outcome =
                    world.check(false).and_then(|()| world.start(false)).and_then(|()| world.finish());
                if let Err(why) = outcome {
                    broken.push(format!("{action:?} in {place} of {name}: {why}"));
                }
            }
        }
        for cut in [1, 100, 4096, 16_384, 16_385, 32_768] {
            let mut world = world.fork();
            world.expect_damage();
            let mut bytes = world.disk.bytes_of(&name).unwrap();
            bytes.truncate(size - cut);
            world.disk.take(&name);
            world.disk.put(&name, &bytes);
            world.model.repeats = true;
            let outcome = world.check(false).and_then(|()| world.start(false)).and_then(|()| world.finish());
            if let Err(why) = outcome {
                broken.push(format!("{name} cut by {cut}: {why}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn a_cursor_without_its_header_or_its_file_repeats_and_loses_nothing() {
    without_cursor(&|_, _| {}, &|world, _| {
        world.check(false).and_then(|()| world.start(false)).and_then(|()| world.finish())
    });
}

#[test]
fn a_cursor_that_is_lost_with_the_file_beside_it_stops_nobody_else() {
    without_cursor(&|world, name| world.disk.take(&name.replace(".cur", ".id")), &|world, name| match (0..2)
        .find(|&who| name.contains(&world.id_text(who)))
    {
        Some(hurt) => world.check_but(hurt),
        None => world.check(false),
    });
}

/// Damages each cursor in each way, does something more, and judges.
fn without_cursor(more: &dyn Fn(&World, &str), judge: &dyn Fn(&mut World, &str) -> Result<(), String>) {
    let world = build();
    let names: Vec<_> = world.disk.names().into_iter().filter(|name| name.ends_with(".cur")).collect();
    assert_eq!(names.len(), 3, "of two owners and of the log: {names:?}");
    for name in names {
        for action in [Action::FlipBit, Action::Zero512, Action::Truncate, Action::Remove, Action::OddName] {
            let mut world = world.fork();
            world.expect_damage();
            let mut bytes = world.disk.bytes_of(&name).unwrap();
            act(&mut bytes, action, 12, &mut Rng::new(4));
            world.disk.take(&name);
            match action {
                Action::Remove => {}
                Action::OddName => world.disk.put(&name.replace("owner-", "owner-x"), &bytes),
                _ => world.disk.put(&name, &bytes),
            }
            world.model.repeats = true;
            more(&world, &name);
            judge(&mut world, &name)
                .unwrap_or_else(|why| panic!("{action:?} on the header of {name}: {why}"));
        }
    }
}

#[test]
fn files_that_are_none_of_the_logs_stay_and_stop_nothing() {
    let mut world = build();
    world.expect_damage();
    let odd = [
        "",
        ".wal",
        "x.wal",
        "00000000000000000.wal",
        "000000000000000G.wal",
        "FFFFFFFFFFFFFFFF.WAL",
        "side-.wal",
        "side-0001-.wal",
        "side-zzzz-0000000000000001.wal",
        "owner-.cur",
        "owner-00000.cur",
        "spare-.wal",
        "corrupt-.bin",
        "lost+found",
        "0000000000000001.wal.tmp",
        "\u{fffd}\u{1F600}",
    ];
    for name in odd {
        world.disk.put(name, b"not ours");
    }
    world.check(false).unwrap();
    world.start(false).unwrap();
    world.finish().unwrap();
    world.end();
    for name in ["x.wal", "lost+found", "000000000000000G.wal"] {
        assert_eq!(world.disk.bytes_of(name).as_deref(), Some(&b"not ours"[..]), "{name}");
    }
}

#[test]
fn files_with_right_names_and_nothing_right_inside_stop_nothing() {
    for (n, name) in ["0000000000000001.wal", "00000000000000ff.wal", "side-0000-0000000000000002.wal"]
        .into_iter()
        .chain(["owner-0009.cur", "spare-0.wal", "spare-7.wal", "corrupt-1-2.bin", "ffffffffffffffff.wal"])
        .enumerate()
    {
        for size in [0, 1, 63, 64, 4095, 4096, 12_288, 300_000] {
            let mut world = build_small();
            if world.disk.names().iter().any(|have| have == name) {
                continue;
            }
            world.expect_damage();
            let mut bytes = vec![0; size];
            if n % 2 == 0 {
                Rng::new(size as u64).fill(&mut bytes);
            }
            world.disk.put(name, &bytes);
            let outcome = world.check(false).and_then(|()| world.start(false)).and_then(|()| world.finish());
            outcome.unwrap_or_else(|why| panic!("{name} of {size} bytes: {why}"));
        }
    }
}

fn build_small() -> World {
    let mut world = World::new(5).unwrap();
    world.step(&Step::NewOwner).unwrap();
    let frame = |bytes| Shape { owners: vec![0], bytes, holds: 0, frees: 0 };
    for n in 0..6 {
        world.step(&Step::Append(vec![frame(60_000 + n), frame(70)])).unwrap();
    }
    world.end();
    world
}
