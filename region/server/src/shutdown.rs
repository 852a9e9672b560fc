//! SIGTERM and SIGINT: the first asks for a graceful end, the second ends at once.

use std::process;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a shell reports of a program ended by SIGINT.
const ENDED_AT_ONCE: i32 = 130;

/// The signals that end the process.
pub(crate) struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    /// Starts to listen; from now on the signals do not end the process by themselves.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub(crate) fn listen() -> Result<Self> {
        let handler = |kind| signal(kind).context("signal handlers cannot be installed");
        Ok(Self {
            terminate: handler(SignalKind::terminate())?,
            interrupt: handler(SignalKind::interrupt())?,
        })
    }

    /// Waits for the first signal. From then on a second one ends the process without more ado.
    pub(crate) async fn asked(mut self) -> &'static str {
        let name = self.next().await;
        tokio::spawn(async move {
            let again = self.next().await;
            tracing::warn!(signal = again, "asked a second time, ending at once");
            process::exit(ENDED_AT_ONCE);
        });
        name
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
