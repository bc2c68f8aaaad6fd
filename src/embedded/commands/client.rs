//! CLIENT: the connection's own name and number, and the list of all of them.

use super::*;
use crate::embedded::arguments::{integer, is};
use crate::embedded::dispatch::{ADMIN, FAST};
use crate::embedded::session::{ReplyMode, Session};
use crate::embedded::store::{Client, State};
use crate::resp::{Protocol, write};

pub(super) const ROWS: &[Row] = &[row("client", -2, ADMIN | FAST, NO_KEYS, client)];

/// Subcommand, its arity with `client` counted, and what runs it.
const SUBCOMMANDS: &[(&str, i16, Handler)] = &[
    ("id", 2, id),
    ("setname", 3, setname),
    ("getname", 2, getname),
    ("setinfo", 4, setinfo),
    ("info", 2, info),
    ("list", -2, list),
    ("kill", -3, kill),
    ("reply", 3, reply_mode),
    ("no-evict", 3, on_off),
    ("no-touch", 3, on_off),
    ("unblock", -3, unblock),
    ("help", 2, help),
];

fn client(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    subcommand("client", SUBCOMMANDS, context, arguments)
}

fn id(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    context.reply.integer(context.session.id as i64);
    Ok(())
}

fn setname(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    connection::check_name(arguments[2])?;
    context.session.name = arguments[2].to_vec();
    context.reply.ok();
    Ok(())
}

fn getname(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    let name = &context.session.name;
    context.reply.bulk_or_null((!name.is_empty()).then_some(name.as_slice()));
    Ok(())
}

fn setinfo(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let at = if is(arguments[2], "lib-name") {
        0
    } else if is(arguments[2], "lib-ver") {
        1
    } else {
        let option = String::from_utf8_lossy(arguments[2]);
        return Err(format!("ERR Unrecognized option '{option}'").into());
    };
    if connection::check_name(arguments[3]).is_err() {
        let option = String::from_utf8_lossy(arguments[2]);
        return Err(format!("ERR {option} cannot contain spaces, newlines or special characters.").into());
    }
    context.session.library[at] = arguments[3].to_vec();
    context.reply.ok();
    Ok(())
}

fn describe(id: u64, client: &Client, now_ms: u64) -> String {
    let seconds = |since: u64| now_ms.saturating_sub(since) / 1000;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut flags = String::new();
    for (set, flag) in [(client.channels + client.patterns > 0, 'P'), (client.queued >= 0, 'x'), (client.waiting, 'b')]
    {
        if set {
            flags.push(flag);
        }
    }
    if flags.is_empty() {
        flags.push('N');
    }
    format!(
        "id={id} addr={} laddr= fd=-1 name={} age={} idle={} flags={flags} db={} sub={} psub={} ssub=0 multi={} qbuf=0 \
         qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem={} tot-mem={} events=r cmd={} user=default \
         redir=-1 resp={} lib-name={} lib-ver={}\n",
        client.address,
        text(&client.name),
        seconds(client.connected_at_ms),
        seconds(client.used_at_ms),
        client.database,
        client.channels,
        client.patterns,
        client.queued,
        client.outbox.len(),
        client.outbox.len(),
        client.last_command,
        if client.protocol == Protocol::Resp3 { 3 } else { 2 },
        text(&client.library[0]),
        text(&client.library[1]),
    )
}

fn describe_own(state: &mut State, session: &Session) -> String {
    state.note_session(session);
    state.clients.get(&session.id).map_or_else(String::new, |client| describe(session.id, client, state.now_ms))
}

fn info(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    let text = describe_own(context.state, context.session);
    context.reply.verbatim(&text);
    Ok(())
}

fn client_type(client: &Client) -> &'static str {
    if client.channels + client.patterns > 0 { "pubsub" } else { "normal" }
}

fn list(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let mut wanted_type = None;
    let mut wanted_ids: Option<Vec<i64>> = None;
    match &arguments[2..] {
        [] => {}
        [option, name] if is(option, "type") => {
            wanted_type =
                Some(["normal", "pubsub", "master", "replica", "slave"].iter().find(|one| is(name, one)).ok_or_else(
                    || Error::from(format!("ERR Unknown client type '{}'", String::from_utf8_lossy(name))),
                )?);
        }
        [option, ids @ ..] if is(option, "id") && !ids.is_empty() => {
            let ids = ids.iter().map(|id| integer(id).map_err(|_| Error::text("ERR Invalid client ID")));
            wanted_ids = Some(ids.collect::<Result<_, _>>()?);
        }
        _ => return Err(error::SYNTAX),
    }
    context.state.note_session(context.session);
    let state = &*context.state;
    let listed: String = state
        .clients
        .iter()
        .filter(|(_, client)| wanted_type.is_none_or(|name| *name == client_type(client)))
        .filter(|(id, _)| wanted_ids.as_ref().is_none_or(|ids| ids.contains(&(**id as i64))))
        .map(|(id, client)| describe(*id, client, state.now_ms))
        .collect();
    context.reply.verbatim(&listed);
    Ok(())
}

