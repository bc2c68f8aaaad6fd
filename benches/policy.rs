//! What a decision costs: the breaker's check on the path, and a whole tick of the engine over eight backends.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use standin::policy::{
    BackendId, BackendRole, BackendSettings, Breaker, BreakerSettings, Edge, Engine, Event, ProbeAnswer, ProbeOutcome,
    Role, Settings, Sketch, Standing, Time, WindowSummary,
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

fn policy(criterion: &mut Criterion) {
    let mut breaker = Breaker::new(BreakerSettings::default(), Time::ZERO);
    criterion.bench_function("policy/breaker_check", |bench| {
        bench.iter(|| black_box(&breaker).allows(black_box(Time(5))));
    });
    criterion.bench_function("policy/breaker_record", |bench| {
        let mut now = Time::ZERO;
        bench.iter(|| {
            now += Duration::from_micros(10);
            breaker.record(black_box(now), 1, 0)
        });
    });

    let mut engine = engine();
    let mut actions = Vec::with_capacity(64);
    let mut now = Time::from_secs(1);
    criterion.bench_function("policy/tick_of_8_backends", |bench| {
        bench.iter(|| {
            now += Duration::from_millis(50);
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

criterion_group!(benches, policy);
criterion_main!(benches);
