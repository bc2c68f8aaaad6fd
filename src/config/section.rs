//! Walks the tables of a file. Whoever asks a [`Section`] for a key thereby makes it known: what nobody asked for is
//! unknown, and is refused with the nearest known name. So the names stand in one place, beside the fields they fill.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use super::value::{Value, Variables};

/// Begins every variable that overrides a key.
pub(super) const PREFIX: &str = "STANDIN_";

/// Every key that was asked for, by its path, with its default as TOML; None for keys that have none.
pub(super) type Catalogue = BTreeMap<String, Option<String>>;

/// One reading of one file: collects what is wrong, where each key stands and which variables were used.
pub(super) struct Reader {
    file: String,
    line_ends: Vec<usize>,
    variables: Variables,
    notes: RefCell<Notes>,
}

#[derive(Default)]
struct Notes {
    errors: BTreeSet<ConfigError>,
    /// Paths at which an error was noted: what depends on their value is not checked.
    failed: BTreeSet<String>,
    origins: BTreeMap<String, Origin>,
    known_variables: BTreeSet<String>,
    catalogue: Catalogue,
}

/// One table of the file, or several of which the first that has a key wins: a group's own, then the top-level one.
pub(super) struct Section<'r> {
    reader: &'r Reader,
    /// Never empty.
    layers: Vec<Layer<'r>>,
    asked: RefCell<BTreeSet<&'static str>>,
}

#[derive(Clone)]
struct Layer<'r> {
    table: Option<&'r DeTable<'r>>,
    path: String,
    /// Begins the names of the variables that override this table's keys.
    prefix: String,
}

impl Reader {
    pub(super) fn new(file: &str, text: &str, variables: Variables) -> Self {
        let line_ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        Self { file: file.to_owned(), line_ends, variables, notes: RefCell::default() }
    }

    pub(super) fn root<'r>(&'r self, table: &'r DeTable<'r>) -> Section<'r> {
        let layer = Layer { table: Some(table), path: String::new(), prefix: PREFIX.to_owned() };
        Section { reader: self, layers: vec![layer], asked: RefCell::default() }
    }

    /// Notes an error at a byte of the file.
    pub(super) fn fail_at(&self, at: Option<usize>, path: &str, message: impl Into<String>) {
        let line = at.map(|at| self.line_ends.partition_point(|end| *end < at) + 1);
        self.note(Origin::File { name: self.file.clone(), line }, path, message.into());
    }

    /// Notes an error at a key, or at the table around it when the key is not written.
    pub(super) fn fail(&self, path: &str, message: impl Into<String>) {
        let mut place = path;
        let origin = loop {
            if let Some(origin) = self.notes.borrow().origins.get(place) {
                break origin.clone();
            }
            match place.rfind(['.', '[']) {
                Some(end) => place = &place[..end],
                None => break Origin::File { name: self.file.clone(), line: None },
            }
        };
        self.note(origin, path, message.into());
    }

    /// Whether an error was noted at this key, so that what follows from its value says nothing new.
    pub(super) fn failed(&self, path: &str) -> bool {
        self.notes.borrow().failed.contains(path)
    }

    /// Refuses the variables that override nothing. Called once all keys were asked for.
    pub(super) fn refuse_unknown_variables(&self) {
        for (name, value) in &self.variables {
            let notes = self.notes.borrow();
            if !name.starts_with(PREFIX) || notes.known_variables.contains(name) || not_ours(name, value) {
                continue;
            }
            let nearest = nearest(name, notes.known_variables.iter().map(String::as_str));
            drop(notes);
            let message = match nearest {
                Some(nearest) => format!("no key has this name; did you mean {nearest}?"),
                None => {
                    "no key has this name; unset it, or see docs/configuration.md for how names are made".to_owned()
                }
            };
            self.note(Origin::Variable(name.clone()), "", message);
        }
    }

    /// The errors in the order of the file, the environment's last; and every key that was asked for, with its default.
    pub(super) fn finish(self) -> (Vec<ConfigError>, Catalogue) {
        let notes = self.notes.into_inner();
        (notes.errors.into_iter().collect(), notes.catalogue)
    }

    fn note(&self, origin: Origin, path: &str, message: String) {
        let mut notes = self.notes.borrow_mut();
        notes.failed.insert(path.to_owned());
        notes.errors.insert(ConfigError { origin, key: path.to_owned(), message });
    }

    fn notes(&self) -> RefMut<'_, Notes> {
        self.notes.borrow_mut()
    }

    fn origin(&self, at: usize) -> Origin {
        Origin::File { name: self.file.clone(), line: Some(self.line_ends.partition_point(|end| *end < at) + 1) }
    }
}

