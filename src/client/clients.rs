//! The CLIENT commands that are about Standin's own clients.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::login::{INVALID_NAME, valid_name};
use super::modes::ReplyMode;
use super::registry::ClientRecord;
use super::special::Step;
use super::task::SessionTask;
use crate::backend::clock;
use crate::command::Handling;
use crate::resp::{self, write};

const SYNTAX: &str = "ERR syntax error";
/// An id that no client of a server has.
const NOBODY: &[u8] = b"9223372036854775807";
const NO_SUCH_CLIENT: &str = "ERR No such client";

/// What CLIENT KILL selects by.
#[derive(Default)]
struct Filter {
    ids: Vec<u64>,
    address: Option<String>,
    local_address: Option<String>,
    user: Option<String>,
    kind: Option<String>,
    max_age_seconds: Option<u64>,
    keeps_caller: bool,
}

/// Which commands these are.
pub(super) const fn answers(handling: Handling) -> bool {
    matches!(
        handling,
        Handling::ClientId
            | Handling::ClientList
            | Handling::ClientInfo
            | Handling::ClientKill
            | Handling::ClientUnblock
            | Handling::ClientSetName
            | Handling::ClientGetName
            | Handling::ClientReply
            | Handling::ClientNoEvict
            | Handling::ClientSetInfo
    )
}

/// The request by which the server tells whether a user may have such a command.
pub(super) fn question(handling: Handling) -> Option<&'static [&'static [u8]]> {
    Some(match handling {
        Handling::ClientList => &[b"CLIENT", b"LIST", b"TYPE", b"replica"],
        Handling::ClientKill => &[b"CLIENT", b"KILL", b"ID", NOBODY],
        Handling::ClientUnblock => &[b"CLIENT", b"UNBLOCK", NOBODY],
        _ => return None,
    })
}

impl SessionTask {
    pub(super) fn client_command(&mut self, handling: Handling, request: &[u8]) -> Step {
        // What they tell and change must come after the requests before them.
        if self.must_settle() {
            return Step::Wait;
        }
        self.session.record.last_us.store(self.now_us, Ordering::Relaxed);
        if self.state.captured.is_none()
            && let Some(step) = self.without_permission(handling)
        {
            return step;
        }
        let arguments: Vec<&[u8]> = resp::arguments(request).skip(2).collect();
        let mut out = Vec::new();
        match handling {
            Handling::ClientId => write::integer(&mut out, self.session.record.id as i64),
            Handling::ClientInfo => {
                let line = format!("{}\n", self.session.record.line(clock::micros()));
                write::verbatim(&mut out, "txt", &line, self.state.protocol);
            }
            Handling::ClientList => return self.client_list(&arguments),
            Handling::ClientKill => return self.client_kill(&arguments),
            Handling::ClientUnblock => return self.client_unblock(&arguments),
            Handling::ClientGetName => {
                let name = self.session.record.shown().name;
                match name.is_empty() {
                    true => write::null(&mut out, self.state.protocol),
                    false => write::bulk(&mut out, name.as_bytes()),
                }
            }
            Handling::ClientSetName => {
                let Some(name) = valid_name(arguments[0]) else { return self.local_error(INVALID_NAME) };
                self.session.record.update(|shown| shown.name = name);
                write::simple(&mut out, "OK");
            }
            Handling::ClientSetInfo => return self.client_set_info(&arguments),
            Handling::ClientReply => return self.client_reply(&arguments),
            _ => {
                let on = arguments[0].eq_ignore_ascii_case(b"on");
                if !on && !arguments[0].eq_ignore_ascii_case(b"off") {
                    return self.local_error(SYNTAX);
                }
                self.session.record.update(|shown| shown.no_evict = on);
                write::simple(&mut out, "OK");
            }
        }
        self.local(&out)
    }

