//! The connection itself: HELLO, AUTH, SELECT, PING, RESET, QUIT. CLIENT has a file of its own.

use subtle::ConstantTimeEq;

use super::*;
use crate::embedded::arguments::{is, parse_integer};
use crate::embedded::dispatch::{FAST, NO_AUTH, NOT_QUEUED, SUBSCRIBED};
use crate::embedded::session::ReplyMode;
use crate::resp::Protocol;

pub(super) const ROWS: &[Row] = &[
    row("hello", -1, NO_AUTH | FAST, NO_KEYS, hello),
    row("auth", -2, NO_AUTH | FAST, NO_KEYS, auth),
    row("select", 2, FAST, NO_KEYS, select),
    row("ping", -1, SUBSCRIBED | FAST, NO_KEYS, ping),
    row("echo", 2, FAST, NO_KEYS, echo),
    row("quit", -1, NO_AUTH | NOT_QUEUED | SUBSCRIBED | FAST, NO_KEYS, quit),
    row("reset", 1, NO_AUTH | NOT_QUEUED | SUBSCRIBED | FAST, NO_KEYS, reset),
    row("time", 1, FAST, NO_KEYS, time),
];

/// The version that the replies imitate, for clients that choose their commands by it.
pub(super) const REDIS_VERSION: &str = "7.0.0";

fn log_in(context: &mut Context<'_>, user: &[u8], password: &[u8]) -> Result<(), Error> {
    let wrong = Error::text("WRONGPASS invalid username-password pair or user is disabled.");
    if user != b"default" {
        return Err(wrong);
    }
    if let Some(expected) = &context.session.password
        && !bool::from(expected.as_bytes().ct_eq(password))
    {
        return Err(wrong);
    }
    context.session.authenticated = true;
    Ok(())
}

fn auth(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    match arguments {
        [_, _] if context.session.password.is_none() => {
            return Err(Error::text(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?",
            ));
        }
        [_, password] => log_in(context, b"default", password)?,
        [_, user, password] => log_in(context, user, password)?,
        _ => return Err(error::SYNTAX),
    }
    context.reply.ok();
    Ok(())
}

pub(super) fn check_name(name: &[u8]) -> Result<(), Error> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Ok(());
    }
    Err(Error::text("ERR Client names cannot contain spaces, newlines or special characters."))
}

fn hello(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let mut protocol = context.session.protocol;
    let mut rest = arguments[1..].iter();
    if let Some(version) = rest.next() {
        protocol = match parse_integer(version) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err(Error::text("NOPROTO unsupported protocol version")),
            None => return Err(Error::text("ERR Protocol version is not an integer or out of range")),
        };
    }
    let mut name = None;
    while let Some(option) = rest.next() {
        if is(option, "auth") {
            let (Some(user), Some(password)) = (rest.next(), rest.next()) else { return Err(hello_syntax(option)) };
            log_in(context, user, password)?;
        } else if is(option, "setname") {
            let wanted = rest.next().ok_or_else(|| hello_syntax(option))?;
            check_name(wanted)?;
            name = Some(wanted.to_vec());
        } else {
            return Err(hello_syntax(option));
        }
    }
    if !context.session.authenticated {
        return Err(Error::text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> \
             <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    context.session.protocol = protocol;
    if let Some(name) = name {
        context.session.name = name;
    }
    let reply = &mut context.reply;
    reply.protocol = protocol;
    reply.map(7);
    for (key, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(if protocol == Protocol::Resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.integer(context.session.id as i64);
    for (key, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

fn hello_syntax(option: &[u8]) -> Error {
    format!("ERR Syntax error in HELLO option '{}'", String::from_utf8_lossy(option)).into()
}

fn select(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    context.session.database = keys::database_number(context, arguments[1])?;
    context.reply.ok();
    Ok(())
}

fn ping(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    if arguments.len() > 2 {
        return Err(error::wrong_arguments("ping"));
    }
    let message = arguments.get(1);
    if context.session.is_subscribed() && !context.reply.is_resp3() {
        context.reply.bulks([&b"pong"[..], message.copied().unwrap_or_default()].into_iter());
        return Ok(());
    }
    match message {
        Some(message) => context.reply.bulk(message),
        None => context.reply.simple("PONG"),
    }
    Ok(())
}

fn echo(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    context.reply.bulk(arguments[1]);
    Ok(())
}

fn quit(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    context.session.closing = true;
    context.reply.ok();
    Ok(())
}

fn reset(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    context.state.unsubscribe_all(context.session);
    let session = &mut *context.session;
    session.channels.clear();
    session.patterns.clear();
    session.transaction = None;
    session.watched.clear();
    session.database = 0;
    session.protocol = Protocol::Resp2;
    session.name.clear();
    session.reply_mode = ReplyMode::On;
    session.authenticated = session.password.is_none();
    context.reply.protocol = Protocol::Resp2;
    context.reply.simple("RESET");
    Ok(())
}

fn time(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    let now_ms = context.state.now_ms;
    let (seconds, microseconds) = (now_ms / 1000, now_ms % 1000 * 1000);
    context.reply.bulks([seconds.to_string().as_bytes(), microseconds.to_string().as_bytes()].into_iter());
    Ok(())
}
