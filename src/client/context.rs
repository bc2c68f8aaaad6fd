//! One group as one worker serves it: its links, its pool of pinned connections, and what happens when the route moves.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use foldhash::fast::RandomState;
use secrecy::ExposeSecret as _;
use tokio::sync::mpsc;

use super::crowd::Crowd;
use super::reads::Reads;
use super::registry::Registry;
use super::session::Session;
use super::settings::Settings;
use super::worker::GroupSetup;
use crate::backend::{self, Entry, Host, Lane, Link, Owner as _, RetryBudget, State, clock, flag};
use crate::command;
use crate::divergence::{Acknowledged, Lease, Scripts, Source, note_write};
use crate::limits;
use crate::policy::{BackendId, Edge};
use crate::route::{Availability, Barrier, EdgeReport, Group, Route};
use crate::telemetry::wall_time::WallTime;

/// A request whose slow predecessor may block its link is given another link after this long.
const SPILL_AFTER_US: u64 = 50_000;
/// The same behind a reply that is still coming: it is known to take long by then, and not only able to.
const SPILL_BEHIND_REPLY_AFTER_US: u64 = 10_000;

/// Of a route, what is asked for with every run of requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) recording: u32,
    pub(super) mirroring: u32,
    pub(super) reading: u32,
    /// Two backends serve.
    pub(super) is_split: bool,
}

/// The active backend's links are found by what a session needs of them.
type LinkKey = (BackendId, Lane);

/// See the head of this file.
pub(super) struct Context {
    pub(super) group: Arc<Group>,
    pub(super) settings: Arc<Settings>,
    pub(super) worker: usize,
    pub(super) registry: Arc<Registry>,
    pub(super) crowd: Arc<Crowd>,
    pub(super) scripts: Arc<Scripts>,
    route: RefCell<Cache<Arc<ArcSwap<Route>>, Arc<Route>>>,
    links: RefCell<HashMap<LinkKey, Rc<Link<Session>>, RandomState>>,
    /// Links that take no new requests, until their last reply has come.
    retired: RefCell<Vec<Rc<Link<Session>>>>,
    /// Pinned connections that no session owns now, with the time since when.
    pool: RefCell<Vec<(u64, Rc<Link<Session>>)>>,
    /// Connections that are being set up, and count as clients meanwhile.
    pub(super) opening: Cell<usize>,
    pub(super) sessions: RefCell<HashMap<u64, Session, RandomState>>,
    /// Sessions whose next write must first be told to the server that serves, see `ahead`.
    pub(super) waiting_for_copy: RefCell<Vec<Session>>,
    /// While two backends serve: sessions whose next request waits for its slots, sessions to which replies came in the
    /// present turn, leases of sessions that are no more, and whether all this is looked at regularly.
    pub(super) waiting_for_home: RefCell<Vec<Session>>,
    pub(super) answered_with_leases: RefCell<Vec<Session>>,
    pub(super) leases_left: RefCell<Vec<Lease>>,
    pub(super) looks_at_homes: Cell<bool>,
    /// Names what this process writes ahead.
    pub(super) process: String,
    /// Logins that clients gave and the server accepted; lanes number them behind the configured ones.
    passed_logins: RefCell<Vec<backend::Login>>,
    link_settings: Rc<backend::LinkSettings>,
    budget: Rc<RetryBudget>,
    edges: mpsc::Sender<EdgeReport>,
    /// Edges that did not fit into the queue; the periodic summaries make up for them.
    edges_dropped: Cell<u64>,
    random: Cell<u64>,
    holding_since_us: Cell<u64>,
    /// Writes that were acknowledged in the present turn of a link, on their way to the mirrors.
    acknowledged: RefCell<Acknowledged>,
    /// Backends that were mirrored at any time, as bits: what was sent then may be answered later.
    mirrored: Cell<u32>,
    /// Those of the route before.
    mirrored_before: Cell<u32>,
    pub(super) reads: Reads,
    pub(super) myself: Weak<Self>,
}

/// What the groups of one worker share.
#[derive(Clone)]
pub(super) struct Here {
    pub(super) worker: usize,
    pub(super) registry: Arc<Registry>,
    pub(super) crowd: Arc<Crowd>,
    pub(super) seed: u64,
}

