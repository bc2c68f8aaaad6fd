//! The interpreter of plans: carries out the steps of a switch (`policy::Step`) in their order. The first that fails ends
//! it, and requests are served as before. Nothing is published once a later switch has been asked for.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::{self, Obstacle, RECONCILE_ROUNDS, words};
use super::incident;
use super::replication::{self, Other, Promotion};
use super::shared::Shared;
use crate::backend::{Identity, clock};
use crate::divergence::State;
use crate::policy::{BackendId, Plan, Situation, Step, Switch, SwitchKind, SwitchResult, Time};
use crate::route::Availability;

/// While the old active serves, keys are removed or copied until so few are left; the last ones go inside the hold.
const RECONCILE_LEFT: usize = 200;
/// So long may the copying of what the next backend has missed take before requests are held.
const RECONCILE_MAX: Duration = Duration::from_secs(20);
/// So long is waited for a backend that has just come back to be kept in step, so that it can be copied to.
const MIRROR_OPENS_MAX: Duration = Duration::from_secs(2);
/// Between two looks whether it is done.
const RECONCILE_LOOK: Duration = Duration::from_millis(5);
/// So long is waited for the very last ones before requests are held.
const LINGER_MAX: Duration = Duration::from_millis(50);
/// A switch that is not drained within this is given up: requests are not held any longer than that.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// So long may the copying of the last keys hold requests.
const CATCH_UP_MAX: Duration = Duration::from_millis(250);
/// So long is waited for the workers to have entered what is in flight; they are never blocked.
const DOUBT_MAX: Duration = Duration::from_secs(1);
/// So long may it take until clients that wait on purpose are let go by the old active.
const PARTING_MAX: Duration = Duration::from_millis(20);
/// So long is waited for clients that listen to channels to be subscribed on the next backend. Those that are not by then
/// are as after a failure: they miss what is published until they are.
const SUBSCRIBE_MAX: Duration = Duration::from_millis(250);
/// So long may it hold requests that such clients read what was published before: a round trip to either backend.
const LISTEN_MAX: Duration = Duration::from_millis(100);
/// Between two looks at the workers.
const LOOK: Duration = Duration::from_micros(200);

/// A switch as the engine asked for it.
pub(super) struct Wanted {
    pub(super) id: u64,
    pub(super) from: BackendId,
    pub(super) to: BackendId,
    pub(super) kind: SwitchKind,
    pub(super) planned: bool,
    pub(super) plan: Plan,
    /// All backends of the group, as the engine saw them when it asked for the switch.
    pub(super) others: Vec<Other>,
}

/// What a switch came to, beside its result.
pub(super) struct Outcome {
    pub(super) result: SwitchResult,
    pub(super) epoch: u64,
    /// Dirty keys that were removed.
    pub(super) removed: usize,
    pub(super) flushed: bool,
    /// What it has missed came by replication.
    pub(super) carried: bool,
    /// How long requests were held.
    pub(super) held: Duration,
    /// When the route was published.
    pub(super) published: Time,
    /// What became of a replica that was to serve.
    pub(super) promotion: Promotion,
    /// The steps that were carried out, the one that failed included.
    pub(super) steps: Vec<(Step, Duration)>,
}

impl From<&Switch> for Wanted {
    fn from(switch: &Switch) -> Self {
        let &Switch { id, from, to, kind, planned, plan, .. } = switch;
        Self { id: id.0, from, to, kind, planned, plan, others: Vec::new() }
    }
}

impl Wanted {
    fn moves(&self) -> bool {
        self.from != self.to
    }
}

impl Shared {
    /// The steps of a switch, as things stand now.
    pub(super) fn steps(&self, wanted: &Wanted) -> Vec<Step> {
        let mirrored = wanted.moves() && self.may_mirror(wanted.to);
        wanted.plan.steps(Situation {
            moves: wanted.moves(),
            planned: wanted.planned,
            mirrored,
            hands_over: self.is_replicated(wanted.from) && self.is_replicated(wanted.to) && self.is_replica(wanted.to),
            // Also when a mirror has closed just now: what was sent while it was open is in no record.
            doubtful: mirrored || self.mirrors_any(),
        })
    }
}

