//! The plan `blue_green`: both backends are kept in step, compared, and only then is one left for the other; afterwards they
//! are compared on, and a breach leads back. Pure, as all of this room: the control plane tells what it saw, and is told
//! what to do. The switch within it is one by the plan `drain`.

use std::time::Duration;

use super::event::BackendId;
use super::time::Time;

/// Fewer samples are no comparison.
const SAMPLES_MIN: u32 = 200;
/// Single wrong values may come of a key that was written to and fro while it was compared.
const WRONG_MAX: u32 = 1;
/// Hundredths of the samples that may be missing, or fail, on the next one.
const MISSING_PERCENT_MAX: u32 = 1;
const FAILED_PERCENT_MAX: u32 = 1;
/// How much slower the next one may be: so many times, and so much beyond that.
const SLOWER_TIMES_MAX: u32 = 3;
const SLOWER_SLACK: Duration = Duration::from_millis(2);

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The next backend is filled and kept in step.
    InStep,
    /// Samples of both are compared while the old one serves.
    Compare,
    /// The switch.
    CutOver,
    /// Samples are compared on while the next one serves and the old one is kept in step.
    Watch,
    /// The switch back.
    WayBack,
    Ended,
}

/// How one sample compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampled {
    Same,
    /// Another value, byte for byte.
    Wrong,
    Missing,
    /// The side that does not serve answered with an error, or not at all.
    Failed,
}

/// What the control plane saw or was told.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// Samples, how long they took on the side that serves and on the other, and a wrong key for the evidence.
    Samples {
        sampled: Vec<Sampled>,
        serving: Duration,
        other: Duration,
        example: Option<String>,
    },
    /// Looked at regularly: who serves, whether the one that does not is kept in step, and what is wrong with the next one.
    Look {
        active: BackendId,
        in_step: bool,
        unwell: Option<String>,
    },
    /// The switch that was asked for has ended; `Err` says why it was not made.
    Switched(Result<(), String>),
    Pause,
    Resume,
    /// An operator wants the old side back, with a reason.
    Rollback(String),
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Switch over by the plan `drain`, and tell the end by [`News::Switched`].
    Switch { to: BackendId, why: String },
    /// For the event history.
    Say(String),
    /// It is over; the sentence says how. `well` is false after a breach, or when it could not be carried out.
    End { well: bool, why: String },
}

/// What was counted in the present phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub samples: u32,
    pub wrong: u32,
    pub missing: u32,
    pub failed: u32,
    /// How long the batches took on the side that is left, and on the next one.
    old: Duration,
    next: Duration,
    looks: u32,
    example: Option<String>,
}

/// One run of the plan.
#[derive(Clone, Debug, PartialEq)]
pub struct BlueGreen {
    pub from: BackendId,
    pub to: BackendId,
    pub phase: Phase,
    pub tally: Tally,
    pub paused: bool,
    /// How long each comparison lasts at least.
    dwell: Duration,
    /// What is left of it, and when that was so.
    left: Duration,
    looked_at: Time,
    rollback: Option<String>,
}

impl BlueGreen {
    #[must_use]
    pub fn new(from: BackendId, to: BackendId, dwell: Duration, now: Time) -> Self {
        Self {
            from,
            to,
            phase: Phase::InStep,
            tally: Tally::default(),
            paused: false,
            dwell,
            left: dwell,
            looked_at: now,
            rollback: None,
        }
    }

    /// Takes news and says what follows.
    pub fn handle(&mut self, now: Time, news: News, wishes: &mut Vec<Wish>) {
        match news {
            News::Samples { sampled, serving, other, example } => self.count(&sampled, serving, other, example, wishes),
            News::Look { active, in_step, unwell } => self.look(now, active, in_step, unwell, wishes),
            News::Switched(result) => self.switched(result, wishes),
            News::Pause => self.paused = true,
            News::Resume => self.paused = false,
            News::Rollback(why) => self.roll_back(why, true, wishes),
        }
    }

