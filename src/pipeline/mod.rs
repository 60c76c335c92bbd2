//! Builds and supervises the line: inputs, filters, router, queues, outputs. The only wiring.
//!
//! Enters: a checked configuration. Leaves: an exit code and the summary. Shutdown is ordered and has one deadline:
//! sources are read to their end, what filters hold goes out, queues close, outputs finish; see [`Pipeline::run`].

mod build;
pub mod catalog;
mod intake;
mod keeping;
mod refused;
mod replay;

use std::collections::HashMap;
use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::buffer::dead_letters::DeadLetters;
use crate::buffer::store::{Limits, Owner, Store};
use crate::config::{AckLevel, Diagnostics, Document, Service, StorageType};
use crate::filters::program::{MAX_STEPS, Program, Step};
use crate::inputs::InputContext;
use crate::observe::counters::{self, Totals};
use crate::router::Router;
use crate::rt;
use crate::rt::{Budget, LetterBox, Letters, Meter, Stopper, Tasks, limits, pages};

use build::Plan;
pub use replay::Replay;

use intake::{Collector, Keeping, Route, Wiring};

/// Exit code: nothing that was accepted was lost.
pub const EXIT_OK: u8 = 0;
/// Exit code: accepted records were given up, or a port could not be opened, or a task failed.
pub const EXIT_LOSS: u8 = 1;

/// How long the log may take to write the outputs' positions at the end.
const CLOSE: Duration = Duration::from_secs(2);

/// What is left when everything has ended.
struct Ended {
    result: Result<(), ()>,
    totals: Arc<Totals>,
    store: Option<Store>,
}

/// How often the counters go to the log while they move.
const REPORT: Duration = Duration::from_secs(60);

/// A configuration that was built: every plugin is ready, nothing has been opened.
pub struct Pipeline {
    plan: Plan,
    service: Service,
}

impl Pipeline {
    /// Builds every plugin. Findings go to `diags`; ask it whether to go on.
    pub fn build(document: &Document, service: &Service, diags: &mut Diagnostics) -> Pipeline {
        let plan = build::plan(document, service, diags);
        if plan.filters.len() > MAX_STEPS {
            diags.error(None, format!("more than {MAX_STEPS} filters"));
        }
        if document.inputs.is_empty() {
            diags.error_hint(None, "no input", "add an [INPUT] section");
        }
        if document.outputs.is_empty() {
            diags.strict(None, "no output", "every record is counted as unrouted");
        }
        Pipeline { plan, service: service.clone() }
    }

    /// Where what firelane does by default differs from Fluent Bit, for `check`.
    pub fn notes(&self) -> &[String] {
        &self.plan.notes
    }

    /// Runs until SIGTERM or SIGINT, or until standard input ends where it is read.
    ///
    /// Drain: listeners refuse new connections and open ones are read until they end, are quiet for 200 ms, or a third of
    /// the grace period is over; filters emit what they hold; outputs finish within the grace period. A second signal
    /// stops at once. The summary line is printed last.
    pub fn run(self) -> ExitCode {
        ExitCode::from(if self.run_line().0 { EXIT_OK } else { EXIT_LOSS })
    }

