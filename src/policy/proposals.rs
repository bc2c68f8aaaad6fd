//! One gate behind every decision: who has the last word (`failover.mode`), and what waits for it.
//!
//! A proposal stands while its reasons do, at most until it expires. At most one stands at a time. While one waits, clients
//! are served as well as can be without it: by the active as long as it lives, by the last resort if there is one, else
//! their requests wait for their deadline.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::{Action, Check, CheckName, Decision, DecisionKind, SwitchKind, Trigger};
use super::engine::{Engine, Purpose, Stay, Wanted};
use super::event::BackendId;
use super::plan::Plan;
use super::selection;
use super::settings::Mode;
use super::time::{Roughly, Time};

/// A declined wish is not proposed again for this many times `failover.confirm_within`, unless it ended in between.
const DECLINED_FOR: u32 = 6;

/// Names one proposal within an engine; only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProposalId(pub u64);

/// A switch that the engine would make, and waits with for a person's word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    pub id: ProposalId,
    pub at: Time,
    pub expires_at: Time,
    pub from: BackendId,
    pub to: BackendId,
    pub trigger: Trigger,
    pub kind: SwitchKind,
    pub planned: bool,
    #[serde(default)]
    pub plan: Plan,
    pub confidence: Option<f64>,
    pub why: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Proposals {
    pub(super) current: Option<Proposal>,
    last_id: u64,
    /// What became of the last one, so that a command sent twice is answered twice.
    ended: Option<(ProposalId, Ended)>,
    /// The wish that a person declined, and until when it is not repeated.
    declined: Option<(BackendId, SwitchKind, Time)>,
    /// The present look at things wished for a switch.
    wished: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ended {
    Confirmed,
    Declined,
    Withdrawn,
    Expired,
    Overtaken,
}

impl fmt::Display for ProposalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Confirmed => "confirmed",
            Self::Declined => "declined",
            Self::Withdrawn => "withdrawn: its reasons are over",
            Self::Expired => "not confirmed in time",
            Self::Overtaken => "overtaken by another switch",
        })
    }
}

impl Engine {
    /// Begins a switch, or proposes it, or leaves it to an operator, as `failover.mode` has it. True when it has begun.
    pub(super) fn want(&mut self, now: Time, wanted: Wanted, actions: &mut Vec<Action>) -> bool {
        match self.settings.failover.mode {
            _ if self.needs_no_word(&wanted) => {
                self.begin(now, wanted, actions);
                return true;
            }
            Mode::Automatic => {
                self.begin(now, wanted, actions);
                return true;
            }
            Mode::SemiAutomatic => self.propose(now, wanted, actions),
            Mode::Manual => {
                let why = format!("failover.mode is manual: {}", wanted.why);
                let mut checks = wanted.checks;
                checks.push(Check::new(CheckName::Mode, false, "only an operator's command switches"));
                // Latencies in the reason change with every window; what is waited for does not.
                let topic = format!("manual: {} by {}", wanted.to, wanted.trigger.name());
                let stay = Stay { backend: wanted.to, topic, why, checks, confidence: wanted.confidence };
                self.note_stay(now, stay, actions);
            }
        }
        false
    }

    /// Not a switch away from anything: the active is entered anew, or the store in our own memory bridges an outage.
    fn needs_no_word(&self, wanted: &Wanted) -> bool {
        let semi_automatic = self.settings.failover.mode == Mode::SemiAutomatic;
        let bridges = self.backend(wanted.to).settings.last_resort
            || self.backend(self.active).settings.last_resort && wanted.to == self.last_real;
        wanted.to == self.active || semi_automatic && bridges
    }

    fn propose(&mut self, now: Time, wanted: Wanted, actions: &mut Vec<Action>) {
        self.proposals.wished = true;
        if let Some(current) = &self.proposals.current {
            let weighing = selection::Weighing { leaving: Some(self.active), ..self.weighing(now, false) };
            let stands = selection::against(self.backend(current.to), &self.settings, weighing).is_none();
            if current.kind == wanted.kind && stands {
                // The best may change with every window; the question that a person was asked does not.
                return;
            }
            self.end_proposal(now, Ended::Withdrawn, None, actions);
        }
        if self.is_declined(now, wanted.to, wanted.kind) {
            return;
        }
        self.proposals.declined = None;
        self.proposals.last_id += 1;
        let id = ProposalId(self.proposals.last_id);
        let within = self.settings.failover.confirm_within;
        let expires_at = now + within;
        let (candidates, estimated_delay) = (self.explain(now, wanted.to), self.delays.estimate(wanted.planned));
        let why = format!("{}: waits {} for `standin confirm {id}`", wanted.why, Roughly(within));
        let decision = Decision {
            trigger: Some(wanted.trigger),
            candidates,
            checks: wanted.checks,
            confidence: wanted.confidence,
            estimated_delay: Some(estimated_delay),
            proposal: Some(id),
            ..Decision::about(now, DecisionKind::Proposed, wanted.to, why)
        };
        self.proposals.current = Some(Proposal {
            id,
            at: now,
            expires_at,
            from: self.active,
            to: wanted.to,
            trigger: wanted.trigger,
            kind: wanted.kind,
            planned: wanted.planned,
            plan: wanted.plan,
            confidence: wanted.confidence,
            why: wanted.why,
        });
        self.note(decision, actions);
    }

