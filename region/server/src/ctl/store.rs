//! `antiphon ctl store`: what a node's store is and how it does, and the way into another one.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use antiphon_kv::Kv;
use antiphon_slot::slot_range;
use antiphon_types::Slot;
use anyhow::{Context as _, Result, bail};
use axum::{
    Json, Router,
    extract::State as Shared,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use clap::{Args, Subcommand};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use super::{Ctl, table::table};
use crate::{
    config::{Config, StoreEngine},
    store, store_copy,
};

/// The node's store, once it is open.
pub(crate) type StoreCell = Arc<OnceLock<Kv>>;

/// Slots whose size is read at once.
const SIZED_AT_ONCE: usize = 16;
/// Slots that people are shown; scripts get all.
const SHOWN: usize = 10;
/// How often a copy says how far it is.
const PROGRESS: Duration = Duration::from_secs(1);

/// The store of a node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoreView {
    engine: String,
    version: String,
    /// Why it cannot commit; none when it can.
    fault: Option<String>,
    /// Bytes of each slot that holds any, with its keys; estimated where the engine does.
    slots: BTreeMap<u16, u64>,
}

pub(crate) fn routes(store: StoreCell) -> Router {
    Router::new().route("/store", get(show)).with_state(store)
}

async fn show(Shared(store): Shared<StoreCell>) -> Response {
    let Some(kv) = store.get() else {
        return unavailable("the store is not open yet");
    };
    match view(kv).await {
        Ok(view) => Json(view).into_response(),
        Err(error) => unavailable(&format!("{error:#}")),
    }
}

fn unavailable(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": why }))).into_response()
}

async fn view(kv: &Kv) -> Result<StoreView> {
    let sizes = stream::iter(Slot::all()).map(|slot| async move {
        let (start, end) = slot_range(slot);
        let bytes = kv.size(start, end).await?;
        Ok::<_, anyhow::Error>((slot.number(), bytes))
    });
    let sizes: Vec<(u16, u64)> = sizes.buffer_unordered(SIZED_AT_ONCE).try_collect().await?;
    Ok(StoreView {
        engine: kv.engine().to_owned(),
        version: kv.version().await?,
        fault: kv.health().await.err().map(|error| error.to_string()),
        slots: sizes.into_iter().filter(|(_, bytes)| *bytes > 0).collect(),
    })
}

/// What the node has counted of its store since it started.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counted {
    commits: u64,
    /// Half of the commits, and 99 of 100, took no longer.
    commit_p50_ms: Option<f64>,
    commit_p99_ms: Option<f64>,
    conflicts: u64,
    retries: u64,
    unknown_commits: u64,
    read_bytes: u64,
    written_bytes: u64,
}

impl Counted {
    /// From the node's metrics, of this engine.
    fn of(metrics: &str, engine: &str) -> Self {
        let engine = format!("engine=\"{engine}\"");
        let series = |name: &'static str| {
            let lines = metrics.lines().filter(move |line| line.starts_with(name));
            let lines = lines.filter(|line| line.contains(&engine));
            lines.filter_map(|line| line.rsplit_once(' '))
        };
        let number = |name| {
            let mut values = series(name).filter_map(|(_, value)| value.parse().ok());
            values.next().unwrap_or(0)
        };
        let commits = number("antiphon_kv_commit_seconds_count{");
        let buckets: Vec<(f64, u64)> = series("antiphon_kv_commit_seconds_bucket{")
            .filter_map(|(labels, count)| {
                let (_, edge) = labels.split_once("le=\"")?;
                let edge = edge.split('"').next()?;
                Some((edge.parse().ok()?, count.parse().ok()?))
            })
            .collect();
        let within = |percent: u64| {
            let enough = |(_, count): &&(f64, u64)| count * 100 >= commits * percent;
            let edge = buckets.iter().find(enough).map(|(edge, _)| edge * 1_000.0);
            edge.filter(|edge| commits > 0 && edge.is_finite())
        };
        Self {
            commits,
            commit_p50_ms: within(50),
            commit_p99_ms: within(99),
            conflicts: number("antiphon_kv_conflicts_total{"),
            retries: number("antiphon_kv_retries_total{"),
            unknown_commits: number("antiphon_kv_unknown_commits_total{"),
            read_bytes: number("antiphon_kv_read_bytes_total{"),
            written_bytes: number("antiphon_kv_written_bytes_total{"),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    command: Option<StoreCommand>,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Copy what a region stores in the embedded engine to FoundationDB, and compare both ends. The region does not run meanwhile;
    /// what was stopped is taken up again by the same command
    Copy(CopyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// Whose store it is
    #[arg(long, value_name = "NAME")]
    region: String,
    /// The folder of the region: its embedded store is in `store` in there
    #[arg(long, value_name = "FOLDER")]
    folder: PathBuf,
}

impl Ctl {
    /// Shows the store, or copies it. `load` reads the settings with these over them.
    pub(super) async fn store(&self, args: StoreArgs, load: impl Fn(&[(&str, &str)]) -> Result<Config>) -> Result<()> {
        match args.command {
            None => self.show_store().await,
            Some(StoreCommand::Copy(args)) => {
                let of = |engine: &str| {
                    let alone = ("world.regions", "");
                    load(&[("node.region", args.region.as_str()), alone, ("store.engine", engine)])
                };
                self.copy_store(&args, &of("embedded")?, &of("fdb")?).await
            }
        }
    }

    async fn show_store(&self) -> Result<()> {
        #[derive(Serialize)]
        struct Shown<'a> {
            #[serde(flatten)]
            view: &'a StoreView,
            #[serde(flatten)]
            counted: &'a Counted,
        }
        let view: StoreView = self.get("/store").await?;
        let metrics = self.answer(Method::GET, "/metrics", None).await?;
        let counted = &Counted::of(&metrics, &view.engine);
        self.show(&Shown { view: &view, counted }, || in_table(&view, counted))
    }

    async fn copy_store(&self, args: &CopyArgs, from: &Config, to: &Config) -> Result<()> {
        store::is_built_in(StoreEngine::Fdb)?;
        let (old, new) = (store::place(from, &args.folder), store::place(to, &args.folder));
        if !args.folder.join("store").is_dir() {
            bail!("there is no store in {} (--folder)", args.folder.display());
        }
        self.agree(&format!("{old} is copied to {new}. The region must not run meanwhile"))?;
        let from = store::open(from, &args.folder)
            .await
            .context("does the region still run?")?;
        // Which may take as long as the cluster is away.
        self.progress(&format!("opening {new}"))?;
        let to = store::open(to, &args.folder).await?;
        let mut told = Instant::now();
        let copied = store_copy::copy(&from, &to, |copied| {
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let _ = self.progress(&in_numbers(&copied));
            }
        });
        let copied = copied.await;
        let closed = from.close().await.and(to.close().await);
        let copied = copied?;
        closed.context("the stores could not be closed")?;
        self.show(&copied, || {
            format!(
                "{}\nboth ends are the same; start the region with --store fdb\n",
                in_numbers(&copied)
            )
        })
    }
}