impl Context {
    pub(super) fn new(setup: &GroupSetup, here: &Here) -> Rc<Self> {
        let GroupSetup { group, settings, scripts, edges, tls: _ } = setup.clone();
        let Here { worker, registry, crowd, seed } = here.clone();
        Rc::new_cyclic(|myself| Self {
            route: RefCell::new(Cache::new(group.route_cell())),
            process: group.backends.first().map_or_else(String::new, |backend| backend.client_name.clone()),
            group,
            link_settings: Rc::new(settings.links.clone()),
            budget: Rc::new(RetryBudget::new(settings.retry_percent, settings.retry_floor_per_second)),
            settings,
            worker,
            registry,
            crowd,
            scripts,
            links: RefCell::default(),
            retired: RefCell::default(),
            pool: RefCell::default(),
            opening: Cell::new(0),
            sessions: RefCell::default(),
            waiting_for_copy: RefCell::default(),
            waiting_for_home: RefCell::default(),
            answered_with_leases: RefCell::default(),
            leases_left: RefCell::default(),
            looks_at_homes: Cell::new(false),
            passed_logins: RefCell::default(),
            edges,
            edges_dropped: Cell::new(0),
            random: Cell::new(seed | 1),
            holding_since_us: Cell::new(clock::micros()),
            acknowledged: RefCell::default(),
            mirrored: Cell::new(0),
            mirrored_before: Cell::new(0),
            reads: Reads::default(),
            myself: myself.clone(),
        })
    }

    /// The route as it is now; under a nanosecond when it has not changed.
    pub(super) fn route(&self) -> Arc<Route> {
        Arc::clone(self.route.borrow_mut().load())
    }

    /// Active backend, availability, records and mirrors to keep, without touching a reference count.
    pub(super) fn route_facts(&self) -> (BackendId, Availability, Facts) {
        let mut cache = self.route.borrow_mut();
        let route = cache.load();
        let &Route { active, availability, recording, mirroring, reading, ref split, .. } = &**route;
        let is_split = split.is_some();
        (active, availability, Facts { recording, mirroring, reading, is_split })
    }

    /// Whether CLIENT PAUSE holds requests back: one of them at the head of a shared link would hold back even those of
    /// other clients that the server still serves, CLIENT UNPAUSE among them, so each client takes its own connection.
    pub(super) fn is_paused(&self, active: BackendId, now_us: u64) -> bool {
        self.group.backend(active).is_paused(now_us)
    }

    /// How long requests have been held, in microseconds; 0 while the worker has not noticed a hold that has just begun.
    pub(super) fn held_for_us(&self, now_us: u64) -> u64 {
        match self.holding_since_us.get() {
            0 => 0,
            since_us => now_us.saturating_sub(since_us),
        }
    }

    /// The multiplexed link of a lane on the active backend; made when there is none.
    pub(super) fn link(&self, active: BackendId, lane: Lane) -> Rc<Link<Session>> {
        let key = (active, lane);
        if let Some(link) = self.links.borrow().get(&key)
            && link.accepts()
        {
            return Rc::clone(link);
        }
        self.open_link(active, lane)
    }

    fn open_link(&self, active: BackendId, lane: Lane) -> Rc<Link<Session>> {
        if self.links.borrow().len() >= limits::LANES_MAX {
            self.close_oldest_idle_lane();
        }
        let link = self.spawn_link(active, lane, None);
        self.links.borrow_mut().insert((active, lane), Rc::clone(&link));
        link
    }

    /// Links that nothing waits for and that have been so since `before_us`, the longest first; never that of database 0,
    /// by which most clients are served and by whose end a dead server shows.
    fn idle_lanes(&self, before_us: u64) -> Vec<Rc<Link<Session>>> {
        let is_idle = |link: &&Rc<Link<Session>>| {
            let is_base = link.lane.database == 0 && link.lane.user == 0;
            !is_base && link.state() == State::Ready && link.in_flight() == 0 && link.last_progress_us() <= before_us
        };
        let mut idle: Vec<_> = self.links.borrow().values().filter(is_idle).map(Rc::clone).collect();
        idle.sort_by_key(|link| link.last_progress_us());
        idle
    }

    fn close_oldest_idle_lane(&self) {
        if let Some(link) = self.idle_lanes(u64::MAX).first() {
            self.close_lane(link);
        }
    }

    fn close_lane(&self, link: &Rc<Link<Session>>) {
        self.links.borrow_mut().remove(&(link.backend.id, link.lane));
        let _ = link.abort();
    }

