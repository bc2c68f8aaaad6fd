//! Staged plans: `blue_green`, `gradual` and `canary`. Both backends are kept in step and compared, and only then is one left
//! for the other: at once, or share by share, while both serve. Afterwards they are compared on, and a breach leads back.
//! Pure, as all of this room: the control plane tells what it saw, and is told what to do. The last step of each is a switch
//! by the plan `drain`, which is the 100 %.
//!
//! As long as both serve, the old one is the active, and a share is taken back in one of two ways: it is moved back, which no
//! client notices; or it is withdrawn, when the next one cannot be drained any more. A share is never left without somebody
//! who watches over it: what cannot be withdrawn is tried again until it is, or until another switch is made.

mod words;

use std::time::Duration;

pub use self::words::{News, Phase, Sight, Wish};
use super::comparison::{Batch, Scope, Tally, Traffic};
use super::event::BackendId;
use super::plan::Plan;
use super::time::Time;
use super::view::Health;

/// Attempts to move one share, and the pause between two of them. A withdrawal that fails is tried again after the same.
const TRIES_MAX: u32 = 3;
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// A next one that is degraded for longer than this while it serves clients is left, and a critical one after less: a
/// single late probe is no verdict. One that failed is left at once.
const DEGRADED_MAX: Duration = Duration::from_secs(5);
const CRITICAL_MAX: Duration = Duration::from_secs(1);
/// So long may one of the mirrors be closed while both serve.
const OUT_OF_STEP_MAX: Duration = Duration::from_secs(1);
/// Waiting for the next one to be in step is over when so long nothing was copied to it.
const STUCK_MAX: Duration = Duration::from_secs(120);
/// So much longer than its dwell may a step wait for enough samples.
const OVERTIME_MAX: Duration = Duration::from_secs(300);

/// What was asked for and is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Share,
    Withdraw,
}

/// Why it does not go on.
enum Trouble {
    /// Nothing can be drained there any more.
    Dead(String),
    Bad(String),
}

/// One run of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    pub plan: Plan,
    pub from: BackendId,
    pub to: BackendId,
    pub phase: Phase,
    pub tally: Tally,
    pub paused: bool,
    /// Hundredths of the hash slots that the next one serves.
    pub percent: u8,
    /// How many of [`Plan::shares`] were reached, or are being.
    stage: usize,
    asked: Asked,
    tries: u32,
    retry_at: Option<Time>,
    /// What a read took on the next one while it served clients and was well; zero if it never did.
    usual: Duration,
    /// How long each comparison lasts at least.
    dwell: Duration,
    /// What is left of it, and how long it has been over.
    left: Duration,
    overtime: Duration,
    looked_at: Time,
    degraded_since: Option<Time>,
    critical_since: Option<Time>,
    apart_since: Option<Time>,
    /// How far the filling was, and since how long it is there.
    stuck: (u64, Duration),
    /// Why the old one is wanted back, while that has to wait or is under way.
    rollback: Option<String>,
}

impl Rollout {
    /// A run of a plan that is staged ([`Plan::is_staged`]).
    #[must_use]
    pub fn new(plan: Plan, from: BackendId, to: BackendId, dwell: Duration, now: Time) -> Self {
        Self {
            plan,
            from,
            to,
            phase: Phase::InStep,
            tally: Tally::default(),
            paused: false,
            percent: 0,
            stage: 0,
            asked: Asked::Nothing,
            tries: 0,
            retry_at: None,
            usual: Duration::ZERO,
            dwell,
            left: dwell,
            overtime: Duration::ZERO,
            looked_at: now,
            degraded_since: None,
            critical_since: None,
            apart_since: None,
            stuck: (0, Duration::ZERO),
            rollback: None,
        }
    }

    /// The next one has served before, and a read took so long then.
    #[must_use]
    pub fn usually(self, usual: Option<Duration>) -> Self {
        Self { usual: usual.unwrap_or_default(), ..self }
    }

    /// Takes news and says what follows.
    pub fn handle(&mut self, now: Time, news: News, wishes: &mut Vec<Wish>) {
        match news {
            News::Samples(batch) => self.count(batch, wishes),
            News::Traffic { of, traffic } => self.count_traffic(of, &traffic, wishes),
            News::Look(sight) => self.look(now, &sight, wishes),
            News::Switched(result) => self.switched(result, wishes),
            News::Shared(result) => self.shared(now, result, wishes),
            News::Withdrawn(result) => self.withdrawn(now, result, wishes),
            News::Pause => self.paused = true,
            News::Resume => self.paused = false,
            News::Rollback(why) => {
                self.roll_back(Trouble::Bad(format!("an operator wanted it: {why}")), wishes);
            }
        }
    }

