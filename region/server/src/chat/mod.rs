//! `antiphon chat`: two people talk in two terminals.
//!
//! On a terminal it has a prompt, history and colours; with pipes it reads one message a line and prints one line a message.

mod log_in;
mod screen;
mod talk;

use anyhow::Result;
use clap::Args;

use self::{screen::Screen, talk::Talk};
use crate::cli::TransportName;

/// What `antiphon chat` takes.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ChatArgs {
    /// The edge to connect to
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7400")]
    server: String,
    /// SHA-256 of the only certificate to take of an https:// edge, for one that no authority has signed
    #[arg(long, value_name = "HEX")]
    certificate_sha256: Option<String>,
    /// Who you are; asked for when absent
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Your password; asked for without echo when absent
    #[arg(long, value_name = "PASSWORD", env = "ANTIPHON_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Whom to talk to; without it (and --group) you pick from your conversations
    #[arg(long, value_name = "NAME", conflicts_with = "group")]
    with: Option<String>,
    /// Found a group with this title
    #[arg(long, value_name = "TITLE", requires = "members")]
    group: Option<String>,
    /// The members of the group, divided by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    members: Vec<String>,
    /// What to connect over: whichever gets through first, or this one alone
    #[arg(long, value_enum, value_name = "NAME", default_value_t)]
    transport: TransportName,
    /// The name of this installation [default: one is made and kept in your configuration folder]
    #[arg(long, value_name = "ID")]
    device: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  antiphon chat --username alice --with bob
  antiphon chat --username alice --group 'Sunday hike' --members bob,carol

Inside, a line is a message; /help lists the commands.";

/// Talks until the user leaves.
///
/// # Errors
/// What is to be said to the user, on one line.
pub(crate) async fn run(args: ChatArgs) -> Result<()> {
    let mut screen = Screen::open()?;
    let session = log_in::log_in(&args, &mut screen).await?;
    let Some(conversation) = session.pick(&args, &mut screen).await? else {
        return Ok(());
    };
    Talk::start(session, conversation, args.transport.into(), screen).await
}