    /// What a user of `listen.users` does to other clients is subject to the rights that its backend user has. Only the
    /// server knows those: it is asked for the same command, with arguments that do nothing there.
    fn without_permission(&mut self, handling: Handling) -> Option<Step> {
        if self.state.login == 0 {
            return None;
        }
        let question = question(handling)?;
        match self.state.permission.take() {
            Some((asked, Ok(()))) if asked == handling => None,
            Some((asked, Err(refusal))) if asked == handling => Some(self.local_error(&refusal)),
            _ => {
                let mut bytes = Vec::new();
                resp::encode_request(&mut bytes, question);
                Some(self.ask_permission(handling, &bytes))
            }
        }
    }

    fn client_reply(&mut self, arguments: &[&[u8]]) -> Step {
        let mode = arguments[0];
        if mode.eq_ignore_ascii_case(b"on") {
            self.state.reply = ReplyMode::On;
            return self.local(b"+OK\r\n");
        }
        if mode.eq_ignore_ascii_case(b"off") {
            self.state.reply = ReplyMode::Off;
        } else if mode.eq_ignore_ascii_case(b"skip") {
            if self.state.reply == ReplyMode::On {
                self.state.reply = ReplyMode::SkipNext;
            }
        } else {
            return self.local_error(SYNTAX);
        }
        Step::Consumed
    }

    fn client_set_info(&mut self, arguments: &[&[u8]]) -> Step {
        let [attribute, value] = arguments else { return self.local_error(SYNTAX) };
        let name = String::from_utf8_lossy(attribute).to_ascii_lowercase();
        let Some(value) = valid_name(value) else {
            return self.local_error(&format!("ERR {name} cannot contain spaces, newlines or special characters."));
        };
        match name.as_str() {
            "lib-name" => self.session.record.update(|shown| shown.library_name = value),
            "lib-ver" => self.session.record.update(|shown| shown.library_version = value),
            _ => {
                let given = String::from_utf8_lossy(attribute).into_owned();
                return self.local_error(&format!("ERR Unrecognized option '{given}'"));
            }
        }
        self.local(b"+OK\r\n")
    }

    fn clients(&self) -> Vec<Arc<ClientRecord>> {
        let context = &self.session.context;
        context.registry.list(context.group.index)
    }

    fn client_list(&mut self, arguments: &[&[u8]]) -> Step {
        let clients = self.clients();
        let chosen: Vec<_> = match arguments {
            [] => clients,
            [word, kind] if word.eq_ignore_ascii_case(b"type") => {
                let kind = String::from_utf8_lossy(kind).to_ascii_lowercase();
                if !is_kind(&kind) {
                    return self.local_error(&format!("ERR Unknown client type '{kind}'"));
                }
                clients.into_iter().filter(|client| client.kind() == kind).collect()
            }
            [word, ids @ ..] if word.eq_ignore_ascii_case(b"id") && !ids.is_empty() => {
                let mut wanted = Vec::new();
                for id in ids {
                    let Some(id) = number(id) else { return self.local_error("ERR Invalid client ID") };
                    wanted.push(id);
                }
                clients.into_iter().filter(|client| wanted.contains(&client.id)).collect()
            }
            _ => return self.local_error(SYNTAX),
        };
        let now = clock::micros();
        let mut text = String::new();
        for client in chosen {
            text.push_str(&client.line(now));
            text.push('\n');
        }
        let mut out = Vec::with_capacity(text.len() + 32);
        write::verbatim(&mut out, "txt", &text, self.state.protocol);
        self.local(&out)
    }

    fn client_kill(&mut self, arguments: &[&[u8]]) -> Step {
        if let [address] = arguments {
            let address = String::from_utf8_lossy(address).into_owned();
            let filter = Filter { address: Some(address), ..Filter::default() };
            return match self.kill(&filter) {
                0 => self.local_error(NO_SUCH_CLIENT),
                _ => self.local(b"+OK\r\n"),
            };
        }
        match Filter::read(arguments) {
            Err(text) => self.local_error(&text),
            Ok(filter) if filter.user.as_ref().is_some_and(|user| !self.knows_user(user)) => {
                let user = filter.user.unwrap_or_default();
                self.local_error(&format!("ERR No such user '{user}'"))
            }
            Ok(filter) => {
                let killed = self.kill(&filter);
                let mut out = Vec::new();
                write::integer(&mut out, killed);
                self.local(&out)
            }
        }
    }