    /// The step that it is in, and how many there are: one for each share, and the cut-over.
    #[must_use]
    pub fn stage(&self) -> (usize, usize) {
        let of = self.plan.shares().len() + 1;
        let stage = match self.phase {
            Phase::InStep | Phase::Compare => 0,
            Phase::Move | Phase::Share | Phase::Return => self.stage,
            Phase::CutOver | Phase::Watch | Phase::WayBack | Phase::Ended => of,
        };
        (stage, of)
    }

    fn begin(&mut self, phase: Phase) {
        self.phase = phase;
        if self.scope().is_some() {
            // Until then the evidence is that of the comparison before.
            self.tally = Tally::default();
        }
        self.left = self.dwell;
        self.overtime = Duration::ZERO;
        self.degraded_since = None;
        self.apart_since = None;
    }

    fn end(&mut self, well: bool, why: String, wishes: &mut Vec<Wish>) {
        self.phase = Phase::Ended;
        wishes.push(Wish::End { well, why });
    }

    /// Clients are served by both.
    fn is_shared(&self) -> bool {
        self.percent > 0 && matches!(self.phase, Phase::Move | Phase::Share)
    }

    fn scope(&self) -> Option<Scope> {
        match self.phase {
            Phase::Compare => Some(Scope::Before),
            Phase::Share => Some(Scope::Both),
            Phase::Watch => Some(Scope::After),
            _ => None,
        }
    }

    fn count(&mut self, batch: Batch, wishes: &mut Vec<Wish>) {
        if let Some(scope) = self.scope() {
            self.tally.count(batch);
            self.judge(scope, wishes);
        }
    }

    fn count_traffic(&mut self, of: BackendId, traffic: &Traffic, wishes: &mut Vec<Wish>) {
        if let Some(scope) = self.scope() {
            self.tally.count_traffic(of == self.to, traffic);
            self.judge(scope, wishes);
        }
    }

    fn judge(&mut self, scope: Scope, wishes: &mut Vec<Wish>) {
        if let Some(why) = self.tally.breach(scope, self.usual) {
            self.roll_back(Trouble::Bad(why), wishes);
        }
    }

    fn look(&mut self, now: Time, sight: &Sight, wishes: &mut Vec<Wish>) {
        let passed = now - self.looked_at;
        self.looked_at = now;
        let expected = match self.phase {
            Phase::CutOver | Phase::WayBack | Phase::Ended => return,
            Phase::Watch => self.to,
            Phase::InStep | Phase::Compare | Phase::Move | Phase::Share | Phase::Return => self.from,
        };
        let is_over = self.phase == Phase::Share && !sight.is_split;
        if sight.active != expected || is_over {
            return self.end(false, "another switch was made meanwhile".to_owned(), wishes);
        }
        if self.phase == Phase::Return {
            return self.look_at_return(now, sight, wishes);
        }
        if let Some(trouble) = self.trouble(now, sight) {
            return self.roll_back(trouble, wishes);
        }
        if self.paused {
            return;
        }
        match self.phase {
            Phase::InStep if sight.in_step && self.plan.shares().is_empty() => {
                self.begin(Phase::Compare);
                wishes.push(Wish::Say("it is in step; samples of both are compared now".to_owned()));
            }
            Phase::InStep if sight.in_step => self.move_on("it is in step".to_owned(), wishes),
            Phase::InStep => self.wait_for_step(passed, sight.progress, wishes),
            Phase::Move if self.retry_at.is_some_and(|at| now >= at) => {
                self.ask_for_share("tried again".to_owned(), wishes);
            }
            Phase::Compare | Phase::Share | Phase::Watch => self.dwell_on(passed, sight.in_step, wishes),
            _ => {}
        }
    }

