//! What single keys cannot say: values against each other, files and secrets that must be readable, loops.

use std::collections::BTreeMap;
use std::path::Path;

use super::collide::{loops_to, same_listener, same_server};
use super::schema::*;
use super::secret::Secret;
use super::section::{Reader, variable_word};
use crate::limits;

/// Notes everything that is wrong. `grouped`: the file has `[[group]]` tables, which the paths of its keys begin with.
pub(super) fn validate(config: &Config, grouped: bool, reader: &Reader) {
    let path_of = |index: usize| if grouped { format!("group[{index}].") } else { String::new() };
    let names = config.groups.iter().enumerate().map(|(at, group)| (format!("{}name", path_of(at)), &group.name));
    check_names(names.filter(|_| grouped), "groups", reader);
    for (index, group) in config.groups.iter().enumerate() {
        Checker { reader, path: path_of(index) }.group(group);
    }
    check_listeners(config, &path_of, reader);
    let process = Checker { reader, path: String::new() };
    process.control(&config.control);
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&config.log.level) {
        process.fail("log.level", format!("this is no log filter: {error}; write \"info\" or \"info,standin=debug\""));
    }
}

/// Checks of one group, or of the process's own tables.
struct Checker<'r> {
    reader: &'r Reader,
    /// Begins the keys: empty, or `group[0].`.
    path: String,
}

