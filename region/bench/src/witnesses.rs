use antiphon_client::Transport;
use antiphon_probe::{Load, LoadOptions};
use anyhow::{Context as _, Result};

use crate::{Say, Server};

/// Groups that are homed in each region, and members of each in each.
const GROUPS: usize = 2;
const MEMBERS: usize = 3;
/// Messages a second of each member in each group.
const RATE_PER_S: f64 = 0.2;
/// Broken rules that people are shown.
const SHOWN_MAX: usize = 20;

/// A few users of the SDK who talk in groups of their own beside a load, and whose every message the checker of `antiphon probe` judges.
pub(crate) struct Witnesses(Load);

impl Witnesses {
    /// None over TLS: the checker does not know the server's certificate.
    ///
    /// # Errors
    /// When they cannot be made.
    pub(crate) async fn of(server: &Server, transport: Transport) -> Result<Option<Self>> {
        if server.certificate_sha256().is_some() {
            return Ok(None);
        }
        let edges = (0..server.regions()).map(|at| server.url(at).to_owned());
        let options = LoadOptions {
            rate_per_s: RATE_PER_S,
            groups_per_edge: GROUPS,
            members_per_edge: MEMBERS,
            transport: Some(transport),
            ..LoadOptions::new(edges.collect())
        };
        Ok(Some(Self(Load::start(options).await.context("the checker's users")?)))
    }

    /// Reads all that they have written, and says which rules were broken, and how many.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn judge(self, say: Say) -> Result<usize> {
        let report = self.0.stop().await.context("the checker's users")?;
        say(&format!(
            "the checker has judged {} messages of {}",
            report.acknowledged, report.sent
        ));
        report.violations.iter().take(SHOWN_MAX).for_each(|what| say(what));
        Ok(report.violations.len())
    }
}