    fn is_declined(&self, now: Time, to: BackendId, kind: SwitchKind) -> bool {
        let declined = self.proposals.declined;
        declined.is_some_and(|(whom, what, until)| whom == to && what == kind && now < until)
    }

    /// Whether a wish for a switch to `to` would be news to anybody.
    pub(super) fn would_act(&self, now: Time, to: BackendId, kind: SwitchKind) -> bool {
        match self.settings.failover.mode {
            Mode::Automatic => true,
            Mode::SemiAutomatic => self.proposals.current.is_none() && !self.is_declined(now, to, kind),
            Mode::Manual => false,
        }
    }

    /// Before a look at things: what was proposed has to be wished again.
    pub(super) fn look_at_proposal(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.proposals.wished = false;
        if self.proposals.current.as_ref().is_some_and(|proposal| now >= proposal.expires_at) {
            self.end_proposal(now, Ended::Expired, None, actions);
        }
    }

    /// A switch is wished for, though something has to be found out before it is proposed.
    pub(super) fn keep_wish(&mut self) {
        self.proposals.wished = true;
    }

    /// After it: what is not wished any more is withdrawn.
    pub(super) fn withdraw_unwished(&mut self, now: Time, actions: &mut Vec<Action>) {
        if !self.proposals.wished && self.pending.is_none() {
            self.end_proposal(now, Ended::Withdrawn, None, actions);
            self.proposals.declined = None;
        }
    }

    /// Another switch was made; what was proposed is void.
    pub(super) fn overtake_proposal(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.end_proposal(now, Ended::Overtaken, None, actions);
    }

    fn end_proposal(
        &mut self,
        now: Time,
        ended: Ended,
        reason: Option<&str>,
        actions: &mut Vec<Action>,
    ) -> Option<Proposal> {
        let proposal = self.proposals.current.take()?;
        self.proposals.ended = Some((proposal.id, ended));
        let by = reason.map(|reason| format!(" by an operator: {reason}")).unwrap_or_default();
        let why = format!("proposal {} to enter {} was {ended}{by}", proposal.id, self.name(proposal.to));
        let decision = Decision::about(now, DecisionKind::ProposalEnded, proposal.to, why);
        let decision = Decision { trigger: Some(proposal.trigger), proposal: Some(proposal.id), ..decision };
        self.note(decision, actions);
        Some(proposal)
    }

    pub(super) fn confirm(&mut self, now: Time, id: Option<ProposalId>, reason: &str, actions: &mut Vec<Action>) {
        let Some(proposal) = self.answered_proposal(now, id, Ended::Confirmed, reason, actions) else { return };
        let Proposal { to, trigger, kind, planned, plan, confidence, why, .. } = proposal;
        let why = format!("{why}; confirmed by an operator: {reason}");
        let planned = planned && self.backend(self.active).failure.is_none();
        let (purpose, checks) = (Purpose::Automatic, Vec::new());
        let wanted = Wanted { to, trigger, kind, planned, plan, purpose, confidence, checks, why };
        self.enter_by_operator(now, wanted, actions);
    }

    pub(super) fn decline(&mut self, now: Time, id: Option<ProposalId>, reason: &str, actions: &mut Vec<Action>) {
        let Some(proposal) = self.answered_proposal(now, id, Ended::Declined, reason, actions) else { return };
        let quiet: Duration = self.settings.failover.confirm_within.saturating_mul(DECLINED_FOR);
        self.proposals.declined = Some((proposal.to, proposal.kind, now + quiet));
    }

    /// Takes the proposal that an operator answered; without it the command itself is answered.
    fn answered_proposal(
        &mut self,
        now: Time,
        id: Option<ProposalId>,
        ended: Ended,
        reason: &str,
        actions: &mut Vec<Action>,
    ) -> Option<Proposal> {
        if let Some(current) = &self.proposals.current
            && id.is_none_or(|id| id == current.id)
        {
            return self.end_proposal(now, ended, Some(reason), actions);
        }
        match (id, self.proposals.ended) {
            (Some(id), Some((last, was))) if id == last && was == ended => {
                let why = format!("proposal {id} was {ended} already");
                self.answer(now, DecisionKind::Commanded, self.active, why, actions);
            }
            (Some(id), Some((last, was))) if id == last => {
                self.reject(now, self.active, format!("proposal {id} was {was}"), actions);
            }
            (Some(id), _) => self.reject(now, self.active, format!("there is no proposal {id}"), actions),
            (None, _) => self.reject(now, self.active, "nothing is proposed".to_owned(), actions),
        }
        None
    }
}