    fn begin(&mut self, phase: Phase) {
        self.phase = phase;
        self.tally = Tally::default();
        self.left = self.dwell;
    }

    fn end(&mut self, well: bool, why: String, wishes: &mut Vec<Wish>) {
        self.phase = Phase::Ended;
        wishes.push(Wish::End { well, why });
    }

    fn count(
        &mut self,
        sampled: &[Sampled],
        serving: Duration,
        other: Duration,
        example: Option<String>,
        wishes: &mut Vec<Wish>,
    ) {
        if !matches!(self.phase, Phase::Compare | Phase::Watch) {
            return;
        }
        let tally = &mut self.tally;
        for sample in sampled {
            tally.samples += 1;
            match sample {
                Sampled::Same => {}
                Sampled::Wrong => tally.wrong += 1,
                Sampled::Missing => tally.missing += 1,
                Sampled::Failed => tally.failed += 1,
            }
        }
        let (old, next) = if self.phase == Phase::Compare { (serving, other) } else { (other, serving) };
        tally.old += old;
        tally.next += next;
        tally.looks += 1;
        tally.example = tally.example.take().or(example);
        if let Some(why) = self.tally.breach(self.phase) {
            self.roll_back(why, false, wishes);
        }
    }

    fn look(&mut self, now: Time, active: BackendId, in_step: bool, unwell: Option<String>, wishes: &mut Vec<Wish>) {
        let passed = now - self.looked_at;
        self.looked_at = now;
        let expected = match self.phase {
            Phase::InStep | Phase::Compare => self.from,
            Phase::Watch => self.to,
            Phase::CutOver | Phase::WayBack | Phase::Ended => return,
        };
        if active != expected {
            return self.end(false, "another switch was made meanwhile".to_owned(), wishes);
        }
        if let Some(why) = unwell {
            return self.roll_back(why, false, wishes);
        }
        if self.paused {
            return;
        }
        match self.phase {
            Phase::InStep if in_step => {
                self.begin(Phase::Compare);
                wishes.push(Wish::Say("it is in step; samples of both are compared now".to_owned()));
            }
            Phase::Compare | Phase::Watch => {
                self.left = self.left.saturating_sub(passed);
                if self.left.is_zero() && self.tally.samples >= SAMPLES_MIN && in_step {
                    self.next(wishes);
                }
            }
            _ => {}
        }
    }

    fn next(&mut self, wishes: &mut Vec<Wish>) {
        let seen = self.tally.words();
        if self.phase == Phase::Compare {
            self.begin(Phase::CutOver);
            return wishes.push(Wish::Switch { to: self.to, why: format!("both hold the same: {seen}") });
        }
        self.end(true, format!("it serves well: {seen}; the one that was left is kept in step"), wishes);
    }

    fn switched(&mut self, result: Result<(), String>, wishes: &mut Vec<Wish>) {
        match (self.phase, result) {
            (Phase::CutOver, Ok(())) => {
                self.begin(Phase::Watch);
                if let Some(why) = self.rollback.take() {
                    self.roll_back(why, true, wishes);
                }
            }
            (Phase::CutOver, Err(why)) => self.end(false, format!("the switch was not made: {why}"), wishes),
            (Phase::WayBack, Ok(())) => {
                let why = self.rollback.take().unwrap_or_default();
                self.end(false, format!("the old one serves again: {why}"), wishes);
            }
            (Phase::WayBack, Err(why)) => self.end(false, format!("the way back was not possible: {why}"), wishes),
            _ => {}
        }
    }

    fn roll_back(&mut self, why: String, wanted: bool, wishes: &mut Vec<Wish>) {
        let why = if wanted { format!("an operator wanted it: {why}") } else { why };
        match self.phase {
            Phase::InStep | Phase::Compare => self.end(false, format!("the old one goes on serving: {why}"), wishes),
            Phase::Watch => {
                self.begin(Phase::WayBack);
                self.rollback = Some(why.clone());
                wishes.push(Wish::Switch { to: self.from, why });
            }
            Phase::CutOver => self.rollback = Some(why),
            Phase::WayBack | Phase::Ended => {}
        }
    }
}

