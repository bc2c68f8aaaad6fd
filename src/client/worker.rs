//! A worker: one thread, one single-threaded runtime, its own links and sessions. Nothing on the path is shared.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::context::{Context, Here};
use super::crossing;
use super::crowd::Crowd;
use super::modes::State;
use super::registry::{ClientRecord, Registry, Shown};
use super::session::{Notice, Session};
use super::settings::Settings;
use super::task::{Exit, SessionTask};
use super::tunnel;
use crate::backend::{self, Io, clock};
use crate::divergence::Scripts;
use crate::limits;
use crate::route::{EdgeReport, Group};

/// How often a worker looks whether what was sent before a barrier is answered.
const BARRIER_LOOK: Duration = Duration::from_millis(1);

/// How the listener of a group takes TLS; read for each connection, so that new certificates serve the next client.
pub type TlsAcceptSource = Arc<dyn Fn() -> std::io::Result<Arc<rustls::ServerConfig>> + Send + Sync>;

/// An accepted connection on its way to a worker.
#[derive(Debug)]
pub enum Accepted {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

/// What a worker is told.
#[derive(Debug)]
pub enum WorkerCommand {
    /// A client of the group with this index.
    Client {
        group: usize,
        accepted: Accepted,
    },
    /// Look at this client: it was killed.
    Wake(u64),
    Unblock {
        client: u64,
        with_error: bool,
    },
    Told {
        client: u64,
        told: Told,
    },
}

/// What one client tells another about invalidation messages.
#[derive(Debug)]
pub enum Told {
    /// Those of the client with this id go to you: take a connection of your own.
    OwnConnection { tracker: u64 },
    /// Those of that client go elsewhere from now on, or nowhere.
    Released { tracker: u64 },
    /// The connection that yours went to is gone.
    RenewTracking,
    /// Some may have been lost.
    ForgetAll,
}

/// One group as the workers are given it.
#[derive(Clone)]
pub struct GroupSetup {
    pub group: Arc<Group>,
    pub settings: Arc<Settings>,
    pub scripts: Arc<Scripts>,
    pub tls: Option<TlsAcceptSource>,
    pub edges: mpsc::Sender<EdgeReport>,
}

/// Everything that a worker thread starts with.
pub struct WorkerSetup {
    pub index: usize,
    pub groups: Vec<GroupSetup>,
    pub registry: Arc<Registry>,
    pub inbox: mpsc::Receiver<WorkerCommand>,
    /// Ends the worker; clients that are still connected are cut off.
    pub stop: CancellationToken,
    pub seed: u64,
}

/// Runs a worker on the present thread until it is stopped.
///
/// # Errors
/// When the runtime cannot be made.
pub fn run_worker(setup: WorkerSetup) -> std::io::Result<()> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // One look at the sockets brings the work of one turn: with hundreds of ready sessions, looking more often would
    // only split the batches that share one write to the backend.
    builder.enable_all().event_interval(512).global_queue_interval(512);
    let crowd = Arc::new(Crowd::default());
    let (ending, beginning) = (Arc::clone(&crowd), Arc::clone(&crowd));
    builder.on_thread_park(move || {
        if let Some(pause) = ending.turn_ends(clock::micros()) {
            std::thread::sleep(pause);
            ending.has_paused(clock::micros());
        }
    });
    builder.on_thread_unpark(move || beginning.turn_begins(clock::micros()));
    let runtime = builder.build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(work(setup, crowd));
    Ok(())
}

async fn work(setup: WorkerSetup, crowd: Arc<Crowd>) {
    let WorkerSetup { index, groups, registry, mut inbox, stop, seed } = setup;
    let here = Here { worker: index, registry, crowd, seed };
    let contexts: Vec<Rc<Context>> = groups.iter().map(|setup| Context::new(setup, &here)).collect();
    for context in &contexts {
        tokio::task::spawn_local(follow_route(Rc::clone(context)));
        tokio::task::spawn_local(tidy(Rc::clone(context)));
        tokio::task::spawn_local(pass_barriers(Rc::clone(context)));
        tokio::task::spawn_local(crossing::lead_across(Rc::clone(context)));
    }
    let scratch = Rc::new(RefCell::new(vec![0u8; limits::READ_CHUNK_BYTES]));
    loop {
        let command = tokio::select! {
            command = inbox.recv() => command,
            () = stop.cancelled() => None,
        };
        match command {
            None => break,
            Some(WorkerCommand::Client { group, accepted }) => {
                let (context, scratch) = (Rc::clone(&contexts[group]), Rc::clone(&scratch));
                tokio::task::spawn_local(serve(context, accepted, groups[group].tls.clone(), scratch));
            }
            Some(WorkerCommand::Wake(client)) => {
                if let Some(session) = find(&contexts, client) {
                    session.wake();
                }
            }
            Some(WorkerCommand::Unblock { client, with_error }) => {
                if let Some(session) = find(&contexts, client) {
                    session.notify(Notice::Unblock { with_error });
                }
            }
            Some(WorkerCommand::Told { client, told }) => {
                if let Some(session) = find(&contexts, client) {
                    session.notify(Notice::Told(told));
                }
            }
        }
    }
    for context in &contexts {
        context.close();
    }
}

