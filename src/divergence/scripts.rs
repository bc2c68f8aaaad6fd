//! Scripts and function libraries that clients loaded, so that the backend that is entered next has them too.

use std::sync::{Mutex, PoisonError};

use crate::command::{Handling, Spec};
use crate::limits::SCRIPT_BYTES_MAX;
use crate::resp;

/// What one group's clients loaded. Bounded; what does not fit is loaded by the clients themselves on `-NOSCRIPT`.
#[derive(Default)]
pub struct Scripts(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Whole requests, in the order they came.
    loads: Vec<Vec<u8>>,
    bytes: usize,
}

impl Scripts {
    /// Takes note of a request that loads or drops scripts or functions, once the server accepted it.
    pub fn note(&self, spec: &Spec, frame: &[u8]) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let prefix = match spec.handling {
            Handling::ScriptFlush => "script",
            Handling::FunctionLoad if spec.name != "function|load" && spec.name != "function|restore" => "function",
            _ => {
                inner.put_last(frame);
                return;
            }
        };
        if spec.name == "function|delete" {
            // Which load held the library is in its body; without parsing Lua the honest thing is to keep the loads and
            // repeat the deletion behind them.
            inner.put_last(frame);
            return;
        }
        inner.loads.retain(|load| {
            !resp::arguments(load).next().is_some_and(|name| name.eq_ignore_ascii_case(prefix.as_bytes()))
        });
        inner.bytes = inner.loads.iter().map(Vec::len).sum();
    }

    /// The requests that bring another backend to the same state.
    #[must_use]
    pub fn loads(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).loads.clone()
    }
}

impl Inner {
    /// Keeps one copy of a request, at its latest place; the oldest go when there is no room.
    fn put_last(&mut self, frame: &[u8]) {
        self.loads.retain(|load| load != frame);
        if frame.len() <= SCRIPT_BYTES_MAX {
            self.loads.push(frame.to_vec());
        }
        self.bytes = self.loads.iter().map(Vec::len).sum();
        while self.bytes > SCRIPT_BYTES_MAX {
            self.bytes -= self.loads.remove(0).len();
        }
    }
}
