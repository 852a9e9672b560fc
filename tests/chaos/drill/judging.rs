//! What a drill is judged by at its end.

use std::{fs, sync::atomic::Ordering};

use antiphon_probe::check;
use futures_util::future::join_all;

use super::{Drill, PATIENCE, kept_in};
use crate::{faults::process, homes, kill9::read_all, rules::at};

impl Drill {
    /// Ends the load, has every member read everything at every edge, and judges the history.
    pub(crate) async fn judge(&mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, async {
            while let Some(ended) = self.clients.join_next().await {
                if let Err(error) = ended {
                    self.failures.push(format!("a client failed: {error}"));
                }
            }
        });
        if ended.await.is_err() {
            self.failures.push("the load does not come to its end".to_owned());
            self.clients.abort_all();
        }
        if let Err(why) = self.whole(PATIENCE).await {
            self.failures.push(format!("before the end is read: {why}"));
        }
        self.read_everything().await;
        let history = self.recorder.history();
        let violations = check(&history);
        let by_homes = self.acknowledged_by_homes();
        eprintln!(
            "judged: {} rounds, {} records, {} sessions, {} acknowledged in {by_homes} entries, {} violations; refused: {:?}",
            self.rounds,
            history.records.len(),
            self.counts.sessions.load(Ordering::Relaxed),
            self.counts.acknowledged.load(Ordering::Relaxed),
            violations.len(),
            self.counts.refusals.lock(),
        );
        if !violations.is_empty() {
            let records = history.records.iter().map(|record| format!("{record:?}\n"));
            fs::create_dir_all(kept_in()).unwrap();
            fs::write(kept_in().join("history"), records.collect::<String>()).unwrap();
        }
        for violation in violations.iter().take(50) {
            eprintln!("{violation}");
        }
        self.failures.extend(violations.iter().take(5).map(ToString::to_string));
    }

    /// Judges I4; how many entries the homes have acknowledged.
    fn acknowledged_by_homes(&mut self) -> usize {
        let regions = self.regions.iter();
        let acknowledged: Vec<_> = regions
            .flat_map(|region| (0..self.nodes).map(move |at| (region, process(region, at))))
            .flat_map(|(region, process)| homes::acknowledged_by(region, &self.world.data().join(process)))
            .collect();
        let entries = acknowledged.len();
        if entries == 0 {
            self.failures
                .push("no home has logged what it acknowledged: I4 was not judged".to_owned());
        }
        self.failures
            .extend(homes::violations(acknowledged).into_iter().take(5));
        entries
    }

    async fn read_everything(&self) {
        for region in &self.regions {
            for talk in &self.talks {
                let reading = talk.members.iter().map(|member| async move {
                    let name = format!("{} at {region}", member.name);
                    read_all(&at(&self.world, region, member), &name, &talk.id, &self.recorder).await;
                });
                join_all(reading).await;
            }
        }
    }
}