impl Shared {
    /// What a step would do now, for a dry run.
    pub(super) fn step_text(&self, step: Step, wanted: &Wanted) -> String {
        let text = step.text();
        match step {
            Step::Reconcile => {
                let keys = self.group.record(wanted.to).summary().keys;
                format!("{text} ({keys} keys now, {RECONCILE_LEFT} may be left)")
            }
            Step::Drain => format!("{text} ({DRAIN_MAX:?} at most, else the switch is given up)"),
            Step::CatchUp => format!("{text} ({CATCH_UP_MAX:?} at most, else the switch is given up)"),
            Step::Subscribe => format!("{text} (waits {SUBSCRIBE_MAX:?} at most)"),
            Step::Listen => format!("{text} (waits {LISTEN_MAX:?} at most)"),
            Step::Look | Step::Hold | Step::HandOver | Step::Doubt | Step::Enter => text.to_owned(),
        }
    }
}

/// Carries a switch out.
pub(super) async fn carry_out(shared: Rc<Shared>, wanted: Wanted) -> Outcome {
    let outcome = Outcome {
        result: SwitchResult::Done,
        epoch: 0,
        removed: 0,
        flushed: false,
        carried: false,
        held: Duration::ZERO,
        published: Time::ZERO,
        promotion: Promotion::NotNeeded,
        steps: Vec::new(),
    };
    let mut run =
        Run { shared: &shared, wanted: &wanted, outcome, holding_since: None, looked_at: None, crossing: None };
    let ended = run.all().await;
    let mut outcome = run.outcome;
    if let Err(obstacle) = ended {
        shared.incident_was_none();
        outcome.result = match obstacle {
            Obstacle::Refused(why) => SwitchResult::Refused { why },
            Obstacle::Failed(why) => SwitchResult::Failed { why },
        };
    }
    outcome
}

struct Run<'a> {
    shared: &'a Rc<Shared>,
    wanted: &'a Wanted,
    outcome: Outcome,
    holding_since: Option<Instant>,
    /// Whose content it was, when it was looked at first.
    looked_at: Option<Identity>,
    /// What the workers were asked last for clients that listen to channels.
    crossing: Option<u64>,
}

