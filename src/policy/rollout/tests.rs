#![allow(clippy::unwrap_used)]

use super::*;
use crate::policy::comparison::Sampled;
use crate::policy::sketch::Sketch;

const OLD: BackendId = BackendId(0);
const NEXT: BackendId = BackendId(1);
const DWELL: Duration = Duration::from_secs(10);
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

struct World {
    plan: Rollout,
    now: Time,
    wishes: Vec<Wish>,
    /// What the next look sees, beside who serves.
    sight: Sight,
}

fn sight() -> Sight {
    Sight {
        active: OLD,
        is_split: true,
        in_step: true,
        progress: 0,
        health: Health::Healthy,
        ill: None,
        slowed: None,
        withdraw: None,
    }
}

impl World {
    fn new(plan: Plan) -> Self {
        let now = Time::from_secs(1);
        Self { plan: Rollout::new(plan, OLD, NEXT, DWELL, now), now, wishes: Vec::new(), sight: sight() }
    }

    fn tell(&mut self, news: News) -> &mut Self {
        self.plan.handle(self.now, news, &mut self.wishes);
        self
    }

    fn look(&mut self, active: BackendId, seconds: u64) -> &mut Self {
        self.see(Sight { active, ..self.sight.clone() }, SECOND * seconds as u32)
    }

    fn see(&mut self, sight: Sight, after: Duration) -> &mut Self {
        self.now += after;
        self.tell(News::Look(sight))
    }

    fn sample(&mut self, sampled: Sampled, times: usize) -> &mut Self {
        let example = (sampled == Sampled::Wrong).then(|| "a key".to_owned());
        let batch = Batch { sampled: vec![sampled; times], old: MS, next: MS, example, ..Batch::default() };
        self.tell(News::Samples(batch))
    }

    fn traffic(&mut self, of: BackendId, requests: u64, failed: u64, micros: u64) -> &mut Self {
        let mut reads = Sketch::default();
        reads.record(micros, requests);
        self.tell(News::Traffic { of, traffic: Traffic { requests, failed, reads, ..Traffic::default() } })
    }

    /// The share that is asked for now, moved.
    fn moved(&mut self, percent: u8) -> &mut Self {
        assert!(
            matches!(self.wishes.last(), Some(Wish::Share { percent: p, .. }) if *p == percent),
            "{:?}",
            self.wishes
        );
        self.tell(News::Shared(Ok(MS)));
        assert_eq!((self.plan.phase, self.plan.percent), (Phase::Share, percent));
        self
    }

    /// Until the next one serves everything.
    fn cut_over(&mut self) -> &mut Self {
        self.look(OLD, 1);
        for percent in self.plan.plan.shares() {
            self.moved(*percent).sample(Sampled::Same, 200).look(OLD, 10);
        }
        if self.plan.phase == Phase::Compare {
            self.sample(Sampled::Same, 200).look(OLD, 10);
        }
        assert!(matches!(self.wishes.last(), Some(Wish::Switch { to: NEXT, .. })), "{:?}", self.wishes);
        self.tell(News::Switched(Ok(())))
    }

    fn ended(&self) -> Option<(bool, &str)> {
        self.wishes.iter().find_map(|wish| match wish {
            Wish::End { well, why } => Some((*well, why.as_str())),
            _ => None,
        })
    }

    #[track_caller]
    fn assert_ended_badly(&self, words: &str) {
        assert!(self.ended().is_some_and(|(well, why)| !well && why.contains(words)), "{words}: {:?}", self.wishes);
    }

    /// Everything is asked back with these words, by moving it.
    #[track_caller]
    fn assert_given_back(&mut self, words: &str) {
        let last = self.wishes.last();
        assert!(matches!(last, Some(Wish::Share { percent: 0, why }) if why.contains(words)), "{words}: {last:?}");
        assert_eq!(self.ended(), None, "it is over when everything is back");
        self.tell(News::Shared(Ok(MS)));
        self.assert_ended_badly(words);
        assert_eq!(self.plan.percent, 0);
    }
}

