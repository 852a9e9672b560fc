//! The client library's network thread: one in a process, started once, ended once.

use std::{
    path::Path,
    thread::{self, JoinHandle},
};

use antiphon_kv::KvError;
use foundationdb::{
    FdbError, FdbResult,
    api::{FdbApiBuilder, NetworkBuilder, NetworkRunner, NetworkStop},
    options::NetworkOption,
};
use parking_lot::Mutex;

use crate::ClientOptions;

/// Owns the thread.
static NETWORK: Mutex<Network> = Mutex::new(Network::NotStarted);

enum Network {
    NotStarted,
    Running {
        options: ClientOptions,
        stop: NetworkStop,
        thread: JoinHandle<()>,
    },
    /// It cannot be started any more, for this reason.
    Over(String),
}

/// Starts the thread, or finds it running with the same options.
pub(crate) fn start(options: &ClientOptions) -> Result<(), KvError> {
    let mut network = NETWORK.lock();
    match &*network {
        Network::Running { options: running, .. } if running == options => return Ok(()),
        Network::Running { .. } => {
            let reason =
                "FoundationDB's client runs in this process already, with other TLS files or another trace folder";
            return Err(KvError::Io(reason.to_owned()));
        }
        Network::Over(reason) => return Err(KvError::Io(reason.clone())),
        Network::NotStarted => {}
    }
    match run(options) {
        Ok((stop, thread)) => {
            *network = Network::Running {
                options: options.clone(),
                stop,
                thread,
            };
            Ok(())
        }
        Err(failure) => {
            let reason = format!("FoundationDB's client cannot be started: {failure}");
            *network = Network::Over(reason.clone());
            Err(KvError::Io(reason))
        }
    }
}

/// Ends the network thread and waits for it; the stores of this process are closed before. Nothing is done when it does not run. A program
/// that has opened a store calls this before it ends: the library does not bear to be torn down while it works.
pub fn stop() {
    let mut network = NETWORK.lock();
    let over =
        || Network::Over("FoundationDB's client has ended in this process and cannot be started again".to_owned());
    match std::mem::replace(&mut *network, over()) {
        Network::NotStarted => *network = Network::NotStarted,
        Network::Over(reason) => *network = Network::Over(reason),
        Network::Running { stop, thread, .. } => {
            if let Err(error) = stop.stop() {
                tracing::error!(%error, "FoundationDB's network thread cannot be ended");
                return;
            }
            // A panic of the thread has been reported by its hook.
            let _ = thread.join();
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("{} ({})", .0, .0.code())]
    Fdb(#[from] FdbError),
    #[error(transparent)]
    Thread(#[from] std::io::Error),
}

fn run(options: &ClientOptions) -> Result<(NetworkStop, JoinHandle<()>), StartError> {
    let network = configured(FdbApiBuilder::default().build()?, options)?;
    let (runner, started) = network.build()?;
    let thread = thread::Builder::new()
        .name("fdb-network".to_owned())
        .spawn(move || serve(runner))?;
    Ok((started.wait(), thread))
}

fn configured(network: NetworkBuilder, options: &ClientOptions) -> FdbResult<NetworkBuilder> {
    let text = |path: &Path| path.display().to_string();
    let mut settings = Vec::new();
    if let Some(tls) = &options.tls {
        settings.push(NetworkOption::TLSCertPath(text(&tls.certificate)));
        settings.push(NetworkOption::TLSKeyPath(text(&tls.key)));
        settings.push(NetworkOption::TLSCaPath(text(&tls.ca)));
    }
    if let Some(folder) = &options.trace_folder {
        settings.push(NetworkOption::TraceEnable(text(folder)));
    }
    settings.into_iter().try_fold(network, NetworkBuilder::set_option)
}

fn serve(runner: NetworkRunner) {
    // SAFETY: the network has to be stopped before the process ends. `stop` does so, and every program that opens a store calls it.
    #[allow(unsafe_code, reason = "there is no other way to run the network")]
    let ended = unsafe { runner.run() };
    if let Err(error) = ended {
        tracing::error!(%error, "FoundationDB's network thread has failed");
    }
}
