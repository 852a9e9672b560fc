//! Each world happens in a process of its own: what a process draws at random, down to the order of its hash maps, is then the seed's.

use std::{
    ops::Range,
    panic,
    process::{self, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use antiphon_types::sabotage::{self, Rule};
use parking_lot::Mutex;
use rand::{SeedableRng as _, rngs::StdRng};
use tracing_subscriber::{Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{RULES, Test, world};

/// A world that takes longer than this hangs.
const WORLD_MAX: Duration = Duration::from_secs(180);
/// How a process ends whose world broke an invariant, and one that hangs.
const FAILED: i32 = 3;
const HANGS: i32 = 4;
/// After so many worlds that fail no more are tried.
const FAILURES_MAX: usize = 5;

/// What is asked for on the command line.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) seed: Option<u64>,
    pub(crate) seeds: Option<u64>,
    pub(crate) from: u64,
    pub(crate) trace: bool,
    /// A rule that is broken on purpose.
    pub(crate) broken: Option<Rule>,
    /// Of the standard harness.
    filters: Vec<String>,
    exact: bool,
    list: bool,
    ignored: bool,
}

impl Arguments {
    pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Self {
        let mut arguments = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut number = || {
                let number = words.next().and_then(|number| number.parse().ok());
                number.unwrap_or_else(|| panic!("{word} wants a number"))
            };
            match word.as_str() {
                "--seed" => arguments.seed = Some(number()),
                "--seeds" => arguments.seeds = Some(number()),
                "--from" => arguments.from = number(),
                "--break" => arguments.broken = Some(rule(&words.next().unwrap_or_default())),
                "--trace" => arguments.trace = true,
                "--exact" => arguments.exact = true,
                "--list" => arguments.list = true,
                "--ignored" => arguments.ignored = true,
                "--format" | "--color" | "--test-threads" | "--skip" => drop(words.next()),
                option if option.starts_with('-') => {}
                _ => arguments.filters.push(word),
            }
        }
        arguments
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |filter: &String| {
            if self.exact {
                name == filter
            } else {
                name.contains(filter)
            }
        };
        !self.ignored && (self.filters.is_empty() || self.filters.iter().any(fits))
    }
}

fn rule(name: &str) -> Rule {
    let found = RULES.into_iter().find(|rule| format!("{rule:?}") == name);
    found.unwrap_or_else(|| panic!("{name:?} is none of {RULES:?}"))
}

/// Runs the tests that the arguments name, as the standard harness would.
pub(crate) fn tests(tests: &[Test], arguments: &Arguments) {
    let wanted = tests.iter().filter(|(name, _)| arguments.wants(name));
    let mut failed = 0;
    for (name, test) in wanted {
        if arguments.list {
            println!("{name}: test");
            continue;
        }
        let passed = panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    if failed > 0 {
        process::exit(1);
    }
}

/// The trace of a world.
pub(crate) fn trace(seed: u64) -> String {
    child(seed, true, None).unwrap_or_else(|report| panic!("{report}"))
}

/// Tries worlds, as many at once as there are processors.
///
/// # Panics
/// When one breaks an invariant; the message says how to see it again.
pub(crate) fn try_seeds(seeds: Range<u64>, broken: Option<Rule>) {
    let failures = failures(seeds, broken, FAILURES_MAX);
    let breaking = broken.map_or(String::new(), |rule| format!(" --break {rule:?}"));
    let said: Vec<String> = failures
        .iter()
        .map(|(seed, report)| format!("{report}  again: just sim --seed {seed} --trace{breaking}\n"))
        .collect();
    assert!(said.is_empty(), "{} worlds fail\n{}", said.len(), said.join("\n"));
}

/// The first worlds that fail, and what they say.
pub(crate) fn failures(seeds: Range<u64>, broken: Option<Rule>, enough: usize) -> Vec<(u64, String)> {
    let next = AtomicU64::new(seeds.start);
    let failures = Mutex::new(Vec::new());
    let processors = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failures.lock().len() >= enough {
                        return;
                    }
                    if let Err(report) = child(seed, false, broken) {
                        failures.lock().push((seed, report));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner();
    failures.sort();
    failures
}

/// Lets a world happen in a process of its own, and returns what that says; an error when something was wrong.
fn child(seed: u64, trace: bool, broken: Option<Rule>) -> Result<String, String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--seed", &seed.to_string()]).stdin(Stdio::null());
    if trace {
        command.arg("--trace");
    }
    if let Some(rule) = broken {
        command.args(["--break", &format!("{rule:?}")]);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => Ok(said),
        code => {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(format!("seed {seed} ended with {code:?}\n{said}{errors}"))
        }
    }
}

/// Lets one world happen in this process.
pub(crate) fn one(seed: u64, show: bool, broken: Option<Rule>) {
    if let Some(rule) = broken {
        sabotage::break_rule(rule);
    }
    logging();
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    thread::spawn(give_up);
    // Tasks swallow panics; no task of the product may panic whatever happens.
    let panics = Arc::new(AtomicU64::new(0));
    let shown = panic::take_hook();
    panic::set_hook({
        let panics = panics.clone();
        Box::new(move |info| {
            panics.fetch_add(1, Ordering::Relaxed);
            shown(info);
        })
    });
    // A thread that has drawn nothing yet.
    let world = thread::spawn(move || world::run(seed));
    let Ok(outcome) = world.join() else {
        process::exit(FAILED);
    };
    if show {
        print!("{}", outcome.trace);
    }
    println!("seed {seed}: {}", outcome.summary);
    for violation in &outcome.violations {
        println!("  {violation}");
    }
    let panics = panics.load(Ordering::Relaxed);
    if panics > 0 {
        println!("  {panics} tasks panicked");
    }
    if panics > 0 || !outcome.violations.is_empty() {
        process::exit(FAILED);
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a thread of its own, and the clocks stand still"
)]
fn give_up() {
    thread::sleep(WORLD_MAX);
    println!("the world hangs");
    process::exit(HANGS);
}

/// Shows the product's own log with `SIM_LOG=debug`. Set up before anything is drawn at random, so that the world goes as without.
fn logging() {
    let Ok(targets) = std::env::var("SIM_LOG") else { return };
    let targets: Targets = targets.parse().unwrap();
    let lines = tracing_subscriber::fmt::layer().without_time().with_ansi(false);
    tracing_subscriber::registry().with(lines.with_filter(targets)).init();
}
