//! This room must not know of clocks, randomness, tasks, locks or logs: what it decides must replay.

const BANNED: &[&str] = &[
    "Instant",
    "SystemTime",
    "rand::",
    "getrandom",
    "RandomState",
    "HashMap",
    "tokio",
    "async ",
    "Mutex",
    "RwLock",
    "Atomic",
    "tracing",
    "std::net",
    "std::fs",
    "std::io",
    "std::env",
    "println!",
    "thread",
];

#[test]
fn no_file_of_this_room_names_a_clock_randomness_io_or_a_lock() {
    let room = concat!(env!("CARGO_MANIFEST_DIR"), "/src/policy");
    let mut seen = 0;
    for entry in std::fs::read_dir(room).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        seen += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for word in BANNED {
                assert!(!code.contains(word), "{}:{}: {word}", path.display(), number + 1);
            }
        }
    }
    assert!(seen >= 10, "only {seen} files in {room}");
}
