//! What the data path pays for knowing a command: looking up its name, and finding its keys.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use standin::command;
use standin::resp::encode_request;

/// A mix of names, so that the branch predictor does not learn one of them.
const NAMES: [&[u8]; 8] = [b"get", b"SET", b"hgetall", b"EXPIRE", b"zrangebyscore", b"del", b"MGET", b"incrby"];
const MISSES: [&[u8]; 4] = [b"json.get", b"gett", b"FT.SEARCH", b"x"];
const MIXED: [&[u8]; 4] = [b"GeT", b"sEt", b"GeoRadiusByMember", b"HgetALL"];

fn lookup(criterion: &mut Criterion) {
    for (case, names) in [("hit", &NAMES[..]), ("miss", &MISSES), ("mixed_case", &MIXED)] {
        let mut next = names.iter().cycle();
        criterion.bench_function(&format!("command_lookup/{case}"), |bencher| {
            bencher.iter(|| next.next().map(|name| command::lookup(black_box(name)).is_some()));
        });
    }
}

fn request(arguments: &[&[u8]]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_request(&mut frame, arguments);
    frame
}

fn keys(criterion: &mut Criterion) {
    let names: Vec<String> = (0..10).map(|number| format!("session:{number:08}")).collect();
    let mut arguments: Vec<&[u8]> = vec![b"MGET"];
    arguments.extend(names.iter().map(String::as_bytes));
    let cases = [
        ("mget_of_10", request(&arguments)),
        ("get", request(&[b"GET", b"session:00000001"])),
        ("eval", request(&[b"EVAL", b"return 1", b"1", b"session:00000001", b"x"])),
    ];
    for (case, frame) in &cases {
        let name = standin::resp::arguments(frame).next().unwrap_or_default();
        let Some(spec) = command::lookup(name) else { panic!("no row for {case}") };
        criterion.bench_function(&format!("command_keys/{case}"), |bencher| {
            bencher.iter(|| {
                let mut bytes = 0;
                command::keys(spec, black_box(frame), &mut |key| bytes += key.len());
                bytes
            });
        });
    }
}

fn refinement(criterion: &mut Criterion) {
    let frame = request(&[b"SET", b"session:00000001", b"value", b"EX", b"60"]);
    let Some(set) = command::lookup(b"SET") else { panic!("no row for SET") };
    criterion.bench_function("command_category/set_ex", |bencher| {
        bencher.iter(|| set.category(black_box(&frame)));
    });
}

criterion_group!(benches, lookup, keys, refinement);
criterion_main!(benches);
