//! The commands that ask a running Standin.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::{ClientError, ControlClient, Target};
use super::output;
use super::{
    BackendArgs, ControlArgs, EventsArgs, FailoverArgs, Failure, OwnershipArgs, PinArgs, PlainArgs, ProposalArgs,
    RecoverArgs, StatusArgs, render,
};
use crate::admin::EventsReport;
use crate::control::api::{CommandOutcome, StatusReport};
use crate::limits;

/// An orchestrator's own timeout is often no longer than this.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(2);
const FOLLOW_PERIOD: Duration = Duration::from_secs(1);

/// Runs `body` with a client of the control port, on a runtime of its own.
pub(super) fn with_client<T>(
    arguments: &ControlArgs,
    body: impl AsyncFnOnce(ControlClient) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let target = Target::find(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(body(ControlClient::new(target)));
    // A name resolution that hangs in its thread must not hold up the exit.
    runtime.shutdown_background();
    outcome
}

pub(super) fn healthcheck(arguments: &ControlArgs) -> Result<(), Failure> {
    with_client(arguments, async |client| Ok(client.is_well("/livez", HEALTHCHECK_TIMEOUT).await?))
}

pub(super) fn status(arguments: &StatusArgs) -> Result<(), Failure> {
    with_client(&arguments.control, async |client| {
        if arguments.json {
            // As it came, so that what a newer Standin says is not lost.
            let report: Value = client.get("/v1/status").await?;
            output::print(&format!("{report:#}\n"));
        } else {
            let report: StatusReport = client.get("/v1/status").await?;
            output::print(&render::status(&report, output::wants_colour()));
        }
        Ok(())
    })
}

pub(super) fn events(arguments: &EventsArgs) -> Result<(), Failure> {
    with_client(&arguments.control, async |client| {
        let report: EventsReport = client.get(&format!("/v1/events?limit={}", arguments.limit)).await?;
        print_events(&report, arguments.json);
        if arguments.follow { follow(&client, report, arguments.json).await } else { Ok(()) }
    })
}

/// Shows what is new once a second, over restarts of the Standin, until the process is interrupted.
async fn follow(client: &ControlClient, report: EventsReport, json: bool) -> Result<(), Failure> {
    let mut seen = last_seen(&report, 0);
    let mut lost = false;
    loop {
        tokio::time::sleep(FOLLOW_PERIOD).await;
        let path = format!("/v1/events?since={seen}&limit={}", limits::EVENTS_ANSWERED_DEFAULT);
        match client.get::<EventsReport>(&path).await {
            Ok(report) => {
                lost = false;
                print_events(&report, json);
                seen = last_seen(&report, seen);
            }
            Err(error @ ClientError::Unreachable { .. }) => {
                if !lost {
                    output::error(&format!("{error}\n  trying again each second"));
                }
                lost = true;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The id to go on from. A Standin that restarted counts from 1 again, so that what it says is not skipped.
pub(super) fn last_seen(report: &EventsReport, seen: u64) -> u64 {
    match report.events.last() {
        Some(event) => event.id,
        None if report.last_id < seen => 0,
        None => seen,
    }
}

fn print_events(report: &EventsReport, json: bool) {
    let coloured = output::wants_colour();
    let line = |event| {
        if json {
            // An event holds nothing that JSON cannot.
            serde_json::to_string(event).map(|line| line + "\n").unwrap_or_default()
        } else {
            render::event(event, coloured)
        }
    };
    output::print(&report.events.iter().map(line).collect::<String>());
}

pub(super) fn failover(arguments: &FailoverArgs) -> Result<(), Failure> {
    let FailoverArgs { name, to, plain, how } = arguments;
    let to = name.as_ref().or(to.as_ref());
    let words = json!({ "to": to, "plan": how.plan, "dwell": how.dwell, "dry_run": how.dry_run });
    order(plain, "/v1/failover", words)
}

pub(super) fn recover(RecoverArgs { plain, how }: &RecoverArgs) -> Result<(), Failure> {
    order(plain, "/v1/recover", json!({ "plan": how.plan, "dwell": how.dwell, "dry_run": how.dry_run }))
}

/// `path` is that of an order without further words.
pub(super) fn plain(arguments: &PlainArgs, path: &str) -> Result<(), Failure> {
    order(arguments, path, json!({}))
}

pub(super) fn pin(PinArgs { name, plain, lasts }: &PinArgs) -> Result<(), Failure> {
    order(plain, "/v1/pin", json!({ "backend": name, "for": lasts }))
}

/// `path` is `/v1/drain`, `/v1/exclude` or `/v1/include`.
pub(super) fn about(BackendArgs { name, plain }: &BackendArgs, path: &str) -> Result<(), Failure> {
    order(plain, path, json!({ "backend": name }))
}

/// `path` is `/v1/confirm` or `/v1/reject`.
pub(super) fn answer(ProposalArgs { proposal, plain }: &ProposalArgs, path: &str) -> Result<(), Failure> {
    order(plain, path, json!({ "proposal": proposal }))
}

/// Sends an order of these words, with what every order says besides.
fn order(plain: &PlainArgs, path: &str, mut words: Value) -> Result<(), Failure> {
    words["group"] = json!(plain.group);
    words["reason"] = json!(plain.reason);
    words["by"] = json!(author());
    command(&plain.control, path, &words)
}

/// Who is logged in here, for the history. A word for people, not a proof.
fn author() -> Option<String> {
    let name = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok()?;
    Some(name.chars().take(limits::AUTHOR_BYTES_MAX / 4).collect()).filter(|name: &String| !name.is_empty())
}

/// `path` is `/v1/adopt` or `/v1/disown`.
pub(super) fn own(arguments: &OwnershipArgs, path: &str) -> Result<(), Failure> {
    let body = json!({ "group": arguments.group, "backend": arguments.name });
    command(&arguments.control, path, &body)
}

fn command(arguments: &ControlArgs, path: &str, body: &Value) -> Result<(), Failure> {
    with_client(arguments, async |client| {
        let outcome: CommandOutcome = client.post(path, body).await?;
        output::print(&render::outcome(&outcome));
        Ok(())
    })
}
