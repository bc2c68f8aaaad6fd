//! What must hold in every world. Each invariant is a file of its own with its source in its head; this one hears them
//! all after everything that happens, and keeps what each came to.

mod dead_process_acted_on;
mod epoch_grows;
mod exactly_one_active;
mod failure_acted_on;
mod gray_failure_acted_on;
mod heals;
mod monotone;
mod never_to_refused;
mod no_false_switch;
mod no_flap;
mod promise;
mod served_within_200ms;
mod success_under_chaos;
mod timeouts_do_not_spin;

use serde::Serialize;

use super::fault::Fault;
use super::scenario::Exception;
use super::world::World;
use crate::policy::{Availability, Switch, Time};

/// Broken, and how.
pub(super) type Verdict = Result<(), String>;

/// One thing that must hold.
pub(super) trait Invariant {
    fn name(&self) -> &'static str;
    /// After everything that happens.
    fn after_event(&mut self, _world: &World) -> Verdict {
        Ok(())
    }
    /// A fault is about to begin; the world is still as it was.
    fn before_fault(&mut self, _world: &World, _fault: &Fault) -> Verdict {
        Ok(())
    }
    /// A fault has just been mended.
    fn after_mending(&mut self, _world: &World, _fault: &Fault) -> Verdict {
        Ok(())
    }
    /// The engine wants a switch; it has not begun.
    fn on_switch(&mut self, _world: &World, _switch: &Switch) -> Verdict {
        Ok(())
    }
    fn on_publish(&mut self, _world: &World, _availability: Availability) -> Verdict {
        Ok(())
    }
    fn at_end(&mut self, _world: &World) -> Verdict {
        Ok(())
    }
    /// How often it had something to judge: an invariant about nothing proves nothing.
    fn judged(&self) -> u64;
    /// Microseconds from fault to action, for those that measure it.
    fn measured_us(&self) -> &[u64] {
        &[]
    }
}

/// What became of one invariant.
#[derive(Clone, Debug, Serialize)]
pub struct Ruling {
    pub invariant: &'static str,
    /// How often it had something to judge; 0 means that this world did not ask it.
    pub judged: u64,
    /// When it was broken first, and how.
    pub broken: Option<(Time, String)>,
    /// Why the scenario does not ask for it.
    pub excepted: Option<String>,
    #[serde(skip)]
    pub measured_us: Vec<u64>,
}

/// All invariants of a world.
#[derive(Default)]
pub(super) struct Court {
    seats: Vec<Seat>,
}

struct Seat {
    invariant: Box<dyn Invariant + Send>,
    broken: Option<(Time, String)>,
    excepted: Option<String>,
}

/// Every invariant, new.
pub(super) fn all() -> Vec<Box<dyn Invariant + Send>> {
    vec![
        Box::new(exactly_one_active::ExactlyOneActive::default()),
        Box::new(epoch_grows::EpochGrows::default()),
        Box::new(never_to_refused::NeverToRefused::default()),
        Box::new(dead_process_acted_on::DeadProcessActedOn::default()),
        Box::new(failure_acted_on::FailureActedOn::default()),
        Box::new(gray_failure_acted_on::GrayFailureActedOn::default()),
        Box::new(no_false_switch::NoFalseSwitch::default()),
        Box::new(no_flap::NoFlap::default()),
        Box::new(served_within_200ms::ServedWithin200Ms::default()),
        Box::new(heals::Heals::default()),
        Box::new(timeouts_do_not_spin::TimeoutsDoNotSpin::default()),
        Box::new(success_under_chaos::SuccessUnderChaos::default()),
        Box::new(monotone::Monotone::default()),
    ]
}

impl Court {
    pub(super) fn new(invariants: Vec<Box<dyn Invariant + Send>>, exceptions: &[Exception]) -> Self {
        let seat = |invariant: Box<dyn Invariant + Send>| {
            let excepted = exceptions.iter().find(|exception| exception.invariant == invariant.name());
            Seat { excepted: excepted.map(|exception| exception.because.clone()), invariant, broken: None }
        };
        Self { seats: invariants.into_iter().map(seat).collect() }
    }

    /// Asks each that still holds. Returns the news of one that does not any more.
    pub(super) fn hear(
        &mut self,
        world: &World,
        mut ask: impl FnMut(&mut dyn Invariant, &World) -> Verdict,
    ) -> Option<String> {
        let mut news = None;
        for seat in &mut self.seats {
            if seat.broken.is_some() || seat.excepted.is_some() {
                continue;
            }
            if let Err(why) = ask(seat.invariant.as_mut(), world) {
                news = Some(format!("{}: {why}", seat.invariant.name()));
                seat.broken = Some((world.now, why));
            }
        }
        news
    }

    pub(super) fn rulings(&self) -> Vec<Ruling> {
        let ruling = |seat: &Seat| Ruling {
            invariant: seat.invariant.name(),
            judged: seat.invariant.judged(),
            broken: seat.broken.clone(),
            excepted: seat.excepted.clone(),
            measured_us: seat.invariant.measured_us().to_vec(),
        };
        self.seats.iter().map(ruling).collect()
    }
}
