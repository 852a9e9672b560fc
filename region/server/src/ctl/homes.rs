//! Slots get other homes.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, bail};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    Ctl, LOOK,
    api::{Done, FailOver},
    table,
    view::{SlotView, View},
};

impl Ctl {
    /// Waits for it, but no longer than so long: the draining itself goes on.
    pub(super) async fn drain(&self, region: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let view: View = self.get("/directory").await?;
        let homes = view.region(region).map_or(0, |region| region.homes);
        self.agree(&format!(
            "{region} hands over the {homes} slots that it is home of, and becomes home of none"
        ))?;
        let _: Done = self
            .post(&format!("/directory/regions/{region}/drain"), &Value::Null)
            .await?;
        loop {
            let view: View = self.get("/directory").await?;
            let Some(now) = view.region(region) else {
                bail!("region {region} is gone");
            };
            if now.homes == 0 {
                return self.show(now, || format!("{region} is home of no slot any more\n"));
            }
            if now.status != "draining" {
                bail!(
                    "{region} is {} now and no longer drains; it is home of {} slots",
                    now.status,
                    now.homes
                );
            }
            if Instant::now() >= deadline {
                bail!(
                    "{region} is still home of {} of {homes} slots after {} s; slots under way: {}; it goes on draining until `antiphon ctl undrain {region}`",
                    now.homes,
                    patience.as_secs(),
                    self.ways(Some(region)).await?
                );
            }
            self.progress(&format!("{region}: {} of {homes} slots to go", now.homes))?;
            sleep(LOOK).await;
        }
    }

    pub(super) async fn fail_over(&self, asked: FailOver) -> Result<()> {
        let what = match &asked.region {
            Some(region) => format!("every slot that is homed in {region}"),
            None => format!("{} slots", asked.slots.len()),
        };
        self.agree(&match &asked.to {
            Some(to) if asked.accept_loss => format!(
                "{what} that only regions which are down are in sync with: {to} becomes home with what it holds, and messages that it \
                 lacks are lost for good, acknowledged ones too"
            ),
            _ => format!(
                "{what} get another home at once, without asking the present one: what it has not replicated is cut there"
            ),
        })?;
        let done: Done = self.post("/directory/failover", &serde_json::to_value(&asked)?).await?;
        if done.slots == 0 {
            bail!("{}", table::nothing_done("no slot has another home", &done));
        }
        self.show(&done, || table::done("slots have another home", &done))
    }

    pub(super) async fn rebalance(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut moved = 0;
        loop {
            let done: Done = self.post("/directory/rebalance", &Value::Null).await?;
            moved += done.slots;
            let view: View = self.get("/directory").await?;
            if done.slots == 0 && view.moving == 0 {
                return self.show(&view.regions, || {
                    format!("{moved} slots moved\n{}", table::regions(&view))
                });
            }
            if Instant::now() >= deadline {
                bail!(
                    "homes are not even after {} s; slots under way: {}",
                    patience.as_secs(),
                    self.ways(None).await?
                );
            }
            self.progress(&format!("{moved} slots asked to move, {} under way", view.moving))?;
            sleep(LOOK).await;
        }
    }

    /// From where to where slots are on their way, and how many.
    async fn ways(&self, home: Option<&str>) -> Result<String> {
        let slots: Vec<SlotView> = self.slots(home).await?;
        let mut ways: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for slot in &slots {
            if let Some(to) = &slot.moving_to {
                *ways.entry((&slot.home, to)).or_default() += 1;
            }
        }
        if ways.is_empty() {
            return Ok("none".to_owned());
        }
        let ways = ways
            .iter()
            .map(|((from, to), count)| format!("{count} from {from} to {to}"));
        Ok(ways.collect::<Vec<_>>().join(", "))
    }
}