    /// A link beside one whose head is a script or other slow command, or a reply of many megabytes: what comes new need
    /// not queue behind it, and `SCRIPT KILL` or the server's `-BUSY` find their way. The old one ends when its last
    /// reply has come; only so many may be left at a time.
    pub(super) fn spill(&self, link: &Rc<Link<Session>>, now_us: u64) -> Rc<Link<Session>> {
        let must_leave = is_held_up(link, now_us) || link.may_overtake_the_lost();
        if !must_leave || self.retired.borrow().len() >= limits::RETIRED_LINKS_MAX {
            return Rc::clone(link);
        }
        link.retire();
        self.retired.borrow_mut().push(Rc::clone(link));
        self.open_link(link.backend.id, link.lane)
    }

    fn spawn_link(&self, backend: BackendId, lane: Lane, owner: Option<Session>) -> Rc<Link<Session>> {
        let host: Rc<dyn Host<Session>> = self.myself.upgrade().expect("a context outlives every call on itself");
        self.group.note_database(lane.database);
        if owner.is_some() {
            self.group.backend(backend).pinned_open.fetch_add(1, Ordering::Relaxed);
        }
        let link = Link::new(
            Arc::clone(self.group.backend(backend)),
            lane,
            self.worker,
            owner,
            Rc::clone(&self.link_settings),
            Rc::clone(&self.budget),
            host,
        );
        let login = self.login(backend, lane.user);
        tokio::task::spawn_local(backend::run(Rc::clone(&link), login));
        link
    }

    /// Whom a lane logs in as: its user's own backend login, or that of the backend.
    pub(super) fn login(&self, backend: BackendId, user: u16) -> backend::Login {
        let configured = &self.settings.logins;
        let passed = self.passed_logins.borrow();
        let login = match usize::from(user).checked_sub(configured.len()) {
            None => configured.get(usize::from(user)),
            Some(at) => passed.get(at),
        };
        match login {
            Some(login) if login.password.is_some() => login.clone(),
            _ => self.group.backend(backend).target.login.clone(),
        }
    }

    /// The number, for lanes, of a login that a client gave and the server accepted; `None` when there are too many.
    pub(super) fn remember_login(&self, login: backend::Login, password: &str) -> Option<u16> {
        let mut passed = self.passed_logins.borrow_mut();
        let base = self.settings.logins.len();
        let is_same = |known: &backend::Login| {
            let secret = known.password.as_ref().and_then(|secret| secret.read().ok());
            known.username == login.username && secret.is_some_and(|secret| secret.expose_secret() == password)
        };
        if let Some(at) = passed.iter().position(is_same) {
            return u16::try_from(base + at).ok();
        }
        if passed.len() >= limits::PASSED_LOGINS_MAX {
            return None;
        }
        passed.push(login);
        u16::try_from(base + passed.len() - 1).ok()
    }

    /// A connection of the session's own: from the pool, or new. `None` when the bound is reached.
    pub(super) fn pin(&self, active: BackendId, lane: Lane, owner: Session) -> Option<Rc<Link<Session>>> {
        let mut pool = self.pool.borrow_mut();
        let fits = |link: &Rc<Link<Session>>| {
            let is_of_lane = link.backend.id == active && link.lane == lane;
            is_of_lane && link.state() == State::Ready && !link.may_overtake_the_lost()
        };
        if let Some(at) = pool.iter().rposition(|(_, link)| fits(link)) {
            let (_, link) = pool.swap_remove(at);
            link.set_owner(Some(owner));
            return Some(link);
        }
        if self.group.backend(active).pinned_open.load(Ordering::Relaxed) >= self.settings.pinned_max {
            // One that nobody uses makes way.
            let oldest = (0..pool.len()).min_by_key(|at| pool[*at].0)?;
            let (_, idle) = pool.swap_remove(oldest);
            let _ = idle.abort();
        }
        drop(pool);
        Some(self.spawn_link(active, lane, Some(owner)))
    }

    /// A connection to the backend that is about to serve, beside the session's own; `None` when the bound is reached there.
    pub(super) fn second(&self, to: BackendId, lane: Lane, owner: Session) -> Option<Rc<Link<Session>>> {
        let is_full = self.group.backend(to).pinned_open.load(Ordering::Relaxed) >= self.settings.pinned_max;
        (!is_full).then(|| self.spawn_link(to, lane, Some(owner)))
    }

    /// Takes a connection back that no session needs any more. One whose state is not that of its lane is closed.
    pub(super) fn unpin(&self, link: Rc<Link<Session>>, is_pristine: bool) {
        link.set_owner(None);
        let (active, ..) = self.route_facts();
        if is_pristine && link.state() == State::Ready && link.in_flight() == 0 && link.backend.id == active {
            self.pool.borrow_mut().push((clock::micros(), link));
        } else {
            let _ = link.abort();
        }
    }

