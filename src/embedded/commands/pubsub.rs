//! SUBSCRIBE, PUBLISH and their like. A message is appended to the subscriber's outbox under the store's lock, so the
//! order of messages and acknowledgements is the order of the commands.

use super::*;
use crate::embedded::arguments::is;
use crate::embedded::dispatch::{FAST, PUBSUB, SUBSCRIBED};
use crate::embedded::glob;
use crate::embedded::store::remove_subscriber;
use crate::limits;
use crate::resp::write;

pub(super) const ROWS: &[Row] = &[
    row("subscribe", -2, PUBSUB | SUBSCRIBED, NO_KEYS, subscribe),
    row("unsubscribe", -1, PUBSUB | SUBSCRIBED, NO_KEYS, unsubscribe),
    row("psubscribe", -2, PUBSUB | SUBSCRIBED, NO_KEYS, psubscribe),
    row("punsubscribe", -1, PUBSUB | SUBSCRIBED, NO_KEYS, punsubscribe),
    row("publish", 3, PUBSUB | FAST, NO_KEYS, publish),
    row("pubsub", -2, PUBSUB, NO_KEYS, pubsub),
];

fn acknowledge(context: &mut Context<'_>, kind: &str, name: Option<&[u8]>) {
    let count = context.session.channels.len() + context.session.patterns.len();
    context.reply.push(3);
    context.reply.bulk(kind.as_bytes());
    context.reply.bulk_or_null(name);
    context.reply.count(count);
}

fn check_room(context: &Context<'_>, names: &[&[u8]]) -> Result<(), Error> {
    let held: usize = context.session.channels.iter().chain(&context.session.patterns).map(Vec::len).sum();
    let wanted: usize = names.iter().map(|name| name.len()).sum();
    if held + wanted > limits::SUBSCRIPTION_BYTES_MAX {
        return Err(Error::text("ERR too many subscriptions of one client"));
    }
    Ok(())
}

fn subscribe(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    check_room(context, &arguments[1..])?;
    for name in &arguments[1..] {
        if context.session.channels.insert(name.to_vec()) {
            context.state.channels.entry(name.to_vec()).or_default().push(context.session.id);
        }
        acknowledge(context, "subscribe", Some(name));
    }
    context.state.note_session(context.session);
    Ok(())
}

fn psubscribe(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    check_room(context, &arguments[1..])?;
    for name in &arguments[1..] {
        if context.session.patterns.insert(name.to_vec()) {
            context.state.patterns.entry(name.to_vec()).or_default().push(context.session.id);
        }
        acknowledge(context, "psubscribe", Some(name));
    }
    context.state.note_session(context.session);
    Ok(())
}

fn unsubscribe(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let named = arguments[1..].iter().map(|name| name.to_vec()).collect::<Vec<_>>();
    let names = if named.is_empty() { context.session.channels.iter().cloned().collect() } else { named };
    for name in &names {
        if context.session.channels.remove(name) {
            remove_subscriber(&mut context.state.channels, name, context.session.id);
        }
        acknowledge(context, "unsubscribe", Some(name));
    }
    if names.is_empty() {
        acknowledge(context, "unsubscribe", None);
    }
    Ok(())
}

fn punsubscribe(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let named = arguments[1..].iter().map(|name| name.to_vec()).collect::<Vec<_>>();
    let names = if named.is_empty() { context.session.patterns.iter().cloned().collect() } else { named };
    for name in &names {
        if context.session.patterns.remove(name) {
            remove_subscriber(&mut context.state.patterns, name, context.session.id);
        }
        acknowledge(context, "punsubscribe", Some(name));
    }
    if names.is_empty() {
        acknowledge(context, "punsubscribe", None);
    }
    Ok(())
}

fn publish(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (channel, message) = (arguments[1], arguments[2]);
    let direct = context.state.channels.get(channel).cloned().unwrap_or_default();
    let matching: Vec<(Vec<u8>, u64)> = context
        .state
        .patterns
        .iter()
        .filter(|(pattern, _)| glob::matches(pattern, channel))
        .flat_map(|(pattern, clients)| clients.iter().map(|&client| (pattern.clone(), client)))
        .collect();
    context.reply.count(direct.len() + matching.len());
    for client in direct {
        context.state.send(client, |out, protocol| {
            write::push_len(out, 3, protocol);
            [b"message", channel, message].iter().for_each(|part| write::bulk(out, part));
        });
    }
    for (pattern, client) in matching {
        context.state.send(client, |out, protocol| {
            write::push_len(out, 4, protocol);
            [b"pmessage", &pattern[..], channel, message].iter().for_each(|part| write::bulk(out, part));
        });
    }
    Ok(())
}

fn pubsub(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (what, rest) = (arguments[1], &arguments[2..]);
    let (state, reply) = (&*context.state, &mut context.reply);
    if is(what, "channels") && rest.len() <= 1 {
        let pattern = rest.first().copied().unwrap_or(b"*");
        let names: Vec<&[u8]> =
            state.channels.keys().map(Vec::as_slice).filter(|name| glob::matches(pattern, name)).collect();
        reply.bulks(names.into_iter());
    } else if is(what, "numsub") {
        reply.array(rest.len() * 2);
        for name in rest {
            reply.bulk(name);
            reply.count(state.channels.get(*name).map_or(0, Vec::len));
        }
    } else if is(what, "numpat") && rest.is_empty() {
        reply.count(state.patterns.len());
    } else if is(what, "shardchannels") {
        // There are no shard channels here, so none is subscribed.
        reply.array(0);
    } else if is(what, "shardnumsub") {
        reply.array(rest.len() * 2);
        for name in rest {
            reply.bulk(name);
            reply.integer(0);
        }
    } else {
        return Err(error::unknown_subcommand("pubsub", what));
    }
    Ok(())
}