#[test]
fn blue_green_cuts_over_to_what_holds_the_same_after_the_dwell_and_ends_after_another() {
    let mut world = World::new(Plan::BlueGreen);
    world.cut_over();
    assert_eq!((world.plan.phase, world.plan.percent), (Phase::Watch, 100));
    world.sample(Sampled::Same, 200).look(NEXT, 9);
    assert_eq!(world.ended(), None, "the dwell is not over");
    world.look(NEXT, 1);
    assert!(world.ended().is_some_and(|(well, _)| well), "{:?}", world.wishes);
}

#[test]
fn shares_are_moved_one_after_the_other_each_with_a_dwell_and_the_last_step_is_the_switch() {
    for (plan, shares) in [(Plan::Gradual, &[10, 25, 50, 75][..]), (Plan::Canary, &[5, 10, 25, 50, 75])] {
        let mut world = World::new(plan);
        world.look(OLD, 1);
        for (number, percent) in shares.iter().enumerate() {
            assert_eq!(world.plan.phase, Phase::Move);
            world.moved(*percent);
            assert_eq!(world.plan.stage(), (number + 1, shares.len() + 1));
            world.sample(Sampled::Same, 200).look(OLD, 9);
            assert_eq!(world.plan.phase, Phase::Share, "the dwell is not over");
            world.look(OLD, 1);
        }
        assert!(matches!(world.wishes.last(), Some(Wish::Switch { to: NEXT, .. })), "{:?}", world.wishes);
        world.tell(News::Switched(Ok(()))).sample(Sampled::Same, 200).look(NEXT, 10);
        assert!(world.ended().is_some_and(|(well, _)| well), "{:?}", world.wishes);
    }
}

#[test]
fn too_few_samples_are_no_comparison_and_are_not_waited_for_for_ever() {
    for plan in [Plan::BlueGreen, Plan::Gradual] {
        let mut world = World::new(plan);
        world.look(OLD, 1);
        if plan == Plan::Gradual {
            world.moved(10);
        }
        let phase = world.plan.phase;
        world.sample(Sampled::Same, 199).look(OLD, 100);
        assert_eq!(world.plan.phase, phase);
        world.sample(Sampled::Same, 1).look(OLD, 1);
        assert_ne!(world.plan.phase, phase, "{plan}");
    }
    let mut world = World::new(Plan::Gradual);
    world.look(OLD, 1).moved(10).sample(Sampled::Same, 199).look(OLD, 11).look(OLD, 301);
    world.assert_given_back("too little could be compared: 199 samples");
}

#[test]
fn where_there_is_nothing_to_compare_nothing_is_waited_for() {
    let mut world = World::new(Plan::Gradual);
    world.look(OLD, 1).moved(10);
    for _ in 0..100 {
        world.tell(News::Samples(Batch { is_empty: true, ..Batch::default() }));
    }
    world.look(OLD, 10).moved(25);
}

#[test]
fn two_wrong_values_end_it_with_the_evidence_wherever_it_is() {
    let mut world = World::new(Plan::BlueGreen);
    world.look(OLD, 1).sample(Sampled::Same, 100).sample(Sampled::Wrong, 1);
    assert_eq!(world.ended(), None, "one may come of a key that is written to and fro");
    world.sample(Sampled::Wrong, 1);
    world.assert_ended_badly("102 samples, 2 wrong");
    world.assert_ended_badly("a key");
    assert!(!world.wishes.iter().any(|wish| matches!(wish, Wish::Switch { .. })), "nothing was switched");

    let mut world = World::new(Plan::Gradual);
    world.look(OLD, 1).moved(10).sample(Sampled::Same, 98).sample(Sampled::Wrong, 2);
    world.assert_given_back("100 samples, 2 wrong");
    assert_eq!(
        (world.plan.tally.samples, world.plan.tally.wrong),
        (100, 2),
        "the evidence stays for the event of the end"
    );

    let mut world = World::new(Plan::Canary);
    world.cut_over().sample(Sampled::Wrong, 2);
    assert!(matches!(world.wishes.last(), Some(Wish::Switch { to: OLD, .. })), "{:?}", world.wishes);
    world.tell(News::Switched(Ok(())));
    world.assert_ended_badly("2 wrong");
}

