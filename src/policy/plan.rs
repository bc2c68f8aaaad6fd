//! Plans: how a switch is made, as a list of steps. The list is computed here from what is known before it begins; one
//! interpreter of the control plane (`control::steps`) carries out every one of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a backend is left for another while it still lives. A dead one is left by `Immediate`, whatever was wished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// Nothing is waited for: what is under way is sent again on the other backend as far as its kind allows.
    Immediate,
    /// New requests wait until those under way are answered and the last writes have reached the other backend.
    #[default]
    Drain,
    /// Staged (`super::rollout`), its switch by `Drain`: both are kept in step and compared before and after it.
    BlueGreen,
    /// Staged: shares of the hash slots are moved, and both serve and are compared, before the switch.
    Gradual,
    /// As gradual, from a smaller share on.
    Canary,
}

/// What the steps of a switch depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// To another backend; else the active is entered anew.
    pub moves: bool,
    /// The backend that is left still lives.
    pub planned: bool,
    /// The next backend is of those that are kept in step while another serves.
    pub mirrored: bool,
    /// The next backend is a replica of servers to which the old one belongs: it must become the master.
    pub hands_over: bool,
    /// Some backend is kept in step, so that what is under way must be entered into its record if nobody waits for it.
    pub doubtful: bool,
}

/// One step of a switch; they are carried out in the order of the list, and the first that fails ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Its content is looked at: what can be refused is refused before anybody waits.
    Look,
    /// While the old backend serves, what the next one has missed is copied or removed until little is left.
    Reconcile,
    /// While the old backend serves, clients that listen to channels are subscribed on the next one too.
    Subscribe,
    /// New requests wait from here.
    Hold,
    /// Requests under way are answered.
    Drain,
    /// The last writes reach the next backend.
    CatchUp,
    /// The replica has everything, and becomes the master; the old one follows it.
    HandOver,
    /// Clients that listen to channels have read what was published, and hear the next backend from here on.
    Listen,
    /// What is under way may or may not be executed: its keys are entered into what the next backend has missed.
    Doubt,
    /// The rest of what it has missed is put right, and the route leads there.
    Enter,
}

impl Plan {
    /// Those that can be asked for.
    pub const ALL: [Self; 5] = [Self::Immediate, Self::Drain, Self::BlueGreen, Self::Gradual, Self::Canary];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::Drain => "drain",
            Self::BlueGreen => "blue_green",
            Self::Gradual => "gradual",
            Self::Canary => "canary",
        }
    }

    /// It takes more than a switch: somebody has to lead through it.
    pub const fn is_staged(self) -> bool {
        match self {
            Self::Immediate | Self::Drain => false,
            Self::BlueGreen | Self::Gradual | Self::Canary => true,
        }
    }

    /// Hundredths of the hash slots that the next backend serves, one step after the other, before the switch.
    pub const fn shares(self) -> &'static [u8] {
        match self {
            Self::Immediate | Self::Drain | Self::BlueGreen => &[],
            Self::Gradual => &[10, 25, 50, 75],
            Self::Canary => &[5, 10, 25, 50, 75],
        }
    }

    /// The switch of this plan.
    #[must_use]
    pub const fn of_switch(self) -> Self {
        if self.is_staged() { Self::Drain } else { self }
    }

    /// The plan of this name.
    ///
    /// # Errors
    /// A sentence that says which there are.
    pub fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|plan| plan.name() == name);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join("\", \"");
            format!("\"{name}\" is no plan; there are \"{known}\"")
        })
    }

    /// The steps of a switch by this plan; that of a staged one is drained.
    #[must_use]
    pub fn steps(self, situation: Situation) -> Vec<Step> {
        let Situation { moves, planned, mirrored, hands_over, doubtful } = situation;
        if !moves {
            return vec![Step::Enter];
        }
        // A living master hands over only what it has acknowledged and no more: also where nothing was to be waited for.
        if planned && (self != Self::Immediate || hands_over) {
            let mut steps = vec![Step::Look, Step::Reconcile, Step::Subscribe, Step::Hold, Step::Drain];
            if mirrored {
                steps.push(Step::CatchUp);
            }
            if hands_over {
                steps.push(Step::HandOver);
            }
            // After the hand-over: what was published before it has come to the replica by then.
            steps.extend([Step::Listen, Step::Enter]);
            return steps;
        }
        // A living backend goes on acknowledging what it has under way, so that it is always doubted.
        if planned || doubtful { vec![Step::Doubt, Step::Enter] } else { vec![Step::Enter] }
    }
}

