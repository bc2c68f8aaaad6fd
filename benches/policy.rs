//! What a decision costs: the breaker's check on the path, and a whole tick of the engine over eight backends.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use standin::policy::{
    BackendId, BackendRole, BackendSettings, Breaker, BreakerSettings, Calls, Edge, Engine, Event, Phi, PhiSettings,
    ProbeAnswer, ProbeOutcome, Role, Settings, Sketch, Standing, Time, WindowSummary,
};

const BACKENDS: u8 = 8;

fn engine() -> Engine {
    let backend = |id| {
        let role = if id == 0 { BackendRole::Primary } else { BackendRole::Backup };
        BackendSettings::new(BackendId(id), &format!("backend-{id}"), role)
    };
    let mut engine = Engine::new(Settings::default(), (0..BACKENDS).map(backend).collect(), 1, Time::ZERO);
    let mut actions = Vec::new();
    for backend in (0..BACKENDS).map(BackendId) {
        engine.handle(Time(1), Event::Edge { backend, edge: Edge::HandshakeDone }, &mut actions);
        engine.handle(Time(1), Event::Standing { backend, standing: Standing::Enterable }, &mut actions);
    }
    engine
}

fn window(now: Time) -> WindowSummary {
    let class = || Sketch::of((0..1_000).map(|n| 200 + n * n / 500));
    WindowSummary {
        requests: 4_000,
        latency: std::array::from_fn(|_| class()),
        in_flight: 16,
        last_progress: Some(now),
        ..WindowSummary::default()
    }
}

fn detectors(criterion: &mut Criterion) {
    let breaker = Breaker::new(BreakerSettings::default(), 1);
    criterion.bench_function("policy/breaker_check", |bench| {
        bench.iter(|| black_box(&breaker).allows(black_box(Time(5))));
    });
    let mut breaker = Breaker::new(BreakerSettings::default(), 1);
    let call = Calls { succeeded: 1, ..Calls::default() };
    criterion.bench_function("policy/breaker_closed_call", |bench| {
        let mut now = Time::ZERO;
        bench.iter(|| {
            now += Duration::from_micros(10);
            breaker.try_pass(now) && breaker.record(black_box(now), black_box(call))
        });
    });
    let mut phi = Phi::new(&PhiSettings::default(), Duration::from_millis(650));
    let mut now = Time::from_secs(1);
    criterion.bench_function("policy/heartbeat", |bench| {
        bench.iter(|| {
            now += Duration::from_micros(49_000 + (now.as_micros() * 7_919) % 2_000);
            phi.heartbeat(black_box(now));
        });
    });
    for (name, silence) in [("policy/phi_of_an_ordinary_silence", 20), ("policy/phi_of_a_surprising_silence", 700)] {
        let asked = now + Duration::from_millis(silence);
        criterion.bench_function(name, |bench| {
            bench.iter(|| black_box(&phi).phi(black_box(asked), Duration::ZERO));
        });
    }
}

fn policy(criterion: &mut Criterion) {
    let mut engine = engine();
    let mut actions = Vec::with_capacity(64);
    let mut now = Time::from_secs(1);
    criterion.bench_function("policy/tick_of_8_backends", |bench| {
        bench.iter(|| {
            now += Duration::from_millis(50);
            // Eight backends that all serve 80,000 requests a second, which no group has.
            for backend in (0..BACKENDS).map(BackendId) {
                engine.handle(now, Event::Window { backend, window: window(now) }, &mut actions);
            }
            engine.handle_timeout(now, &mut actions);
            actions.clear();
        });
    });
    criterion.bench_function("policy/probes_of_8_backends", |bench| {
        bench.iter(|| {
            now += Duration::from_millis(50);
            for backend in (0..BACKENDS).map(BackendId) {
                let latency = Duration::from_micros(300);
                let answer = ProbeAnswer { write_ok: Some(true), ..ProbeAnswer::new(latency, Role::Master) };
                let outcome = ProbeOutcome::Ok(answer);
                engine.handle(now, Event::Probe { backend, outcome }, &mut actions);
            }
            actions.clear();
        });
    });
}

criterion_group!(benches, detectors, policy);
criterion_main!(benches);
