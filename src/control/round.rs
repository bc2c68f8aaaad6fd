//! Several questions of one probe: `health_check.probes`, `probe_delay` and `policy`.

use crate::config::{HealthCheck, ProbePolicy};
use crate::policy::ProbeOutcome;

/// Answers of one probe so far.
pub(super) struct Round {
    asked_max: u32,
    needed: u32,
    good: u32,
    bad: u32,
}

impl Round {
    pub(super) fn new(settings: &HealthCheck) -> Self {
        let asked_max = settings.probes.max(1);
        let needed = match settings.policy {
            ProbePolicy::All => asked_max,
            ProbePolicy::Majority => asked_max / 2 + 1,
            ProbePolicy::Any => 1,
        };
        Self { asked_max, needed, good: 0, bad: 0 }
    }

    /// True when this answer settles the probe, one way or the other; it then stands for the whole.
    pub(super) fn settles(&mut self, outcome: &ProbeOutcome) -> bool {
        let good = matches!(outcome, ProbeOutcome::Ok(answer) if answer.write_ok != Some(false));
        if good {
            self.good += 1;
        } else {
            self.bad += 1;
        }
        self.good >= self.needed || self.bad > self.asked_max - self.needed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Profile;
    use crate::policy::{ProbeAnswer, Role};

    #[test]
    fn a_probe_asks_until_its_policy_is_settled_and_no_longer() {
        use ProbePolicy::{All, Any, Majority};
        for (policy, probes, answers, settled_by) in [
            (All, 1, "g", 1),
            (All, 1, "b", 1),
            (All, 3, "gggg", 3),
            (All, 3, "gbgg", 2),
            (Majority, 3, "gggg", 2),
            (Majority, 3, "bgbg", 3),
            (Majority, 3, "bbgg", 2),
            (Majority, 4, "gbbg", 3),
            (Any, 3, "bbgg", 3),
            (Any, 3, "gbbb", 1),
            (Any, 3, "bbbb", 3),
        ] {
            let mut round = Round::new(&HealthCheck { policy, probes, ..HealthCheck::of(Profile::Default) });
            let settles = |answer| match answer {
                'g' => round.settles(&ProbeOutcome::Ok(ProbeAnswer::new(Duration::ZERO, Role::Master))),
                _ => round.settles(&ProbeOutcome::TimedOut { silent_for: Duration::ZERO }),
            };
            let by = answers.chars().map(settles).position(|settled| settled).map(|index| index + 1);
            assert_eq!(by, Some(settled_by), "{policy:?} of {probes}: {answers}");
        }
    }

    #[test]
    fn a_server_that_answers_but_cannot_write_is_no_good_answer() {
        let mut round = Round::new(&HealthCheck { probes: 2, ..HealthCheck::of(Profile::Default) });
        let answer = ProbeAnswer { write_ok: Some(false), ..ProbeAnswer::new(Duration::ZERO, Role::Master) };
        assert!(round.settles(&ProbeOutcome::Ok(answer)));
        assert_eq!((round.good, round.bad), (0, 1));
    }
}
