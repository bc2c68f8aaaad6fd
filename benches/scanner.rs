//! What the scanner costs per frame. Figures of a run are in docs/performance.md.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use standin::resp::{FrameLimits, ReplyScanner, RequestScanner, arguments, encode_request, write};

fn requests(criterion: &mut Criterion) {
    let limits = FrameLimits::default();
    let mut scanner = RequestScanner::default();
    let value = [b'x'; 100];
    let cases: [(&str, Vec<&[u8]>); 3] = [
        ("request GET user:12345", vec![b"GET", b"user:12345"]),
        ("request SET 100 B", vec![b"SET", b"user:12345", &value]),
        ("request MGET of 100 keys", std::iter::once(&b"MGET"[..]).chain([&b"user:12345"[..]; 100]).collect()),
    ];
    for (name, words) in &cases {
        let mut frame = Vec::new();
        encode_request(&mut frame, words);
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| scanner.scan(black_box(&frame), black_box(&limits)).map(black_box));
        });
        criterion.bench_function(&format!("{name}, its arguments"), |bencher| {
            bencher.iter(|| arguments(black_box(&frame)).map(<[u8]>::len).sum::<usize>());
        });
    }
}

fn replies(criterion: &mut Criterion) {
    let limits = FrameLimits::default();
    let mut scanner = ReplyScanner::default();
    let mut hundred = Vec::new();
    write::bulk(&mut hundred, &[b'x'; 100]);
    let mut many = Vec::new();
    write::array_len(&mut many, 100);
    for _ in 0..100 {
        write::bulk(&mut many, &[b'x'; 32]);
    }
    let cases = [("reply +OK", b"+OK\r\n".to_vec()), ("reply $100", hundred), ("reply MGET 100 x 32 B", many)];
    for (name, reply) in &cases {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| scanner.scan(black_box(reply), black_box(&limits)).map(black_box));
        });
    }
}

criterion_group!(benches, requests, replies);
criterion_main!(benches);
