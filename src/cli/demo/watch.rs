//! The control port, asked again and again by a task of its own, so that a slow answer never holds up the view.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::admin::EventsReport;
use crate::cli::client::{ClientError, ControlClient, Target};
use crate::cli::control_commands::last_seen;
use crate::control::api::StatusReport;
use crate::limits;
use crate::telemetry::events::Event;

const PERIOD: Duration = Duration::from_millis(250);
/// An answer that takes longer is no answer for somebody who looks at a live view.
const PATIENCE: Duration = Duration::from_secs(2);
/// Sightings that may wait for the view; beyond it the task waits.
const QUEUE_MAX: usize = 16;

/// What one look at the control port brought.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sighting {
    /// Or why there is none, in one sentence.
    pub(super) status: Result<StatusReport, String>,
    /// New ones only, the oldest first.
    pub(super) events: Vec<Event>,
}

/// Asks until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    sightings: mpsc::Receiver<Sighting>,
    task: AbortHandle,
}

impl Watch {
    pub(super) fn start(control: SocketAddr) -> Self {
        let (sender, sightings) = mpsc::channel(QUEUE_MAX);
        let task = tokio::spawn(async move {
            let mut eye = Eye::new(control);
            let mut turns = tokio::time::interval(PERIOD);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                turns.tick().await;
                if sender.send(eye.look().await).await.is_err() {
                    return;
                }
            }
        });
        Self { sightings, task: task.abort_handle() }
    }

    /// The next sighting. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Sighting> {
        self.sightings.recv().await
    }

    /// What it still learns until it has looked once more, so that nothing of the end is missed.
    pub(super) async fn last(mut self) -> Vec<Sighting> {
        let mut sightings = Vec::new();
        while let Ok(sighting) = self.sightings.try_recv() {
            sightings.push(sighting);
        }
        // The first may have been on its way already; the second began after this call.
        for _ in 0..2 {
            if let Ok(Some(sighting)) = tokio::time::timeout(2 * PATIENCE, self.sightings.recv()).await {
                sightings.push(sighting);
            }
        }
        sightings
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Eye {
    client: ControlClient,
    /// The id of the last event seen.
    seen: u64,
}

impl Eye {
    fn new(control: SocketAddr) -> Self {
        Self { client: ControlClient::new(Target { authority: control.to_string(), token: None }), seen: 0 }
    }

    async fn look(&mut self) -> Sighting {
        let status = self.client.get::<StatusReport>("/v1/status");
        let status = match tokio::time::timeout(PATIENCE, status).await {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(error)) => Err(first_line(&error)),
            Err(_elapsed) => Err(format!("the control port does not answer within {} s", PATIENCE.as_secs())),
        };
        let path = format!("/v1/events?since={}&limit={}", self.seen, limits::EVENTS_KEPT_MAX);
        let events = match tokio::time::timeout(PATIENCE, self.client.get::<EventsReport>(&path)).await {
            Ok(Ok(report)) => {
                self.seen = last_seen(&report, self.seen);
                report.events
            }
            // The status has said why; what is missed now comes with the next look.
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        Sighting { status, events }
    }
}

fn first_line(error: &ClientError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::admin::{router, tests::start};
    use crate::telemetry::events::EventKind;

    #[tokio::test]
    async fn every_event_is_seen_once_and_the_last_look_misses_none() {
        let port = start(None, router).await;
        port.history.record(Event::new(EventKind::Started, "serving"));
        let mut watch = Watch::start(port.address);
        let first = watch.next().await.unwrap();
        assert_eq!(first.events.len(), 1);
        assert_eq!(first.status.unwrap().groups[0].active.as_deref(), Some("primary"));
        port.history.record(Event::new(EventKind::Failover, "left the primary"));
        let rest = watch.last().await;
        let kinds: Vec<EventKind> = rest.iter().flat_map(|sighting| &sighting.events).map(|event| event.kind).collect();
        assert_eq!(kinds, [EventKind::Failover]);
    }

    #[tokio::test]
    async fn a_control_port_that_is_gone_is_said_in_one_line() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let sighting = Eye::new(address).look().await;
        let why = sighting.status.unwrap_err();
        assert!(why.contains("refused") && why.lines().count() == 1, "{why}");
    }
}