impl Tally {
    /// What was found, in words.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { samples, wrong, missing, failed, .. } = self;
        let each = |time: Duration| time / self.looks.max(1);
        format!(
            "{samples} samples, {wrong} wrong, {missing} missing, {failed} failed; a batch took {:.1?} on the old side and \
             {:.1?} on the next",
            each(self.old),
            each(self.next)
        )
    }

    /// Why the comparison is not passed, with the evidence.
    fn breach(&self, phase: Phase) -> Option<String> {
        // Once the next one serves, what the old one lacks is no reason to go back to it.
        let over = |count: u32, percent: u32| {
            phase == Phase::Compare
                && self.samples >= SAMPLES_MIN
                && count > 1
                && u64::from(count) * 100 > u64::from(self.samples) * u64::from(percent)
        };
        let what = if self.wrong > WRONG_MAX {
            "they hold other values"
        } else if over(self.missing, MISSING_PERCENT_MAX) {
            "keys are missing on the next one"
        } else if over(self.failed, FAILED_PERCENT_MAX) {
            "the next one fails"
        } else if self.samples >= SAMPLES_MIN && self.next > self.old * SLOWER_TIMES_MAX + SLOWER_SLACK * self.looks {
            "the next one is slower"
        } else {
            return None;
        };
        let example = self.example.as_ref().map(|key| format!("; for example {key}")).unwrap_or_default();
        Some(format!("{what}: {}{example}", self.words()))
    }
}

