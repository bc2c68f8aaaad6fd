//! Event lists that no world would make: whatever the engine is told, in any order and at any time, it keeps its word.

use std::time::Duration;

use standin::policy::{
    Action, BackendId, BackendRole, BackendSettings, Edge, Engine, ErrorCounts, Event, MemoryUse, Mode, NotReadyWord,
    OperatorCommand, Order, ProbeAnswer, ProbeOutcome, ProposalId, Role, Settings, Standing, SwitchId, SwitchResult,
    Time, WindowSummary,
};

use crate::world::Random;

const BACKENDS: u8 = 4;
const EVENTS: usize = 400;

/// Feeds one arbitrary event list and checks what holds whatever happens; returns how many switches were begun.
pub(crate) fn keeps_its_word(seed: u64) -> usize {
    let mut random = Random::new(seed);
    let mut now = Time::from_millis(random.below(5_000));
    let settings = settings(&mut random);
    let mut engine = Engine::new(settings, group(&mut random), seed, now);
    let mut refused = [false; BACKENDS as usize];
    let (mut last_id, mut epoch) = (0, 1);
    let mut actions = Vec::new();
    for _ in 0..EVENTS {
        now += jump(&mut random);
        if random.below(5) == 0 {
            engine.handle_timeout(now, &mut actions);
        } else {
            let event = any_event(&mut random, now, last_id);
            if let Event::Standing { backend, standing } = &event
                && let Some(refused) = refused.get_mut(backend.index())
            {
                *refused = matches!(standing, Standing::Refused { .. });
            }
            engine.handle(now, event, &mut actions);
        }
        assert!(engine.poll_timeout().is_none_or(|due| due > now), "asks to be called in the past");
        assert!(engine.active().0 < BACKENDS);
        assert!(engine.epoch() >= epoch && engine.epoch() <= last_id + 1);
        epoch = engine.epoch();
        for action in actions.drain(..) {
            if let Action::Switch(switch) = action {
                assert_eq!(switch.id.0, last_id + 1);
                assert!(!refused[switch.to.index()], "a switch to a refused backend");
                let excluded = &engine.view(now).backends[switch.to.index()].excluded;
                assert!(excluded.is_none() || switch.to == switch.from, "a switch to {excluded:?}");
                last_id = switch.id.0;
            }
        }
    }
    let view = engine.view(now);
    assert!(view.backends.iter().all(|backend| backend.score <= 100));
    assert!(serde_json::to_string(&view).is_ok());
    last_id as usize
}

fn settings(random: &mut Random) -> Settings {
    let mut settings = if random.below(2) == 0 { Settings::default() } else { Settings::fast() };
    settings.recovery.delay = Duration::from_millis(random.below(3_000));
    settings.recovery.enabled = random.below(5) != 0;
    settings.failover.hold = Duration::from_millis([0, 0, 50, 2_000][random.below(4) as usize]);
    settings.failover.failure_threshold = random.below(4) as u32;
    settings.failover.mode =
        [Mode::Automatic, Mode::Automatic, Mode::SemiAutomatic, Mode::Manual][random.below(4) as usize];
    settings.failover.cascade = random.below(4) != 0;
    settings.failover.max_attempts = random.below(4) as u32;
    settings.failover.max_per_hour = random.below(6) as u32;
    settings.failover.cooldown = any_span(random);
    settings.failover.triggers.connection = random.below(8) != 0;
    settings.failover.triggers.health_check = random.below(8) != 0;
    settings
}

fn group(random: &mut Random) -> Vec<BackendSettings> {
    let primary = random.below(u64::from(BACKENDS)) as u8;
    let backend = |id| {
        let role = if id == primary { BackendRole::Primary } else { BackendRole::Backup };
        let mut backend = BackendSettings::new(BackendId(id), &format!("backend-{id}"), role);
        backend.last_resort = id != primary && id == BACKENDS - 1;
        backend
    };
    (0..BACKENDS).map(backend).collect()
}

fn jump(random: &mut Random) -> Duration {
    match random.below(10) {
        0..=5 => Duration::from_micros(random.below(3_000)),
        6..=8 => Duration::from_millis(random.below(700)),
        _ => Duration::from_secs(random.below(100)),
    }
}

fn any_span(random: &mut Random) -> Duration {
    match random.below(8) {
        0 => Duration::MAX,
        1 => Duration::ZERO,
        _ => Duration::from_millis(random.below(2_000)),
    }
}