fn in_numbers(copied: &store_copy::Copied) -> String {
    format!(
        "{} of {} slots are there ({} were), {} keys, {} bytes",
        copied.slots,
        Slot::all().count(),
        copied.slots_before,
        copied.keys,
        copied.bytes
    )
}

fn in_table(view: &StoreView, counted: &Counted) -> String {
    let ms = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms} ms"));
    let fault = view.fault.as_deref().unwrap_or("it can commit");
    let total: u64 = view.slots.values().sum();
    let mut text = format!(
        "store      {} ({}): {fault}\ncommits    {}, half within {}, 99 of 100 within {}\n",
        view.engine,
        view.version,
        counted.commits,
        ms(counted.commit_p50_ms),
        ms(counted.commit_p99_ms),
    );
    let _ = writeln!(
        text,
        "           {} conflicts, {} retries, {} of unknown result\nbytes      {} read, {} written",
        counted.conflicts, counted.retries, counted.unknown_commits, counted.read_bytes, counted.written_bytes
    );
    let mut slots: Vec<(&u16, &u64)> = view.slots.iter().collect();
    slots.sort_by_key(|(slot, bytes)| (std::cmp::Reverse(**bytes), **slot));
    let _ = writeln!(
        text,
        "holds      {total} bytes in {} slots{}\n",
        slots.len(),
        if slots.len() > SHOWN { "; the largest:" } else { ":" },
    );
    let rows = slots.into_iter().take(SHOWN);
    text + &table(
        ["slot", "bytes"],
        rows.map(|(slot, bytes)| [slot.to_string(), bytes.to_string()]),
    )
}

#[cfg(test)]
mod tests {
    use antiphon_kv::{EmbeddedOptions, KvError};

    use super::*;

    #[tokio::test]
    async fn sizes_are_those_of_the_slots_that_hold_something() {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions {
            path: folder.path().join("store"),
            ..EmbeddedOptions::default()
        };
        let kv = Kv::open_embedded(options).await.unwrap();
        let (start, _) = slot_range(Slot::new(7).unwrap());
        // More than a page.
        for some in 0..3_u16 {
            let start = &start;
            kv.transact(|txn| async move {
                for number in 0..500_u16 {
                    let key = [start.as_ref(), b"\x15", &some.to_be_bytes(), &number.to_be_bytes()].concat();
                    txn.set(key, vec![1; 10]);
                }
                Ok::<_, KvError>(())
            })
            .await
            .unwrap();
        }
        let view = view(&kv).await.unwrap();
        let each = start.len() as u64 + 1 + 4 + 10;
        assert_eq!(view.slots, BTreeMap::from([(7, 1_500 * each)]));
        assert_eq!((view.engine.as_str(), view.fault), ("embedded", None));
    }

    #[test]
    fn latency_is_read_from_the_buckets_of_the_engine() {
        let metrics = "\
antiphon_kv_commit_seconds_bucket{engine=\"other\",le=\"0.0001\"} 500
antiphon_kv_commit_seconds_bucket{engine=\"fdb\",le=\"0.001\"} 60
antiphon_kv_commit_seconds_bucket{engine=\"fdb\",le=\"0.005\"} 98
antiphon_kv_commit_seconds_bucket{engine=\"fdb\",le=\"0.01\"} 100
antiphon_kv_commit_seconds_bucket{engine=\"fdb\",le=\"+Inf\"} 100
antiphon_kv_commit_seconds_count{engine=\"fdb\"} 100
antiphon_kv_conflicts_total{engine=\"fdb\"} 3
";
        let counted = Counted::of(metrics, "fdb");
        assert_eq!((counted.commits, counted.conflicts, counted.retries), (100, 3, 0));
        assert_eq!((counted.commit_p50_ms, counted.commit_p99_ms), (Some(1.0), Some(10.0)));
        assert_eq!(Counted::of("", "fdb"), Counted::default());
    }
}