    /// Acts by a new route: requests on links of other backends move, sessions that waited go on.
    pub(super) fn route_changed(&self) {
        let route = self.route();
        if route.split.is_some() {
            self.look_at_homes();
        }
        self.keep_in_step(&route);
        if route.availability == Availability::Holding {
            if self.holding_since_us.get() == 0 {
                self.holding_since_us.set(clock::micros());
            }
            self.end_hold_in_time(route.version);
        } else {
            self.holding_since_us.set(0);
            self.leave_others(&route);
        }
        self.group.acknowledge(self.worker, route.version);
        for session in self.sessions.borrow().values() {
            session.route_changed(route.active);
        }
    }

    /// Every link of this worker, its clients' own among them.
    fn all_links(&self) -> Vec<Rc<Link<Session>>> {
        let shared = self.links.borrow().values().cloned().collect::<Vec<_>>();
        let retired = self.retired.borrow().clone();
        let sessions = self.sessions.borrow();
        let owned = sessions.values().filter_map(|session| session.owned.borrow().clone());
        shared.into_iter().chain(retired).chain(owned).collect()
    }

    /// What is on its way when a mirror opens is mirrored too; what is on its way when a mirrored backend is about to serve
    /// enters its record.
    fn keep_in_step(&self, route: &Route) {
        let opened = route.mirroring & !self.mirrored_before.replace(route.mirroring);
        self.mirrored.set(self.mirrored.get() | route.mirroring);
        self.reads.want(route.reading);
        if opened == 0 && route.doubting == 0 {
            return;
        }
        let links = self.all_links();
        if opened != 0 {
            links.iter().for_each(|link| link.mirror_all());
        }
        if route.doubting == 0 {
            return;
        }
        for link in links.iter().filter(|link| route.serves(link.backend.id)) {
            // What a server executes, it has not missed.
            let records = self.group.records_of(route.doubting & !(1 << link.backend.id.index()));
            link.each_write_in_flight(|bytes| {
                note_write(records.clone(), link.lane.database, command::of_request(bytes), bytes);
            });
        }
        // On connections of clients' own: those are to the active.
        let records = self.group.records_of(route.doubting & !(1 << route.active.index()));
        for session in self.sessions.borrow().values() {
            for (database, request) in session.in_doubt.borrow().iter() {
                note_write(records.clone(), *database, command::of_request(request), request);
            }
        }
    }

    /// Backends whose mirrors are to hear of what the active acknowledges, as bits.
    fn mirrored_now(&self) -> u32 {
        self.mirrored.get() & !(1 << self.route_facts().0.index())
    }

    /// Backends whose mirrors are to hear of what was acknowledged by this one: of two that serve, the other.
    fn mirrored_beside(&self, id: BackendId) -> u32 {
        if self.route_facts().2.is_split { self.mirrored.get() & !(1 << id.index()) } else { self.mirrored_now() }
    }

    /// Whether a mirrored write is on its way that was sent until then.
    pub(super) fn has_mirrored_since(&self, at_us: u64, barrier: Barrier) -> bool {
        let is_on_its_way = |link: &Rc<Link<Session>>| link.has_mirrored_since(at_us);
        match barrier {
            Barrier::AllLinks => self.all_links().iter().any(is_on_its_way),
            Barrier::SharedLinks => {
                self.links.borrow().values().any(is_on_its_way) || self.retired.borrow().iter().any(is_on_its_way)
            }
        }
    }

    /// An entry that is sent again, so that the mirrors hear of it.
    pub(super) fn mirrored_entry(&self, mut entry: Entry<Session>, bytes: &[u8]) -> Entry<Session> {
        let is_flagged = entry.flags & (flag::ASIDE | flag::QUEUED) != 0;
        if self.route_facts().2.mirroring != 0 && !is_flagged && command::of_request(bytes).is_write() {
            entry.flags |= flag::MIRRORED;
        }
        entry
    }

