//! Slots get other homes.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    Ctl, LOOK,
    api::{Done, FailOver},
    table,
    view::View,
};

impl Ctl {
    pub(super) async fn drain(&self, region: &str) -> Result<()> {
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
            self.progress(&format!("{region}: {} of {homes} slots to go", now.homes))?;
            sleep(LOOK).await;
        }
    }

    pub(super) async fn fail_over(&self, asked: FailOver) -> Result<()> {
        let what = match &asked.region {
            Some(region) => format!("every slot that is homed in {region}"),
            None => format!("{} slots", asked.slots.len()),
        };
        self.agree(&format!(
            "{what} get another home at once, without asking the present one: what it has not replicated is cut there"
        ))?;
        let done: Done = self.post("/directory/failover", &serde_json::to_value(&asked)?).await?;
        if done.slots == 0 {
            bail!("{}", table::nothing_done("no slot has another home", &done));
        }
        self.show(&done, || table::done("slots have another home", &done))
    }

    pub(super) async fn rebalance(&self) -> Result<()> {
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
            self.progress(&format!("{moved} slots asked to move, {} under way", view.moving))?;
            sleep(LOOK).await;
        }
    }
}
