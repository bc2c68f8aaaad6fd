use super::spec_of;
use crate::command::{Category, Class, Flags, Handling, all, lookup};

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

#[test]
fn rows_agree_with_themselves() {
    let rows = all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
    for spec in rows {
        let name = spec.name;
        assert_eq!(name, name.to_ascii_lowercase());
        let (write, readonly) = (spec.flags.contains(Flags::WRITE), spec.flags.contains(Flags::READONLY));
        assert!(!(write && readonly), "{name} both writes and only reads");
        if write {
            assert!(spec.category > Category::Read, "{name} writes, so it may not be retried as a read");
        }
        if readonly && !spec.flags.contains(Flags::ADMIN) {
            assert_eq!(spec.category, Category::Read, "{name}");
        }
        assert_eq!(spec.handling == Handling::Blocking, spec.class == Class::Blocking && !name.starts_with("wait"));
        for subcommand in spec.subcommands {
            assert!(
                subcommand.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('|')),
                "{}",
                subcommand.name
            );
        }
    }
}

#[test]
fn a_container_resolves_to_the_subcommand_that_the_second_argument_names() {
    assert_eq!(spec_of("CONFIG Get maxmemory").name, "config|get");
    assert_eq!(spec_of("client NO-EVICT on").handling, Handling::ClientNoEvict);
    assert_eq!(spec_of("CLIENT").name, "client");
    assert_eq!(spec_of("CLIENT nonsense").name, "client");
    assert_eq!(spec_of("GET get").name, "get");
}

#[test]
fn scripts_count_as_writes_unless_they_are_read_only() {
    for name in ["eval", "evalsha", "fcall"] {
        assert!(spec_of(name).is_write());
        assert!(!spec_of(&format!("{name}_ro")).is_write());
    }
    assert!(spec_of("SET").is_write());
    assert!(!spec_of("GET").is_write());
}

#[test]
fn arity_is_exact_when_positive_and_a_minimum_when_negative() {
    let get = spec_of("GET");
    assert_eq!([1, 2, 3].map(|count| get.arity_ok(count)), [false, true, false]);
    let mget = spec_of("MGET");
    assert_eq!([1, 2, 300].map(|count| mget.arity_ok(count)), [false, true, true]);
}