impl<'r> Section<'r> {
    pub(super) fn reader(&self) -> &'r Reader {
        self.reader
    }

    /// The path of a key of this table.
    pub(super) fn path_of(&self, key: &str) -> String {
        joined(&self.layers[0].path, key)
    }

    /// The key's value, or its default.
    pub(super) fn take<T: Value>(&self, key: &'static str, default: T) -> T {
        self.remember(key, Some(default.show()));
        self.look_up(key, |_| Ok(())).unwrap_or(default)
    }

    /// As [`Section::take`], with both bounds allowed.
    pub(super) fn take_within<T>(&self, key: &'static str, default: T, least: T, most: T) -> T
    where
        T: Value + PartialOrd,
    {
        self.remember(key, Some(default.show()));
        let within = |value: &T| match *value >= least && *value <= most {
            true => Ok(()),
            false => Err(format!("{} is out of range; write {} to {}", value.show(), least.show(), most.show())),
        };
        self.look_up(key, within).unwrap_or(default)
    }

    /// A key that may be absent and then means what the documentation says.
    pub(super) fn optional<T: Value>(&self, key: &'static str) -> Option<T> {
        self.remember(key, None);
        self.look_up(key, |_| Ok(()))
    }

    /// A key without a default. None has been noted as an error.
    pub(super) fn required<T: Value>(&self, key: &'static str) -> Option<T> {
        self.remember(key, None);
        let value = self.look_up(key, |_| Ok(()));
        let path = self.path_of(key);
        if value.is_none() && !self.reader.failed(&path) {
            self.reader.fail(&path, format!("this key is missing; give it {}", T::kind()));
        }
        value
    }

    /// A table within this one, present or not.
    pub(super) fn table(&self, key: &'static str) -> Section<'r> {
        self.asked.borrow_mut().insert(key);
        let layers = self.layers.iter().map(|layer| self.inner(layer, key)).collect();
        Section { reader: self.reader, layers, asked: RefCell::default() }
    }

    /// A table within this one whose presence means something. A variable for one of `keys` makes it present too; a
    /// common beginning of names would not do: a backend `a-tls` has variables that begin like those of `a`'s `tls`.
    pub(super) fn table_if_present(&self, key: &'static str, keys: &[&'static str]) -> Option<Section<'r>> {
        let section = self.table(key);
        let present =
            section.layers.iter().any(|layer| layer.table.is_some()) || keys.iter().any(|key| section.has(key));
        // Also of an absent table the names are known, for the sentence about a misspelt variable.
        for key in keys {
            let name = format!("{}{}", section.layers[0].prefix, variable_word(key));
            self.reader.notes().known_variables.insert(name);
        }
        present.then_some(section)
    }

    /// This section over another that gives what it lacks: a group's policy tables over the top-level ones.
    pub(super) fn over(mut self, base: Section<'r>) -> Section<'r> {
        self.layers.extend(base.layers);
        self
    }

    /// The tables of `[[key]]`, of the first layer alone. Their variables carry the name that each table gives itself.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Section<'r>> {
        self.asked.borrow_mut().insert(key);
        let layer = &self.layers[0];
        let Some(value) = layer.table.and_then(|table| table.get(key)) else { return Vec::new() };
        let path = joined(&layer.path, key);
        let items = value.get_ref().as_array().map(|items| items.iter().collect::<Vec<_>>()).unwrap_or_default();
        let start = items.first().map_or(value.span().start, |first| first.span().start);
        self.reader.notes().origins.insert(path.clone(), self.reader.origin(start));
        if items.is_empty() || items.iter().any(|item| !item.get_ref().is_table()) {
            let message = format!("this is a list of tables; begin each of them with [[{path}]]");
            self.reader.fail_at(Some(value.span().start), &path, message);
        }
        let tables =
            items.into_iter().enumerate().filter_map(|(at, item)| Some((at, item, item.get_ref().as_table()?)));
        let mut sections = Vec::new();
        for (index, item, table) in tables {
            let path = format!("{path}[{index}]");
            self.reader.notes().origins.insert(path.clone(), self.reader.origin(item.span().start));
            let name = table.get("name").and_then(|name| name.get_ref().as_str()).unwrap_or_default();
            let prefix = format!("{}{}_{}_", layer.prefix, variable_word(key), variable_word(name));
            let layer = Layer { table: Some(table), path, prefix };
            sections.push(Section { reader: self.reader, layers: vec![layer], asked: RefCell::default() });
        }
        sections
    }

    /// Whether the file or the environment has this key of this table.
    pub(super) fn has(&self, key: &str) -> bool {
        self.layers.iter().any(|layer| {
            layer.table.is_some_and(|table| table.contains_key(key))
                || self.reader.variables.contains_key(&format!("{}{}", layer.prefix, variable_word(key)))
        })
    }

    /// Marks a key as known without reading it. Gives whether it is there.
    pub(super) fn set_aside(&self, key: &'static str) -> bool {
        self.asked.borrow_mut().insert(key);
        let value = self.layers[0].table.and_then(|table| table.get(key));
        if let Some(value) = value {
            self.reader.notes().origins.insert(self.path_of(key), self.reader.origin(value.span().start));
        }
        value.is_some()
    }

    /// Refuses every key that was not asked for. Called once all have been.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for layer in &self.layers {
            for (key, _) in layer.table.into_iter().flat_map(|table| table.iter()) {
                let name = key.get_ref().as_ref();
                if asked.contains(name) {
                    continue;
                }
                let message = match nearest(name, asked.iter().copied()) {
                    Some(nearest) => format!("this key is not known; did you mean `{nearest}`?"),
                    None => "this key is not known; remove it, or see docs/configuration.md for the names".to_owned(),
                };
                self.reader.fail_at(Some(key.span().start), &joined(&layer.path, name), message);
            }
        }
    }

    fn inner(&self, layer: &Layer<'r>, key: &'static str) -> Layer<'r> {
        let path = joined(&layer.path, key);
        let value = layer.table.and_then(|table| table.get(key));
        if let Some(value) = value {
            self.reader.notes().origins.insert(path.clone(), self.reader.origin(value.span().start));
            if !value.get_ref().is_table() {
                let message = format!("this is a table; write its keys under [{path}]");
                self.reader.fail_at(Some(value.span().start), &path, message);
            }
        }
        let table = value.and_then(|value| value.get_ref().as_table());
        Layer { table, path, prefix: format!("{}{}_", layer.prefix, variable_word(key)) }
    }

    fn remember(&self, key: &'static str, default: Option<String>) {
        self.asked.borrow_mut().insert(key);
        let last = &self.layers[self.layers.len() - 1];
        self.reader.notes().catalogue.insert(without_indices(&joined(&last.path, key)), default);
    }

    /// The first layer that has the key wins; within a layer, the variable wins. None for an error, which is noted.
    fn look_up<T: Value>(&self, key: &'static str, check: impl Fn(&T) -> Result<(), String>) -> Option<T> {
        let own_path = self.path_of(key);
        let names: Vec<_> = self.layers.iter().map(|layer| format!("{}{}", layer.prefix, variable_word(key))).collect();
        self.reader.notes().known_variables.extend(names.iter().cloned());
        for (layer, name) in self.layers.iter().zip(names) {
            let (origin, value) = if let Some(text) = self.reader.variables.get(&name) {
                (Origin::Variable(name), T::from_text(text, &self.reader.variables))
            } else if let Some(value) = layer.table.and_then(|table| table.get(key)) {
                (self.reader.origin(value.span().start), self.read(value))
            } else {
                continue;
            };
            self.reader.notes().origins.insert(own_path.clone(), origin.clone());
            if let Some(named) = value.as_ref().ok().and_then(Value::variable) {
                self.reader.notes().known_variables.insert(named.to_owned());
            }
            return match value.and_then(|value: T| check(&value).map(|()| value)) {
                Ok(value) => Some(value),
                Err(message) => {
                    self.reader.notes().failed.insert(own_path);
                    self.reader.note(origin, &joined(&layer.path, key), message);
                    None
                }
            };
        }
        None
    }

    fn read<T: Value>(&self, value: &Spanned<DeValue<'_>>) -> Result<T, String> {
        T::from_toml(value.get_ref(), &self.reader.variables)
    }
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// `backend[1].tls.ca` as `backend.tls.ca`: the key as the documentation has it.
fn without_indices(path: &str) -> String {
    path.split('.').map(|part| part.split('[').next().unwrap_or(part)).collect::<Vec<_>>().join(".")
}

/// A key or a name as a part of a variable's name.
pub(super) fn variable_word(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// Variables that Kubernetes sets in every pod for a Service named `standin` or `standin-...`: they would otherwise
/// keep every pod from starting as soon as such a Service exists.
fn not_ours(name: &str, value: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.contains("_PORT") && (value.starts_with("tcp://") || value.starts_with("udp://")))
        || ["_TCP_PROTO", "_TCP_PORT", "_TCP_ADDR", "_UDP_PROTO", "_UDP_PORT", "_UDP_ADDR"]
            .iter()
            .any(|end| name.ends_with(end) && name.contains("_PORT_"))
}

/// The known name with the fewest edits, if they are few for its length.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let rated = known.map(|candidate| (edits(name, candidate), candidate));
    let (distance, best) = rated.min()?;
    (distance <= 2.max(name.len() / 3)).then(|| best.to_owned())
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
