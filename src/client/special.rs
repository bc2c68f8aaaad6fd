//! Requests that need more than forwarding: what each needs, and what its reply changes.

use super::clients;
use super::modes::{Expected, ReplyMode};
use super::queued_here::is_answered_here;
use super::sending::Way;
use super::task::SessionTask;
use crate::command::{self, Handling, Spec};
use crate::resp::{self, RequestFrame, write};

/// Whether a request was dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Consumed,
    /// It stays in the input until something happens: replies, a route, a login.
    Wait,
}
pub(super) const NO_AUTH: &str = "NOAUTH Authentication required.";

impl SessionTask {
    pub(super) fn special(&mut self, request: &[u8], frame: RequestFrame) -> Step {
        if frame.arguments == 0 {
            return Step::Consumed;
        }
        if self.state.awaited > 0 || self.state.is_recovering() || self.session.is_repeating() || self.state.is_blocked
        {
            return Step::Wait;
        }
        let multibulk;
        let request = if frame.inline {
            match resp::inline_to_multibulk(request) {
                Ok(Some(bytes)) => {
                    multibulk = bytes;
                    multibulk.as_slice()
                }
                Ok(None) => return Step::Consumed,
                Err(error) => {
                    self.refuse_protocol(&error);
                    return Step::Consumed;
                }
            }
        } else {
            request
        };
        let Some(name) = resp::arguments(request).next() else { return Step::Consumed };
        if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
            tracing::warn!(client = self.session.record.address, "closed: it speaks HTTP to a Redis port");
            self.closing = true;
            return Step::Consumed;
        }
        let spec = command::of_request(request);
        self.state.last_command = spec.name;
        let query_bytes = frame.len;
        self.session.record.update(|shown| {
            shown.last_command = spec.name;
            shown.query_bytes = query_bytes;
        });
        if let Some(refusal) = self.refusal(spec, name) {
            self.spoil_transaction();
            return self.local_error(&refusal);
        }
        self.dispatch(spec, request)
    }

    /// Why a request is not even looked at.
    fn refusal(&self, spec: &'static Spec, name: &[u8]) -> Option<String> {
        let anonymous = matches!(spec.handling, Handling::Auth | Handling::Hello | Handling::Quit | Handling::Reset);
        if !self.state.is_authenticated && !anonymous {
            return Some(NO_AUTH.to_owned());
        }
        let denied = &self.session.context.settings.denied;
        let is_known = denied.has(spec);
        (is_known || denied.has_name(name)).then(|| {
            let name = if is_known { spec.name.replace('|', " ") } else { String::from_utf8_lossy(name).into_owned() };
            format!("NOPERM '{name}' is denied at this endpoint (listen.deny); ask the server itself")
        })
    }

    fn dispatch(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        let handling = spec.handling;
        if is_local(handling) && !spec.arity_ok(resp::arguments(request).len()) {
            let name = spec.name;
            self.spoil_transaction();
            return self.local_error(&format!("ERR wrong number of arguments for '{name}' command"));
        }
        if let Some(step) = self.in_transaction(spec, request) {
            return step;
        }
        match handling {
            Handling::Auth => self.auth(request),
            Handling::Hello => self.hello(request),
            Handling::Reset => self.reset(),
            Handling::Quit => {
                self.closing = true;
                self.local(b"+OK\r\n")
            }
            Handling::Select => self.select(spec, request),
            Handling::Scan => self.scan(spec, request),
            Handling::Multi => self.multi(spec, request),
            Handling::Watch => self.watch(spec, request),
            Handling::Unwatch => self.unwatch(spec, request),
            Handling::Subscribe
            | Handling::PatternSubscribe
            | Handling::ShardSubscribe
            | Handling::Unsubscribe
            | Handling::PatternUnsubscribe
            | Handling::ShardUnsubscribe => self.subscription(spec, request),
            Handling::Blocking if command::is_blocking(spec, request) => self.block(spec, request, false),
            Handling::Wait => self.block(spec, request, true),
            Handling::Urgent => self.block(spec, request, false),
            Handling::Monitor => self.monitor(spec, request),
            Handling::Sync => self.tunnel(request),
            Handling::ReplicaConfiguration => self.replica_configuration(spec, request),
            Handling::ScriptLoad | Handling::ScriptFlush | Handling::FunctionLoad => {
                let expected = Expected::Script { spec, request: request.to_vec() };
                self.send(spec, request, Way::Usual, Some(expected))
            }
            Handling::ScriptDebug
            | Handling::ClientNoTouch
            | Handling::ClientCapability
            | Handling::ClientImportSource => self.keep(spec, request),
            Handling::ClientTracking => self.tracking(spec, request),
            Handling::ClientPause => self.pause(spec, request),
            Handling::ClientGetRedir if spec.arity_ok(resp::arguments(request).len()) => self.get_redirect(),
            Handling::ClientTrackingInfo => self.send(spec, request, Way::Usual, Some(Expected::TrackingInfo)),
            _ if clients::answers(handling) => self.client_command(handling, request),
            _ => self.forward(spec, request),
        }
    }

    // --- replies of our own ---

    pub(super) fn local(&mut self, reply: &[u8]) -> Step {
        if let Some(captured) = &mut self.state.captured {
            captured.extend_from_slice(reply);
            return Step::Consumed;
        }
        let seq = self.session.output.place();
        self.state.answered_here = self.state.answered_here.wrapping_add(1);
        self.answer_in_mode(seq, reply);
        Step::Consumed
    }

    pub(super) fn local_error(&mut self, text: &str) -> Step {
        let mut out = Vec::with_capacity(text.len() + 3);
        write::error(&mut out, text);
        self.local(&out)
    }

    /// Answers unless CLIENT REPLY says otherwise.
    pub(super) fn answer_in_mode(&mut self, seq: u32, reply: &[u8]) {
        if let Some(captured) = &mut self.state.captured {
            return captured.extend_from_slice(reply);
        }
        let silent = self.take_silence();
        self.session.answer(seq, if silent { b"" } else { reply });
    }

    /// Whether the present request is to be answered with silence.
    pub(super) fn take_silence(&mut self) -> bool {
        match self.state.reply {
            ReplyMode::On => false,
            ReplyMode::Off => true,
            ReplyMode::SkipNext => {
                self.state.reply = ReplyMode::On;
                true
            }
        }
    }

    /// Whether earlier requests must be answered before the present one changes how later ones are served.
    pub(super) fn must_settle(&self) -> bool {
        self.session.output.in_flight() > 0 && self.state.captured.is_none()
    }

    // --- replies that change the session ---

    pub(super) fn finish_special(&mut self, seq: u32, reply: Vec<u8>) {
        let Some(at) = self.state.expected.iter().position(|(expected, ..)| *expected == seq) else {
            return self.session.answer(seq, &reply);
        };
        let Some((_, silent, expected)) = self.state.expected.remove(at) else { return };
        let succeeded = !matches!(reply.first(), Some(b'-' | b'!'));
        let is_tracking_info = matches!(expected, Expected::TrackingInfo);
        match expected {
            Expected::Nothing | Expected::TrackingInfo => {}
            Expected::Subscription { handling, added } => {
                if succeeded {
                    self.show_subscriptions();
                } else {
                    self.unsubscribed(handling, &added);
                }
            }
            Expected::Permission(handling) => {
                let refusal = || String::from_utf8_lossy(&reply[1..]).trim_end().to_owned();
                self.state.permission = Some((handling, if succeeded { Ok(()) } else { Err(refusal()) }));
                return self.session.answer(seq, b"");
            }
            Expected::Select(number) => {
                self.state.awaited = self.state.awaited.saturating_sub(1);
                if succeeded {
                    self.state.select(number);
                    self.session.context.group.note_database(number);
                    self.link = None;
                    self.session.record.update(|shown| shown.database = number);
                    self.renew_second_of_other_lane();
                }
            }
            Expected::Exec => {
                self.state.awaited = self.state.awaited.saturating_sub(1);
                let own = self.transaction_answered(succeeded, &reply);
                if reply.first() == Some(&b'*') && !own.is_empty() {
                    return self.complete_exec(seq, silent, &reply, own);
                }
            }
            Expected::Blocking => {
                if self.begins_again(seq, &reply) {
                    return self.state.expected.push_back((seq, silent, Expected::Blocking));
                }
                self.state.is_blocked = false;
                self.state.blocked_request = None;
                self.state.count_blocked(self.session.context.worker, None);
                self.session.record.update(|shown| shown.blocked = false);
            }
            Expected::Pause { backend, until_us } => {
                if succeeded {
                    backend.pause_until(until_us);
                }
            }
            Expected::Scan { epoch, continues } => {
                let reply = self.scanned(epoch, continues, reply);
                self.session.answer(seq, if silent { b"" } else { &reply });
                return self.after_special();
            }
            Expected::Script { spec, request } => {
                if succeeded {
                    self.session.context.scripts.note(spec, &request);
                }
            }
        }
        let reply = if is_tracking_info { self.own_redirect_in(&reply) } else { reply };
        self.session.answer(seq, if silent { b"" } else { &reply });
        self.after_special();
    }

    pub(super) fn after_special(&mut self) {
        if self.session.output.in_flight() == 0 && !self.state.needs_pin() {
            self.release_pinned();
        }
    }
}

/// Whether we answer a command ourselves, so that nobody else checks its arity.
fn is_local(handling: Handling) -> bool {
    matches!(handling, Handling::Quit | Handling::Reset) || is_answered_here(handling)
}
