//! MULTI, EXEC, DISCARD, WATCH, UNWATCH.

use super::*;
use crate::embedded::dispatch::{self, FAST, NOT_QUEUED};
use crate::embedded::session::{Transaction, Watched};

pub(super) const ROWS: &[Row] = &[
    row("multi", 1, NOT_QUEUED | FAST, NO_KEYS, multi),
    row("exec", 1, NOT_QUEUED, NO_KEYS, exec),
    row("discard", 1, NOT_QUEUED | FAST, NO_KEYS, discard),
    row("watch", -2, NOT_QUEUED | FAST, ALL_KEYS, watch),
    row("unwatch", 1, FAST, NO_KEYS, unwatch),
];

fn multi(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    if context.session.transaction.is_some() {
        return Err(Error::text("ERR MULTI calls can not be nested"));
    }
    context.session.transaction = Some(Transaction::default());
    context.reply.ok();
    Ok(())
}

fn discard(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    context.session.transaction.take().ok_or(Error::text("ERR DISCARD without MULTI"))?;
    context.session.watched.clear();
    context.reply.ok();
    Ok(())
}

fn watch(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    if context.session.transaction.is_some() {
        return Err(Error::text("ERR WATCH inside MULTI is not allowed"));
    }
    let number = context.session.database;
    for key in &arguments[1..] {
        let known = context.session.watched.iter().any(|one| one.database == number && *one.key == **key);
        if !known {
            let version = context.database().version_of(key);
            context.session.watched.push(Watched { database: number, key: (*key).into(), version });
        }
    }
    context.reply.ok();
    Ok(())
}

fn unwatch(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    context.session.watched.clear();
    context.reply.ok();
    Ok(())
}

fn exec(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    let transaction = context.session.transaction.take().ok_or(Error::text("ERR EXEC without MULTI"))?;
    let watched = std::mem::take(&mut context.session.watched);
    if transaction.refused {
        return Err(Error::text("EXECABORT Transaction discarded because of previous errors."));
    }
    let databases = &mut context.state.databases;
    if watched.iter().any(|one| databases[one.database].version_of(&one.key) != one.version) {
        context.reply.null_array();
        return Ok(());
    }
    context.session.executing = true;
    context.reply.array(transaction.commands.len());
    for command in &transaction.commands {
        let arguments: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        if let Some(row) = dispatch::find(arguments[0]) {
            dispatch::execute(context.state, context.session, row, &arguments, context.reply.out);
        }
    }
    context.session.executing = false;
    context.reply.protocol = context.session.protocol;
    Ok(())
}
