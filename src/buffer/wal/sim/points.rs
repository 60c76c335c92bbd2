//! Every moment at which the power can go during a fixed script, and every moment of the recoveries after that.
//!
//! Enters: the script. Leaves: the call, the mood of the disk and the promise that is broken. Can go wrong: nothing else.

use super::image::Mood;
use super::rng::Rng;
use super::world::{Order, Shape, Step, World};

const MOODS: [Mood; 4] = [Mood::AllOld, Mood::AllNew, Mood::OldOrNew, Mood::Anything];

fn frame(owners: &[usize], bytes: usize) -> Shape {
    Shape { owners: owners.to_vec(), bytes, holds: 0, frees: 0 }
}

fn held(holds: usize) -> Shape {
    Shape { owners: Vec::new(), bytes: 300 * holds, holds, frees: 0 }
}

/// Appends, verdicts, a segment sealed and used again, an owner that is stuck so that its frames move to its side log, a
/// new owner, records that are settled before their frames, holds and their end.
fn script() -> Vec<Step> {
    use Step::{Append, Close, Kill, Maintain, NewOwner, Part, Pull, Settle};
    let all = usize::MAX;
    let mut steps = vec![
        NewOwner,
        NewOwner,
        Append(vec![frame(&[0, 1], 1), frame(&[1], 700), held(3)]),
        Append(vec![frame(&[0], 5000)]),
        Pull(0, 1 << 20),
        Pull(1, 100),
        Settle(0, 1, Order::Newest),
        Part(0, 1),
        Part(1, 1),
        Maintain(1100),
        Append(vec![Shape { owners: vec![0], bytes: 60, holds: 0, frees: 2 }]),
        Maintain(150),
        Kill,
        Pull(0, 1 << 20),
        Settle(0, all, Order::Oldest),
    ];
    // Fills segments; owner 1 settles nothing.
    for n in 0..5 {
        steps.push(Append(vec![frame(&[0], 65_000), frame(&[0, 1], 900 + n), frame(&[0], 65_000)]));
        steps.push(Pull(0, 1 << 20));
        steps.push(Settle(0, all, Order::Any));
        steps.push(Maintain(if n % 2 == 0 { 1100 } else { 150 }));
    }
    steps.extend([
        Append(vec![Shape { owners: vec![0], bytes: 60, holds: 0, frees: 9 }, held(1)]),
        Maintain(1100),
        NewOwner,
        Append(vec![frame(&[2], 40_000), frame(&[0, 1, 2], 40_000)]),
        Maintain(1100),
        Maintain(1100),
        Pull(1, 2000),
        Part(1, 3),
        Maintain(1100),
        Part(1, 2),
        Settle(1, 2, Order::Oldest),
        Append(vec![frame(&[0], 60_000), frame(&[0], 60_000), frame(&[0], 60_000)]),
        Pull(0, 1 << 20),
        Settle(0, all, Order::Oldest),
        Maintain(1100),
        Close,
        Pull(1, 1 << 20),
        Settle(1, all, Order::Any),
        Pull(2, 1 << 20),
        Maintain(1100),
        Append(vec![frame(&[2], 100)]),
        Settle(2, all, Order::Any),
        Maintain(1100),
        Maintain(1100),
    ]);
    steps
}

/// Plays until the power goes; without coming back.
fn until_power_cut(world: &mut World, cut: u64) -> Result<bool, String> {
    world.disk.crash_at(cut);
    let started = world.start_once();
    if !world.disk.crashed() {
        started?;
        for step in script() {
            let outcome = world.act(&step);
            if world.disk.crashed() {
                return Ok(true);
            }
            outcome?;
        }
    }
    Ok(world.disk.crashed())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn the_script_does_all_that_a_log_does() {
    let mut world = World::before_open(1);
    assert_eq!(until_power_cut(&mut world, u64::MAX / 2), Ok(false));
    let stats = world.totals;
    assert!(stats.freed_segments >= 3, "{stats:?}");
    assert!(stats.moved_frames >= 1, "{stats:?}");
    world.finish().unwrap();
}

#[test]
fn a_power_cut_at_any_call_of_the_script_breaks_no_promise() {
    let thorough = number("WAL_HISTORIES").is_some();
    let mut rng = Rng::new(7);
    let mut points = 0;
    for cut in 0.. {
        let mut goes = false;
        let moods: Vec<Mood> = if thorough { MOODS.to_vec() } else { vec![MOODS[cut as usize % 4]] };
        let mut world = World::before_open(cut);
        if !until_power_cut(&mut world, cut).unwrap_or_else(|why| panic!("cut at call {cut}: {why}")) {
            break;
        }
        for mood in moods {
            goes = true;
            let mut first = world.fork();
            let at = format!("cut at call {cut} ({mood:?})");
            first.power_cut_as(cut, mood).unwrap_or_else(|why| panic!("{at}: {why}"));
            points += 1;
            // And again while it recovers: at every call in a long run, at a few in a short one.
            let calls = first.recovery_changes;
            let every = if thorough { 1 } else { (calls / 2).max(1) };
            let mut again = rng.below(every);
            while again < calls {
                let mut second = first.fork();
                second.disk.crash_at(again);
                let outcome = second.start_once();
                let at = format!("{at}, and at call {again} of {calls} of the recovery");
                assert!(second.disk.crashed(), "{at}: the recovery is not the same twice: {outcome:?}");
                let mood = MOODS[rng.index(4)];
                second.power_cut_as(again, mood).unwrap_or_else(|why| panic!("{at} ({mood:?}): {why}"));
                points += 1;
                if rng.chance(if thorough { 100 } else { 30 }) {
                    second
                        .start(true)
                        .and_then(|()| second.finish())
                        .unwrap_or_else(|why| panic!("{at}: {why}"));
                }
                again += every;
            }
        }
        assert!(goes);
    }
    assert!(points > 200, "only {points} points");
}
