//! The control plane: one task per group feeds the engine and carries out its actions; one task answers operators.
//!
//! It runs on a thread of its own and never touches a client's bytes. It must not know HTTP (see `admin`) or sessions.

mod account;
pub mod api;
mod check;
mod comparing;
mod copy;
mod databases;
mod entry;
mod facts;
mod flights;
mod group;
mod incident;
mod marks;
mod mirror;
mod modules;
mod neighbours;
mod objectives;
mod operators;
mod page;
mod probe;
mod publish;
mod replication;
mod report;
mod rollout;
mod round;
mod sampling;
mod settings;
mod shared;
mod shares;
mod standing;
mod start;
mod state;
mod steps;
mod switches;
mod tracking;
mod watch;
mod window;

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use self::api::{CommandError, Receiver, RecordingReport, Request, StatisticsReport, StatusReport};
use self::group::GroupRequest;
use crate::telemetry::readiness::Readiness;
use crate::telemetry::wall_time::WallTime;

pub use self::check::content_findings;
pub use self::group::{GroupControlSetup, Surroundings};
pub use self::settings::{engine_backends, engine_settings, group_setup};
pub use self::state::usable_directory;

/// Requests of operators that may wait for one group's control.
const GROUP_QUEUE_MAX: usize = 64;
/// A group's control answers a status request within this, or its part is left out.
const STATUS_WAIT: Duration = Duration::from_millis(500);

/// Runs the control of all groups, and the task that answers operators, until the process stops. Needs a runtime that
/// can spawn local tasks.
pub async fn run(
    groups: Vec<GroupControlSetup>,
    surroundings: Surroundings,
    mut requests: Receiver,
    readiness: Readiness,
) {
    let mut handles = Vec::new();
    let mut tasks = Vec::new();
    for setup in groups {
        let name = setup.publisher.group().name.clone();
        let (sender, receiver) = mpsc::channel(GROUP_QUEUE_MAX);
        tasks.push(tokio::task::spawn_local(group::run(setup, surroundings.clone(), receiver)));
        handles.push((name, sender));
    }
    loop {
        let request = tokio::select! {
            request = requests.recv() => request,
            () = surroundings.stop.cancelled() => break,
        };
        match request {
            None => {
                surroundings.stop.cancelled().await;
                break;
            }
            Some(Request::Status { reply }) => {
                let report = status(&handles, &surroundings, &readiness).await;
                let _ = reply.send(report);
            }
            Some(Request::Statistics { reply }) => {
                let _ = reply.send(statistics(&handles).await);
            }
            Some(Request::Recording { group, event, reply }) => {
                let _ = reply.send(recording(&handles, group, event).await);
            }
            Some(Request::Order { group, order, how, note, reply }) => {
                forward(&handles, group, reply, |reply| GroupRequest::Order { order, how, note, reply });
            }
            Some(Request::Plan { group, order, note, reply }) => {
                forward(&handles, group, reply, |reply| GroupRequest::Plan { order, note, reply });
            }
            Some(Request::Adopt { group, backend, reply }) => {
                forward(&handles, group, reply, |reply| GroupRequest::Own { backend, own: true, reply });
            }
            Some(Request::Disown { group, backend, reply }) => {
                forward(&handles, group, reply, |reply| GroupRequest::Own { backend, own: false, reply });
            }
        }
    }
    // Each keeps what it has learnt before it ends.
    for task in tasks {
        let _ = task.await;
    }
}

type Handles = [(String, mpsc::Sender<GroupRequest>)];

fn forward(
    handles: &Handles,
    group: Option<String>,
    reply: api::CommandReply,
    request: impl FnOnce(api::CommandReply) -> GroupRequest,
) {
    match choose(handles, group.as_deref()) {
        Err(error) => {
            let _ = reply.send(Err(error));
        }
        Ok(sender) => {
            if let Err(error) = sender.try_send(request(reply)) {
                tracing::warn!(%error, "an operator's command could not be handed to its group");
            }
        }
    }
}

fn choose<'h>(handles: &'h Handles, group: Option<&str>) -> Result<&'h mpsc::Sender<GroupRequest>, CommandError> {
    let known = || handles.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let chosen = match group {
        Some(name) => handles
            .iter()
            .find(|(known, _)| known == name)
            .ok_or_else(|| CommandError::UnknownGroup { name: name.to_owned(), known: known() }),
        None if handles.len() == 1 => Ok(&handles[0]),
        None => Err(CommandError::GroupNeeded { known: known() }),
    };
    chosen.map(|(_, sender)| sender)
}

async fn statistics(handles: &Handles) -> Vec<StatisticsReport> {
    let mut reports = Vec::new();
    for (_, sender) in handles {
        if let Some(report) = ask(sender, GroupRequest::Statistics).await {
            reports.push(report);
        }
    }
    reports
}

async fn recording(
    handles: &Handles,
    group: Option<String>,
    event: Option<u64>,
) -> Result<RecordingReport, CommandError> {
    let sender = choose(handles, group.as_deref())?;
    Ok(ask(sender, |reply| GroupRequest::Recording(event, reply)).await.flatten())
}

/// `None` when the group's control does not answer in time.
async fn ask<T>(
    sender: &mpsc::Sender<GroupRequest>,
    request: impl FnOnce(oneshot::Sender<T>) -> GroupRequest,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    sender.send(request(reply)).await.ok()?;
    tokio::time::timeout(STATUS_WAIT, answer).await.ok()?.ok()
}

async fn status(handles: &Handles, surroundings: &Surroundings, readiness: &Readiness) -> StatusReport {
    let mut groups = Vec::new();
    for (name, sender) in handles {
        match ask(sender, GroupRequest::Status).await {
            Some(report) => groups.push(report),
            None => tracing::warn!(group = name, "the group's control did not answer a status request"),
        }
    }
    StatusReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        process_id: std::process::id(),
        at: WallTime::now(),
        uptime_seconds: crate::backend::clock::micros() / 1_000_000,
        clients: surroundings.clients.total() as u64,
        draining: readiness.is_draining(),
        groups,
    }
}
