//! What an operator of a world sees and does, by its admin ports.

use std::{fmt::Write as _, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{http::get, text, world::World};

/// An admin port that is silent for so long does not answer.
const ANSWER: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Which regions keep a slot.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) home: String,
    pub(crate) standby: Option<String>,
}

/// Does something to a region's process: kill, stop, cont, restart.
pub(crate) async fn act(world: &World, region: &str, action: &str, down: Duration) {
    let body = match action {
        "kill" | "restart" => json!({"downMs": down.as_millis()}).to_string(),
        _ => String::new(),
    };
    let (status, answer) = world
        .admin(Method::POST, &format!("/regions/{region}/{action}"), &body)
        .await;
    assert_eq!(status, 200, "{action} {region}: {answer}");
}

/// Sets what bytes from one region to another meet: `up`, `blackhole` or `reset`.
pub(crate) async fn link(world: &World, from: &str, to: &str, state: &str) {
    let body = json!({"state": state}).to_string();
    let (status, answer) = world.admin(Method::PUT, &format!("/links/{from}/{to}"), &body).await;
    assert_eq!(status, 200, "{from} to {to} {state}: {answer}");
}

/// What an admin port of a region answers under `/directory`; None while it does not.
pub(crate) async fn directory(world: &World, region: &str, path: &str) -> Option<Value> {
    let url = format!("http://127.0.0.1:{}/directory{path}", world.port(region) + 1);
    let answer = timeout(ANSWER, get(url)).await.ok()?.ok()?;
    let is_success = answer.status().is_success();
    let body = timeout(ANSWER, answer.json()).await.ok()?.ok()?;
    is_success.then_some(body)
}

/// The directory as the first region shows it that can.
pub(crate) async fn directory_of_any(world: &World, regions: &[String], path: &str) -> Option<Value> {
    for region in regions {
        if let Some(view) = directory(world, region, path).await {
            return Some(view);
        }
    }
    None
}

/// Gives the directory a command, by the first region that takes it; how often it had to be tried again.
pub(crate) async fn command(world: &World, regions: &[String], path: &str, patience: Duration) -> Value {
    let deadline = Instant::now() + patience;
    loop {
        for region in regions {
            let url = format!("http://127.0.0.1:{}/directory{path}", world.port(region) + 1);
            let asked = antiphon_client::http_client(None).post(url).send();
            if let Ok(Ok(answer)) = timeout(ANSWER, asked).await
                && answer.status().is_success()
            {
                return answer.json().await.unwrap_or(Value::Null);
            }
        }
        assert!(Instant::now() < deadline, "nobody takes the command {path}");
        sleep(LOOK_AGAIN).await;
    }
}

/// Which regions keep each of these slots.
pub(crate) async fn kept(world: &World, regions: &[String], slots: &[u16]) -> Option<Vec<Kept>> {
    let all = directory_of_any(world, regions, "/slots").await?;
    let all = all.as_array()?;
    slots
        .iter()
        .map(|slot| {
            let placement = all.iter().find(|placement| placement["slot"] == *slot)?;
            let home = text(&placement["home"]);
            let in_sync = placement["inSync"].as_array()?.iter().map(text);
            let standby = in_sync.into_iter().find(|region| *region != home);
            Some(Kept { home, standby })
        })
        .collect()
}

/// Why the deployment is not whole; None when it is: every process is ready, every region active, every slot writable and at rest.
pub(crate) async fn missing(world: &World, regions: &[String]) -> Option<String> {
    let (_, view) = world.admin(Method::GET, "/world", "").await;
    if view["ready"] != true {
        return Some(format!("not every region is ready: {}", states(&view, "state")));
    }
    for region in regions {
        let Some(view) = directory(world, region, "").await else {
            return Some(format!("{region} cannot read the directory"));
        };
        let seen = view["regions"].as_array().map_or(0, Vec::len);
        let active = view["regions"].as_array().into_iter().flatten();
        let active = active.filter(|region| region["status"] == "active").count();
        if active < regions.len() || seen < regions.len() || view["refusing"] != 0 || view["moving"] != 0 {
            let states = states(&view, "status");
            return Some(format!(
                "{region} sees {states}; {} slots refuse, {} move",
                view["refusing"], view["moving"]
            ));
        }
    }
    None
}

/// The directory's state as text, for whoever has to find out.
pub(crate) async fn picture(world: &World, regions: &[String]) -> String {
    let mut picture = String::new();
    for region in regions {
        let view = directory(world, region, "").await;
        let view = view.map_or_else(|| "no answer".to_owned(), |view| view.to_string());
        let _ = writeln!(picture, "{region}: {view}");
    }
    let (_, processes) = world.admin(Method::GET, "/world", "").await;
    let (_, links) = world.admin(Method::GET, "/links", "").await;
    let links = links.as_array().cloned().unwrap_or_default();
    let cut = links.iter().filter(|link| link["state"] != "up");
    let cut: Vec<String> = cut.map(|link| format!("{} to {}", link["from"], link["to"])).collect();
    let _ = writeln!(
        picture,
        "processes: {}; links that are cut: {cut:?}",
        states(&processes, "state")
    );
    picture
}

fn states(view: &Value, key: &str) -> String {
    let regions = view["regions"].as_array().cloned().unwrap_or_default();
    let states = regions
        .iter()
        .map(|region| format!("{} {}", text(&region["name"]), text(&region[key])));
    states.collect::<Vec<_>>().join(", ")
}