    /// A transaction has been executed, or may have been: its writes are copied.
    pub(super) fn mirror_values<'a>(&self, requests: impl Iterator<Item = (u32, &'a [u8])>) {
        let bits = self.mirrored_now();
        if bits == 0 {
            return;
        }
        for (database, request) in requests {
            let spec = command::of_request(request);
            if spec.is_write() {
                note_write(self.group.records_of(bits), database, spec, request);
            }
        }
    }

    /// Something was written that nobody can name.
    pub(super) fn forget_mirrored(&self, why: &str) {
        self.group.records_of(self.mirrored_now()).for_each(|record| record.become_unknown(why));
    }

    /// Nothing else may wake the sessions that wait, if nobody is entered at all: then their deadline must.
    fn end_hold_in_time(&self, version: u64) {
        let (myself, deadline) = (self.myself.clone(), self.settings.request_timeout);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(deadline).await;
            let Some(context) = myself.upgrade().filter(|context| context.route().version == version) else { return };
            for session in context.sessions.borrow().values() {
                session.wake();
            }
        });
    }

    fn leave_others(&self, route: &Route) {
        let active = route.active;
        let others: Vec<_> = self
            .links
            .borrow()
            .iter()
            .filter(|((id, _), _)| !route.serves(*id))
            .map(|(_, link)| Rc::clone(link))
            .collect();
        self.links.borrow_mut().retain(|(id, _), _| route.serves(*id));
        let retired =
            self.retired.borrow().iter().filter(|link| !route.serves(link.backend.id)).cloned().collect::<Vec<_>>();
        for link in others.into_iter().chain(retired) {
            for (entry, bytes) in link.abort() {
                self.reroute(&link, entry, &bytes);
            }
        }
        let idle: Vec<_> = {
            let mut pool = self.pool.borrow_mut();
            let (keep, leave) = pool.drain(..).partition(|(_, link)| link.backend.id == active);
            *pool = keep;
            leave
        };
        for (_, link) in idle {
            let _ = link.abort();
        }
    }

    /// Closes what has been idle for too long; called about once a second.
    pub(super) fn tidy(&self, now_us: u64) {
        self.wake_those_waiting_for_copy();
        self.release_leases();
        self.wake_those_waiting_for_home();
        let keep_us = self.settings.pinned_idle.as_micros() as u64;
        let mut leave = Vec::new();
        self.pool.borrow_mut().retain(|(since, link)| {
            let is_idle_too_long = now_us.saturating_sub(*since) >= keep_us;
            let keep = link.state() == State::Ready && !is_idle_too_long && !link.may_overtake_the_lost();
            if !keep {
                leave.push(Rc::clone(link));
            }
            keep
        });
        for link in leave {
            let _ = link.abort();
        }
        for link in self.idle_lanes(now_us.saturating_sub(keep_us)) {
            self.close_lane(&link);
        }
        // A hold that lasts longer than a request may live is answered with an error; nothing else would wake them.
        let held_too_long = self.route().availability == Availability::Holding
            && self.held_for_us(now_us) >= self.settings.request_timeout.as_micros() as u64;
        for session in self.sessions.borrow().values() {
            session.check_idle(now_us);
            if held_too_long {
                session.wake();
            }
        }
    }

    /// Ends every link of the group; for the end of the process.
    pub(super) fn close(&self) {
        for (_, link) in self.links.borrow_mut().drain() {
            let _ = link.abort();
        }
        for (_, link) in self.pool.borrow_mut().drain(..) {
            let _ = link.abort();
        }
    }

    /// The counters of the backend that serves now.
    pub(super) fn version(&self, active: BackendId) -> String {
        let backend = self.group.backend(active);
        let identity = backend.admitted();
        identity.map_or_else(|| "7.0.0".to_owned(), |identity| identity.version.clone())
    }
}

impl Host<Session> for Context {
    fn edge(&self, backend: BackendId, edge: Edge) {
        if self.edges.try_send(EdgeReport { backend, edge }).is_err() {
            self.edges_dropped.set(self.edges_dropped.get() + 1);
        }
    }

    fn reroute(&self, link: &Link<Session>, entry: Entry<Session>, bytes: &[u8]) {
        let route = self.route();
        if entry.flags & flag::DOUBTFUL != 0 && route.serves(link.backend.id) {
            return link.answer_doubtful(&entry);
        }
        // While two serve, what is on its way stays on its side.
        let to = if route.serves(link.backend.id) { link.backend.id } else { route.active };
        let target = self.link(to, link.lane);
        self.copy_resent(&entry.owner, &target, link.lane.database, bytes);
        target.push(self.mirrored_entry(entry, bytes), bytes);
    }