#[test]
fn missing_keys_failures_and_slowness_count_by_their_share() {
    for (sampled, words) in [(Sampled::Missing, "missing"), (Sampled::Failed, "fails")] {
        let mut world = World::new(Plan::Gradual);
        world.look(OLD, 1).moved(10).sample(Sampled::Same, 300).sample(sampled, 3);
        assert_eq!(world.plan.phase, Phase::Share, "a hundredth may");
        world.sample(sampled, 1).assert_given_back(words);
        let mut world = World::new(Plan::Gradual);
        world.cut_over().sample(Sampled::Same, 200).sample(sampled, 100);
        assert_eq!(world.plan.phase, Phase::Watch, "what the old one lacks is no reason to go back to it");
    }
    let mut world = World::new(Plan::BlueGreen);
    world.look(OLD, 1);
    let sampled = vec![Sampled::Same; 200];
    world.tell(News::Samples(Batch { sampled, old: MS, next: 9 * MS, ..Batch::default() }));
    world.assert_ended_badly("slower");
}

#[test]
fn what_clients_get_of_the_next_side_is_held_against_the_old_one() {
    // Requests, failures and microseconds of the old side and of the next; the words of the breach.
    for (old, next, words) in [
        ((9_000, 0, 200), (1_000, 4, 200), None),
        ((9_000, 0, 200), (400, 5, 200), Some("requests of clients fail on the next one")),
        ((9_000, 0, 200), (1_000, 10, 200), None),
        ((9_000, 900, 200), (1_000, 150, 200), None),
        ((9_000, 900, 200), (1_000, 220, 200), Some("requests of clients fail on the next one")),
        ((9_000, 0, 200), (0, 5, 200), Some("requests of clients fail on the next one")),
        ((9_000, 0, 200), (199, 0, 50_000), None),
        ((9_000, 0, 200), (200, 0, 5_000), None),
        ((9_000, 0, 200), (200, 0, 6_500), Some("slower for clients")),
        ((9_000, 0, 5_000), (200, 0, 15_000), None),
    ] {
        let mut world = World::new(Plan::Gradual);
        world.look(OLD, 1).moved(10);
        world.traffic(OLD, old.0, old.1, old.2).traffic(NEXT, next.0, next.1, next.2);
        match words {
            None => assert_eq!(world.plan.phase, Phase::Share, "{old:?} {next:?}: {:?}", world.wishes),
            Some(words) => world.assert_given_back(words),
        }
    }
}

#[test]
fn a_primary_that_is_further_away_than_its_backup_is_held_against_what_it_usually_takes() {
    let world = |usual: Option<Duration>| {
        let mut world = World::new(Plan::Gradual);
        world.plan = world.plan.usually(usual);
        world.look(OLD, 1).moved(10).traffic(OLD, 9_000, 0, 100).traffic(NEXT, 1_000, 0, 7_000);
        let sampled = vec![Sampled::Same; 200];
        world.tell(News::Samples(Batch { sampled, old: MS / 10, next: 7 * MS, ..Batch::default() }));
        world
    };
    assert_eq!(world(Some(3 * MS)).plan.phase, Phase::Share);
    world(Some(MS / 2)).assert_given_back("slower for clients");
    world(None).assert_given_back("slower for clients");
}

#[test]
fn a_slow_hundredth_is_a_breach_where_there_are_enough_requests_to_tell() {
    let both = |next_requests: u64| {
        let mut world = World::new(Plan::Gradual);
        world.look(OLD, 1).moved(10).traffic(OLD, 9_000, 0, 200);
        let slow = next_requests / 50;
        world.traffic(NEXT, slow, 0, 80_000).traffic(NEXT, next_requests - slow, 0, 200);
        world
    };
    assert_eq!(both(900).plan.phase, Phase::Share);
    both(2_000).assert_given_back("slower for clients");
}

