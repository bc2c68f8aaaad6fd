//! Fills a mirrored backend that was empty with what the active holds: SCAN there, and let the keys be copied.

use std::future::pending;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::copy::{Source, source};
use crate::control::entry::words;
use crate::control::page::Page;
use crate::control::shared::Shared;
use crate::limits::MIRROR_BATCH_KEYS;
use crate::policy::BackendId;
use crate::telemetry::events::{Event as Entry, EventKind};

/// Keys that one SCAN looks at.
const SCAN_COUNT: &str = "500";
/// Pause between two looks whether there is room, and after the active could not be asked.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_FAILED: Duration = Duration::from_millis(200);

/// Keys that may be under way when the backend counts as filled: a fraction of what the hold of a switch takes.
const LEFT_MAX: usize = 200;

/// How far the filling of one backend is. It goes on where it was when the mirror opens again on the same active.
#[derive(Debug, Clone, Default)]
pub(in crate::control) struct Fill {
    pub(in crate::control) is_done: bool,
    /// Databases that are done, and the cursor in the next.
    done: Vec<u32>,
    cursor: Vec<u8>,
    /// The route's epoch that the cursor belongs to.
    epoch: u64,
    /// Keys found so far.
    pub(in crate::control) keys: u64,
    began: Option<Instant>,
}

impl Fill {
    fn start_over(&mut self, epoch: u64) {
        *self = Self { epoch, cursor: b"0".to_vec(), began: self.began.or(Some(Instant::now())), ..Self::default() };
    }
}

/// Fills, and then waits for ever.
pub(super) async fn run(shared: &Rc<Shared>, id: BackendId) -> String {
    let control = shared.mirror(id);
    let record = shared.group.record(id);
    let mirror = &shared.group.mirrors[id.index()];
    let mut held = None;
    while shared.mirror_settings.fill && !control.fill.borrow().is_done {
        let outstanding = || record.summary().keys + mirror.waiting().copying;
        if outstanding() > MIRROR_BATCH_KEYS {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let step = match source(shared, id, &mut held).await {
            Ok(source) => scan(shared, id, source).await,
            Err(error) => Err(error.to_string()),
        };
        match step {
            Ok(Some(())) => control.keys.notify_one(),
            Ok(None) => {
                // Under load there are always some: the last ones are copied inside the switch.
                while outstanding() > LEFT_MAX {
                    tokio::time::sleep(PAUSE).await;
                }
                finish(shared, id);
            }
            Err(why) => {
                tracing::debug!(why, "the active could not be scanned");
                held = None;
                tokio::time::sleep(PAUSE_FAILED).await;
            }
        }
    }
    pending().await
}

fn finish(shared: &Rc<Shared>, id: BackendId) {
    let mut fill = shared.mirror(id).fill.borrow_mut();
    fill.is_done = true;
    let name = &shared.rules(id).name;
    let seconds = fill.began.take().map_or(0.0, |began| began.elapsed().as_secs_f64());
    let message = format!("backend {name} is in step: {} keys were copied in {seconds:.1} s", fill.keys);
    shared.record(Entry::new(EventKind::Reconciled, message).backend(name.clone()));
}

/// One step of SCAN; `None` when there is nothing left.
async fn scan(shared: &Rc<Shared>, id: BackendId, source: &mut Source) -> Result<Option<()>, String> {
    let control = shared.mirror(id);
    let epoch = shared.group.route().epoch;
    if control.fill.borrow().epoch != epoch {
        // A cursor means nothing on another server.
        control.fill.borrow_mut().start_over(epoch);
    }
    let (database, cursor) = {
        let fill = control.fill.borrow();
        let next = shared.group.databases_used().into_iter().find(|database| !fill.done.contains(database));
        let Some(database) = next else { return Ok(None) };
        (database, String::from_utf8_lossy(&fill.cursor).into_owned())
    };
    let requests = [words(&["SELECT", &source.on_server(database)]), words(&["SCAN", &cursor, "COUNT", SCAN_COUNT])];
    let replies = source.ask(shared, &requests).await.map_err(|error| error.to_string())?;
    if !source.is_of(shared) {
        return Err("another backend serves by now".to_owned());
    }
    let page = Page::read(&replies[1], &shared.own_prefix)?;
    shared.group.record(id).dirty(database, page.keys.iter().copied());
    let mut fill = control.fill.borrow_mut();
    fill.keys += page.keys.len() as u64;
    fill.cursor = page.next.to_vec();
    if page.is_last() {
        fill.done.push(database);
    }
    Ok(Some(()))
}