    fn overtake(&self, link: &Rc<Link<Session>>, now_us: u64) {
        let over = |waited: Option<u64>| waited.is_some_and(|waited| waited >= SPILL_AFTER_US);
        if !over(link.slow_head_for_us(now_us)) && !over(link.long_reply_for_us(now_us)) {
            return;
        }
        if link.accepts() && self.retired.borrow().len() >= limits::RETIRED_LINKS_MAX {
            return;
        }
        let reads = link.take_reads_behind_head();
        if reads.is_empty() {
            // A connection for nobody would only be one more that a blocked server does not answer.
            return;
        }
        if link.accepts() {
            let _ = self.spill(link, now_us);
        }
        for (entry, bytes) in reads {
            self.reroute(link, entry, &bytes);
        }
    }

    fn block_answered(&self, link: &Link<Session>, owner: &Session, bytes: &[u8], refused: bool) {
        Context::block_answered(self, link, owner, bytes, refused);
    }

    fn unknown_write(&self, link: &Link<Session>, bytes: &[u8]) {
        let bits = self.mirrored_beside(link.backend.id) | 1 << link.backend.id.index();
        note_write(self.group.records_of(bits), link.lane.database, command::of_request(bytes), bytes);
    }

    fn acknowledged(&self, link: &Link<Session>, entry: &Entry<Session>, bytes: &[u8], now_us: u64) {
        let mut batch = self.acknowledged.borrow_mut();
        let in_doubt = if link.pinned { entry.owner.in_doubt.take() } else { Vec::new() };
        if !in_doubt.is_empty() {
            // EXEC: its writes were queued in databases of their own. Entered before its reply is passed on, so that what
            // looks drained is.
            self.mirror_values(in_doubt.iter().map(|(database, request)| (*database, request.as_slice())));
        } else if link.pinned || entry.flags & flag::ABANDONED != 0 {
            if entry.flags & flag::ABANDONED != 0 && self.route_facts().2.is_split {
                // It comes late, and its keys may be at home on the other side by now: then they are copied from there.
                let record = std::iter::once(self.group.record(link.backend.id));
                note_write(record, link.lane.database, command::of_request(bytes), bytes);
            }
            batch.push_value(bytes);
        } else if entry.flags & flag::MIRRORED_AS_IT_IS != 0 {
            batch.push_as_it_is(bytes);
        } else {
            batch.push(bytes, WallTime::now().as_ms().saturating_sub(now_us.saturating_sub(entry.at_us) / 1_000));
        }
    }

    fn acknowledged_all(&self, link: &Link<Session>, now_us: u64) {
        let mut batch = self.acknowledged.borrow_mut();
        let source = Source { link: if link.pinned { 0 } else { link.number }, database: link.lane.database };
        for (mirror, record) in self.group.mirrors_of(self.mirrored_beside(link.backend.id)) {
            mirror.feed(record, source, &batch, now_us);
        }
        batch.clear();
    }

    fn turned(&self) {
        self.release_leases();
    }

    fn retired(&self, link: &Rc<Link<Session>>) {
        self.retired.borrow_mut().push(Rc::clone(link));
    }

    fn ended(&self, link: &Rc<Link<Session>>) {
        let key = (link.backend.id, link.lane);
        let is_current = self.links.borrow().get(&key).is_some_and(|current| Rc::ptr_eq(current, link));
        if is_current {
            self.links.borrow_mut().remove(&key);
        }
        self.retired.borrow_mut().retain(|other| !Rc::ptr_eq(other, link));
        if link.pinned {
            link.backend.pinned_open.fetch_sub(1, Ordering::Relaxed);
            self.pool.borrow_mut().retain(|(_, other)| !Rc::ptr_eq(other, link));
        }
        for (mirror, _) in self.group.mirrors_of(self.mirrored.get()) {
            mirror.forget_link(link.number);
        }
        let unsent = link.take_left();
        match link.owner() {
            Some(owner) => owner.pinned_ended(link, unsent),
            None => {
                for (entry, bytes) in unsent {
                    if !entry.owner.is_gone() {
                        self.reroute(link, entry, &bytes);
                    }
                }
            }
        }
    }

    fn jitter(&self) -> u64 {
        // xorshift64: spread, not secrecy.
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x
    }
}

/// Whether requests that join this link now would wait for one that has been at work for long.
fn is_held_up(link: &Link<Session>, now_us: u64) -> bool {
    link.long_reply_for_us(now_us).is_some_and(|coming| coming >= SPILL_BEHIND_REPLY_AFTER_US)
        || link.slow_head_for_us(now_us).is_some_and(|waited| waited >= SPILL_AFTER_US)
}