impl Step {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Reconcile => "reconcile",
            Self::Subscribe => "subscribe",
            Self::Hold => "hold",
            Self::Drain => "drain",
            Self::CatchUp => "catch_up",
            Self::HandOver => "hand_over",
            Self::Listen => "listen",
            Self::Doubt => "doubt",
            Self::Enter => "enter",
        }
    }

    /// What happens in it, for a person.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Look => "look at its content: what can be refused is refused before anybody waits",
            Self::Reconcile => {
                "while the old backend serves, copy or remove what the next one has missed, until little is left"
            }
            Self::Subscribe => "while the old backend serves, subscribe on the next one too what clients listen to",
            Self::Hold => "hold new requests",
            Self::Drain => "let the requests under way be answered",
            Self::CatchUp => "let the last writes reach the next backend",
            Self::HandOver => "make the replica, which has everything, the master, and have the old one follow it",
            Self::Listen => "let clients that listen to channels read what was published, and hear the next backend",
            Self::Doubt => "hold new requests, and note the keys of those under way: their outcome will not be known",
            Self::Enter => "put the rest of what it has missed right, publish the new route, and let requests go on",
        }
    }

    /// Whether requests wait while it is carried out.
    pub const fn holds(self) -> bool {
        match self {
            Self::Look | Self::Reconcile | Self::Subscribe => false,
            Self::Hold | Self::Drain | Self::CatchUp | Self::HandOver | Self::Listen | Self::Doubt | Self::Enter => {
                true
            }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVING: Situation =
        Situation { moves: true, planned: true, mirrored: true, hands_over: false, doubtful: true };

    fn names(plan: Plan, situation: Situation) -> String {
        plan.steps(situation).into_iter().map(Step::name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_drained_switch_holds_requests_only_when_little_is_left_to_do() {
        assert_eq!(names(Plan::Drain, LIVING), "look reconcile subscribe hold drain catch_up listen enter");
        let cold = Situation { mirrored: false, doubtful: false, ..LIVING };
        assert_eq!(names(Plan::Drain, cold), "look reconcile subscribe hold drain listen enter");
    }

    #[test]
    fn an_immediate_switch_waits_for_nothing_but_doubts_what_a_living_backend_may_still_execute() {
        assert_eq!(names(Plan::Immediate, LIVING), "doubt enter");
        assert_eq!(names(Plan::Immediate, Situation { doubtful: false, mirrored: false, ..LIVING }), "doubt enter");
    }

    #[test]
    fn a_living_master_hands_over_with_everything_whatever_the_plan() {
        let replica = Situation { mirrored: false, doubtful: false, hands_over: true, ..LIVING };
        for plan in Plan::ALL {
            assert_eq!(names(plan, replica), "look reconcile subscribe hold drain hand_over listen enter");
            assert_eq!(
                names(plan, Situation { planned: false, ..replica }),
                "enter",
                "a dead one has nothing to hand over"
            );
        }
    }

    #[test]
    fn a_dead_backend_is_left_at_once_whatever_the_plan() {
        let dead = Situation { planned: false, doubtful: false, ..LIVING };
        for plan in Plan::ALL {
            assert_eq!(names(plan, dead), "enter");
            assert_eq!(names(plan, Situation { doubtful: true, ..dead }), "doubt enter");
            assert_eq!(names(plan, Situation { moves: false, ..LIVING }), "enter", "the active, entered anew");
        }
    }

    #[test]
    fn every_list_ends_with_the_entry_and_looks_before_it_holds() {
        for bits in 0..32u8 {
            let bit = |n: u8| bits & (1 << n) != 0;
            let (moves, planned, mirrored, doubtful, hands_over) = (bit(0), bit(1), bit(2), bit(3), bit(4));
            let situation = Situation { moves, planned, mirrored, hands_over, doubtful };
            for plan in Plan::ALL {
                let steps = plan.steps(situation);
                assert_eq!(steps.last(), Some(&Step::Enter), "{plan} {situation:?}");
                let first_hold = steps.iter().position(|step| step.holds());
                let last_free = steps.iter().rposition(|step| !step.holds());
                assert!(last_free.is_none_or(|free| first_hold.is_some_and(|hold| free < hold)), "{steps:?}");
            }
        }
    }

    #[test]
    fn a_plan_is_found_by_its_name_and_one_that_is_not_there_is_refused_by_name() {
        for plan in Plan::ALL {
            assert_eq!(Plan::named(plan.name()), Ok(plan));
        }
        assert!(Plan::named("sometimes").is_err_and(|why| why.contains("no plan") && why.contains("\"gradual\"")));
    }

    #[test]
    fn shares_grow_from_little_to_most_and_the_switch_is_the_rest() {
        for plan in Plan::ALL {
            let shares = plan.shares();
            assert!(shares.is_sorted() && shares.iter().all(|share| (1..100).contains(share)), "{plan}: {shares:?}");
            assert!(plan.is_staged() || shares.is_empty(), "{plan} is one switch");
            assert!(!plan.of_switch().is_staged());
        }
        assert_eq!((Plan::Canary.shares()[0], &Plan::Canary.shares()[1..]), (5, Plan::Gradual.shares()));
    }
}
