//! `divergence.source = "tracking"`: while a record is kept, the active itself says which keys were written, by whomever.
//!
//! A connection of its own asks for the invalidation messages of all keys (`CLIENT TRACKING ON BCAST`). It begins before
//! the backend serves, and its loss makes unknown what it fed: nobody can say what was written until there is another.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use tokio::sync::{mpsc, oneshot};

use super::shared::Shared;
use crate::backend::{self, Conversation, Depth, Lane, Reply};
use crate::policy::BackendId;
use crate::resp::Protocol;

/// Questions that may wait for one connection; a switch asks one at a time.
const QUESTIONS_MAX: usize = 4;

/// Asks whether everything that was written until now has been heard of.
pub(super) type Question = oneshot::Sender<()>;

impl Shared {
    /// Begins to listen to a backend that is about to serve, if a record will be kept.
    pub(super) async fn begin_tracking(self: &Rc<Self>, id: BackendId) {
        self.tracking.replace(None);
        let recording = self.keeping(id).recording;
        if !self.tracks_writers || recording == 0 || self.rules(id).is_embedded {
            return;
        }
        match connect(self, id).await {
            Ok(conversation) => {
                let (sender, receiver) = mpsc::channel(QUESTIONS_MAX);
                self.tracking.replace(Some(sender));
                tokio::task::spawn_local(listen(Rc::clone(self), (id, recording), conversation, receiver));
            }
            Err(error) => self.doubt_recorded(recording, &format!("other writers could not be listened to: {error}")),
        }
    }

    /// Waits until everything that others have written on the active is in the records; an active that is left because it
    /// failed is not waited for.
    pub(super) async fn hear_everything(&self, planned: bool) {
        let Some(tracking) = self.tracking.borrow().clone() else { return };
        if !planned {
            let recording = self.group.route().recording;
            return self.doubt_recorded(recording, "the active failed, and cannot say what others have written there");
        }
        let heard = async {
            // The server answers a question before it sends what it has executed in the same turn.
            for _ in 0..2 {
                let (question, answer) = oneshot::channel();
                if tracking.send(question).await.is_err() || answer.await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(self.entry_timeout, heard).await.is_err() {
            let recording = self.group.route().recording;
            self.doubt_recorded(recording, "the active did not say in time what others had written");
        }
    }

    fn doubt_recorded(&self, recording: u32, why: &str) {
        for record in self.group.records_of(recording) {
            record.become_unknown(why);
        }
    }

    /// What the active says was written; `None`: a whole database.
    fn note_written(&self, recording: u32, keys: Option<&[Reply]>) {
        let Some(keys) = keys else {
            return self.doubt_recorded(recording, "a whole database was written (FLUSHDB, FLUSHALL or SWAPDB)");
        };
        let own = self.own_prefix.as_bytes();
        let written = || {
            let bytes = keys.iter().filter_map(|key| if let Reply::Bulk(bytes) = key { Some(&**bytes) } else { None });
            bytes.filter(|key| !key.starts_with(own))
        };
        for record in self.group.records_of(recording) {
            // The messages do not say in which database.
            for database in self.group.databases_used() {
                record.dirty(database, written());
            }
        }
    }
}

async fn connect(shared: &Shared, id: BackendId) -> io::Result<Conversation> {
    let backend = shared.group.backend(id);
    let lane = Lane { database: 0, protocol: Protocol::Resp3, user: 0 };
    let login = backend.target.login.clone();
    let ready = backend::connect(backend, lane, &login, Depth::Brief).await.map_err(io::Error::other)?;
    let mut conversation = ready.conversation;
    let request = [vec!["CLIENT", "TRACKING", "ON", "BCAST"]];
    let replies = conversation.ask_within(shared.entry_timeout, &request).await?;
    match replies[0].error() {
        Some(error) => Err(io::Error::other(error.to_owned())),
        None => Ok(conversation),
    }
}

async fn listen(
    shared: Rc<Shared>,
    (id, recording): (BackendId, u32),
    mut conversation: Conversation,
    mut questions: mpsc::Receiver<Question>,
) {
    let mut routes = shared.group.subscribe();
    let mut asked: VecDeque<Question> = VecDeque::new();
    let epoch = shared.group.route().epoch;
    let is_over = |shared: &Rc<Shared>| {
        let route = shared.group.route();
        // One that was entered serves in the next epoch.
        route.epoch > epoch + 1 || (route.epoch == epoch + 1 && route.active != id)
    };
    let ping = [vec!["PING"]];
    loop {
        tokio::select! {
            heard = conversation.next() => match heard {
                Ok((true, push)) => {
                    let parts = push.elements().unwrap_or_default();
                    if parts.first().and_then(Reply::text) == Some("invalidate") {
                        // Also what was written before the route that says so was published.
                        let recording = recording | shared.group.route().recording;
                        shared.note_written(recording, parts.get(1).and_then(Reply::elements));
                    }
                }
                Ok((false, _)) => {
                    if let Some(question) = asked.pop_front() {
                        let _ = question.send(());
                    }
                }
                Err(error) => {
                    if !is_over(&shared) {
                        let why = format!("the connection on which the active says what others write was lost: {error}");
                        shared.doubt_recorded(recording | shared.group.route().recording, &why);
                    }
                    return;
                }
            },
            question = questions.recv() => match question {
                Some(question) => {
                    asked.push_back(question);
                    if conversation.send(&ping).await.is_err() {
                        asked.clear();
                    }
                }
                // Another connection listens now, or none is needed.
                None => return,
            },
            _ = routes.changed() => if is_over(&shared) {
                return;
            },
        }
    }
}