    fn trouble(&mut self, now: Time, sight: &Sight) -> Option<Trouble> {
        let serves = self.is_shared() || self.phase == Phase::Watch;
        let lasts = |since: &mut Option<Time>, holds: bool, max: Duration| {
            *since = if holds { since.or(Some(now)) } else { None };
            since.is_some_and(|since| now - since > max)
        };
        let is_degraded = serves && matches!(sight.health, Health::Degraded | Health::Critical);
        let is_degraded = lasts(&mut self.degraded_since, is_degraded, DEGRADED_MAX);
        let is_critical = lasts(&mut self.critical_since, sight.health == Health::Critical, CRITICAL_MAX);
        let is_apart = self.is_shared() && !sight.in_step;
        let is_apart = lasts(&mut self.apart_since, is_apart, OUT_OF_STEP_MAX);
        let ill = || sight.ill.as_ref().map(|ill| format!(": {ill}")).unwrap_or_default();
        let health = || format!("the next one is {}{}", sight.health.name(), ill());
        if sight.health == Health::Failed {
            return Some(Trouble::Dead(health()));
        }
        if let Some(why) = sight.withdraw.as_ref().filter(|_| self.phase == Phase::Move || self.is_shared()) {
            return Some(Trouble::Bad(why.clone()));
        }
        let why = if is_critical {
            format!("{} for more than {CRITICAL_MAX:?}", health())
        } else if is_degraded {
            format!("{} for more than {DEGRADED_MAX:?}", health())
        } else if let Some(why) = sight.slowed.as_ref().filter(|_| serves) {
            format!("the next one has become slower, and the old one has not: {why}")
        } else if is_apart {
            format!("the two were not kept in step for more than {OUT_OF_STEP_MAX:?}")
        } else {
            return None;
        };
        Some(Trouble::Bad(why))
    }

    fn wait_for_step(&mut self, passed: Duration, progress: u64, wishes: &mut Vec<Wish>) {
        let (before, since) = self.stuck;
        self.stuck = if progress == before { (before, since + passed) } else { (progress, Duration::ZERO) };
        if self.stuck.1 > STUCK_MAX {
            let why = format!("the next one is not kept in step, and nothing was copied to it for {STUCK_MAX:?}");
            self.end(false, why, wishes);
        }
    }

    fn dwell_on(&mut self, passed: Duration, in_step: bool, wishes: &mut Vec<Wish>) {
        if self.left.is_zero() {
            self.overtime += passed;
        }
        self.left = self.left.saturating_sub(passed);
        if !self.left.is_zero() {
            return;
        }
        if self.tally.is_enough() && in_step {
            self.next(wishes);
        } else if self.overtime > OVERTIME_MAX {
            let why = format!("too little could be compared: {}", self.tally.words());
            match self.phase {
                // It has served well so far; what the old one has become is no reason to go back to it.
                Phase::Watch => self.end(true, format!("it serves, but {why}"), wishes),
                _ => self.roll_back(Trouble::Bad(why), wishes),
            }
        }
    }

    /// A comparison was passed.
    fn next(&mut self, wishes: &mut Vec<Wish>) {
        let seen = self.tally.words();
        let why = match self.phase {
            Phase::Watch => {
                let why = format!("it serves well: {seen}; the one that was left is kept in step");
                return self.end(true, why, wishes);
            }
            Phase::Share => format!("{} % were served well: {seen}", self.percent),
            _ => format!("both hold the same: {seen}"),
        };
        if self.stage < self.plan.shares().len() {
            return self.move_on(why, wishes);
        }
        self.begin(Phase::CutOver);
        wishes.push(Wish::Switch { to: self.to, why });
    }

    /// Begins the next share.
    fn move_on(&mut self, why: String, wishes: &mut Vec<Wish>) {
        self.begin(Phase::Move);
        self.stage += 1;
        self.tries = 0;
        self.ask_for_share(why, wishes);
    }

    fn ask_for_share(&mut self, why: String, wishes: &mut Vec<Wish>) {
        let Some(&percent) = self.plan.shares().get(self.stage.saturating_sub(1)) else { return };
        self.asked = Asked::Share;
        self.retry_at = None;
        wishes.push(Wish::Share { percent, why });
    }

    fn shared(&mut self, now: Time, result: Result<Duration, String>, wishes: &mut Vec<Wish>) {
        // Of a move that a withdrawal has overtaken nothing more is to be known.
        if self.asked != Asked::Share {
            return;
        }
        self.asked = Asked::Nothing;
        match (self.phase, result) {
            (Phase::Move, Ok(held)) => {
                self.percent = self.plan.shares()[self.stage - 1];
                self.begin(Phase::Share);
                let percent = self.percent;
                wishes.push(Wish::Say(format!(
                    "it serves {percent} % of the hash slots; requests were held for {held:.1?}"
                )));
                if let Some(why) = self.rollback.take() {
                    self.roll_back(Trouble::Bad(why), wishes);
                }
            }
            (Phase::Move, Err(why)) => {
                self.tries += 1;
                self.retry_at = Some(now + RETRY_PAUSE);
                if let Some(why) = self.rollback.take() {
                    self.roll_back(Trouble::Bad(why), wishes);
                } else if self.tries >= TRIES_MAX {
                    let why = format!("the next share could not be moved, {} tries: {why}", self.tries);
                    self.roll_back(Trouble::Bad(why), wishes);
                } else {
                    wishes.push(Wish::Say(format!("the next share was not moved, and is tried again: {why}")));
                }
            }
            (Phase::Return, Ok(_)) => self.returned(wishes),
            (Phase::Return, Err(failed)) => {
                wishes.push(Wish::Say(format!("what was moved could not be moved back: {failed}")));
                self.withdraw(wishes);
            }
            _ => {}
        }
    }