#[test]
fn each_sign_of_an_unwell_next_side_leads_back_as_soon_as_it_may() {
    let ill = |health, ill: &str| Sight { health, ill: Some(ill.to_owned()), ..sight() };
    for (seen, after, words) in [
        (ill(Health::Degraded, "half slow"), 6 * SECOND, "degraded: half slow for more than 5s"),
        (ill(Health::Critical, "slow"), 1_100 * MS, "critical: slow for more than 1s"),
        (Sight { slowed: Some("12 ms".into()), ..sight() }, MS, "has become slower, and the old one has not: 12 ms"),
        (Sight { in_step: false, ..sight() }, 1_100 * MS, "not kept in step for more than 1s"),
        (Sight { withdraw: Some("FLUSHALL".into()), ..sight() }, MS, "FLUSHALL"),
    ] {
        let mut world = World::new(Plan::Gradual);
        world.look(OLD, 1).moved(10).see(seen.clone(), MS);
        if after > MS {
            world.see(seen.clone(), after / 2);
            assert_eq!(world.plan.phase, Phase::Share, "{words}: not at once");
            world.see(sight(), MS).see(seen.clone(), MS).see(seen.clone(), after / 2);
            assert_eq!(world.plan.phase, Phase::Share, "{words}: it was well in between");
            world.see(seen, after);
        }
        world.assert_given_back(words);
    }
}

#[test]
fn a_next_side_that_has_failed_is_withdrawn_from_and_not_drained() {
    let dead = Sight { health: Health::Failed, ill: Some("no answer".into()), ..sight() };
    for phase in [Phase::Share, Phase::Move, Phase::Return] {
        let mut world = World::new(Plan::Gradual);
        world.look(OLD, 1).moved(10);
        match phase {
            Phase::Move => world.sample(Sampled::Same, 200).look(OLD, 10),
            Phase::Return => world.sample(Sampled::Wrong, 2),
            _ => &mut world,
        };
        assert_eq!(world.plan.phase, phase);
        world.see(dead.clone(), MS);
        assert!(matches!(world.wishes.last(), Some(Wish::Withdraw { .. })), "{phase:?}: {:?}", world.wishes);
        let wishes = world.wishes.len();
        world.tell(News::Shared(Err("it could not be drained".into()))).see(dead.clone(), MS);
        assert_eq!(world.wishes.len(), wishes, "{phase:?}: the move that was overtaken is of no weight");
        world.tell(News::Withdrawn(Ok(MS)));
        world.assert_ended_badly(if phase == Phase::Return { "2 wrong" } else { "failed: no answer" });
    }
}

#[test]
fn what_cannot_be_moved_back_is_withdrawn_and_that_is_tried_until_it_works_or_another_serves() {
    let stuck = || {
        let mut world = World::new(Plan::Gradual);
        world.look(OLD, 1).moved(10).sample(Sampled::Wrong, 2).tell(News::Shared(Err("not drained".into())));
        for _ in 0..3 {
            assert!(matches!(world.wishes.last(), Some(Wish::Withdraw { .. })), "{:?}", world.wishes);
            world.tell(News::Withdrawn(Err("a worker is stuck".into()))).see(sight(), 500 * MS).see(sight(), 500 * MS);
        }
        assert_eq!(world.ended(), None);
        world
    };
    let mut world = stuck();
    let told = world.wishes.iter().filter(|wish| matches!(wish, Wish::Say(text) if text.contains("a worker is stuck")));
    assert_eq!(told.count(), 1, "{:?}", world.wishes);
    world.tell(News::Withdrawn(Ok(MS))).assert_ended_badly("2 wrong");
    let mut world = stuck();
    world.look(NEXT, 1);
    world.assert_ended_badly("another switch was made");
}

