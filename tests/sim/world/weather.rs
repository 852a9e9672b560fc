use antiphon_directory::domain::{Command, RegionId, RegionStatus};
use rand::RngExt as _;

use super::{STORM_TO_US, World};
use crate::{
    faults::{Fault, Planned},
    host::Freeze,
    network::HostId,
};

impl World {
    /// Lets faults come and go.
    pub(super) fn storm(&mut self, planned: &[Planned]) {
        let mut active: Vec<Planned> = Vec::new();
        let mut coming = planned.iter().copied().peekable();
        while self.now_us < STORM_TO_US {
            let now_us = self.now_us;
            while let Some(next) = coming.next_if(|next| next.from_us <= now_us) {
                self.ledger.note(HostId::MAX, &format!("{:?} begins", next.fault));
                active.push(next);
                self.begin(next.fault);
                self.links(&active);
            }
            let over: Vec<Planned> = active.iter().filter(|fault| fault.to_us <= now_us).copied().collect();
            if !over.is_empty() {
                active.retain(|fault| fault.to_us > now_us);
                self.links(&active);
            }
            for fault in over {
                self.ledger.note(HostId::MAX, &format!("{:?} ends", fault.fault));
                self.end(fault.fault);
            }
            self.tick();
        }
    }

    fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::Part(..) | Fault::PartOneWay(..) | Fault::Isolate(..) | Fault::Slow(..) => {}
            Fault::Crash(at, silently) => self.crash(at, silently),
            Fault::Freeze(at, how) => {
                if how == Freeze::Machine {
                    self.ledger.clocks_lie();
                }
                self.regions[at].host.freeze(how);
            }
            Fault::Drain(at) => self.set_status(at, RegionStatus::Draining),
            Fault::FailOver(slot) => {
                let command = Command::FailOver {
                    slots: vec![self.slots[slot]],
                    to: None,
                };
                self.ask(command, None);
            }
        }
    }

    fn end(&mut self, fault: Fault) {
        match fault {
            Fault::Part(..) | Fault::PartOneWay(..) | Fault::Isolate(..) | Fault::Slow(..) | Fault::FailOver(_) => {}
            Fault::Crash(at, _) => {
                if !self.regions[at].host.is_up() {
                    self.start(at);
                }
            }
            Fault::Freeze(at, _) => self.regions[at].host.thaw(),
            Fault::Drain(at) => self.set_status(at, RegionStatus::Active),
        }
    }

    fn crash(&mut self, at: HostId, silently: bool) {
        let region = &mut self.regions[at];
        self.network.crash(at, silently);
        if let Some((directory, store)) = region.open.take() {
            directory.crash();
            store.crash();
        }
        region.commands = None;
        region.host.kill();
    }

    pub(super) fn set_status(&mut self, at: HostId, status: RegionStatus) {
        let region = RegionId(at as u64 + 1);
        self.ask(Command::SetStatus { region, status }, Some(at));
    }

    /// An operator asks by way of a region other than `not`.
    fn ask(&mut self, command: Command, not: Option<HostId>) {
        let up = |at: &HostId| Some(*at) != not && self.regions[*at].host.is_up();
        let able: Vec<HostId> = (0..self.regions.len()).filter(up).collect();
        if able.is_empty() {
            return;
        }
        let by = able[self.random.random_range(0..able.len())];
        if let Some(commands) = &self.regions[by].commands {
            let _ = commands.try_send(command);
        }
    }

    /// Sets every link to what the active faults make of it.
    pub(super) fn links(&mut self, active: &[Planned]) {
        let (count, devices) = (self.names.len(), self.names.len());
        for from in 0..count {
            for to in 0..count {
                let way_us = self.ways_us[from.min(to)][from.max(to)];
                self.network.link(from, to, |link| {
                    link.cut = false;
                    link.delay_us = (way_us, way_us + way_us / 4);
                    link.loss_permille = 2;
                });
            }
            self.network.link(from, devices, |link| link.cut = false);
            self.network.link(devices, from, |link| link.cut = false);
        }
        for planned in active {
            match planned.fault {
                Fault::Part(one, other) => {
                    self.network.link(one, other, |link| link.cut = true);
                    self.network.link(other, one, |link| link.cut = true);
                }
                Fault::PartOneWay(one, other) => self.network.link(one, other, |link| link.cut = true),
                Fault::Isolate(one, wholly) => {
                    for other in 0..count + usize::from(wholly) {
                        if other != one {
                            self.network.link(one, other, |link| link.cut = true);
                            self.network.link(other, one, |link| link.cut = true);
                        }
                    }
                }
                Fault::Slow(one, other, way_ms, loss_permille) => {
                    for (from, to) in [(one, other), (other, one)] {
                        self.network.link(from, to, |link| {
                            link.delay_us = (way_ms * 500, way_ms * 1_000);
                            link.loss_permille = loss_permille;
                        });
                    }
                }
                Fault::Crash(..) | Fault::Freeze(..) | Fault::Drain(_) | Fault::FailOver(_) => {}
            }
        }
    }
}
