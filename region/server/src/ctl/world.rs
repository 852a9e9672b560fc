//! What an operator does to a world on one machine: links are slowed and cut, processes frozen and killed.

use anyhow::{Result, bail};
use clap::Args;

use super::{Ctl, table};
use crate::world::{Action, Control, LinkChange, LinkState, LinkView};

#[derive(Debug, Args)]
pub(super) struct LinkArgs {
    /// The region whose bytes are meant; without it all links are shown
    #[arg(value_name = "FROM", requires = "to")]
    from: Option<String>,
    /// The region that they go to
    #[arg(value_name = "TO")]
    to: Option<String>,
    /// One way, in milliseconds
    #[arg(long, value_name = "N", requires = "to")]
    delay_ms: Option<u32>,
    /// Up to so many milliseconds more
    #[arg(long, value_name = "N", requires = "to")]
    jitter_ms: Option<u32>,
    /// Bandwidth; 0: what the machine gives
    #[arg(long, value_name = "N", requires = "to")]
    bits_per_s: Option<u64>,
    /// Whether bytes pass
    #[arg(long, requires = "to")]
    state: Option<LinkState>,
    /// The way back too
    #[arg(long, requires = "to")]
    both: bool,
}

#[derive(Debug, Args)]
pub(super) struct ProcessArgs {
    /// The region whose process is meant, or REGION.NUMBER for a further node of it; without it all are shown
    #[arg(value_name = "REGION", requires = "action")]
    name: Option<String>,
    /// What happens to it
    action: Option<Action>,
    /// How long it stays away after `kill` and `restart`, in milliseconds
    #[arg(long, value_name = "N", requires = "action")]
    down_ms: Option<u64>,
}

impl Ctl {
    pub(super) async fn link(&self, args: LinkArgs) -> Result<()> {
        let control = self.control()?;
        let change = LinkChange {
            delay_ms: args.delay_ms,
            jitter_ms: args.jitter_ms,
            bits_per_s: args.bits_per_s,
            state: args.state,
        };
        let (Some(from), Some(to)) = (&args.from, &args.to) else {
            let links = control.links().await?;
            return self.show(&links, || table::links(&links));
        };
        let mut ways = vec![(from, to)];
        if args.both {
            ways.push((to, from));
        }
        let links = if change == LinkChange::default() {
            let of_ways = |link: &LinkView| ways.contains(&(&link.from, &link.to));
            let links: Vec<LinkView> = control.links().await?.into_iter().filter(of_ways).collect();
            if links.is_empty() {
                bail!("there is no link from {from} to {to}");
            }
            links
        } else {
            let mut links = Vec::new();
            for (from, to) in ways {
                links.push(control.change_link(from, to, &change).await?);
            }
            links
        };
        self.show(&links, || table::links(&links))
    }

    pub(super) async fn process(&self, args: ProcessArgs) -> Result<()> {
        let control = self.control()?;
        if let (Some(name), Some(action)) = (&args.name, args.action) {
            if args.down_ms.is_some() && !matches!(action, Action::Kill | Action::Restart) {
                bail!("--down-ms goes with kill and restart");
            }
            control.act(name, action, args.down_ms).await?;
        }
        let world = control.world().await?;
        self.show(&world, || table::processes(&world))
    }

    pub(super) fn control(&self) -> Result<Control> {
        Control::at(&self.world)
    }
}
