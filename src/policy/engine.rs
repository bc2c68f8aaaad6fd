//! The engine.

use super::action::Action;
use super::event::Event;
use super::settings::{BackendSettings, Settings};
use super::time::Time;
use super::view::View;

/// The decisions of one group.
#[derive(Clone, Debug)]
pub struct Engine {
    settings: Settings,
    backends: Vec<BackendSettings>,
    seed: u64,
    started: Time,
}

impl Engine {
    /// Starts on the primary, serving. `seed` spreads the recoveries of many sidecars.
    ///
    /// # Panics
    /// When `backends` is empty, an id is not its place in the list, or there is not exactly one primary: the
    /// configuration room refuses such groups.
    pub fn new(settings: Settings, backends: Vec<BackendSettings>, seed: u64, now: Time) -> Self {
        Self { settings, backends, seed, started: now }
    }

    /// Takes one event and appends what is to be done, in order.
    pub fn handle(&mut self, _now: Time, _event: Event, _actions: &mut Vec<Action>) {}

    /// To be called when `poll_timeout` is due; harmless before.
    pub fn handle_timeout(&mut self, _now: Time, _actions: &mut Vec<Action>) {}

    /// When the engine wants to be called next, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Time> {
        None
    }

    pub fn view(&self, _now: Time) -> View {
        unreachable!(
            "not before the engine is whole: {:?} {:?} {}",
            self.settings,
            self.backends,
            self.seed + self.started.0
        )
    }
}