impl Phase {
    pub const fn name(self) -> &'static str {
        match self {
            Self::InStep => "in_step",
            Self::Compare => "compare",
            Self::CutOver => "cut_over",
            Self::Watch => "watch",
            Self::WayBack => "way_back",
            Self::Ended => "ended",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLUE: BackendId = BackendId(0);
    const GREEN: BackendId = BackendId(1);
    const DWELL: Duration = Duration::from_secs(10);

    struct World {
        plan: BlueGreen,
        now: Time,
        wishes: Vec<Wish>,
    }

    impl World {
        fn new() -> Self {
            let now = Time::from_secs(1);
            Self { plan: BlueGreen::new(BLUE, GREEN, DWELL, now), now, wishes: Vec::new() }
        }

        fn tell(&mut self, news: News) -> &mut Self {
            self.plan.handle(self.now, news, &mut self.wishes);
            self
        }

        fn look(&mut self, active: BackendId, seconds: u64) -> &mut Self {
            self.now += Duration::from_secs(seconds);
            self.tell(News::Look { active, in_step: true, unwell: None })
        }

        fn sample(&mut self, sampled: Sampled, times: usize) -> &mut Self {
            let (serving, other) = (Duration::from_millis(1), Duration::from_millis(1));
            let example = (sampled == Sampled::Wrong).then(|| "a key".to_owned());
            self.tell(News::Samples { sampled: vec![sampled; times], serving, other, example })
        }

        /// Until the next one serves.
        fn cut_over(&mut self) -> &mut Self {
            self.look(BLUE, 1).sample(Sampled::Same, 200).look(BLUE, 10);
            assert!(matches!(self.wishes.last(), Some(Wish::Switch { to: GREEN, .. })), "{:?}", self.wishes);
            self.tell(News::Switched(Ok(())))
        }

        fn ended(&self) -> Option<(bool, &str)> {
            self.wishes.iter().find_map(|wish| match wish {
                Wish::End { well, why } => Some((*well, why.as_str())),
                _ => None,
            })
        }
    }

    #[test]
    fn what_holds_the_same_is_cut_over_to_after_the_dwell_and_kept_after_another() {
        let mut world = World::new();
        world.cut_over();
        assert_eq!(world.plan.phase, Phase::Watch);
        world.sample(Sampled::Same, 200).look(GREEN, 9);
        assert_eq!(world.ended(), None, "the dwell is not over");
        world.look(GREEN, 1);
        assert!(world.ended().is_some_and(|(well, _)| well), "{:?}", world.wishes);
    }

    #[test]
    fn too_few_samples_are_no_comparison() {
        let mut world = World::new();
        world.look(BLUE, 1).sample(Sampled::Same, 199).look(BLUE, 100);
        assert_eq!(world.plan.phase, Phase::Compare);
        world.sample(Sampled::Same, 1).look(BLUE, 1);
        assert_eq!(world.plan.phase, Phase::CutOver);
    }

    #[test]
    fn wrong_values_end_it_before_the_cut_over_with_the_evidence() {
        let mut world = World::new();
        world.look(BLUE, 1).sample(Sampled::Same, 100).sample(Sampled::Wrong, 1);
        assert_eq!(world.ended(), None, "one may come of a key that is written to and fro");
        world.sample(Sampled::Wrong, 1);
        let (well, why) = world.ended().unwrap_or_else(|| panic!("{:?}", world.wishes));
        assert!(!well && why.contains("102 samples, 2 wrong") && why.contains("a key"), "{why}");
        assert!(!world.wishes.iter().any(|wish| matches!(wish, Wish::Switch { .. })), "nothing was switched");
    }

    #[test]
    fn missing_keys_failures_and_slowness_count_by_their_share() {
        for (sampled, words) in [(Sampled::Missing, "missing"), (Sampled::Failed, "fails")] {
            let mut world = World::new();
            world.look(BLUE, 1).sample(Sampled::Same, 300).sample(sampled, 3);
            assert_eq!(world.ended(), None, "a hundredth may");
            world.sample(sampled, 1);
            assert!(world.ended().is_some_and(|(well, why)| !well && why.contains(words)), "{:?}", world.wishes);
        }
        let mut world = World::new();
        world.look(BLUE, 1);
        let (serving, other) = (Duration::from_millis(1), Duration::from_millis(6));
        world.tell(News::Samples { sampled: vec![Sampled::Same; 200], serving, other, example: None });
        assert!(world.ended().is_some_and(|(_, why)| why.contains("slower")), "{:?}", world.wishes);
    }

    #[test]
    fn a_breach_after_the_cut_over_leads_back_at_once() {
        let mut world = World::new();
        world.cut_over().sample(Sampled::Wrong, 2);
        assert!(matches!(world.wishes.last(), Some(Wish::Switch { to: BLUE, .. })), "{:?}", world.wishes);
        world.tell(News::Switched(Ok(())));
        assert!(world.ended().is_some_and(|(well, why)| !well && why.contains("2 wrong")), "{:?}", world.wishes);
    }

    #[test]
    fn an_operator_may_pause_go_on_and_roll_back_at_any_time() {
        let mut world = World::new();
        world.look(BLUE, 1).sample(Sampled::Same, 200).tell(News::Pause).look(BLUE, 100);
        assert_eq!(world.plan.phase, Phase::Compare, "paused");
        world.sample(Sampled::Same, 1).tell(News::Resume).look(BLUE, 9);
        assert_eq!(world.plan.phase, Phase::Compare, "time does not pass while it is paused");
        world.look(BLUE, 1).tell(News::Rollback("second thoughts".into()));
        assert_eq!(world.ended(), None, "the switch that is under way ends first");
        world.tell(News::Switched(Ok(())));
        assert!(matches!(world.wishes.last(), Some(Wish::Switch { to: BLUE, .. })), "{:?}", world.wishes);
        world.tell(News::Switched(Ok(())));
        assert!(world.ended().is_some_and(|(_, why)| why.contains("second thoughts")), "{:?}", world.wishes);
    }

    #[test]
    fn what_others_decide_meanwhile_ends_it() {
        let mut world = World::new();
        world.cut_over().look(BLUE, 1);
        assert!(world.ended().is_some_and(|(well, _)| !well));
        let mut world = World::new();
        world.look(BLUE, 1).tell(News::Look { active: BLUE, in_step: true, unwell: Some("it failed".into()) });
        assert!(world.ended().is_some_and(|(well, why)| !well && why.contains("it failed")));
    }
}
