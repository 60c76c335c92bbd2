//! Random histories: whatever happens in whatever order, the log keeps its word.
//!
//! Enters: a seed. Leaves: a history's steps, when it breaks a promise. Can go wrong: nothing else.

use super::disk::{Faults, Lie};
use super::rng::Rng;
use super::world::{Order, Shape, Step, World};

/// What a history is about. A mix of everything hides what each alone would show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theme {
    /// Processes end and are killed, the machine goes on, the disk works.
    Calm,
    /// The power goes, also while the log recovers.
    Power,
    /// Calls fail.
    Faults,
    /// Both.
    Both,
    /// A small volume, power cuts.
    SmallDisk,
    /// A small volume, and calls fail.
    SmallDiskFaults,
}

fn theme(seed: u64) -> Theme {
    match seed % 8 {
        0 => Theme::Calm,
        1..=3 => Theme::Power,
        4 => Theme::Faults,
        5 => Theme::Both,
        6 => Theme::SmallDisk,
        _ => Theme::SmallDiskFaults,
    }
}

struct Player {
    world: World,
    rng: Rng,
    theme: Theme,
    steps: Vec<Step>,
    /// An owner that settles nothing for a while.
    stuck: Option<usize>,
}

impl Player {
    fn play(&mut self) -> Result<(), String> {
        let steps = 20 + self.rng.below(100);
        for _ in 0..1 + self.rng.below(3) {
            self.go(Step::NewOwner)?;
        }
        for _ in 0..steps {
            let step = self.any_step();
            self.go(step)?;
        }
        self.world.disk.crash_at(u64::MAX / 2);
        self.world.finish()
    }

    fn go(&mut self, step: Step) -> Result<(), String> {
        self.steps.push(step.clone());
        self.world.step(&step)
    }

    fn any_owner(&mut self) -> usize {
        self.rng.index(self.world.owner_count())
    }

    fn any_step(&mut self) -> Step {
        let owner = self.any_owner();
        match self.rng.below(100) {
            0..=33 => self.append(),
            34..=55 => Step::Pull(owner, 1 << self.rng.below(19)),
            56..=59 => Step::Part(owner, 1 + self.rng.index(9)),
            60..=72 => {
                let owner = if self.stuck == Some(owner) { self.any_owner() } else { owner };
                let order = [Order::Oldest, Order::Newest, Order::Any][self.rng.index(3)];
                Step::Settle(owner, 1 + self.rng.index(30), order)
            }
            73..=84 => Step::Maintain([0, 20, 150, 1100, 1100][self.rng.index(5)]),
            85 | 86 if self.world.owner_count() < 4 => Step::NewOwner,
            85 | 86 => {
                self.stuck = Some(owner);
                Step::Maintain(1100)
            }
            87 if self.rng.chance(300) => Step::Unconfigure(owner),
            87 if self.rng.chance(300) && self.theme == Theme::Calm => Step::Forget(owner),
            87 => Step::Maintain(1100),
            88 | 89 => Step::Close,
            90 | 91 => Step::Kill,
            _ => self.trouble(),
        }
    }

    fn append(&mut self) -> Step {
        let frames = 1 + self.rng.below(6);
        let mut left = 300_000_usize;
        let shapes = (0..frames).map(|_| {
            let bytes = match self.rng.below(10) {
                0 => 1,
                1..=3 => 1 + self.rng.index(100),
                4..=6 => 1 + self.rng.index(5000),
                7 | 8 => 1 + self.rng.index(65_536),
                _ => 1 + self.rng.index(100 * 1024),
            };
            // Now and then one that is larger than a segment.
            let bytes = if self.rng.chance(4) { 400_000 } else { bytes.min(left.max(1)) };
            left = left.saturating_sub(bytes);
            let mut owners: Vec<usize> = (0..self.world.owner_count()).collect();
            self.rng.shuffle(&mut owners);
            owners.truncate(1 + self.rng.index(4));
            let holds = if self.rng.chance(150) { 1 + self.rng.index(4) } else { 0 };
            let frees = if self.rng.chance(250) { self.rng.index(6) } else { 0 };
            Shape { owners, bytes, holds, frees }
        });
        Step::Append(shapes.collect())
    }

