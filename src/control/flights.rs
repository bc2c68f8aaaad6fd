//! Recordings of what led to a decision and of what followed: kept in memory, and written to the state directory if there
//! is one. What the engine remembers by itself is lost a minute later; these are not.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::policy::Recording;

/// A decision's recording begins so long before it, at least, if the engine remembers so far.
pub(super) const BEFORE: Duration = Duration::from_secs(15);
/// It ends so long after it: decisions that follow it in that time are in the same recording.
const AFTER: Duration = Duration::from_secs(5);
/// Recordings kept in memory; a megabyte or so each.
const KEPT_MAX: usize = 4;
/// Recordings kept on disk for each group.
const FILES_MAX: usize = 32;

/// A recording that is being waited for.
struct Awaited {
    first_event: u64,
    from: crate::policy::Time,
    due: Instant,
}

struct Flight {
    first_event: u64,
    last_event: u64,
    recording: std::sync::Arc<Recording>,
}

#[derive(Default)]
pub(super) struct Flights {
    awaited: Option<Awaited>,
    last_event: u64,
    kept: VecDeque<Flight>,
    directory: Option<PathBuf>,
}

impl Flights {
    pub(super) fn new(state: Option<&Path>, group: &str) -> Self {
        Self { directory: state.map(|state| state.join("recordings").join(group)), ..Self::default() }
    }

    /// A decision became event `event`.
    pub(super) fn decided(&mut self, event: u64, at: crate::policy::Time) {
        self.last_event = event;
        if self.awaited.is_none() {
            let (from, due) = (at - BEFORE, Instant::now() + AFTER);
            self.awaited = Some(Awaited { first_event: event, from, due });
        }
    }

    /// Where the recording that is due begins.
    pub(super) fn due(&self) -> Option<crate::policy::Time> {
        self.awaited.as_ref().filter(|awaited| Instant::now() >= awaited.due).map(|awaited| awaited.from)
    }

    /// Takes the recording that was due. Writing it is left to a thread that may wait.
    pub(super) fn keep(&mut self, recording: Option<Recording>) {
        let (Some(awaited), Some(recording)) = (self.awaited.take(), recording) else { return };
        let recording = std::sync::Arc::new(recording);
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        let flight =
            Flight { first_event: awaited.first_event, last_event: self.last_event, recording: recording.clone() };
        self.kept.push_back(flight);
        if let Some(directory) = self.directory.clone() {
            tokio::task::spawn_blocking(move || {
                if let Err(error) = write(&directory, awaited.first_event, &recording) {
                    let directory = directory.display();
                    tracing::info!(%error, %directory, "a recording could not be written");
                }
            });
        }
    }

    /// The recording in which this event is.
    pub(super) fn of_event(&self, event: u64) -> Option<std::sync::Arc<Recording>> {
        let flight = self.kept.iter().find(|flight| (flight.first_event..=flight.last_event).contains(&event));
        flight.map(|flight| flight.recording.clone())
    }
}

/// Writes the file beside its final name first, so that a half-written one is never read; the oldest files go.
fn write(directory: &Path, event: u64, recording: &Recording) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    // Sorted by name is sorted by time, over restarts too.
    let at_ms = recording.epoch_ms + recording.told.first().map_or(0, |told| told.at.as_micros() / 1_000);
    let name = format!("{at_ms:014}-{event}.json");
    let partial = directory.join(format!(".{name}.partial"));
    std::fs::write(&partial, serde_json::to_vec(recording)?)?;
    std::fs::rename(&partial, directory.join(name))?;
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)?.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    for file in files.iter().take(files.len().saturating_sub(FILES_MAX)) {
        std::fs::remove_file(file)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::policy::{
        BackendId, BackendRole, BackendSettings, Engine, Event, RecordedEngine, Settings, Standing, Time,
    };

    fn recording(at: Time) -> Recording {
        let backends = vec![BackendSettings::new(BackendId(0), "primary", BackendRole::Primary)];
        let mut engine = RecordedEngine::new(Engine::new(Settings::default(), backends, 1, Time::ZERO));
        let event = Event::Standing { backend: BackendId(0), standing: Standing::Enterable };
        engine.handle(at, event, &mut Vec::new());
        engine.recording("default", 1_795_315_639_120, None).unwrap()
    }

    #[test]
    fn a_written_recording_replays_and_the_oldest_files_go() {
        let directory = tempfile::tempdir().unwrap();
        for event in 0..40 {
            write(directory.path(), event, &recording(Time::from_secs(event))).unwrap();
        }
        let mut names: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().flatten().map(|entry| entry.path()).collect();
        names.sort();
        assert_eq!(names.len(), FILES_MAX);
        assert!(names[0].to_string_lossy().ends_with("-8.json"), "{names:?}");
        let read: Recording = serde_json::from_slice(&std::fs::read(&names[0]).unwrap()).unwrap();
        assert_eq!(read.verify(), Ok(()));
    }

    #[test]
    fn decisions_close_together_share_a_recording_and_only_the_newest_are_kept() {
        let mut flights = Flights::default();
        for round in 0..6_u64 {
            flights.decided(10 * round + 1, Time::from_secs(round));
            flights.decided(10 * round + 3, Time::from_secs(round));
            assert_eq!(flights.due(), None, "what follows is still awaited");
            flights.keep(Some(recording(Time::from_secs(round))));
        }
        assert!(flights.of_event(52).is_some() && flights.of_event(21).is_some());
        assert!(flights.of_event(11).is_none() && flights.of_event(54).is_none());
    }
}
