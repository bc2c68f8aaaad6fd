#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn every_row_is_found_by_its_name_in_any_case() {
    for spec in all() {
        for name in [spec.name.to_string(), spec.name.to_ascii_uppercase(), alternating(spec.name)] {
            let found = lookup(name.as_bytes());
            assert!(found.is_some_and(|found| found.name == spec.name), "{name} finds {found:?}");
        }
    }
}

fn alternating(name: &str) -> String {
    name.char_indices().map(|(at, c)| if at % 2 == 0 { c.to_ascii_uppercase() } else { c }).collect()
}

#[test]
fn a_name_that_differs_in_one_byte_is_another() {
    for spec in all() {
        for at in 0..spec.name.len() {
            for flip in [0x20, 0x80, 0x01] {
                let mut name = spec.name.as_bytes().to_vec();
                name[at] ^= flip;
                let found = lookup(&name).map(|spec| spec.name.as_bytes());
                let expected = name.to_ascii_lowercase();
                assert!(found.is_none_or(|found| found == expected), "{name:?} is taken for {found:?}");
            }
        }
    }
    assert!(lookup(b"").is_none());
    assert!(lookup(b"config|get").is_none());
    assert!(lookup(&[b'x'; 300]).is_none());
}