#[test]
fn a_share_that_cannot_be_moved_is_tried_three_times_and_then_what_was_moved_goes_back() {
    for stage in [1, 2] {
        let mut world = World::new(Plan::Gradual);
        world.look(OLD, 1);
        if stage == 2 {
            world.moved(10).sample(Sampled::Same, 200).look(OLD, 10);
        }
        for _ in 0..2 {
            world.tell(News::Shared(Err("not drained".into()))).see(sight(), 999 * MS);
            assert!(matches!(world.wishes.last(), Some(Wish::Say(_))), "a pause: {:?}", world.wishes);
            world.see(sight(), MS);
            assert!(matches!(world.wishes.last(), Some(Wish::Share { .. })), "{:?}", world.wishes);
        }
        world.tell(News::Shared(Err("not drained".into())));
        world.assert_given_back("3 tries: not drained");
    }
}

#[test]
fn a_cut_over_that_is_not_made_gives_back_what_was_moved() {
    let mut world = World::new(Plan::Gradual);
    world.look(OLD, 1);
    for percent in [10, 25, 50, 75] {
        world.moved(percent).sample(Sampled::Same, 200).look(OLD, 10);
    }
    world.tell(News::Switched(Err("not drained".into()))).assert_given_back("the switch was not made: not drained");
    let mut world = World::new(Plan::BlueGreen);
    world.look(OLD, 1).sample(Sampled::Same, 200).look(OLD, 10).tell(News::Switched(Err("not drained".into())));
    world.assert_ended_badly("the switch was not made: not drained");
}

#[test]
fn an_operator_may_pause_go_on_and_roll_back_at_any_time() {
    let mut world = World::new(Plan::BlueGreen);
    world.look(OLD, 1).sample(Sampled::Same, 200).tell(News::Pause).look(OLD, 100);
    assert_eq!(world.plan.phase, Phase::Compare, "paused");
    world.sample(Sampled::Same, 1).tell(News::Resume).look(OLD, 9);
    assert_eq!(world.plan.phase, Phase::Compare, "time does not pass while it is paused");
    world.look(OLD, 1).tell(News::Rollback("second thoughts".into()));
    assert_eq!(world.ended(), None, "the switch that is under way ends first");
    world.tell(News::Switched(Ok(())));
    assert!(matches!(world.wishes.last(), Some(Wish::Switch { to: OLD, .. })), "{:?}", world.wishes);
    world.tell(News::Switched(Ok(())));
    world.assert_ended_badly("second thoughts");

    let mut world = World::new(Plan::Gradual);
    world.look(OLD, 1).tell(News::Rollback("second thoughts".into()));
    assert!(matches!(world.wishes.last(), Some(Wish::Share { percent: 10, .. })), "the move ends first");
    world.tell(News::Shared(Ok(MS))).assert_given_back("second thoughts");

    let mut world = World::new(Plan::Gradual);
    world.look(OLD, 1).moved(10).sample(Sampled::Same, 200).tell(News::Pause).look(OLD, 100);
    assert_eq!(world.plan.phase, Phase::Share);
    world.sample(Sampled::Wrong, 2).assert_given_back("2 wrong");
}

#[test]
fn what_others_decide_meanwhile_ends_it() {
    let mut world = World::new(Plan::BlueGreen);
    world.cut_over().look(OLD, 1);
    world.assert_ended_badly("another switch");
    let mut world = World::new(Plan::Canary);
    world.look(OLD, 1).moved(5).look(BackendId(2), 1);
    world.assert_ended_badly("another switch");
    let mut world = World::new(Plan::Gradual);
    world.look(OLD, 1).look(BackendId(2), 1);
    world.assert_ended_badly("another switch");
}

#[test]
fn a_next_side_that_never_comes_into_step_ends_it_but_one_that_is_being_filled_is_waited_for() {
    let apart = |progress| Sight { in_step: false, progress, ..sight() };
    let mut world = World::new(Plan::Gradual);
    for progress in 1..100 {
        world.see(apart(progress), 60 * SECOND);
    }
    assert_eq!(world.ended(), None, "it is being filled");
    world.see(apart(99), 60 * SECOND).see(apart(99), 61 * SECOND);
    world.assert_ended_badly("not kept in step, and nothing was copied");
}