impl Run<'_> {
    async fn all(&mut self) -> Result<(), Obstacle> {
        if self.shared.content_is_replicated(self.wanted.to) {
            // What was recorded of it before it followed means nothing any more.
            self.shared.group.record(self.wanted.to).settle(State::Clean);
        }
        let mut ended = Ok(());
        for step in self.shared.steps(self.wanted) {
            let began = Instant::now();
            ended = self.one(step).await;
            self.outcome.steps.push((step, began.elapsed()));
            if ended.is_err() {
                break;
            }
        }
        self.end_crossing(ended.is_err()).await;
        self.outcome.held = self.holding_since.map_or(Duration::ZERO, |since| since.elapsed());
        if ended.is_err() && !self.is_superseded() && self.shared.group.route().availability == Availability::Holding {
            self.shared.set_availability(self.shared.wished.get());
        }
        ended
    }

    async fn one(&mut self, step: Step) -> Result<(), Obstacle> {
        match step {
            Step::Look => self.look().await,
            Step::Reconcile => self.reconcile().await,
            Step::Subscribe => self.subscribe().await,
            Step::Hold => self.hold().await,
            Step::Drain => self.drain().await,
            Step::CatchUp => self.catch_up().await,
            Step::HandOver => self.hand_over().await,
            Step::Listen => self.listen().await,
            Step::Doubt => self.doubt().await,
            Step::Enter => self.enter().await,
        }
    }

    fn is_superseded(&self) -> bool {
        self.shared.newest_switch.get() != self.wanted.id
    }

    async fn look(&mut self) -> Result<(), Obstacle> {
        let (shared, to) = (self.shared, self.wanted.to);
        entry::bury_the_undead(shared, to).await?;
        replication::expect_ready(shared, self.wanted.from, to).await?;
        if shared.may_mirror(to) {
            entry::expect_in_step(shared, to)?;
        }
        self.looked_at = Some(entry::enter(shared, self.wanted, &mut self.outcome, false).await?);
        Ok(())
    }

    /// What is kept in step is copied by its mirror; what is not, is removed.
    async fn reconcile(&mut self) -> Result<(), Obstacle> {
        let (shared, to) = (self.shared, self.wanted.to);
        let began = Instant::now();
        if replication::is_carried_over(shared, self.wanted.from, to).await {
            return Ok(());
        }
        if shared.may_mirror(to) && shared.group.record(to).state() == State::Keys {
            // What is copied is not missed afterwards; it is removed only where it cannot be copied.
            shared.reconciling.set(Some(to));
            while !shared.mirror(to).is_on() && began.elapsed() < MIRROR_OPENS_MAX && !self.is_superseded() {
                tokio::time::sleep(RECONCILE_LOOK).await;
            }
            shared.reconciling.set(None);
        }
        while shared.mirror(to).is_on() {
            let left = shared.group.record(to).summary().keys + shared.group.mirrors[to.index()].waiting().copying;
            if left <= RECONCILE_LEFT || self.is_superseded() {
                return Ok(());
            }
            if began.elapsed() > RECONCILE_MAX {
                let why = format!("{left} keys that it has missed were not copied within {RECONCILE_MAX:?}");
                return Err(Obstacle::Failed(why));
            }
            tokio::time::sleep(RECONCILE_LOOK).await;
        }
        for _ in 0..RECONCILE_ROUNDS {
            if shared.mirror(to).is_on() || shared.group.record(to).summary().keys <= RECONCILE_LEFT {
                break;
            }
            self.outcome.removed += entry::remove_batch(shared, to).await?;
        }
        Ok(())
    }

    /// Nobody has waited yet, and what is late is no reason to give the switch up.
    async fn subscribe(&mut self) -> Result<(), Obstacle> {
        let (group, to) = (&self.shared.group, self.wanted.to);
        // No request goes there before the route does, so that it does not matter that its content is not put right yet.
        group.backend(to).admit(self.looked_at.take().map(Arc::new));
        let number = group.crossings.begin(to);
        self.crossing = Some(number);
        self.crossed(number, SUBSCRIBE_MAX).await?;
        self.linger().await;
        Ok(())
    }

    /// A little more time right before requests are held makes the hold shorter; under load there are always some keys left.
    async fn linger(&self) {
        let (shared, to) = (self.shared, self.wanted.to);
        let began = Instant::now();
        if shared.mirror(to).is_on() {
            shared.hurry_mirror(to);
        }
        while shared.mirror(to).is_on() && !shared.group.record(to).is_without_keys() && began.elapsed() < LINGER_MAX {
            tokio::time::sleep(RECONCILE_LOOK).await;
        }
    }

    /// Nothing is published any more: what was, is read to its end.
    async fn listen(&mut self) -> Result<(), Obstacle> {
        let group = &self.shared.group;
        if group.crossings.second_open() == 0 {
            return Ok(());
        }
        let number = group.crossings.fence(self.wanted.to);
        self.crossing = Some(number);
        self.crossed(number, LISTEN_MAX).await
    }

    /// Second connections end that were made for nothing, and clients hear the old backend again before it serves again.
    async fn end_crossing(&mut self, has_failed: bool) {
        let number = self.crossing.take().and_then(|number| self.shared.group.crossings.end(number));
        if let Some(number) = number.filter(|_| has_failed) {
            let _ = self.crossed(number, LISTEN_MAX).await;
        }
    }

    async fn crossed(&self, number: u64, within: Duration) -> Result<(), Obstacle> {
        let began = Instant::now();
        while !self.shared.group.crossings.is_passed(number) && began.elapsed() < within {
            if self.is_superseded() {
                return Err(superseded());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// From here on no worker sends anything new.
    async fn hold(&mut self) -> Result<(), Obstacle> {
        if self.is_superseded() {
            return Err(superseded());
        }
        self.holding_since = Some(Instant::now());
        let version = self.shared.set_availability(Availability::Holding).version;
        self.acknowledged(version, DRAIN_MAX).await
    }

    /// Waits until every worker acts by a version of the route.
    async fn acknowledged(&self, version: u64, within: Duration) -> Result<(), Obstacle> {
        let began = Instant::now();
        while !self.shared.group.is_acknowledged(version) {
            if began.elapsed() > within {
                return Err(Obstacle::Failed(format!("a worker did not take up the new route within {within:?}")));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until what is under way on the old active is answered.
    async fn drain(&mut self) -> Result<(), Obstacle> {
        let began = Instant::now();
        loop {
            let backend = self.shared.group.backend(self.wanted.from);
            // Clients that wait on purpose are let go by their workers meanwhile; one that cannot be is not waited for.
            let has_parted = backend.blocked() == 0 || began.elapsed() > PARTING_MAX;
            let open = backend.in_flight() + backend.pinned_at_work();
            if open == 0 && has_parted {
                return Ok(());
            }
            if self.is_superseded() {
                return Err(superseded());
            }
            if began.elapsed() > DRAIN_MAX {
                return Err(Obstacle::Failed(format!("{open} requests were still under way after {DRAIN_MAX:?}")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn catch_up(&mut self) -> Result<(), Obstacle> {
        let (shared, to) = (self.shared, self.wanted.to);
        if shared.mirror(to).is_on() && !shared.wait_in_step(to, CATCH_UP_MAX).await {
            return Err(Obstacle::Failed(format!("the last writes had not reached it after {CATCH_UP_MAX:?}")));
        }
        Ok(())
    }

    async fn hand_over(&mut self) -> Result<(), Obstacle> {
        if self.is_superseded() {
            return Err(superseded());
        }
        self.outcome.promotion = replication::hand_over(self.shared, self.wanted.from, self.wanted.to).await?;
        Ok(())
    }

    /// Holds requests until every worker has entered what it has in flight into the records of the mirrored backends: it
    /// may have been executed, and read by others, and no answer will tell.
    async fn doubt(&mut self) -> Result<(), Obstacle> {
        self.holding_since = Some(Instant::now());
        let version = self.shared.hold_in_doubt().version;
        // A worker that stands still acknowledges nothing meanwhile.
        let _ = self.acknowledged(version, DOUBT_MAX).await;
        Ok(())
    }

    async fn enter(&mut self) -> Result<(), Obstacle> {
        let (shared, to) = (self.shared, self.wanted.to);
        if self.wanted.moves() && shared.may_mirror(to) {
            shared.stop_mirror(to).await;
        }
        let entered = self.enter_and_publish().await;
        shared.release_mirror(to);
        entered
    }

    /// The last steps: after them the backend serves.
    async fn enter_and_publish(&mut self) -> Result<(), Obstacle> {
        let (shared, wanted) = (self.shared, self.wanted);
        if wanted.moves() {
            shared.hear_everything(wanted.planned).await;
        }
        if self.outcome.promotion == Promotion::NotNeeded {
            let is_chosen = wanted.kind == SwitchKind::Manual;
            let (from, to) = (wanted.from, wanted.to);
            self.outcome.promotion = replication::promote(shared, from, to, &wanted.others, is_chosen).await?;
        }
        let identity = entry::enter(shared, wanted, &mut self.outcome, true).await?;
        incident::announce(shared, wanted.to).await;
        shared.begin_tracking(wanted.to).await;
        if self.is_superseded() {
            return Err(superseded());
        }
        entry::settle(shared, wanted.to, &mut self.outcome).await?;
        shared.group.backend(wanted.to).admit(Some(Arc::new(identity)));
        shared.begins_to_serve(wanted.to);
        self.outcome.epoch = shared.enter(wanted.to).epoch;
        self.outcome.published = clock::now();
        if shared.may_mirror(wanted.to) {
            // What it holds is what is served from now on.
            shared.tell(wanted.to, vec![words(&["DEL", &shared.mark_keys.mirror])]);
        }
        if wanted.moves() {
            shared.left(wanted.from, wanted.kind);
        }
        Ok(())
    }
}

fn superseded() -> Obstacle {
    Obstacle::Failed("superseded by a later switch".to_owned())
}
