//! A host: a runtime of its own, whose clock goes as the world lets it.

use std::{future::Future, time::Duration};

use antiphon_types::Clock;
use tokio::{runtime::Runtime, time::Instant};

/// How a host stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freeze {
    /// The process is stopped and its clock goes on (SIGSTOP).
    Process,
    /// The machine is stopped, and its clock with it.
    Machine,
}

/// A machine in the world.
pub(crate) struct Host {
    /// How many millionths its clock is fast.
    pub(crate) fast_ppm: i64,
    /// The wall clock; it never goes back, not even over a restart.
    pub(crate) clock: Clock,
    running: Option<Running>,
    frozen: Option<Freeze>,
    /// What its clock has shown of the world's time, in microseconds.
    local_us: u64,
}

struct Running {
    runtime: Runtime,
    began: Instant,
    began_local_us: u64,
}

impl Host {
    pub(crate) fn new(fast_ppm: i64, clock: Clock) -> Self {
        Self {
            fast_ppm,
            clock,
            running: None,
            frozen: None,
            local_us: 0,
        }
    }

    /// Starts the host with what `main` makes inside its runtime.
    pub(crate) fn start<F>(&mut self, main: impl FnOnce() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // With the driver of IO, which is of no other use here, a runtime looks for events before it lets time pass; without, it sleeps
        // for a while of real time at each of its steps.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("the system gives a runtime what it needs");
        let began = {
            let _inside = runtime.enter();
            tokio::spawn(main());
            Instant::now()
        };
        self.running = Some(Running {
            runtime,
            began,
            began_local_us: self.local_us,
        });
    }

    /// Ends everything at once; nothing of it runs any more.
    pub(crate) fn kill(&mut self) {
        self.frozen = None;
        if let Some(running) = self.running.take() {
            drop(running.runtime);
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn freeze(&mut self, how: Freeze) {
        self.frozen = Some(how);
    }

    pub(crate) fn thaw(&mut self) {
        if self.frozen.take() == Some(Freeze::Process)
            && let Some(running) = &self.running
        {
            // Timers that are overdue and what has arrived meanwhile are seen together, after the clock has jumped.
            let local_us = self.local_us;
            let shown_us = running.shown_us();
            let missed = Duration::from_micros(local_us.saturating_sub(shown_us));
            running.runtime.block_on(async { tokio::time::advance(missed).await });
        }
    }

    /// Lets `world_us` of the world's time pass.
    pub(crate) fn step(&mut self, world_us: u64) {
        let drift_us = i64::try_from(world_us).unwrap_or(i64::MAX) * self.fast_ppm / 1_000_000;
        let passed_us = world_us.saturating_add_signed(drift_us);
        if self.frozen != Some(Freeze::Machine) {
            let before_us = self.local_us;
            self.local_us += passed_us;
            self.clock.advance(self.local_us / 1_000 - before_us / 1_000);
        }
        if self.frozen.is_some() {
            return;
        }
        if let Some(running) = &self.running {
            let until = running.began + Duration::from_micros(self.local_us - running.began_local_us);
            running
                .runtime
                .block_on(async { tokio::time::sleep_until(until).await });
        }
    }
}

impl Running {
    /// What the runtime's clock shows, as the host counts.
    fn shown_us(&self) -> u64 {
        let _inside = self.runtime.enter();
        let shown = Instant::now().saturating_duration_since(self.began);
        self.began_local_us + u64::try_from(shown.as_micros()).unwrap_or(u64::MAX)
    }
}
