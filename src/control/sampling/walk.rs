//! Which keys are compared: a walk by SCAN through the databases in use, on both sides in turn. Keys that only the follower
//! has would never be met on the active.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use super::sides::Pair;
use crate::backend::clock;
use crate::control::entry::words;
use crate::control::page::Page;
use crate::control::shared::Shared;
use crate::policy::BackendId;

/// Keys that one SCAN looks at, at least and at most.
const SCAN_MIN: usize = 10;
const SCAN_MAX: usize = 500;

/// How far one side is.
struct Cursor {
    at: Vec<u8>,
    database: u32,
    /// Databases that are done in this round.
    done: Vec<u32>,
    /// Keys of `database` that were found and not taken yet.
    found: VecDeque<Box<[u8]>>,
}

impl Cursor {
    fn new() -> Self {
        Self { at: b"0".to_vec(), database: 0, done: Vec::new(), found: VecDeque::new() }
    }
}

pub(super) struct Walk {
    /// On the active and on the follower.
    sides: [Cursor; 2],
    turn: usize,
    share: f64,
    random: u64,
}

impl Walk {
    pub(super) fn new(share: f64) -> Self {
        Self { sides: [Cursor::new(), Cursor::new()], turn: 0, share, random: clock::micros() | 1 }
    }

    /// Up to `n` keys of one database. None are found by a step that met nothing, or at the end of a round.
    pub(super) async fn next(
        &mut self,
        shared: &Rc<Shared>,
        id: BackendId,
        pair: &mut Pair,
        n: usize,
    ) -> io::Result<(u32, Vec<Box<[u8]>>)> {
        let turn = self.turn;
        self.turn = 1 - turn;
        if self.sides[turn].found.is_empty() {
            self.step(shared, id, pair, turn, n).await?;
        }
        let side = &mut self.sides[turn];
        let taken = side.found.len().min(n);
        Ok((side.database, side.found.drain(..taken).collect()))
    }

    async fn step(
        &mut self,
        shared: &Rc<Shared>,
        id: BackendId,
        pair: &mut Pair,
        turn: usize,
        n: usize,
    ) -> io::Result<()> {
        let side = &mut self.sides[turn];
        let next = shared.group.databases_used().into_iter().find(|database| !side.done.contains(database));
        let Some(database) = next else {
            *side = Cursor::new();
            if turn == 0 {
                shared.figures(id).borrow_mut().rounds += 1;
            }
            return Ok(());
        };
        side.database = database;
        let count = ((n as f64 / self.share) as usize).clamp(SCAN_MIN, SCAN_MAX).to_string();
        let at = String::from_utf8_lossy(&side.at).into_owned();
        let server = if turn == 0 { &mut pair.active } else { &mut pair.follower };
        let replies = server.ask(database, vec![words(&["SCAN", &at, "COUNT", &count])]).await?;
        let page = Page::read(&replies[0], &shared.own_prefix).map_err(io::Error::other)?;
        side.at = page.next.to_vec();
        if page.is_last() {
            side.done.push(database);
        }
        for key in page.keys {
            if chance(&mut self.random) < self.share {
                self.sides[turn].found.push_back(key.into());
            }
        }
        Ok(())
    }
}

/// A number from 0 to 1.
fn chance(random: &mut u64) -> f64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    (*random >> 11) as f64 / (1u64 << 53) as f64
}