fn find(contexts: &[Rc<Context>], client: u64) -> Option<Session> {
    contexts.iter().find_map(|context| context.sessions.borrow().get(&client).cloned())
}

async fn follow_route(context: Rc<Context>) {
    let mut changes = context.group.subscribe();
    loop {
        changes.borrow_and_update();
        context.route_changed();
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Says of each barrier when nothing is in flight any more that was sent before it.
async fn pass_barriers(context: Rc<Context>) {
    let mut barriers = context.group.barriers();
    loop {
        let (number, barrier) = *barriers.borrow_and_update();
        let began_us = clock::micros();
        while context.has_mirrored_since(began_us, barrier) {
            tokio::time::sleep(BARRIER_LOOK).await;
        }
        context.group.pass_barrier(context.worker, number);
        if barriers.changed().await.is_err() {
            return;
        }
    }
}

async fn tidy(context: Rc<Context>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        context.tidy(clock::micros());
    }
}

/// One client from its connection to its end.
async fn serve(context: Rc<Context>, accepted: Accepted, tls: Option<TlsAcceptSource>, scratch: Rc<RefCell<Vec<u8>>>) {
    let settings = Arc::clone(&context.settings);
    let has_handshake = tls.is_some();
    let opening = context.opening.get();
    if has_handshake && context.registry.count(context.group.index) + opening >= settings.clients_max {
        // It could not be told without a handshake, and who does not finish one must not take up more than a client.
        return;
    }
    context.opening.set(opening + 1);
    let opened = open(accepted, tls, &settings).await;
    context.opening.set(context.opening.get() - 1);
    let (mut io, address, local_address) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(%error, "a client's connection could not be set up");
            return;
        }
    };
    if context.registry.count(context.group.index) >= settings.clients_max {
        use tokio::io::AsyncWriteExt as _;
        let _ = io.write_all(b"-ERR max number of clients reached\r\n").await;
        return;
    }
    let record = Arc::new(ClientRecord {
        id: context.registry.next_id(),
        group: context.group.index,
        worker: context.worker,
        address,
        local_address,
        since_us: clock::micros(),
        last_us: AtomicU64::new(clock::micros()),
        killed: AtomicBool::new(false),
        shown: Mutex::new(Shown { protocol: 2, user: "default".to_owned(), queued: -1, ..Shown::default() }),
    });
    context.registry.add(Arc::clone(&record));
    let id = record.id;
    let session = Session::new(Rc::clone(&context), record, io);
    context.sessions.borrow_mut().insert(id, session.clone());
    let task = SessionTask::new(session.clone(), State::new(!settings.requires_login));
    if let Exit::Tunnel { introduction, request, lane, backend } = task.run(&scratch).await {
        let io = session.io.borrow_mut().take();
        if let Some(io) = io {
            tokio::select! {
                () = tunnel::run(&context, io, &introduction, &request, lane, backend) => {}
                () = session.killed() => {}
            }
        }
    }
}

async fn open(
    accepted: Accepted,
    tls: Option<TlsAcceptSource>,
    settings: &Settings,
) -> std::io::Result<(Io, String, String)> {
    match accepted {
        Accepted::Unix(stream) => {
            let path = stream.local_addr()?.as_pathname().map(|path| path.display().to_string()).unwrap_or_default();
            let stream = UnixStream::from_std(stream)?;
            Ok((Io::Unix(stream), format!("{path}:0"), format!("{path}:0")))
        }
        Accepted::Tcp(stream, address) => {
            let local = stream.local_addr()?;
            stream.set_nodelay(true)?;
            if !settings.tcp_keepalive.is_zero() {
                let keepalive = socket2::TcpKeepalive::new().with_time(settings.tcp_keepalive);
                socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
            }
            let stream = TcpStream::from_std(stream)?;
            backend::spare_congestion_control(&stream);
            let io = match tls {
                None => Io::Tcp(stream),
                Some(source) => {
                    let acceptor = tokio_rustls::TlsAcceptor::from(source()?);
                    let bound = Duration::from_secs(10);
                    let stream = tokio::time::timeout(bound, acceptor.accept(stream))
                        .await
                        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
                    Io::TlsServer(Box::new(stream))
                }
            };
            Ok((io, address.to_string(), local.to_string()))
        }
    }
}
