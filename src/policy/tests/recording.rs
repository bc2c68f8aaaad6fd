//! What was recorded can be run again, wherever the recording begins.

use super::*;
use crate::limits;

/// An hour's worth of small news and two switches, told to an engine that remembers.
fn lived() -> (RecordedEngine, Time) {
    let mut now = Time::from_secs(1);
    let mut engine = RecordedEngine::new(Engine::new(Settings::default(), group(), 7, now));
    let mut actions = Vec::new();
    let mut tell = |engine: &mut RecordedEngine, now, event| {
        engine.handle(now, event, &mut actions);
        for action in std::mem::take(&mut actions) {
            if let Action::Switch(switch) = action {
                let done = Event::SwitchDone { id: switch.id, result: SwitchResult::Done };
                engine.handle(now + MS, done, &mut actions);
            }
        }
    };
    for backend in (0..3).map(BackendId) {
        tell(&mut engine, now, Event::Standing { backend, standing: Standing::Enterable });
    }
    for round in 0..4_000_u64 {
        now += 50 * MS;
        for backend in (0..3).map(BackendId) {
            let mut window = WindowSummary { requests: round % 97, ..busy(now) };
            window.latency[0] = Sketch::of([90, 90, 200 + round % 1_000]);
            tell(&mut engine, now, Event::Window { backend, window });
            if round % 10 == 0 {
                let latency = Duration::from_micros(400 + round * 7 % 900);
                let outcome = ProbeOutcome::Ok(ProbeAnswer::new(latency, Role::Master));
                if backend != PRIMARY || !(2_000..2_100).contains(&round) {
                    tell(&mut engine, now, Event::Probe { backend, outcome });
                }
            }
        }
        if round == 2_000 {
            for _ in 0..2 {
                tell(&mut engine, now, Event::Edge { backend: PRIMARY, edge: Edge::ConnectRefused });
            }
        }
    }
    assert_eq!(engine.epoch(), 3, "there and back");
    (engine, now)
}

#[test]
fn a_recording_that_begins_in_the_middle_replays_bit_for_bit_after_it_was_written_and_read() {
    let (engine, now) = lived();
    let recording = engine.recording("default", 1_795_315_639_120, None).unwrap();
    assert!(recording.told[0].at > Time::from_secs(2), "it does not begin in the middle");
    let text = serde_json::to_string(&recording).unwrap();
    let read: Recording = serde_json::from_str(&text).unwrap();
    assert_eq!(read, recording);
    assert_eq!(read.verify(), Ok(()));
    let late = engine.recording("default", 0, Some(now)).unwrap();
    assert!(late.told.len() < recording.told.len() && late.told[0].at <= now);
    assert_eq!(late.verify(), Ok(()));
}

#[test]
fn what_is_kept_is_bounded() {
    let (engine, _) = lived();
    let kept = engine.recording("default", 0, None).unwrap().told.len();
    let most = limits::RECORDING_SEGMENT_EVENTS_MAX * limits::RECORDING_SEGMENTS_MAX;
    assert!(kept <= most && kept > most - limits::RECORDING_SEGMENT_EVENTS_MAX, "{kept}");
}

#[test]
fn a_recording_that_was_tampered_with_is_found_out() {
    let mut world = World::new();
    world.die(PRIMARY);
    let mut engine = RecordedEngine::new(Engine::new(Settings::default(), group(), 1, Time::from_secs(1)));
    for (at, event) in &world.told {
        engine.handle(*at, event.clone().unwrap(), &mut Vec::new());
    }
    let recording = engine.recording("default", 0, None).unwrap();
    assert_eq!(recording.verify(), Ok(()));

    let mut other = recording.clone();
    let index = other.told.iter().position(|told| !told.asked.is_empty()).unwrap();
    other.told[index].asked.clear();
    assert!(matches!(other.verify(), Err(Difference::Actions { index: found, .. }) if found == index));

    let mut other = recording.clone();
    other.after = other.before.clone();
    assert_eq!(other.verify(), Err(Difference::State));

    let other = Recording { version: 99, ..recording };
    assert_eq!(other.verify(), Err(Difference::Version { found: 99 }));
}
