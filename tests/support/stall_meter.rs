//! How long the machine itself did not run us: what no proxy can be blamed for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_micros(500);
/// What a timer may be late on a quiet machine.
const USUAL_LATENESS: Duration = Duration::from_millis(2);

/// A thread that sleeps and notes each time it was woken far too late. It does nothing else, so it is late only when
/// every core was taken or the whole machine stood still.
#[derive(Debug)]
pub(crate) struct StallMeter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Stall>>,
}

/// One such time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stall {
    pub(crate) began: Instant,
    pub(crate) length: Duration,
}

impl StallMeter {
    pub(crate) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut stalls = Vec::new();
            while !asked.load(Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(TICK);
                let length = began.elapsed().saturating_sub(TICK);
                if length > USUAL_LATENESS {
                    stalls.push(Stall { began, length });
                }
            }
            stalls
        });
        Self { stop, thread }
    }

    pub(crate) fn stop(self) -> Vec<Stall> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the meter ends in order")
    }
}