impl Checker<'_> {
    fn fail(&self, key: &str, message: impl Into<String>) {
        self.reader.fail(&format!("{}{key}", self.path), message);
    }

    fn failed(&self, key: &str) -> bool {
        self.reader.failed(&format!("{}{key}", self.path))
    }

    fn group(&self, group: &Group) {
        self.listen(&group.listen);
        self.backends(&group.backends);
        for (index, backend) in group.backends.iter().enumerate() {
            self.backend(&format!("backend[{index}]"), backend);
        }
        self.times(group);
        self.replication(group);
        if !plain_key_part(&group.divergence.mark_prefix) {
            let message = "this begins the keys on the servers; write letters, digits and `:-_.` alone, 64 at most";
            self.fail("divergence.mark_prefix", message);
        }
    }

    fn listen(&self, listen: &Listen) {
        if listen.output_pause >= listen.output_limit {
            self.fail(
                "listen.output_pause",
                "reading stops here and the client is closed at `listen.output_limit`; write a smaller size",
            );
        }
        if listen.bulk_bytes_max >= listen.frame_bytes_max {
            self.fail(
                "listen.bulk_bytes_max",
                "one argument would not fit `listen.frame_bytes_max`; write a smaller size here or a larger one there",
            );
        }
        self.secret("listen.password", listen.password.as_ref());
        if let ListenAddress::Unix(path) = &listen.address
            && !path.parent().is_some_and(Path::is_dir)
        {
            self.fail("listen.address", format!("the directory of {} does not exist; create it", path.display()));
        }
        if let Some(tls) = &listen.tls {
            self.pem("listen.tls.cert", Some(&tls.cert), "CERTIFICATE-----");
            self.pem("listen.tls.key", Some(&tls.key), "PRIVATE KEY-----");
            self.pem("listen.tls.client_ca", tls.client_ca.as_ref(), "CERTIFICATE-----");
        }
        let mut seen = BTreeMap::new();
        for (index, user) in listen.users.iter().enumerate() {
            let path = format!("listen.users[{index}]");
            if let Some(first) = seen.insert(&user.name, index) {
                self.fail(
                    &format!("{path}.name"),
                    format!("listen.users[{first}] has this name too; rename one of them"),
                );
            }
            if user.name == "default" && listen.password.is_some() {
                self.fail(
                    &format!("{path}.name"),
                    "`listen.password` is the password of `default` already; remove one of them",
                );
            }
            self.secret(&format!("{path}.password"), Some(&user.password));
            self.secret(&format!("{path}.backend_password"), user.backend_password.as_ref());
            if user.backend_username.is_some() && user.backend_password.is_none() {
                self.fail(
                    &format!("{path}.backend_username"),
                    "a backend user needs its password; give `backend_password`",
                );
            }
        }
    }

    fn backends(&self, backends: &[Backend]) {
        if backends.is_empty() && !self.failed("backend") {
            self.fail(
                "backend",
                format!("there is no backend; add [[{}backend]] with name, role and address", self.table_path()),
            );
            return;
        }
        if backends.len() > limits::BACKENDS_PER_GROUP_MAX {
            self.fail(
                "backend",
                format!("these are more than {} backends; remove some", limits::BACKENDS_PER_GROUP_MAX),
            );
        }
        let names = backends.iter().enumerate();
        let names = names.map(|(index, backend)| (format!("{}backend[{index}].name", self.path), &backend.name));
        check_names(names, "backends", self.reader);
        let primaries: Vec<_> = backends.iter().enumerate().filter(|(_, b)| b.role == Role::Primary).collect();
        let any_role_wrong = (0..backends.len()).any(|index| self.failed(&format!("backend[{index}].role")));
        if primaries.is_empty() && !any_role_wrong && !backends.is_empty() {
            self.fail(
                "backend",
                "none of the backends is the primary; write role = \"primary\" at the one that serves normally",
            );
        }
        for (index, backend) in primaries.iter().skip(1) {
            let first = &primaries[0].1.name;
            let message = format!(
                "\"{first}\" is the primary already; write role = \"backup\" at all but one, here at \"{}\"",
                backend.name
            );
            self.fail(&format!("backend[{index}].role"), message);
        }
        for (index, backend) in backends.iter().enumerate() {
            let twin = backends[..index].iter().find(|other| same_server(other, backend));
            if let Some(twin) = twin.filter(|_| !self.failed(&format!("backend[{index}].address"))) {
                let message = format!(
                    "this is the server and database of \"{}\"; a server is no backup of itself: give another address",
                    twin.name
                );
                self.fail(&format!("backend[{index}].address"), message);
            }
        }
    }

    fn backend(&self, path: &str, backend: &Backend) {
        let key = |name: &str| format!("{path}.{name}");
        self.secret(&key("password"), backend.password.as_ref());
        if backend.username.is_some() && backend.password.is_none() && !self.failed(&key("password")) {
            self.fail(&key("username"), "a user needs a password; give `password`, or remove the user");
        }
        if backend.role == Role::Primary && backend.data != DataMode::Cold {
            self.fail(&key("data"), "this says how a backup follows the primary; remove it from the primary");
        }
        if let Some(tls) = &backend.tls {
            self.pem(&key("tls.ca"), tls.ca.as_ref(), "CERTIFICATE-----");
            self.pem(&key("tls.cert"), tls.cert.as_ref(), "CERTIFICATE-----");
            self.pem(&key("tls.key"), tls.key.as_ref(), "PRIVATE KEY-----");
            if tls.cert.is_some() != tls.key.is_some() {
                self.fail(&key("tls"), "a client certificate is `cert` and `key` together; give both or neither");
            }
            if tls.insecure_skip_verify && (tls.ca.is_some() || tls.server_name.is_some()) {
                let message =
                    "with this nothing is verified, and `ca` and `server_name` mean nothing; remove it or them";
                self.fail(&key("tls.insecure_skip_verify"), message);
            }
        }
        match &backend.address {
            BackendAddress::Tcp { .. } => {}
            BackendAddress::Unix(_) if backend.tls.is_some() => {
                self.fail(&key("tls"), "a Unix socket has no TLS; remove this table");
            }
            BackendAddress::Unix(_) => {}
            BackendAddress::Embedded => self.embedded(path, backend),
        }
    }

    /// The in-process store has no users, databases or disk: keys that would say otherwise have no effect.
    fn embedded(&self, path: &str, backend: &Backend) {
        for (name, given) in [
            ("username", backend.username.is_some()),
            ("password", backend.password.is_some()),
            ("database", backend.database != 0),
            ("data", backend.data != DataMode::Cold),
            ("persistent", backend.persistent),
            ("replication_address", backend.replication_address.is_some()),
            ("tls", backend.tls.is_some()),
        ] {
            if given {
                self.fail(&format!("{path}.{name}"), "this means nothing for the embedded store; remove it");
            }
        }
    }

    /// A server that is told to follow another must be able to reach it.
    fn replication(&self, group: &Group) {
        let replicas = group.backends.iter().any(|backend| backend.data == DataMode::Replica);
        for (index, backend) in group.backends.iter().enumerate() {
            let follows = backend.role == Role::Primary || backend.data == DataMode::Replica;
            let is_unreachable =
                matches!(backend.address, BackendAddress::Unix(_)) && backend.replication_address.is_none();
            if replicas && group.replica.promote && follows && is_unreachable {
                let message = "with `replica.promote` the other servers are told to follow this one, and cannot by a Unix \
                               socket; give `replication_address`, a \"host:port\"";
                self.fail(&format!("backend[{index}].address"), message);
            }
        }
    }

    /// `(smaller, larger, why)`: what must not be the other way round.
    fn times(&self, group: &Group) {
        let (timeout, retry, recovery) = (&group.timeout, &group.retry, &group.recovery);
        let whole_life = "is the whole life of a request; write a shorter time here or a longer one there";
        for (key, small, other, large, why) in [
            ("timeout.floor", timeout.floor, "timeout.request", timeout.request, whole_life),
            ("timeout.connect", timeout.connect, "timeout.request", timeout.request, whole_life),
            ("timeout.handshake", timeout.handshake, "timeout.request", timeout.request, whole_life),
            ("failover.hold", group.failover.hold, "timeout.request", timeout.request, whole_life),
            ("retry.backoff_max", retry.backoff_max, "timeout.request", timeout.request, whole_life),
            (
                "timeout.request",
                timeout.request,
                "timeout.slow",
                timeout.slow,
                "is the allowance of slow commands, which none may be less than; write a longer time there",
            ),
            (
                "retry.backoff_min",
                retry.backoff_min,
                "retry.backoff_max",
                retry.backoff_max,
                "is the longest pause; write a shorter time here",
            ),
            (
                "links.reconnect_min",
                group.links.reconnect_min,
                "links.reconnect_max",
                group.links.reconnect_max,
                "is the longest pause; write a shorter time here",
            ),
            (
                "recovery.delay",
                recovery.delay,
                "recovery.delay_max",
                recovery.delay_max,
                "bounds it; write a shorter time here or a longer one there",
            ),
        ] {
            if small > large && !self.failed(key) && !self.failed(other) {
                self.fail(key, format!("this is longer than `{other}`, which {why}"));
            }
        }
    }

    fn control(&self, control: &Control) {
        self.secret("control.token", control.token.as_ref());
        if !control.address.ip().to_canonical().is_loopback()
            && control.token.is_none()
            && !self.failed("control.token")
        {
            let message = "whoever reaches this port can switch backends; give `control.token`, or listen on \
                           127.0.0.1 and open [observe] for metrics";
            self.fail("control.address", message);
        }
    }

    fn secret(&self, key: &str, secret: Option<&Secret>) {
        if let Some(Err(error)) = secret.filter(|_| !self.failed(key)).map(Secret::read) {
            self.fail(key, error.to_string());
        }
    }

    fn pem(&self, key: &str, path: Option<&std::path::PathBuf>, label: &str) {
        let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else { return };
        match std::fs::read_to_string(path) {
            Ok(text) if text.contains("-----BEGIN") && text.contains(label) => {}
            Ok(_) => {
                let what = if label.starts_with("CERT") { "certificate" } else { "private key" };
                self.fail(key, format!("{} holds no PEM {what}; name the file that does", path.display()));
            }
            Err(error) => {
                self.fail(key, format!("cannot read {}: {error}; check the path and who may read it", path.display()));
            }
        }
    }

    /// `group.` for a group's tables, as they are written in brackets.
    fn table_path(&self) -> &'static str {
        if self.path.is_empty() { "" } else { "group." }
    }
}