    fn trouble(&mut self) -> Step {
        let faulty = matches!(self.theme, Theme::Faults | Theme::Both | Theme::SmallDiskFaults);
        let power = matches!(self.theme, Theme::Power | Theme::Both | Theme::SmallDisk);
        if power && (!faulty || self.rng.chance(500)) {
            return if self.rng.chance(300) { Step::PowerCut } else { Step::PowerCutIn(self.rng.below(40)) };
        }
        if faulty {
            return match self.rng.below(4) {
                0 => Step::FailCallIn(self.rng.below(30)),
                1 => Step::SetFaults(Faults::default()),
                _ => {
                    let rate = [5, 30, 150][self.rng.index(3)];
                    let one = |rng: &mut Rng| if rng.chance(400) { rate } else { 0 };
                    Step::SetFaults(Faults {
                        write: one(&mut self.rng),
                        short_write: one(&mut self.rng),
                        sync: one(&mut self.rng),
                        names: one(&mut self.rng),
                        read: 0,
                    })
                }
            };
        }
        Step::Maintain(1100)
    }
}

fn run(seed: u64, trace: bool, lie: Option<Lie>) -> Result<(), String> {
    let theme = theme(seed);
    let mut rng = Rng::new(seed ^ 0x5eed);
    let world = World::before_open(seed);
    if matches!(theme, Theme::SmallDisk | Theme::SmallDiskFaults) {
        world.disk.set_volume(Some((3 << 20) + rng.below(3 << 20)));
    }
    world.disk.set_trace(trace);
    if let Some(lie) = lie {
        world.disk.set_lie(lie);
    }
    let mut player = Player { world, rng, theme, steps: Vec::new(), stuck: None };
    let outcome = player.world.start(false).and_then(|()| player.play());
    outcome.map_err(|why| {
        let steps: Vec<String> = player.steps.iter().map(|step| format!("{step:?}")).collect();
        let calls = player.world.disk.trace().join("\n");
        format!("seed {seed} ({theme:?}): {why}\nsteps:\n{}\n{calls}", steps.join("\n"))
    })
}

#[test]
fn a_log_that_forgets_a_sync_is_caught() {
    for lie in [Lie::Segments, Lie::Cursors, Lie::Names] {
        // Seeds of power cuts.
        let caught = (0..60).filter(|seed| seed % 8 == 1).find_map(|seed| run(seed, false, Some(lie)).err());
        let why = caught.unwrap_or_else(|| panic!("{lie:?}: nobody noticed"));
        let said = why.lines().next().unwrap_or("");
        assert!(
            ["is lost", "came again", "is back", "is now []", "does not open", "is missing"]
                .iter()
                .any(|p| said.contains(p)),
            "{said}"
        );
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_random_history_breaks_a_promise() {
    if let Some(seed) = number("WAL_SEED") {
        run(seed, true, None).unwrap_or_else(|why| panic!("{why}"));
        return;
    }
    let first = number("WAL_FIRST").unwrap_or(0);
    let mut broken = Vec::new();
    for seed in first..first + number("WAL_HISTORIES").unwrap_or(64) {
        let outcome = std::panic::catch_unwind(|| run(seed, false, None))
            .unwrap_or_else(|_| Err(format!("seed {seed}: panicked")));
        if let Err(why) = outcome {
            broken.push(why);
        }
    }
    // A long run sums up; the first history is enough to work on.
    let firsts: Vec<&str> = broken.iter().filter_map(|why| why.lines().next()).collect();
    assert!(broken.is_empty(), "{} broken:\n{}\n\n{}", broken.len(), firsts.join("\n"), broken[0]);
}