/// What CLIENT KILL chooses by.
#[derive(Default)]
struct KillFilter<'a> {
    id: Option<u64>,
    address: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    user: Option<&'a [u8]>,
    local_address: Option<&'a [u8]>,
    include_self: bool,
}

impl KillFilter<'_> {
    fn takes(&self, id: u64, client: &Client, own: u64) -> bool {
        self.id.is_none_or(|wanted| wanted == id)
            && self.address.is_none_or(|wanted| wanted == client.address.as_bytes())
            && self.kind.is_none_or(|wanted| is(wanted, client_type(client)))
            && self.user.is_none_or(|wanted| wanted == b"default")
            && self.local_address.is_none()
            && (self.include_self || id != own)
    }
}

fn kill_filter<'a>(options: &[&'a [u8]]) -> Result<KillFilter<'a>, Error> {
    let mut filter = KillFilter::default();
    for pair in options.chunks(2) {
        let &[option, value] = pair else { return Err(error::SYNTAX) };
        if is(option, "id") {
            let id = integer(value).ok().and_then(|id| u64::try_from(id).ok()).filter(|&id| id > 0);
            filter.id = Some(id.ok_or(Error::text("ERR client-id should be greater than 0"))?);
        } else if is(option, "addr") {
            filter.address = Some(value);
        } else if is(option, "laddr") {
            filter.local_address = Some(value);
        } else if is(option, "type") {
            filter.kind = Some(value);
        } else if is(option, "user") {
            filter.user = Some(value);
        } else if is(option, "skipme") {
            filter.include_self = is(value, "no");
            if !filter.include_self && !is(value, "yes") {
                return Err(error::SYNTAX);
            }
        } else {
            return Err(error::SYNTAX);
        }
    }
    Ok(filter)
}

fn kill(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let old_form = arguments.len() == 3;
    let filter = if old_form {
        KillFilter { address: Some(arguments[2]), include_self: true, ..KillFilter::default() }
    } else {
        kill_filter(&arguments[2..])?
    };
    let own = context.session.id;
    let mut killed = 0;
    for (&id, client) in &context.state.clients {
        if !filter.takes(id, client, own) {
            continue;
        }
        killed += 1;
        if id == own {
            // Its reply is owed first.
            context.session.closing = true;
        } else {
            client.kill.cancel();
        }
    }
    match (old_form, killed) {
        (true, 0) => return Err(Error::text("ERR No such client")),
        (true, _) => context.reply.ok(),
        (false, _) => context.reply.integer(killed),
    }
    Ok(())
}

fn reply_mode(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    if is(arguments[2], "on") {
        context.session.reply_mode = ReplyMode::On;
        context.reply.ok();
    } else if is(arguments[2], "off") {
        context.session.reply_mode = ReplyMode::Off;
    } else if is(arguments[2], "skip") {
        if context.session.reply_mode == ReplyMode::On {
            context.session.reply_mode = ReplyMode::SkipNext;
        }
    } else {
        return Err(error::SYNTAX);
    }
    Ok(())
}

/// Eviction here is of entries, never of clients, so both words change nothing.
fn on_off(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    if !is(arguments[2], "on") && !is(arguments[2], "off") {
        return Err(error::SYNTAX);
    }
    context.reply.ok();
    Ok(())
}

fn unblock(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let id = integer(arguments[2])?;
    let with_error = match &arguments[3..] {
        [] => false,
        [how] if is(how, "timeout") => false,
        [how] if is(how, "error") => true,
        _ => {
            return Err(Error::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
        }
    };
    let waiter = u64::try_from(id).ok().and_then(|id| context.state.stop_waiting(id));
    context.reply.flag(waiter.is_some());
    if let Some(waiter) = waiter {
        let mut out = Vec::new();
        if with_error {
            write::error(&mut out, "UNBLOCKED client unblocked via CLIENT UNBLOCK");
        } else {
            write::null_array(&mut out, waiter.protocol);
        }
        let _ = waiter.reply.send(out);
    }
    Ok(())
}

fn help(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    context.reply.array(SUBCOMMANDS.len());
    for (name, ..) in SUBCOMMANDS {
        context.reply.simple(&format!("CLIENT {}", name.to_uppercase()));
    }
    Ok(())
}