    /// Runs to the end. Says whether nothing that was accepted was lost, and what was counted.
    fn run_line(self) -> (bool, Option<Arc<Totals>>) {
        // One processor is left to the blocking writes; with one thread the path crosses no core, which costs a third
        // less a record than two threads that take work from each other (measured).
        let threads = limits::processors().saturating_sub(1).clamp(1, 4);
        let runtime = if threads == 1 {
            tokio::runtime::Builder::new_current_thread().enable_all().build()
        } else {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name("firelane-data")
                .enable_all()
                .build()
        };
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(e) => {
                tracing::error!(cause = %e, "cannot start the runtime");
                return (false, None);
            }
        };
        let quiet = self.service.log_level.eq_ignore_ascii_case("off");
        let Ended { result: ended, totals, store } = runtime.block_on(self.serve());
        // What still runs is cut off here; deliveries without a verdict count as dropped, or stay on disk.
        runtime.shutdown_timeout(Duration::from_secs(1));
        if let Some(store) = store {
            store.close(CLOSE);
        }
        if !quiet {
            crate::observe::log::summary(&totals);
        }
        let held_back =
            totals.pipeline.holding.load(Relaxed).saturating_sub(totals.pipeline.kept.load(Relaxed));
        let lost = totals.lost() + held_back;
        if lost > 0 {
            tracing::error!(records = lost, "accepted records were given up");
        }
        if let Some(imbalance) = totals.imbalance() {
            tracing::error!(imbalance, "the accounts do not balance: please report this");
        }
        (ended.is_ok() && lost == 0, Some(totals))
    }

    async fn serve(self) -> Ended {
        let Pipeline { plan, service } = self;
        let budget = Budget::new(service.memory_limit.unwrap_or_else(limits::default_budget));
        let totals = Arc::new(Totals {
            pipeline: counters::Pipeline::default(),
            letters: Arc::default(),
            storage: Arc::default(),
            outputs: plan.outputs.iter().map(|o| (o.label.clone(), Arc::default())).collect(),
            filters: plan.filters.iter().map(|f| (f.label.clone(), Arc::default())).collect(),
        });
        let (stopper, stop) = Stopper::new();
        let (sources, keepers, sinks) = (Tasks::new(), Tasks::new(), Tasks::new());
        let end_process = Arc::new(Notify::new());

        // The way to the dead letters; who writes them starts once the storage is ours.
        let (letters, inbox) = service.storage.dead_letters.as_ref().map(|_| Letters::new()).unzip();

        // An output may hold its part of the memory, and no more: one that is dead never takes the others' room.
        let share = budget.source_limit() / plan.outputs.len().max(1) as u64;
        let mut queues = Vec::new();
        let mut output_matchers = Vec::new();
        let mut owners = Vec::new();
        let mut outputs = Vec::new();
        let identities: HashMap<String, String> =
            plan.outputs.iter().map(|o| (format!("output {}", o.label), o.identity.clone())).collect();
        for (planned, (_, counters)) in plan.outputs.into_iter().zip(&totals.outputs) {
            let (sender, receiver) =
                rt::queue(planned.label.clone(), share, Arc::clone(counters), letters.clone());
            owners.push(Owner {
                identity: planned.identity,
                queue: sender.clone(),
                limit: planned.limit,
                overflow: planned.overflow,
            });
            queues.push(sender);
            output_matchers.push(planned.matcher);
            outputs.push((planned.label, planned.output, receiver));
        }
        let store = match &service.storage.path {
            Some(path) => {
                let limits = Limits {
                    orphan_ttl: service.storage.orphan_ttl,
                    backlog: service.storage.backlog_memory,
                };
                let counters = Arc::clone(&totals.storage);
                match Store::open(path, owners, &budget, limits, counters).and_then(|opened| {
                    totals.pipeline.orphaned.fetch_add(opened.orphaned, Relaxed);
                    opened.start(&keepers).map_err(|e| format!("cannot start the commit thread: {e}"))
                }) {
                    Ok(store) => Some(store),
                    Err(message) => {
                        tracing::error!("{message}");
                        return Ended { result: Err(()), totals, store: None };
                    }
                }
            }
            None => {
                drop(owners);
                None
            }
        };
        let dead_letters = match DeadLettersTask::start(inbox, &service, &totals, identities) {
            Ok(task) => task,
            Err(message) => {
                tracing::error!("{message}");
                return Ended { result: Err(()), totals, store };
            }
        };
        for (label, output, receiver) in outputs {
            sinks.spawn(format!("output {label}"), output.run(receiver));
        }
        let filter_matchers = plan.filters.iter().map(|f| f.matcher.clone()).collect();
        let filters: Vec<_> = plan
            .filters
            .into_iter()
            .zip(&totals.filters)
            .map(|(f, (_, counters))| (f.filter, Arc::clone(counters)))
            .collect();
        let make = Box::new(move |number: usize, matching: &[usize], outputs: &[usize]| Route {
            number,
            program: Program::new(
                matching
                    .iter()
                    .filter_map(|&index| {
                        let (filter, counters) = filters.get(index)?;
                        Some(Step { index, filter: Arc::clone(filter), counters: Arc::clone(counters) })
                    })
                    .collect(),
            ),
            outputs: outputs.to_vec(),
        });
        let wiring = Arc::new(Wiring {
            router: Router::new(filter_matchers, output_matchers, make),
            queues,
            totals: Arc::clone(&totals),
            budget: budget.clone(),
            store: store.clone(),
            letters: letters.clone(),
        });

        let mut signals = match Signals::new() {
            Ok(signals) => signals,
            Err(e) => {
                tracing::error!(cause = %e, "cannot listen for signals");
                return Ended { result: Err(()), totals, store };
            }
        };
        let mut ended = Ok(());
        for planned in plan.inputs {
            let wiring = Arc::clone(&wiring);
            let label = planned.label.clone();
            // With storage the limit has no effect; a ring makes room instead of waiting.
            let limit = if planned.storage == StorageType::Filesystem { 0 } else { planned.mem_buf_limit };
            let keeping = Keeping {
                from: format!("input {label}").into(),
                only: planned.only,
                meter: Arc::new(Meter::new(limit)),
                store: wiring.store.clone().filter(|_| planned.storage == StorageType::Filesystem),
                ack: planned.ack,
                ring: planned.storage == StorageType::MemoryRing,
                stop: stop.clone(),
            };
            let cx = InputContext {
                label: planned.label,
                tag: planned.tag,
                tag_is_set: planned.tag_is_set,
                meter: if keeping.ring { Arc::default() } else { Arc::clone(&keeping.meter) },
                budget: budget.clone(),
                stop: stop.clone(),
                tasks: sources.clone(),
                totals: Arc::clone(&totals),
                intakes: Arc::new(move |_| Box::new(Collector::new(Arc::clone(&wiring), keeping.clone()))),
                state: service.storage.path.clone(),
                end_process: Arc::clone(&end_process),
            };
            if let Err(message) = planned.input.start(cx).await {
                tracing::error!(input = %label, "{message}");
                ended = Err(());
                break;
            }
        }
        if let Some(store) = &store
            && ended.is_ok()
        {
            let keeping = Keeping {
                from: "storage".into(),
                only: None,
                meter: Arc::default(),
                store: Some(store.clone()),
                ack: AckLevel::Durable,
                ring: false,
                stop: stop.clone(),
            };
            let collector = Collector::new(Arc::clone(&wiring), keeping);
            sources.spawn("restore held records", intake::release_restored(collector, stop.clone()));
        }
        // From here on only sources, and the store, hold the queues open.
        drop(wiring);

        let mut now = ended.is_err();
        if !now {
            tracing::info!(memory_limit = budget.limit(), "ready");
            pages::give_back_code();
            tokio::select! {
                () = signals.stop() => tracing::info!("stopping: draining what is on the way"),
                () = end_process.notified() => tracing::info!("input has ended: draining"),
                () = sources.any_panicked() => ended = Err(()),
                () = sinks.any_panicked() => ended = Err(()),
                () = keepers.any_panicked() => ended = Err(()),
                () = dead_letters.tasks.any_panicked() => ended = Err(()),
                () = report(Arc::clone(&totals)) => {}
            }
        }
        let all = Instant::now() + service.grace;
        stopper.drain(Instant::now() + service.grace / 3, all);
        if !now {
            now = within(all, &mut signals, sources.all_ended()).await.is_err();
        }
        if let Some(store) = &store {
            store.finish();
        }
        if !now && within(all, &mut signals, sinks.all_ended()).await.is_err() {
            tracing::warn!(
                "the grace period is over, or a second signal came, before every output had finished"
            );
        }
        // What outputs have given up at the last moment; the wait has the end of the log as its company.
        let last = all.max(Instant::now() + CLOSE);
        if within(last, &mut signals, dead_letters.finished()).await.is_err() {
            tracing::error!("dead letters could not be written to the end");
        }
        tracing::info!(peak = budget.peak(), limit = budget.limit(), "memory budget");
        Ended { result: ended, totals, store }
    }
}

