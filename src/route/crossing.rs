//! How clients that listen to channels are led through a planned switch: what the control plane asks of the workers, and
//! their answers. Beside the route, which leads to one backend at any time: it is changed when they are ready.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::watch;

use crate::policy::BackendId;

/// What is asked of the workers now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Crossing {
    /// Grows with every change.
    pub number: u64,
    /// The backend that is about to serve: who listens to channels listens there too. `None` while no switch is prepared.
    pub to: Option<BackendId>,
    /// Nothing is published any more until the switch: what was, is read to its end.
    pub is_fenced: bool,
}

/// Asked by the control plane, answered by the workers.
pub struct Crossings {
    now: watch::Sender<Crossing>,
    /// By worker: the newest number of which it has done what can be done.
    passed: Vec<AtomicU64>,
    /// Second connections that stand or are being made.
    second_open: AtomicUsize,
}

impl Crossings {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            now: watch::Sender::new(Crossing::default()),
            passed: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            second_open: AtomicUsize::new(0),
        }
    }

    /// What is asked now.
    #[must_use]
    pub fn now(&self) -> Crossing {
        *self.now.borrow()
    }

    /// Wakes with every change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Crossing> {
        self.now.subscribe()
    }

    /// Asks the workers to have who listens listen at this backend too.
    #[must_use]
    pub fn begin(&self, to: BackendId) -> u64 {
        self.change(Some(to), false)
    }

    /// Asks the workers to have everything read that was published until now. Only what is published from here on is taken
    /// from the next backend.
    #[must_use]
    pub fn fence(&self, to: BackendId) -> u64 {
        self.change(Some(to), true)
    }

    /// The switch that asked last by this number has been made, or will not be. `None` if another one asks by now.
    pub fn end(&self, number: u64) -> Option<u64> {
        let is_theirs = self.now.send_if_modified(|now| {
            let is_theirs = now.number == number;
            if is_theirs {
                *now = Crossing { number: number + 1, ..Crossing::default() };
            }
            is_theirs
        });
        is_theirs.then_some(number + 1)
    }

    fn change(&self, to: Option<BackendId>, is_fenced: bool) -> u64 {
        let mut number = 0;
        self.now.send_modify(|now| {
            number = now.number + 1;
            *now = Crossing { number, to, is_fenced };
        });
        number
    }

    /// A worker has done what was asked with this number.
    pub fn pass(&self, worker: usize, number: u64) {
        self.passed[worker].store(number, Ordering::Release);
    }

    /// Whether all workers have.
    #[must_use]
    pub fn is_passed(&self, number: u64) -> bool {
        self.passed.iter().all(|passed| passed.load(Ordering::Acquire) >= number)
    }

    /// A client has a second connection.
    pub fn opened(&self) {
        self.second_open.fetch_add(1, Ordering::Relaxed);
    }

    /// It has no longer, or it is its only one.
    pub fn closed(&self) {
        self.second_open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Second connections that there are.
    #[must_use]
    pub fn second_open(&self) -> usize {
        self.second_open.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_asked_last_ends_what_was_asked() {
        let crossings = Crossings::new(1);
        let first = crossings.begin(BackendId(1));
        let second = crossings.begin(BackendId(2));
        assert_eq!(crossings.end(first), None);
        assert_eq!(crossings.now(), Crossing { number: second, to: Some(BackendId(2)), is_fenced: false });
        let fence = crossings.fence(BackendId(2));
        assert_eq!(crossings.end(fence), Some(fence + 1));
        assert_eq!(crossings.now(), Crossing { number: fence + 1, to: None, is_fenced: false });
    }

    #[test]
    fn it_is_passed_when_the_last_worker_has_passed_it() {
        let crossings = Crossings::new(2);
        let number = crossings.begin(BackendId(1));
        crossings.pass(0, number);
        assert!(!crossings.is_passed(number));
        crossings.pass(1, number + 1);
        assert!(crossings.is_passed(number));
    }
}
