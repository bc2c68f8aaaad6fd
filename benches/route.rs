//! The route pick: what each batch of a client's requests pays to know where it goes.

use std::hint::black_box;
use std::sync::Arc;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use criterion::{Criterion, criterion_group, criterion_main};
use standin::policy::BackendId;
use standin::route::{Availability, Route};

fn route(c: &mut Criterion) {
    let first = Route {
        version: 1,
        epoch: 1,
        active: BackendId(0),
        availability: Availability::Serving,
        recording: 0,
        copying: 0,
        mirroring: 0,
        reading: 0,
        doubting: 0,
        split: None,
    };
    let cell = Arc::new(ArcSwap::from_pointee(first));
    let mut cache = Cache::new(Arc::clone(&cell));
    c.bench_function("route pick, cached by the worker", |b| {
        b.iter(|| {
            let route = cache.load();
            black_box((route.active, route.availability, route.recording))
        });
    });
    c.bench_function("route pick, straight from the ArcSwap", |b| b.iter(|| black_box(cell.load().active)));
}

criterion_group!(benches, route);
criterion_main!(benches);