fn any_event(random: &mut Random, now: Time, last_id: u64) -> Event {
    let backend = BackendId(random.below(u64::from(BACKENDS) + 1) as u8);
    match random.below(17) {
        0..=4 => Event::Edge { backend, edge: any_edge(random) },
        5..=7 => Event::Window { backend, window: any_window(random, now) },
        8..=11 => Event::Probe { backend, outcome: any_outcome(random) },
        12 => Event::Standing { backend, standing: any_standing(random) },
        13 => Event::Operator(OperatorCommand::new(any_order(random, backend), "drill")),
        14 => {
            let id = SwitchId((last_id + random.below(2)).saturating_sub(random.below(3)));
            Event::SwitchDone { id, result: any_result(random) }
        }
        15 => Event::Joined { backend },
        _ => Event::TickStalled { late: any_span(random) },
    }
}

fn any_order(random: &mut Random, backend: BackendId) -> Order {
    let proposal = (random.below(2) == 0).then(|| ProposalId(random.below(4)));
    match random.below(10) {
        0 | 1 => Order::Failover { to: (random.below(3) != 0).then_some(backend) },
        2 | 3 => Order::Recover,
        4 => Order::Pin { backend, lasts: any_span(random) },
        5 => [Order::Unpin, Order::Decline { proposal }][random.below(2) as usize].clone(),
        6 => Order::Drain { backend },
        7 => Order::Exclude { backend },
        8 => Order::Include { backend },
        _ => Order::Confirm { proposal },
    }
}

fn any_edge(random: &mut Random) -> Edge {
    match random.below(12) {
        0 => Edge::LinkLost,
        1 => Edge::ConnectRefused,
        2 => Edge::ConnectFailed,
        3 => Edge::ConnectTimedOut,
        4 => Edge::HandshakeReset,
        5 => Edge::HandshakeTimedOut,
        6 => Edge::Stalled { silent_for: any_span(random) },
        7 => Edge::AuthenticationFailed,
        8 => Edge::NotReady(NotReadyWord::Loading),
        9 => Edge::WrongRole,
        10 => Edge::IdentityChanged,
        _ => Edge::HandshakeDone,
    }
}

fn any_outcome(random: &mut Random) -> ProbeOutcome {
    match random.below(7) {
        0 => ProbeOutcome::Failed(any_edge(random)),
        1 => ProbeOutcome::TimedOut { silent_for: any_span(random) },
        2 => ProbeOutcome::NotReady(NotReadyWord::MasterDown),
        3 => ProbeOutcome::AuthenticationFailed,
        _ => ProbeOutcome::Ok(ProbeAnswer {
            latency: any_span(random),
            role: if random.below(8) == 0 { Role::Replica } else { Role::Master },
            write_ok: [None, Some(true), Some(true), Some(false)][random.below(4) as usize],
            replication_lag: (random.below(4) == 0).then(|| any_span(random)),
            replication_offset: (random.below(4) == 0).then(|| random.below(u64::MAX)),
            memory: (random.below(4) == 0)
                .then(|| MemoryUse { used_bytes: random.below(u64::MAX), max_bytes: random.below(1_000) }),
        }),
    }
}

fn any_window(random: &mut Random, now: Time) -> WindowSummary {
    let mut window = WindowSummary {
        requests: random.below(1_000),
        in_flight: random.below(3) as u32,
        last_progress: (random.below(3) != 0).then(|| now - any_span(random) + any_span(random)),
        slow_in_flight_until: (random.below(6) == 0).then(|| now + any_span(random)),
        ..WindowSummary::default()
    };
    if random.below(3) == 0 {
        window.errors = ErrorCounts {
            connection: random.below(100),
            timeout: random.below(100),
            not_ready: random.below(2),
            wrong_role: random.below(2),
            data: random.below(1_000),
            ..ErrorCounts::default()
        };
    }
    for class in &mut window.latency {
        for _ in 0..random.below(5) {
            let micros = if random.below(20) == 0 { u64::MAX } else { random.below(10_000_000) };
            class.record(micros, random.below(100));
        }
    }
    window
}

fn any_standing(random: &mut Random) -> Standing {
    match random.below(4) {
        0 => Standing::Refused { why: "foreign keys".into() },
        1 => Standing::Unknown,
        _ => Standing::Enterable,
    }
}

fn any_result(random: &mut Random) -> SwitchResult {
    match random.below(4) {
        0 => SwitchResult::Refused { why: "not owned".into() },
        1 => SwitchResult::Failed { why: "no answer".into() },
        _ => SwitchResult::Done,
    }
}
