//! Each world happens in a process of its own: what a process draws at random, down to the order of its hash maps, is then the seed's.

use std::{
    fs,
    ops::Range,
    panic,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rand::{SeedableRng as _, rngs::StdRng};

use crate::world;

/// A world that takes longer than this hangs.
const WORLD_MAX: Duration = Duration::from_secs(240);
/// What a failing world is told by.
const FAILED: i32 = 3;

/// What is asked for on the command line.
#[derive(Debug, Default)]
struct Arguments {
    seed: Option<u64>,
    seeds: u64,
    from: u64,
    trace: bool,
}

impl Arguments {
    fn parse(text: &str) -> Self {
        let mut arguments = Self {
            seeds: crate::SEEDS,
            ..Self::default()
        };
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            let mut number = || {
                let number = words.next().and_then(|number| number.parse().ok());
                number.unwrap_or_else(|| panic!("{word} wants a number"))
            };
            match word {
                "--seed" => arguments.seed = Some(number()),
                "--seeds" => arguments.seeds = number(),
                "--from" => arguments.from = number(),
                "--trace" => arguments.trace = true,
                other => panic!("{other} is not known: --seed S, --seeds N, --from S, --trace"),
            }
        }
        arguments
    }
}

/// Does what the arguments ask for.
pub(crate) fn simulate(arguments: &str) {
    let arguments = Arguments::parse(arguments);
    match arguments.seed {
        Some(seed) => one(seed, arguments.trace),
        None => try_seeds(arguments.from..arguments.from + arguments.seeds),
    }
}

/// The trace of a world.
pub(crate) fn trace(seed: u64) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace");
    let report = child(seed, Some(&file));
    assert!(report.is_ok(), "{}", report.unwrap_err());
    fs::read_to_string(file).unwrap()
}

/// Tries worlds, as many at once as there are processors.
///
/// # Panics
/// When one breaks an invariant; the message says how to see it again.
pub(crate) fn try_seeds(seeds: Range<u64>) {
    let next = AtomicU64::new(seeds.start);
    let failures = Mutex::new(Vec::new());
    let processors = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failures.lock().len() >= 5 {
                        return;
                    }
                    if let Err(report) = child(seed, None) {
                        failures.lock().push((seed, report));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner();
    failures.sort();
    let said: Vec<String> = failures
        .iter()
        .map(|(seed, report)| format!("seed {seed}:\n{report}\n  again: just sim --seed {seed} --trace\n"))
        .collect();
    assert!(said.is_empty(), "{}", said.join("\n"));
}

/// Lets a world happen in a process of its own; the error says what was wrong.
fn child(seed: u64, trace: Option<&Path>) -> Result<(), String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "simulate", "--ignored", "--nocapture"])
        .env("SIM_ARGS", format!("--seed {seed}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(trace) = trace {
        command.env("SIM_TRACE_FILE", trace);
    }
    let mut child = command.spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reading = thread::spawn(move || std::io::read_to_string(&mut out).unwrap_or_default());
    let erring = thread::spawn(move || std::io::read_to_string(&mut err).unwrap_or_default());
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if began.elapsed() > WORLD_MAX {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        thread::park_timeout(Duration::from_millis(5));
    };
    let (out, err) = (reading.join().unwrap(), erring.join().unwrap());
    match status {
        Some(status) if status.success() => Ok(()),
        Some(_) => Err(format!("{out}{err}")),
        None => Err(format!("the world hangs\n{out}{err}")),
    }
}

/// Lets one world happen in this process.
fn one(seed: u64, show: bool) {
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
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
    let world = thread::spawn(move || {
        let _logging = logging();
        world::run(seed)
    });
    let outcome = world.join();
    let Ok(outcome) = outcome else {
        println!("the world of seed {seed} panicked");
        std::process::exit(FAILED);
    };
    if let Ok(file) = std::env::var("SIM_TRACE_FILE") {
        fs::write(file, &outcome.trace).unwrap();
    }
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
        std::process::exit(FAILED);
    }
}

/// Shows the product's own log with `SIM_LOG=debug`.
fn logging() -> Option<tracing::subscriber::DefaultGuard> {
    let filter = std::env::var("SIM_LOG").ok()?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .without_time()
        .with_ansi(false)
        .finish();
    Some(tracing::subscriber::set_default(subscriber))
}