/// The writer of dead letters, where they are kept.
struct DeadLettersTask {
    tasks: Tasks,
    /// Nobody sends any more.
    closing: Arc<Notify>,
}

impl DeadLettersTask {
    /// `outputs`: what each is, by the name that its letters come under.
    fn start(
        inbox: Option<LetterBox>,
        service: &Service,
        totals: &Totals,
        outputs: HashMap<String, String>,
    ) -> Result<Self, String> {
        let task = DeadLettersTask { tasks: Tasks::new(), closing: Arc::default() };
        if let Some((path, inbox)) = service.storage.dead_letters.clone().zip(inbox) {
            let limit = service.storage.dead_letter_limit;
            let writer = DeadLetters::open(path, limit, Arc::clone(&totals.letters))?.with_outputs(outputs);
            task.tasks.spawn("dead letters", writer.run(inbox, Arc::clone(&task.closing)));
        }
        Ok(task)
    }

    async fn finished(&self) {
        self.closing.notify_one();
        self.tasks.all_ended().await;
    }
}

/// Waits for `done`, until the deadline or another stop signal.
async fn within(deadline: Instant, signals: &mut Signals, done: impl Future<Output = ()>) -> Result<(), ()> {
    tokio::select! {
        biased;
        () = done => Ok(()),
        () = signals.stop() => Err(()),
        () = tokio::time::sleep_until(deadline) => Err(()),
    }
}

/// Logs the counters once a minute while they move. Never ends.
async fn report(totals: Arc<Totals>) {
    let mut last = String::new();
    loop {
        tokio::time::sleep(REPORT).await;
        let line = totals.to_string();
        if line != last {
            tracing::info!("{line}");
            last = line;
        }
    }
}

struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
    hup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT.
    async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.int.recv() => return,
                _ = self.hup.recv() => tracing::warn!("SIGHUP is ignored: restart to read the configuration again"),
            }
        }
    }
}
