//! Commands that are answered here, queued between MULTI and EXEC.
//!
//! The server queues a placeholder in their place, so that it counts and refuses as it would; when its answer to EXEC has
//! come, each is carried out here, in order, and its reply put where the placeholder's stands.

use std::collections::VecDeque;

use super::clients;
use super::special::Step;
use super::task::SessionTask;
use crate::command::{self, Handling, Spec};
use crate::resp::{self, FrameLimits, ReplyScanner};

/// An answer to EXEC in which replies of our own are still to be put.
pub(super) struct Completing {
    seq: u32,
    silent: bool,
    elements: Vec<Vec<u8>>,
    /// Position among the elements, and the client's request.
    own: VecDeque<(usize, Vec<u8>)>,
    at: usize,
    /// Credentials are being compared for the one at hand.
    pub(super) waits_for_login: bool,
}

/// Which commands these are.
pub(super) const fn is_answered_here(handling: Handling) -> bool {
    matches!(handling, Handling::Auth | Handling::Hello) || clients::answers(handling)
}

impl SessionTask {
    pub(super) fn queue_here(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        if !self.state.transaction.as_ref().is_none_or(|transaction| transaction.has_room_for(request)) {
            return self.too_much_is_queued();
        }
        let placeholder = self.placeholder(spec.handling, request);
        let placed = self.state.answered_here;
        let step = self.send_own(command::of_request(&placeholder), &placeholder, None);
        if self.state.answered_here != placed {
            self.refused_in_transaction();
        } else if step == Step::Consumed
            && let Some(transaction) = &mut self.state.transaction
        {
            transaction.own.push((transaction.queued as usize, request.to_vec()));
            transaction.remember(&placeholder);
            let queued = transaction.queued;
            self.session.record.update(|shown| shown.queued = queued);
            if spec.handling == Handling::Hello {
                self.state.is_pristine = false;
            }
        }
        step
    }

    /// What the server is given in place of a request. HELLO needs no right and no login; with a version it changes the
    /// form of the replies behind it, as the client wants it. Where a user's rights count, it is the question for them.
    fn placeholder(&self, handling: Handling, request: &[u8]) -> Vec<u8> {
        let arguments: Vec<&[u8]> = resp::arguments(request).collect();
        let mut out = Vec::new();
        match (clients::question(handling), arguments.as_slice()) {
            (Some(question), _) if self.state.login != 0 => resp::encode_request(&mut out, question),
            (_, [_, version, rest @ ..])
                if handling == Handling::Hello
                    && matches!(*version, b"2" | b"3")
                    && !rest.iter().any(|word| word.eq_ignore_ascii_case(b"auth")) =>
            {
                resp::encode_request(&mut out, &[b"HELLO", version]);
            }
            _ => resp::encode_request(&mut out, &[b"HELLO"]),
        }
        out
    }

    /// Begins to put our own replies into the server's answer to EXEC.
    pub(super) fn complete_exec(&mut self, seq: u32, silent: bool, reply: &[u8], own: Vec<(usize, Vec<u8>)>) {
        let elements = elements(reply, &self.session.context.settings.links.frame_limits);
        let own = own.into();
        self.state.completing = Some(Completing { seq, silent, elements, own, at: 0, waits_for_login: false });
        self.carry_out_queued();
    }

    /// Carries out what was queued here, until a login must be waited for.
    fn carry_out_queued(&mut self) {
        while let Some(completing) = &mut self.state.completing {
            let Some((at, request)) = completing.own.pop_front() else { return self.finish_exec() };
            let is_refused =
                completing.elements.get(at).is_none_or(|element| matches!(element.first(), Some(b'-' | b'!')));
            if is_refused {
                continue;
            }
            completing.at = at;
            self.state.captured = Some(Vec::new());
            let handling = command::of_request(&request).handling;
            let _ = match handling {
                Handling::Auth => self.auth(&request),
                Handling::Hello => self.hello(&request),
                _ => self.client_command(handling, &request),
            };
            if self.state.completing.as_ref().is_some_and(|completing| completing.waits_for_login) {
                return;
            }
            self.put_captured();
        }
    }

    /// A login that was waited for is decided.
    pub(super) fn go_on_with_exec(&mut self) {
        let waited =
            self.state.completing.as_mut().is_some_and(|completing| std::mem::take(&mut completing.waits_for_login));
        if waited {
            self.put_captured();
            self.carry_out_queued();
        }
    }

    fn put_captured(&mut self) {
        let captured = self.state.captured.take().unwrap_or_default();
        if let Some(completing) = &mut self.state.completing {
            // CLIENT REPLY OFF says nothing, which an array cannot hold.
            completing.elements[completing.at] = if captured.is_empty() { b"+OK\r\n".to_vec() } else { captured };
        }
    }

    fn finish_exec(&mut self) {
        let Some(completing) = self.state.completing.take() else { return };
        let mut reply = format!("*{}\r\n", completing.elements.len()).into_bytes();
        reply.extend(completing.elements.into_iter().flatten());
        self.session.answer(completing.seq, if completing.silent { b"" } else { &reply });
        self.after_special();
    }
}

/// The elements of an array, whole.
pub(super) fn elements(reply: &[u8], limits: &FrameLimits) -> Vec<Vec<u8>> {
    let header = reply.iter().position(|byte| *byte == b'\n').map_or(reply.len(), |at| at + 1);
    let (mut rest, mut elements) = (&reply[header..], Vec::new());
    while let Ok(Some(len)) = ReplyScanner::default().scan(rest, limits)
        && len > 0
    {
        elements.push(rest[..len].to_vec());
        rest = &rest[len..];
    }
    elements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_exec_is_taken_apart_into_whole_replies() {
        let reply = b"*4\r\n+OK\r\n%1\r\n$1\r\nk\r\n*2\r\n:1\r\n_\r\n-ERR no\r\n$-1\r\n";
        let parts = elements(reply, &FrameLimits::default());
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let expected: [&[u8]; 4] = [b"+OK\r\n", b"%1\r\n$1\r\nk\r\n*2\r\n:1\r\n_\r\n", b"-ERR no\r\n", b"$-1\r\n"];
        assert_eq!(parts, expected);
        assert!(elements(b"*0\r\n", &FrameLimits::default()).is_empty());
    }
}
