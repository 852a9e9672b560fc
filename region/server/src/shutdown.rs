//! SIGTERM and SIGINT: the first asks for a graceful end, the second ends at once. For the child of a supervisor the
//! supervisor's end counts as one of them.

use std::{io, os::fd::AsFd as _, process};

use anyhow::{Context as _, Result};
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::store;

/// What a shell reports of a program ended by SIGINT.
const ENDED_AT_ONCE: i32 = 130;

/// The signals that end the process.
pub(crate) struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
    /// Ends when the supervisor does; None for a process without one, or after its end.
    lifeline: Option<pipe::Receiver>,
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
            lifeline: None,
        })
    }

    /// Starts to listen, to the end of standard input too: a pipe that the supervisor holds and never writes to.
    ///
    /// # Errors
    /// When the handlers cannot be installed, or standard input is no pipe.
    pub(crate) fn of_child() -> Result<Self> {
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        let lifeline = stdin.and_then(pipe::Receiver::from_owned_fd);
        Ok(Self {
            lifeline: Some(lifeline.context("standard input is no pipe: only `antiphon up` starts a node of a world")?),
            ..Self::listen()?
        })
    }

    /// Waits for the first signal. From then on a second one ends the process without more ado.
    pub(crate) async fn asked(mut self) -> &'static str {
        let name = self.next().await;
        tokio::spawn(async move {
            let again = self.next().await;
            tracing::warn!(signal = again, "asked a second time, ending at once");
            store::stop();
            process::exit(ENDED_AT_ONCE);
        });
        name
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = end_of(&mut self.lifeline) => "the supervisor's end",
        }
    }
}

/// Ends once, when the other side of the pipe is gone.
async fn end_of(lifeline: &mut Option<pipe::Receiver>) {
    let Some(pipe) = lifeline else {
        return std::future::pending().await;
    };
    while pipe.read(&mut [0; 64]).await.is_ok_and(|length| length > 0) {}
    *lifeline = None;
}