/// Names are unique and plain: they are labels of metrics, parts of keys on the servers and of variables' names.
fn check_names<'a>(names: impl Iterator<Item = (String, &'a String)>, what: &str, reader: &Reader) {
    let mut seen = BTreeMap::<String, (String, &String)>::new();
    for (path, name) in names.filter(|(path, _)| !reader.failed(path)) {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !plain || name.len() > 63 {
            let message = format!("\"{name}\" is no name; write letters, digits and `-_.` alone, 63 at most");
            reader.fail(&path, message);
            continue;
        }
        if let Some((first_path, first)) = seen.get(&variable_word(name)) {
            let message = if *first == name {
                format!("{first_path} is \"{name}\" too; rename one of the {what}")
            } else {
                format!("\"{name}\" and \"{first}\" would share their environment variables; rename one of the {what}")
            };
            reader.fail(&path, message);
        } else {
            seen.insert(variable_word(name), (path, name));
        }
    }
}

/// Every listener against every other, and against every backend.
fn check_listeners(config: &Config, path_of: &dyn Fn(usize) -> String, reader: &Reader) {
    let mut listeners: Vec<(String, ListenAddress)> = Vec::new();
    for (index, group) in config.groups.iter().enumerate() {
        listeners.push((format!("{}listen.address", path_of(index)), group.listen.address.clone()));
    }
    listeners.push(("control.address".to_owned(), ListenAddress::Tcp(config.control.address)));
    if let Some(observe) = &config.observe {
        listeners.push(("observe.address".to_owned(), ListenAddress::Tcp(observe.address)));
    }
    listeners.retain(|(path, _)| !reader.failed(path));
    for (index, (path, address)) in listeners.iter().enumerate() {
        if let Some((first, _)) = listeners[..index].iter().find(|(_, other)| same_listener(other, address)) {
            reader.fail(path, format!("`{first}` listens on {address} already; give one of them another port"));
        }
    }
    for (at, group) in config.groups.iter().enumerate() {
        for (index, backend) in group.backends.iter().enumerate() {
            let path = format!("{}backend[{index}].address", path_of(at));
            let target = listeners.iter().find(|(_, listener)| loops_to(&backend.address, listener));
            if let Some((listener, _)) = target.filter(|_| !reader.failed(&path)) {
                let message = format!(
                    "this is where Standin itself listens (`{listener}`), and requests would go round for ever; \
                     give the cache server's own address"
                );
                reader.fail(&path, message);
            }
        }
    }
}

fn plain_key_part(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.".contains(&byte))
}
