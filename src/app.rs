//! Builds everything once from the configuration, spawns it, and takes it down again.
//!
//! Sockets are bound before anything is built on them, so that a taken port is the first thing that is said. The data
//! plane has its own threads; the control plane has the calling one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AdminState};
use crate::backend::{self, Address, Backend, Depth, Lane, LinkSettings, Login, Target, Timing};
use crate::client::{self, Denied, GroupSetup, Listener, Registry, Settings, User, WorkerSetup, run_worker};
use crate::command::Category;
use crate::config::{self, BackendAddress, Config, RetryCeiling};
use crate::control::{self, GroupControlSetup, Surroundings, api};
use crate::divergence::{Record, Scripts};
use crate::embedded::{Store, StoreOptions};
use crate::limits;
use crate::policy::BackendId;
use crate::resp::{FrameLimits, Protocol};
use crate::route::{ClientCounts, Group};
use crate::telemetry::events::{Event, EventKind, History};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;

/// Client connections on their way to one worker.
const INBOX_MAX: usize = 1024;
/// While draining, how often it is looked whether the last client has gone.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// After the last client has left, the control plane may take so long to put down what it has learnt.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT, and then until the clients have gone or `drain.timeout` has passed.
///
/// # Errors
/// When a socket cannot be bound or a thread cannot be started. Nothing is served then.
pub fn run(mut config: Config) -> anyhow::Result<()> {
    let descriptors = client::raise_descriptor_limit();
    let clients_max = client::clients_within(descriptors, config.groups.len());
    for group in config.groups.iter_mut().filter(|group| group.listen.clients_max > clients_max) {
        let (group, given) = (&group.name, std::mem::replace(&mut group.listen.clients_max, clients_max));
        tracing::info!(
            group,
            descriptors,
            "the limit of open files allows {clients_max} clients instead of {given}; raise it (ulimit -n, LimitNOFILE=)"
        );
    }
    let bound = Bound::bind(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(serve(config, bound))
}

/// Every socket of the process.
struct Bound {
    groups: Vec<Listener>,
    control: std::net::TcpListener,
    observe: Option<std::net::TcpListener>,
}

impl Bound {
    fn bind(config: &Config) -> anyhow::Result<Self> {
        let mut groups = Vec::new();
        for group in &config.groups {
            let listener = Listener::bind(&group.listen.address);
            let listener =
                listener.with_context(|| format!("group {}: cannot listen on {}", group.name, group.listen.address));
            groups.push(listener?);
        }
        let control = bind_tcp(config.control.address).context("the control port")?;
        let observe = config.observe.as_ref().map(|observe| bind_tcp(observe.address).context("the observe port"));
        Ok(Self { groups, control, observe: observe.transpose()? })
    }
}

fn bind_tcp(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(config: Config, bound: Bound) -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let readiness = Readiness::waiting_for(config.groups.len());
    let history = Arc::new(History::default());
    let metrics = Metrics::new()?;
    let seed = process_seed();
    // Which connections of a server are ours, and not another Standin's.
    let client_name = format!("standin-{:08x}", seed as u32);

    let workers = config.workers.count;
    let (senders, inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(INBOX_MAX)).unzip();
    let clients = ClientCounts::new(config.groups.len());
    let registry = Registry::new(Arc::clone(&clients), senders.clone());
    let mut setups = Vec::new();
    let mut controls = Vec::new();
    let state_directory = control::usable_directory(config.state.directory.clone());
    for (index, (group, listener)) in config.groups.iter().zip(&bound.groups).enumerate() {
        let state = state_directory.clone();
        let (setup, control) = build_group(index, group, workers, seed, &client_name, &listener.describe(), state)?;
        setups.push(setup);
        controls.push(control);
        tracing::info!(group = group.name, address = listener.describe(), "listening");
    }
    let mut threads = Vec::new();
    for (index, inbox) in inboxes.into_iter().enumerate() {
        let setup = WorkerSetup {
            index,
            groups: setups.clone(),
            registry: Arc::clone(&registry),
            inbox,
            stop: stop.clone(),
            seed: seed.rotate_left(index as u32 + 1),
        };
        let thread = std::thread::Builder::new().name(format!("worker-{index}"));
        threads.push(thread.spawn(move || run_worker(setup)).context("cannot start a worker")?);
    }
    let (handle, requests) = api::channel(Arc::clone(&history));
    let surroundings = Surroundings {
        history: Arc::clone(&history),
        metrics: metrics.clone(),
        clients,
        readiness: readiness.clone(),
        stop: stop.clone(),
    };
    let control = tokio::task::spawn_local(control::run(controls, surroundings, requests, readiness.clone()));
    for (index, listener) in bound.groups.into_iter().enumerate() {
        let accepting = client::listen(listener, index, senders.clone(), Arc::clone(&registry), stop.clone());
        tokio::task::spawn_local(accepting);
    }
    start_admin(&config, bound.control, bound.observe, handle, &metrics, &readiness, &stop).await?;
    tokio::task::spawn_local(upkeep(metrics));
    readiness.set_ready();

    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    drain(&config, &registry, &readiness, &history).await;
    stop.cancel();
    // It keeps what it has learnt; a disk that hangs must not hold us.
    let _ = tokio::time::timeout(LAST_WORDS, control).await;
    for thread in threads {
        match thread.join() {
            Ok(result) => result.context("a worker failed")?,
            Err(_) => anyhow::bail!("a worker panicked"),
        }
    }
    history.record(Event::new(EventKind::Stopped, "stopped"));
    for group in &config.groups {
        if let config::ListenAddress::Unix(path) = &group.listen.address {
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(())
}

/// The application beside us may still be shutting down: it is served until it has gone, or for `drain.timeout`.
async fn drain(config: &Config, registry: &Registry, readiness: &Readiness, history: &History) {
    readiness.set_draining();
    let clients = registry.len();
    let message =
        format!("asked to stop; {clients} clients are served until they leave, at most {:?}", config.drain.timeout);
    history.record(Event::new(EventKind::Drain, message));
    let began = Instant::now();
    while !registry.is_empty() && began.elapsed() < config.drain.timeout {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}

async fn start_admin(
    config: &Config,
    control: std::net::TcpListener,
    observe: Option<std::net::TcpListener>,
    handle: api::Handle,
    metrics: &Metrics,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let token: Option<Arc<SecretString>> = match &config.control.token {
        Some(secret) => Some(Arc::new(secret.fetch().await.context("control.token")?)),
        None => None,
    };
    let state = AdminState { control: handle, metrics: metrics.clone(), readiness: readiness.clone(), token };
    tracing::info!(address = %control.local_addr()?, "control port");
    let listener = tokio::net::TcpListener::from_std(control)?;
    tokio::task::spawn_local(admin::serve(listener, admin::router(state.clone()), stop.clone()));
    if let Some(observe) = observe {
        tracing::info!(address = %observe.local_addr()?, "observe port");
        let listener = tokio::net::TcpListener::from_std(observe)?;
        tokio::task::spawn_local(admin::serve(listener, admin::observe_router(state), stop.clone()));
    }
    Ok(())
}

async fn upkeep(metrics: Metrics) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        metrics.upkeep();
    }
}

/// Differs between processes; spreads probes and backoff, and names our connections.
fn process_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}

fn build_group(
    index: usize,
    config: &config::Group,
    workers: usize,
    seed: u64,
    client_name: &str,
    listen: &str,
    state: Option<std::path::PathBuf>,
) -> anyhow::Result<(GroupSetup, GroupControlSetup)> {
    let timing = timing(config);
    let mut backends = Vec::new();
    for (id, backend) in config.backends.iter().enumerate() {
        let target = target(config, backend)?;
        let id = BackendId(id as u8);
        let (name, client_name) = (backend.name.clone(), client_name.to_owned());
        backends.push(Arc::new(Backend::new(id, name, client_name, target, timing.clone(), workers)));
    }
    let doubts_scripts = config.divergence.scripts == config::DivergenceScripts::Unknown;
    let record = |_| Record::new(config.divergence.record_bytes).doubting_scripts(doubts_scripts);
    let records = backends.iter().map(record).collect();
    let (group, publisher) = Group::new(index, config.name.clone(), backends, records, config.mirror.buffer, workers);
    let (edges, edge_reports) = mpsc::channel(limits::EDGE_QUEUE_MAX);
    let scripts = Arc::new(Scripts::default());
    let tls = config.listen.tls.as_ref().map(client::acceptor);
    if let Some(tls) = &tls {
        tls().with_context(|| format!("group {}: listen.tls", config.name))?;
    }
    let control = control::group_setup(
        config,
        publisher,
        Arc::clone(&scripts),
        edge_reports,
        seed ^ (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15),
        client_name.to_owned(),
        listen.to_owned(),
        state,
    );
    Ok((GroupSetup { group, settings: Arc::new(settings(config)), scripts, tls, edges }, control))
}

fn timing(config: &config::Group) -> Timing {
    Timing {
        connect: config.timeout.connect,
        handshake: config.timeout.handshake,
        request: config.timeout.request,
        floor: config.timeout.floor,
        slow: config.timeout.slow,
        tcp_user_timeout: config.timeout.tcp_user_timeout,
        tcp_keepalive: config.timeout.tcp_keepalive,
        reconnect_min: config.links.reconnect_min,
        reconnect_max: config.links.reconnect_max,
    }
}

fn target(group: &config::Group, backend: &config::Backend) -> anyhow::Result<Target> {
    let address = match &backend.address {
        BackendAddress::Tcp { host, port } => Address::Tcp { host: host.clone(), port: *port },
        BackendAddress::Unix(path) => Address::Unix(path.clone()),
        BackendAddress::Embedded => Address::Embedded(Store::new(StoreOptions {
            max_memory_bytes: group.embedded.memory,
            allow_locks_and_counters: group.embedded.locks_and_counters,
            ..StoreOptions::default()
        })),
    };
    let tls = match (&backend.tls, &backend.address) {
        (Some(tls), BackendAddress::Tcp { host, .. }) => {
            Some(backend::tls::client(tls, host).with_context(|| format!("backend {}", backend.name))?)
        }
        _ => None,
    };
    let login = Login { username: backend.username.clone(), password: backend.password.clone(), is_clients: false };
    Ok(Target { address, tls, login, database: backend.database })
}

fn settings(config: &config::Group) -> Settings {
    let listen = &config.listen;
    let mut users = Vec::new();
    let mut logins = vec![Login::default()];
    if let Some(password) = &listen.password {
        users.push(User { name: "default".to_owned(), password: password.clone(), login: 0 });
    }
    for user in &listen.users {
        let login = Login {
            username: user.backend_username.clone(),
            password: user.backend_password.clone(),
            is_clients: false,
        };
        logins.push(login);
        users.push(User { name: user.name.clone(), password: user.password.clone(), login: logins.len() as u16 - 1 });
    }
    let prefix = &config.divergence.mark_prefix;
    let denied = listen.deny.iter().map(|denied| match &denied.subcommand {
        Some(subcommand) => format!("{}|{subcommand}", denied.command),
        None => denied.command.clone(),
    });
    Settings {
        frame_limits: FrameLimits {
            arguments_max: listen.elements_max,
            bulk_bytes_max: listen.bulk_bytes_max,
            request_bytes_max: listen.frame_bytes_max,
            ..FrameLimits::default()
        },
        login_frame_limits: FrameLimits {
            arguments_max: limits::LOGIN_ARGUMENTS_MAX.min(listen.elements_max),
            bulk_bytes_max: limits::LOGIN_BULK_BYTES_MAX.min(listen.bulk_bytes_max),
            request_bytes_max: listen.frame_bytes_max,
            ..FrameLimits::default()
        },
        clients_max: listen.clients_max,
        output_limit_bytes: listen.output_limit,
        output_pause_bytes: listen.output_pause,
        in_flight_max: listen.in_flight_max,
        idle_timeout: listen.idle_timeout,
        frame_timeout: listen.frame_timeout,
        tcp_keepalive: listen.tcp_keepalive,
        users,
        requires_login: listen.password.is_some(),
        logins,
        denied: Denied::new(denied.collect()),
        own_keys: vec![format!("{prefix}{}:", config.name), format!("{prefix}owners"), format!("{prefix}groups")],
        incident_key: format!("{prefix}{}:incident", config.name),
        links: link_settings(config),
        retry_percent: config.retry.budget_percent,
        retry_floor_per_second: f64::from(config.retry.budget_floor_per_second),
        pinned_max: config.pinned.max,
        pinned_idle: config.pinned.idle,
        request_timeout: config.timeout.request,
    }
}

fn link_settings(config: &config::Group) -> LinkSettings {
    LinkSettings {
        in_flight_max: config.links.in_flight_max,
        bytes_max: config.links.bytes_max,
        frame_limits: FrameLimits {
            depth_max: config.links.reply_depth_max,
            reply_elements_max: config.links.reply_elements_max,
            ..FrameLimits::default()
        },
        ceiling: match config.retry.ceiling {
            RetryCeiling::Read => Category::Read,
            RetryCeiling::LastWriteWins => Category::LastWriteWins,
            RetryCeiling::Checked => Category::Checked,
            RetryCeiling::Accumulating => Category::Accumulating,
        },
        attempts_max: u8::try_from(config.retry.attempts.saturating_sub(1)).unwrap_or(u8::MAX),
        backoff_min_us: config.retry.backoff_min.as_micros() as u64,
        backoff_max_us: config.retry.backoff_max.as_micros() as u64,
    }
}

/// Tries every backend once, for `standin check --connect`: who it is, and what would stand in the way of serving from it.
pub fn check_connect(config: &Config) -> Vec<api::CheckLine> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let text = format!("no runtime: {error}");
            return vec![api::CheckLine { backend: "-".to_owned(), ok: false, text, mend: None }];
        }
    };
    let mut lines = Vec::new();
    for group in &config.groups {
        let mut servers: Vec<(String, &config::Backend)> = Vec::new();
        for backend in &group.backends {
            let name =
                if config.groups.len() > 1 { format!("{}/{}", group.name, backend.name) } else { backend.name.clone() };
            let (found, run_id) = runtime.block_on(check_backend(group, backend, &name));
            lines.extend(found);
            let is_twin =
                |(other, twin): &&(String, &config::Backend)| *other == run_id && twin.database == backend.database;
            if let Some((_, twin)) = servers.iter().find(is_twin) {
                let text = format!("it is the same server as backend {}", twin.name);
                let mend = Some(format!("point backend {name} at a server of its own"));
                lines.push(api::CheckLine { backend: name, ok: false, text, mend });
            }
            if !run_id.is_empty() {
                servers.push((run_id, backend));
            }
        }
    }
    lines
}