    fn withdraw(&mut self, wishes: &mut Vec<Wish>) {
        self.asked = Asked::Withdraw;
        self.retry_at = None;
        wishes.push(Wish::Withdraw { why: self.rollback.clone().unwrap_or_default() });
    }

    fn withdrawn(&mut self, now: Time, result: Result<Duration, String>, wishes: &mut Vec<Wish>) {
        if self.phase != Phase::Return || self.asked != Asked::Withdraw {
            return;
        }
        self.asked = Asked::Nothing;
        match result {
            Ok(_) => self.returned(wishes),
            Err(why) => {
                self.tries += 1;
                self.retry_at = Some(now + RETRY_PAUSE);
                if self.tries == 1 {
                    let text = format!("what was moved could not be withdrawn, and that is tried until it can: {why}");
                    wishes.push(Wish::Say(text));
                }
            }
        }
    }

    fn look_at_return(&mut self, now: Time, sight: &Sight, wishes: &mut Vec<Wish>) {
        let is_due = self.retry_at.is_some_and(|at| now >= at);
        if is_due || (self.asked == Asked::Share && sight.health == Health::Failed) {
            self.withdraw(wishes);
        }
    }

    fn returned(&mut self, wishes: &mut Vec<Wish>) {
        self.percent = 0;
        let why = self.rollback.take().unwrap_or_default();
        self.end(false, format!("the old one serves everything again: {why}"), wishes);
    }

    fn switched(&mut self, result: Result<(), String>, wishes: &mut Vec<Wish>) {
        match (self.phase, result) {
            (Phase::CutOver, Ok(())) => {
                self.percent = 100;
                self.begin(Phase::Watch);
                if let Some(why) = self.rollback.take() {
                    self.roll_back(Trouble::Bad(why), wishes);
                }
            }
            (Phase::CutOver, Err(why)) if self.percent > 0 => {
                let why = self.rollback.take().unwrap_or(format!("the switch was not made: {why}"));
                self.take_back(Trouble::Bad(why), wishes);
            }
            (Phase::CutOver, Err(why)) => self.end(false, format!("the switch was not made: {why}"), wishes),
            (Phase::WayBack, Ok(())) => {
                self.percent = 0;
                let why = self.rollback.take().unwrap_or_default();
                self.end(false, format!("the old one serves again: {why}"), wishes);
            }
            (Phase::WayBack, Err(why)) => self.end(false, format!("the way back was not possible: {why}"), wishes),
            _ => {}
        }
    }

    fn roll_back(&mut self, trouble: Trouble, wishes: &mut Vec<Wish>) {
        match self.phase {
            Phase::Move if self.asked == Asked::Share && matches!(trouble, Trouble::Bad(_)) => {
                // The move that is under way ends first.
                self.rollback.get_or_insert(trouble.why());
            }
            // Also when the first share was not moved: it may have been in part.
            Phase::Move | Phase::Share => self.take_back(trouble, wishes),
            Phase::InStep | Phase::Compare => {
                self.end(false, format!("the old one goes on serving: {}", trouble.why()), wishes);
            }
            Phase::Watch => {
                let why = trouble.why();
                self.begin(Phase::WayBack);
                self.rollback = Some(why.clone());
                wishes.push(Wish::Switch { to: self.from, why });
            }
            Phase::CutOver => self.rollback = Some(trouble.why()),
            Phase::Return | Phase::WayBack | Phase::Ended => {}
        }
    }

    /// What was moved goes back to the old one, which is the active all the time.
    fn take_back(&mut self, trouble: Trouble, wishes: &mut Vec<Wish>) {
        self.begin(Phase::Return);
        self.tries = 0;
        self.retry_at = None;
        let is_dead = matches!(trouble, Trouble::Dead(_));
        let why = trouble.why();
        self.rollback = Some(why.clone());
        if is_dead {
            return self.withdraw(wishes);
        }
        self.asked = Asked::Share;
        wishes.push(Wish::Share { percent: 0, why });
    }
}

impl Trouble {
    fn why(self) -> String {
        match self {
            Self::Dead(why) | Self::Bad(why) => why,
        }
    }
}

#[cfg(test)]
mod tests;
