//! A file and the environment to a [`Config`], or to everything that is wrong with them.

use std::path::Path;

use toml::de::DeTable;

use super::error::{ConfigError, ConfigErrors, Origin};
use super::read;
use super::schema::{Config, Group};
use super::section::{Catalogue, Reader, Section};
use super::validate::validate;
use super::value::Variables;

/// Longest configuration file; a larger one is some other file.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The command line reads this one: where the file is.
const PATH_VARIABLE: &str = "STANDIN_CONFIG";

/// Reads a file, then what `STANDIN_*` variables override, then checks the whole. All errors come at once.
///
/// Secrets are read once to see that they can be: `exec:` commands run, for up to 5 s each.
pub fn load(path: &Path, environment: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigErrors> {
    let name = path.display().to_string();
    let refused = |message: String| {
        let origin = Origin::File { name: name.clone(), line: None };
        ConfigErrors(vec![ConfigError { origin, key: String::new(), message }])
    };
    let length = std::fs::metadata(path).map(|metadata| metadata.len());
    if length.is_ok_and(|length| length > FILE_BYTES_MAX) {
        return Err(refused("this file is larger than 4 MiB, which no configuration is; check the path".to_owned()));
    }
    match std::fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => parse(&text, &name, environment),
        Ok(Err(_)) => Err(refused("this file is not UTF-8 text; save it as UTF-8".to_owned())),
        Err(error) => Err(refused(format!("cannot read this file: {error}; check the path and who may read it"))),
    }
}

/// As [`load`], from a text; `file_name` is for the errors alone.
pub fn parse(
    text: &str,
    file_name: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigErrors> {
    parse_with_catalogue(text, file_name, environment).0
}

/// The process's environment for [`load`]. Variables that are not UTF-8 are left out: no key could hold them.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// As [`parse`], with the keys that the code knows: what the documentation is held against.
pub(super) fn parse_with_catalogue(
    text: &str,
    file_name: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> (Result<Config, ConfigErrors>, Catalogue) {
    let mut variables: Variables = environment.collect();
    variables.remove(PATH_VARIABLE);
    let reader = Reader::new(file_name, text, variables);
    let (table, mistakes) = DeTable::parse_recoverable(text);
    for mistake in &mistakes {
        let message = format!("this is not TOML: {}; correct it by hand", mistake.message().trim_end_matches('.'));
        reader.fail_at(mistake.span().map(|span| span.start), "", message);
    }
    // What a broken file seems to say is no ground for further errors.
    let config = mistakes.is_empty().then(|| read_config(&reader, reader.root(table.get_ref())));
    if let Some(config) = &config {
        let grouped = table.get_ref().contains_key("group");
        validate(config, grouped, &reader);
        reader.refuse_unknown_variables();
    }
    let (errors, catalogue) = reader.finish();
    let result = match config {
        Some(config) if errors.is_empty() => Ok(config),
        _ => Err(ConfigErrors(errors)),
    };
    (result, catalogue)
}

fn read_config(reader: &Reader, root: Section<'_>) -> Config {
    let mut groups = Vec::new();
    let group_sections = root.tables("group");
    if !root.has("group") {
        groups.push(read_group("default".to_owned(), &root, |key| root.table(key)));
    } else {
        refuse_mixture(reader, &root);
    }
    for section in group_sections {
        let name = section.required("name").unwrap_or_default();
        groups.push(read_group(name, &section, |key| section.table(key).over(root.table(key))));
        section.finish();
    }
    let config = Config {
        groups,
        control: read::control(root.table("control")),
        observe: root.table_if_present("observe", &["address"]).and_then(read::observe),
        workers: read::workers(root.table("workers")),
        drain: read::drain(root.table("drain")),
        state: read::state(root.table("state")),
        log: read::log(root.table("log")),
    };
    root.finish();
    config
}

/// `own` holds the group's listener and backends; `policy` finds a policy table for it.
fn read_group<'r>(name: String, own: &Section<'r>, policy: impl Fn(&'static str) -> Section<'r>) -> Group {
    let failover = read::failover(policy("failover"));
    let profile = failover.profile;
    let backends: Vec<_> = own.tables("backend").into_iter().map(read::backend).collect();
    Group {
        name,
        listen: read::listen(own.table("listen")),
        backends,
        timeout: read::timeout(policy("timeout"), profile),
        retry: read::retry(policy("retry")),
        links: read::links(policy("links")),
        pinned: read::pinned(policy("pinned")),
        health_check: read::health_check(policy("health_check"), profile),
        initialization: read::initialization(policy("initialization")),
        health: read::health(policy("health")),
        failover,
        recovery: read::recovery(policy("recovery")),
        divergence: read::divergence(policy("divergence")),
        mirror: read::mirror(policy("mirror")),
        replica: read::replica(policy("replica")),
        sampling: read::sampling(policy("sampling")),
        objectives: read::objectives(policy("objectives")),
        embedded: read::embedded(policy("embedded")),
    }
}

fn refuse_mixture(reader: &Reader, root: &Section<'_>) {
    for (key, own) in [("listen", "[group.listen]"), ("backend", "[[group.backend]]")] {
        if root.set_aside(key) {
            let message = format!("with [[group]] in the file this belongs to one of the groups; write it as {own}");
            reader.fail(key, message);
        }
    }
}