/// What was found, and the run id of the server; empty where it did not tell.
async fn check_backend(group: &config::Group, config: &config::Backend, name: &str) -> (Vec<api::CheckLine>, String) {
    let line = |ok, text: String, mend: Option<String>| api::CheckLine { backend: name.to_owned(), ok, text, mend };
    if config.address == BackendAddress::Embedded {
        return (vec![line(true, "the in-process store, always there".to_owned(), None)], String::new());
    }
    let target = match target(group, config) {
        Ok(target) => target,
        Err(error) => return (vec![line(false, format!("{error:#}"), None)], String::new()),
    };
    let login = target.login.clone();
    let backend = Backend::new(BackendId(0), config.name.clone(), "standin-check".to_owned(), target, timing(group), 0);
    let lane = Lane { database: 0, protocol: Protocol::Resp2, user: 0 };
    let mut ready = match backend::connect(&backend, lane, &login, Depth::Whole).await {
        Ok(ready) => ready,
        Err(error) => {
            let mend = format!("see that a server listens on {} and lets this user in", backend.target.describe());
            let text = format!("{}: {error}", backend.target.describe());
            return (vec![line(false, text, Some(mend))], String::new());
        }
    };
    let identity = ready.identity.clone();
    let role = if identity.is_replica { "replica" } else { "master" };
    let mut lines = vec![line(
        true,
        format!("{} answers: version {}, role {role}", backend.target.describe(), identity.version),
        None,
    )];
    lines.extend(
        control::content_findings(&mut ready.conversation, config, group, &identity)
            .await
            .into_iter()
            .map(|(ok, text, mend)| line(ok, text, mend)),
    );
    (lines, identity.run_id)
}
