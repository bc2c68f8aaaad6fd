//! `config/standin.toml` and the effective configuration against the keys that the code knows.

use std::collections::BTreeMap;

use super::super::load::parse_with_catalogue;
use super::super::*;
use super::{MINIMAL, parsed};

const REFERENCE: &str = include_str!("../../../config/standin.toml");

/// The reference with its commented keys made real: all of them, or those alone that show a default.
fn reference_uncommented(keep: impl Fn(&str) -> bool) -> String {
    let lines = REFERENCE.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') && keep(rest) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Every key of the reference, commented or not, by its path, with each value it has there.
fn reference_keys() -> BTreeMap<String, Vec<String>> {
    let mut keys = BTreeMap::<String, Vec<String>>::new();
    let mut table = String::new();
    for line in reference_uncommented(|_| true).lines() {
        if line.starts_with('[') {
            table = line.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.entry(format!("{table}.{key}")).or_default().push(value.to_owned());
        }
    }
    keys
}

#[test]
fn the_reference_lists_every_key_with_exactly_its_default() {
    let (result, catalogue) =
        parse_with_catalogue(&reference_uncommented(|_| true), "standin.toml", std::iter::empty());
    let unknown: Vec<_> = result.err().into_iter().flat_map(|errors| errors.0).map(|error| error.to_string()).collect();
    let unknown: Vec<_> =
        unknown.iter().filter(|error| !error.contains("cannot read") && !error.contains("not set")).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
    let keys = reference_keys();
    for (key, default) in &catalogue {
        if key == "group.name" {
            continue;
        }
        let values = keys.get(key).unwrap_or_else(|| panic!("config/standin.toml does not list {key}"));
        for (value, default) in values.iter().zip(default.iter().cycle()) {
            assert_eq!(
                same_value(value),
                same_value(default),
                "{key}: the reference is on the left, the code on the right"
            );
        }
    }
    let strangers: Vec<_> = keys.keys().filter(|key| !catalogue.contains_key(*key)).collect();
    assert!(strangers.is_empty(), "the code does not know {strangers:?}");
}

/// "300s" and "5m" are one duration.
fn same_value(text: &str) -> String {
    match units::parse_duration(text.trim_matches('"')) {
        Ok(duration) => format!("{duration:?}"),
        Err(_) => text.to_owned(),
    }
}

#[test]
fn the_reference_is_itself_a_configuration_with_nothing_but_defaults() {
    let as_it_is = parsed(REFERENCE);
    assert_eq!(as_it_is, parsed(MINIMAL));
    let catalogue = parse_with_catalogue(REFERENCE, "standin.toml", std::iter::empty()).1;
    let has_default = |line: &str| {
        let key = line.split(" = ").next().unwrap_or_default();
        // Keys of the optional tables would end up in the table before them.
        catalogue.iter().any(|(path, default)| default.is_some() && path.ends_with(&format!(".{key}")))
            && !line.starts_with('[')
            && !["address", "cert", "key", "ca", "insecure_skip_verify"].contains(&key)
    };
    assert_eq!(parsed(&reference_uncommented(has_default)), as_it_is);
}

#[test]
fn the_effective_configuration_shows_every_key() {
    let text = MINIMAL
        .replace("[control]", "[[listen.users]]\nname = \"u\"\npassword = \"p\"\n[control]")
        .replace("127.0.0.1:6390", "rediss://127.0.0.1:6390");
    let text = format!("{text}[observe]\naddress = \"127.0.0.1:9181\"\n");
    let (config, catalogue) = parse_with_catalogue(&text, "standin.toml", std::iter::empty());
    let described = describe_effective(&config.unwrap());
    for key in catalogue.keys().filter(|key| !key.starts_with("listen.tls")) {
        let mut parts = key.split('.');
        let first = parts.next().unwrap();
        let of_process = ["control", "observe", "workers", "drain", "state", "log"].contains(&first);
        let start = if of_process { &described[first] } else { &described["group"][0][first] };
        let mut place = start;
        // The second backend has TLS, the first user is the only one.
        for part in parts {
            place = place.as_array().and_then(|items| items.last()).unwrap_or(place);
            place = place.get(part).unwrap_or_else(|| panic!("{key} is not shown"));
        }
    }
}

/// Rows of the documentation's key tables: path to default.
fn documented_keys() -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    let mut table = None;
    for line in include_str!("../../../docs/configuration.md").lines() {
        if line.starts_with('#') {
            let name = line.strip_prefix("### `[").and_then(|rest| rest.strip_suffix("]`"));
            table = name.map(|name| name.trim_matches(['[', ']']).to_owned());
        }
        let cells: Vec<_> = line.split(" | ").collect();
        if let (Some(table), [key, default, _]) = (&table, cells.as_slice())
            && let Some(key) = key.strip_prefix("| `").and_then(|key| key.strip_suffix('`'))
        {
            keys.insert(format!("{table}.{key}"), default.trim_matches('`').to_owned());
        }
    }
    keys
}

#[test]
fn the_documentation_lists_every_key_with_exactly_its_default() {
    let catalogue = parse_with_catalogue(&reference_uncommented(|_| true), "standin.toml", std::iter::empty()).1;
    let documented = documented_keys();
    for (key, default) in catalogue.iter().filter(|(key, _)| *key != "group.name") {
        let shown = documented.get(key).unwrap_or_else(|| panic!("docs/configuration.md does not list {key}"));
        match default {
            Some(default) => assert_eq!(same_value(shown), same_value(default), "{key}"),
            None => assert!(["required", "none"].contains(&shown.as_str()), "{key} has no default: {shown}"),
        }
    }
    let strangers: Vec<_> = documented.keys().filter(|key| !catalogue.contains_key(*key)).collect();
    assert!(strangers.is_empty(), "the code does not know {strangers:?}");
}

#[test]
fn the_documentations_examples_are_configurations() {
    let documentation = include_str!("../../../docs/configuration.md");
    let examples: Vec<_> =
        documentation.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 2);
    for example in examples {
        parsed(example);
    }
}