    /// Whether there is such a user as far as the front door can tell: configured, or logged in now.
    fn knows_user(&self, user: &str) -> bool {
        let configured = self.session.context.settings.users.iter().any(|known| known.name == user);
        configured || user == "default" || self.clients().iter().any(|client| client.shown().user == user)
    }

    fn kill(&mut self, filter: &Filter) -> i64 {
        let now = clock::micros();
        let mut killed = 0;
        for client in self.clients() {
            if !filter.matches(&client, now) {
                continue;
            }
            let is_caller = client.id == self.session.record.id;
            if is_caller && filter.keeps_caller {
                continue;
            }
            killed += 1;
            if is_caller {
                // As the server does: the caller still reads the answer.
                self.closing = true;
            } else {
                self.session.context.registry.kill(&client);
            }
        }
        killed
    }

    fn client_unblock(&mut self, arguments: &[&[u8]]) -> Step {
        let with_error = match arguments {
            [_] => false,
            [_, how] if how.eq_ignore_ascii_case(b"timeout") => false,
            [_, how] if how.eq_ignore_ascii_case(b"error") => true,
            _ => return self.local_error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"),
        };
        let Some(id) = number(arguments[0]) else {
            return self.local_error("ERR value is not an integer or out of range");
        };
        let context = &self.session.context;
        let client = context.registry.get(context.group.index, id).filter(|client| client.shown().blocked);
        if let Some(client) = &client {
            context.registry.unblock(client, with_error);
        }
        self.local(if client.is_some() { b":1\r\n" } else { b":0\r\n" })
    }
}

impl Filter {
    fn read(arguments: &[&[u8]]) -> Result<Self, String> {
        if arguments.is_empty() || !arguments.len().is_multiple_of(2) {
            return Err(SYNTAX.to_owned());
        }
        let mut filter = Self { keeps_caller: true, ..Self::default() };
        for pair in arguments.chunks_exact(2) {
            let value = String::from_utf8_lossy(pair[1]).into_owned();
            match String::from_utf8_lossy(pair[0]).to_ascii_lowercase().as_str() {
                "id" => match number(pair[1]).filter(|id| *id > 0) {
                    Some(id) => filter.ids.push(id),
                    None => return Err("ERR client-id should be greater than 0".to_owned()),
                },
                "addr" => filter.address = Some(value),
                "laddr" => filter.local_address = Some(value),
                "user" => filter.user = Some(value),
                "type" if is_kind(&value.to_ascii_lowercase()) => filter.kind = Some(value.to_ascii_lowercase()),
                "type" => return Err(format!("ERR Unknown client type '{value}'")),
                "maxage" => match number(pair[1]) {
                    Some(seconds) => filter.max_age_seconds = Some(seconds),
                    None => return Err("ERR maxage is not an integer or out of range".to_owned()),
                },
                "skipme" if value.eq_ignore_ascii_case("yes") => filter.keeps_caller = true,
                "skipme" if value.eq_ignore_ascii_case("no") => filter.keeps_caller = false,
                _ => return Err(SYNTAX.to_owned()),
            }
        }
        Ok(filter)
    }

    fn matches(&self, client: &ClientRecord, now_us: u64) -> bool {
        let fits = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|wanted| wanted == has);
        let age_seconds = now_us.saturating_sub(client.since_us) / 1_000_000;
        (self.ids.is_empty() || self.ids.contains(&client.id))
            && fits(&self.address, &client.address)
            && fits(&self.local_address, &client.local_address)
            && fits(&self.user, &client.shown().user)
            && fits(&self.kind, client.kind())
            && self.max_age_seconds.is_none_or(|bound| age_seconds >= bound)
    }
}

fn is_kind(kind: &str) -> bool {
    matches!(kind, "normal" | "master" | "slave" | "replica" | "pubsub" | "primary")
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
