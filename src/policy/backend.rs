//! What is known of one backend, and the verdict on it. Every rule that turns news into a failure is here.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::{Action, Trigger};
use super::allowance::{Allowance, Baseline};
use super::breaker::{Breaker, BreakerState, Calls};
use super::event::{CommandClass, Edge, NotReadyWord, ProbeAnswer, ProbeOutcome, Role, Standing, WindowSummary};
use super::evidence::{Blind, EntryBlock, Evidence, Failure, NotReady, Signs};
use super::failure::{Cause, FailureKind};
use super::guards::is_slow;
use super::score;
use super::seed::mix;
use super::settings::{BackendSettings, DataMode, Settings};
use super::signals::{Moment, Signals};
use super::time::{Roughly, Time};
use super::view::Health;

/// An answer older than this is asked for anew before a living active is left.
const AFRESH: Duration = Duration::from_millis(100);
/// A question that was not answered is repeated after this.
const ASKED_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Backend {
    pub(super) settings: BackendSettings,
    pub(super) standing: Standing,
    pub(super) health: Health,
    /// The verdict: it serves nobody. Stands until the backend answers.
    pub(super) failure: Option<Failure>,
    pub(super) last_failure: Option<(Time, String)>,
    pub(super) evidence: Evidence,
    /// It answered at least once.
    pub(super) heard: bool,
    /// An established link of the data plane stands, as far as is known.
    pub(super) linked: bool,
    pub(super) last_progress: Option<Time>,
    /// A link's head request waits since then and nothing has come from the backend after it.
    pub(super) stalled_since: Option<Time>,
    pub(super) slow_until: Option<Time>,
    pub(super) in_flight: u32,
    pub(super) probes_ok_in_row: u32,
    pub(super) probes_failed_in_row: u32,
    /// When the first of the failed probes in a row was sent.
    probes_failing_since: Option<Time>,
    pub(super) not_ready: NotReady,
    pub(super) wrong_role: Signs,
    pub(super) authentication_failed: bool,
    pub(super) healthy_since: Option<Time>,
    pub(super) baseline: Baseline,
    allowances: [Allowance; CommandClass::COUNT],
    /// When its probes took longer than they should last.
    pub(super) slow_at: Option<Time>,
    /// The last probe that found it well.
    pub(super) found_well: Found,
    /// The last time that it was asked whether it may take over, and again for want of an answer.
    pub(super) asked: Option<Asked>,
    pub(super) breaker: Breaker,
    /// More timeouts than anything else opened the breaker.
    breaker_by_timeouts: bool,
    /// What it looked like when the breaker opened by itself; its window goes on.
    breaker_opened: Option<Opened>,
    /// The active restarted with another content: it must be entered again.
    pub(super) needs_entry: bool,
    pub(super) entry: EntryBlock,
    pub(super) signals: Signals,
    /// When this process itself did not run last.
    pub(super) blind: Blind,
}

/// When a question was put to a backend, and when its answer came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) sent: Time,
    pub(super) heard: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Asked {
    /// Answers to what was sent before this do not count.
    from: Time,
    last: Time,
}

/// Why the breaker opened.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Opened {
    at: Time,
    failure_rate: f64,
    slow_rate: f64,
    confidence: f64,
}

impl Backend {
    pub(super) fn new(settings: BackendSettings, group: &Settings, seed: u64, now: Time) -> Self {
        let allowance = Allowance::new(group.timeout.floor);
        let seed = mix(seed ^ u64::from(settings.id.0));
        Self {
            settings,
            standing: Standing::Unknown,
            health: Health::Unknown,
            failure: None,
            last_failure: None,
            evidence: Evidence::default(),
            heard: false,
            linked: false,
            last_progress: None,
            stalled_since: None,
            slow_until: None,
            in_flight: 0,
            probes_ok_in_row: 0,
            probes_failed_in_row: 0,
            probes_failing_since: None,
            not_ready: NotReady::default(),
            wrong_role: Signs::default(),
            authentication_failed: false,
            healthy_since: None,
            baseline: Baseline::default(),
            allowances: std::array::from_fn(|_| allowance.clone()),
            breaker: Breaker::new(group.breaker.clone(), seed),
            slow_at: None,
            found_well: Found::default(),
            asked: None,
            breaker_by_timeouts: false,
            breaker_opened: None,
            needs_entry: false,
            entry: EntryBlock::default(),
            signals: Signals::new(group, now),
            blind: Blind::default(),
        }
    }

    pub(super) fn on_edge(&mut self, now: Time, edge: Edge, group: &Settings, blind: Blind) {
        match edge {
            Edge::LinkLost => {
                self.linked = false;
                self.evidence.first_at.get_or_insert(now);
            }
            Edge::ConnectRefused | Edge::ConnectFailed | Edge::HandshakeReset => self.refused(now, edge, group),
            Edge::ConnectTimedOut | Edge::HandshakeTimedOut => self.unanswered(now, edge, group, blind),
            Edge::HandshakeDone => {
                self.linked = true;
                self.answered(now);
                self.authentication_failed = false;
                self.evidence = Evidence::default();
                self.healthy_since.get_or_insert(now);
                self.signals.settle(now);
            }
            Edge::Stalled { silent_for } => {
                let others_answer = self.last_progress.is_some_and(|last| last > now - silent_for);
                if others_answer && !self.slow_in_flight(now) {
                    // A single link that hangs is a failed request, not a silent backend.
                    self.breaker_record(now, Calls { failed: 1, ..Calls::default() }, true);
                }
                let since = self.last_progress.unwrap_or(Time::ZERO).max(now - silent_for);
                self.stalled_since = Some(self.stalled_since.unwrap_or(since).max(since));
                self.judge_silence(now, Duration::ZERO, group, blind);
            }
            Edge::AuthenticationFailed => self.authentication_refused(now),
            Edge::NotReady(word) => self.not_ready_sign(now, word),
            Edge::WrongRole => self.wrong_role_sign(now),
            Edge::IdentityChanged => {
                self.answered(now);
                self.evidence = Evidence::default();
                self.needs_entry = true;
                if self.standing == Standing::Enterable {
                    // What was known of its content is void; a refusal stands until divergence takes it back.
                    self.standing = Standing::Unknown;
                }
                self.healthy_since = Some(now);
                self.probes_ok_in_row = 0;
                self.entry = EntryBlock::default();
            }
        }
    }

    pub(super) fn on_probe(&mut self, now: Time, outcome: &ProbeOutcome, group: &Settings, blind: Blind) {
        if let Some(kind) = failed_as(outcome) {
            self.signals.reliability.attempt(now, Some(kind));
        }
        match *outcome {
            ProbeOutcome::Ok(ref answer) => {
                self.answered(now);
                self.authentication_failed = false;
                self.evidence = Evidence::default();
                self.signals.on_answer(now, answer, group);
                self.probe_ok(now, answer, group);
            }
            ProbeOutcome::Failed(Edge::AuthenticationFailed) | ProbeOutcome::AuthenticationFailed => {
                self.authentication_refused(now);
            }
            ProbeOutcome::Failed(Edge::NotReady(word)) | ProbeOutcome::NotReady(word) => {
                self.probes_failed_in_row = 0;
                self.not_ready_sign(now, word);
            }
            ProbeOutcome::Failed(Edge::WrongRole) => self.wrong_role_sign(now),
            ProbeOutcome::Failed(Edge::Stalled { silent_for }) | ProbeOutcome::TimedOut { silent_for } => {
                self.probe_timed_out(now, silent_for, group, blind);
            }
            ProbeOutcome::Failed(edge) => {
                match edge {
                    Edge::ConnectRefused | Edge::ConnectFailed | Edge::HandshakeReset => self.refused(now, edge, group),
                    Edge::ConnectTimedOut | Edge::HandshakeTimedOut => {
                        self.unanswered(now, edge, group, blind);
                        if self.slow_in_flight(now) {
                            // A server at work on a slow request greets nobody either.
                            return;
                        }
                    }
                    _ => {}
                }
                self.probe_failed(now, now, group, blind);
            }
        }
    }

    pub(super) fn on_window(
        &mut self,
        now: Time,
        window: &WindowSummary,
        group: &Settings,
        blind: Blind,
        actions: &mut Vec<Action>,
    ) {
        self.in_flight = window.in_flight;
        // Also what ran out of time in this window before the slow request ended was late because of it.
        let was_slow = self.slow_in_flight(now);
        self.slow_until = window.slow_in_flight_until;
        if let Some(progress) = window.last_progress {
            self.progressed(progress.min(now));
        }
        if window.in_flight == 0 {
            self.stalled_since = None;
        }
        let errors = &window.errors;
        // Lost links fail many requests at once and are judged by what follows; READONLY by its signs, since a new
        // connection may lead to the new master. LOADING counts beside its signs, which a good probe takes back: where only
        // a share of the requests is refused, they would never be enough.
        // Behind a slow request everything is late or BUSY: that is the request's fault, and it has an allowance.
        let excused = was_slow || self.slow_in_flight(now);
        // What was asked before or while this process did not run may have been answered in time: nobody looked.
        let blinded = !blind.overlap(now - group.timeout.request, now).is_zero();
        let timeouts = if excused || blinded { 0 } else { errors.timeout };
        let overloaded = if excused { 0 } else { errors.overloaded };
        let failed = timeouts + overloaded + errors.not_ready + errors.protocol;
        let moment = Moment { well: self.is_calm(now), slow: self.slow_at_work(now, window, group), blind };
        let calls = self.signals.on_window(now, window, moment, group);
        if window.requests > 0 {
            self.breaker_record(now, Calls { failed, ..calls }, (timeouts + calls.slow) * 2 > failed + calls.slow);
        }
        if errors.not_ready > 0 {
            self.not_ready.signs.note(now);
        }
        if errors.wrong_role > 0 {
            self.wrong_role_sign(now);
        }
        if errors.against_backend() == 0 {
            self.learn_allowances(window, group, actions);
        }
        self.judge_surprise(now, group, blind);
        // The summary is fresh as of now, so nothing newer is waited for.
        self.judge_silence(now, Duration::ZERO, group, blind);
    }

    /// Fails it if it owed something and was silent for `timeout.floor` and `grace`, and no slow request excuses it.
    pub(super) fn judge_silence(&mut self, now: Time, grace: Duration, group: &Settings, blind: Blind) {
        let Some(due) = self.silence_due(group, blind) else { return };
        if now >= due + grace {
            let since = self.stalled_since.unwrap_or(now);
            self.fail(now, since, Trigger::Timeout, format_args!("silent for {:?} while replies are due", now - since));
        }
    }

    /// Fails it if it owes replies and is so silent that phi is past belief. Sooner than a link's allowance where that is
    /// long (a slow command class) but replies of others used to come often; never before `timeout.floor`.
    fn judge_surprise(&mut self, now: Time, group: &Settings, blind: Blind) {
        let silent = self.signals.owed_for(now, blind);
        let waits = !self.linked || self.needs_entry || self.failure.is_some() || self.slow_in_flight(now);
        if waits || silent < group.timeout.floor {
            return;
        }
        let phi = self.signals.phi(now, group, blind);
        if phi >= self.signals.phi.thresholds(&group.phi).1 {
            let usual = self.signals.phi.mean();
            let why =
                format_args!("silent for {silent:?} while replies are due, usually one every {usual:?} (phi {phi:.0})");
            self.fail(now, now - silent, Trigger::Timeout, why);
        }
    }

    /// When the present silence becomes a failure.
    pub(super) fn silence_due(&self, group: &Settings, blind: Blind) -> Option<Time> {
        let since = self.stalled_since.filter(|_| self.failure.is_none())?;
        let due = blind.after(since, group.timeout.floor);
        Some(due.max(self.slow_until.unwrap_or(Time::ZERO)))
    }

    /// Trouble that leaves the backend alive: too many failed requests, not ready, a replica. The active is left for it
    /// only when somebody better lives.
    pub(super) fn soft_failure(&self, now: Time, group: &Settings) -> Option<Failure> {
        let threshold = group.probe.not_ready_threshold;
        let failure = |trigger, since: Option<Time>, confidence, why| Failure {
            at: now,
            since: since.unwrap_or(now),
            trigger,
            confidence,
            total: false,
            why,
        };
        if self.wrong_role.sustained(now, threshold) {
            let why = "it refuses writes: its role is not master".to_owned();
            let failure = failure(Trigger::HealthCheck, self.wrong_role.first_at, 1.0, why);
            return Some(Failure { total: true, ..failure });
        }
        if self.not_ready.signs.sustained(now, threshold) {
            let why = match self.not_ready.word {
                Some(word) => format!("not ready: {word}"),
                None => "not ready".to_owned(),
            };
            use NotReadyWord::{ClusterDown, Loading, MasterDown};
            // Of the others some commands are still served.
            let total = matches!(self.not_ready.word, Some(Loading | MasterDown | ClusterDown));
            let failure = failure(Trigger::HealthCheck, self.not_ready.signs.first_at, 1.0, why);
            return Some(Failure { total, ..failure });
        }
        if let Some(opened) = self.breaker_opened.filter(|_| self.breaker.is_failing(now)) {
            let trigger = if self.breaker_by_timeouts { Trigger::Timeout } else { Trigger::HealthCheck };
            let percent = |share: f64| (share * 100.0).round() as u32;
            let why = match (percent(opened.failure_rate), percent(opened.slow_rate)) {
                (failed, 0) => format!("{failed} % of its requests failed"),
                (0, slow) => format!("{slow} % of its requests took too long"),
                (failed, slow) => format!("{failed} % of its requests failed and {slow} % took too long"),
            };
            return Some(failure(trigger, Some(opened.at), opened.confidence, why));
        }
        let slow = self.slowdown(now, group)?;
        let (class, latency, baseline) = (slow.class.name(), slow.latency, slow.baseline);
        let why =
            format!("{class} requests take {latency:?} for {} now, usually {baseline:?}", Roughly(now - slow.since));
        Some(failure(Trigger::Performance, Some(slow.since), slow.confidence, why))
    }

    /// When to ask again whether it is not ready or a replica, after the first signs of it.
    pub(super) fn look_due(&self, group: &Settings) -> Option<Time> {
        let threshold = group.probe.not_ready_threshold;
        let (ready, role) = (self.not_ready.signs.look_due(threshold), self.wrong_role.look_due(threshold));
        ready.into_iter().chain(role).min()
    }

    pub(super) fn look(&mut self) {
        self.not_ready.signs.look();
        self.wrong_role.look();
    }

    /// Whether it was found well after it had been asked, and just now: what a probe of the last interval says of who is to
    /// take over may be the past.
    pub(super) fn well_afresh(&self, now: Time) -> bool {
        let Found { sent, heard } = self.found_well;
        self.asked.is_some_and(|asked| sent >= asked.from) && now - heard <= AFRESH
    }

    /// Notes that it is asked; false while an answer is still to come.
    pub(super) fn ask(&mut self, now: Time) -> bool {
        let waiting = self.asked.filter(|asked| self.found_well.sent < asked.from);
        if waiting.is_some_and(|asked| now - asked.last < ASKED_AGAIN) {
            return false;
        }
        // An answer to the first question is as good as one to its repetition.
        self.asked = Some(Asked { from: waiting.map_or(now, |asked| asked.from), last: now });
        true
    }

    /// How long there has been evidence, where there is some.
    pub(super) fn evidence_for(&self, now: Time) -> Option<Duration> {
        let since = self.failure.as_ref().map(|failure| failure.since);
        since.or(self.evidence.first_at).or(self.stalled_since).map(|since| now - since)
    }

    /// It answered and shows no trouble: fit to be entered as far as its health goes.
    pub(super) fn looks_well(&self, now: Time) -> bool {
        self.heard
            && self.failure.is_none()
            && self.evidence.count() == 0
            && self.probes_failed_in_row == 0
            && !self.authentication_failed
            && !self.not_ready.signs.any(now)
            && !self.wrong_role.any(now)
    }

    pub(super) fn update_health(&mut self, now: Time, group: &Settings) {
        self.signals.update_latches(now, self.breaker.failure_rate_at_least(now), group);
        let score = score::score(self, group, now);
        self.health = score::health(self.health, score, self.heard, self.failure.is_some());
    }

    /// It was entered: what was held against it before it served is over.
    pub(super) fn entered(&mut self, now: Time) {
        self.needs_entry = false;
        self.entry = EntryBlock::default();
        self.breaker.reset();
        self.signals.settle(now);
    }

    /// Any reply at `at`: silence before it is over.
    fn progressed(&mut self, at: Time) {
        let before = self.last_progress;
        if before.is_some_and(|last| at <= last) {
            return;
        }
        let blind = before.is_some_and(|last| !self.blind.overlap(last, at).is_zero());
        self.signals.heard(at, blind || self.failure.is_some() || self.slow_until.is_some());
        self.last_progress = Some(at);
        self.heard_from(at);
        if self.stalled_since.is_some_and(|since| at > since) {
            self.stalled_since = None;
        }
        if self.evidence.last_at.is_some_and(|last| at > last) {
            self.evidence = Evidence::default();
        }
        if self.failure.as_ref().is_some_and(|failure| at > failure.at) {
            self.revive(at);
        }
    }

    /// It answered just now on a connection that we know to be alive.
    fn answered(&mut self, now: Time) {
        self.progressed(now);
        self.heard_from(now);
        if self.failure.is_some() {
            self.revive(now);
        }
        self.entry.shorten();
    }

    fn heard_from(&mut self, now: Time) {
        if !self.heard {
            self.heard = true;
            // It may have been failing when this process began.
            self.signals.reliability.recovered(now);
        }
    }

    fn revive(&mut self, now: Time) {
        self.failure = None;
        self.signals.reliability.recovered(now);
        self.stalled_since = None;
        self.probes_failed_in_row = 0;
        self.breaker.reset();
    }

    fn fail(&mut self, now: Time, since: Time, trigger: Trigger, why: fmt::Arguments<'_>) {
        self.unwell();
        if self.failure.is_some() {
            return;
        }
        let why = why.to_string();
        self.last_failure = Some((now, why.clone()));
        self.signals.reliability.failed(now, trigger, &why);
        let confidence = self.certainty(now, trigger);
        self.failure = Some(Failure { at: now, since, trigger, confidence, total: true, why });
        self.stalled_since = None;
        self.baseline.forget_recent();
        self.breaker.trip(now);
    }

    /// How sure a verdict of failure is: each attempt that failed leaves a tenth of the doubt, and silence what phi says.
    fn certainty(&self, now: Time, trigger: Trigger) -> f64 {
        let attempts = self.evidence.count().max(self.probes_failed_in_row).min(15);
        let of_attempts = 1.0 - 0.1_f64.powi(attempts as i32);
        let silence = self.last_progress.map_or(0.0, |_| self.signals.phi.phi(now, Duration::ZERO));
        if trigger == Trigger::Timeout { of_attempts.max(1.0 - 10.0_f64.powf(-silence)) } else { of_attempts }
    }

    /// It has to prove anew, from now on, that it is well.
    pub(super) fn unwell(&mut self) {
        self.healthy_since = None;
        self.probes_ok_in_row = 0;
    }

    /// While an established link stands, refused connections may be the listener's trouble (its client limit is reached,
    /// a proxy between): then the next summaries are waited for, which clear the evidence if replies still come.
    fn refused(&mut self, now: Time, edge: Edge, group: &Settings) {
        self.unwell();
        self.evidence.note(now);
        self.evidence.immediate = self.evidence.immediate.saturating_add(1);
        let count = self.evidence.immediate;
        let since = self.evidence.first_at.unwrap_or(now);
        let believed = !self.linked || now - since >= group.timeout.tick * 2;
        if count >= group.failover.failure_threshold && believed {
            self.fail(now, since, Trigger::Connection, format_args!("{edge}, {count} times in this outage"));
        }
    }

    /// A connection or handshake without an answer is silence: it counts, but a pause may not look like a death.
    fn unanswered(&mut self, now: Time, edge: Edge, group: &Settings, blind: Blind) {
        self.unwell();
        self.evidence.note(now);
        self.evidence.timed_out = self.evidence.timed_out.saturating_add(1);
        let since = *self.evidence.first_timed_out_at.get_or_insert(now);
        let silence = (now - since).saturating_sub(blind.overlap(since, now));
        let enough = self.evidence.count() >= group.failover.failure_threshold && silence >= group.timeout.floor;
        if enough && !self.slow_in_flight(now) {
            let since = self.evidence.first_at.unwrap_or(since);
            self.fail(now, since, Trigger::Timeout, format_args!("{edge}, silent for {silence:?}"));
        }
    }

    fn probe_ok(&mut self, now: Time, answer: &ProbeAnswer, group: &Settings) {
        let (latency, role, write_ok) = (answer.latency, answer.role, answer.write_ok);
        self.probes_failed_in_row = 0;
        self.probes_failing_since = None;
        self.breaker_trial(now, true);
        if role == Role::Replica && !self.may_follow() || role == Role::Sentinel {
            self.wrong_role_sign(now);
            return;
        }
        if role == Role::Master || write_ok == Some(true) {
            self.wrong_role = Signs::default();
        }
        if write_ok == Some(false) {
            self.not_ready_sign(now, NotReadyWord::Misconf);
            return;
        }
        self.not_ready = NotReady::default();
        self.probes_ok_in_row = self.probes_ok_in_row.saturating_add(1);
        self.healthy_since.get_or_insert(now);
        self.found_well = Found { sent: now - latency, heard: now };
        self.baseline.record(latency, group.recovery.latency_slack);
        if is_slow(self, group) {
            self.slow_at = Some(now);
        }
    }

    fn probe_timed_out(&mut self, now: Time, silent_for: Duration, group: &Settings, blind: Blind) {
        if self.slow_in_flight(now) {
            return;
        }
        let sent = now - silent_for;
        if blind.overlap(sent, now) * 2 > silent_for {
            return;
        }
        let since = self.last_progress.unwrap_or(Time::ZERO).max(sent);
        let silence = (now - since).saturating_sub(blind.overlap(since, now));
        if silence >= group.timeout.floor {
            self.probes_failed_in_row = self.probes_failed_in_row.saturating_add(1);
            self.signals.on_failed_probe(now);
            self.fail(now, since, Trigger::Timeout, format_args!("a probe and all else unanswered for {silence:?}"));
            return;
        }
        self.probe_failed(now, sent, group, blind);
    }

    fn probe_failed(&mut self, now: Time, sent: Time, group: &Settings, blind: Blind) {
        self.probes_ok_in_row = 0;
        self.healthy_since = None;
        self.probes_failed_in_row = self.probes_failed_in_row.saturating_add(1);
        self.signals.on_failed_probe(now);
        self.breaker_trial(now, false);
        let since = *self.probes_failing_since.get_or_insert(sent);
        let lasting = (now - since).saturating_sub(blind.overlap(since, now)) >= group.timeout.floor;
        let count = self.probes_failed_in_row;
        if count >= group.probe.failure_threshold && lasting {
            self.fail(now, since, Trigger::HealthCheck, format_args!("{count} failed probes in a row"));
        }
    }

    fn authentication_refused(&mut self, now: Time) {
        self.answered(now);
        self.evidence = Evidence::default();
        self.unwell();
        self.authentication_failed = true;
    }

    fn not_ready_sign(&mut self, now: Time, word: NotReadyWord) {
        self.answered(now);
        match word {
            // The command's own trouble, or a script's: the backend is well.
            NotReadyWord::TryAgain | NotReadyWord::Busy => {}
            NotReadyWord::Loading
            | NotReadyWord::MasterDown
            | NotReadyWord::ClusterDown
            | NotReadyWord::Misconf
            | NotReadyWord::NoReplicas => {
                self.unwell();
                self.not_ready.word = Some(word);
                self.not_ready.signs.note(now);
            }
        }
    }

    fn wrong_role_sign(&mut self, now: Time) {
        self.answered(now);
        self.unwell();
        self.wrong_role.note(now);
    }

    fn breaker_record(&mut self, now: Time, calls: Calls, by_timeouts: bool) {
        if !self.breaker.record(now, calls) {
            return;
        }
        self.breaker_by_timeouts = by_timeouts;
        self.breaker_opened = Some(Opened {
            at: now,
            failure_rate: self.breaker.failure_rate(now),
            slow_rate: self.breaker.slow_rate(now),
            confidence: self.breaker.confidence(now),
        });
    }

    /// Probes are the trials of a breaker that is not closed; while it is, their rows are counted instead.
    fn breaker_trial(&mut self, now: Time, succeeded: bool) {
        if self.breaker.state(now) != BreakerState::Closed {
            let (succeeded, failed) = (u64::from(succeeded), u64::from(!succeeded));
            self.breaker.record_trial(now, Calls { succeeded, failed, slow: 0 });
        }
    }

    /// Whether it may be a replica without that being a fault.
    fn may_follow(&self) -> bool {
        self.settings.data == DataMode::Replica || self.settings.promotable
    }

    /// As it last said, a replica; where it does not say, as configured.
    pub(super) fn follows(&self) -> bool {
        match self.signals.role {
            Role::Replica => true,
            Role::Master => false,
            Role::Sentinel | Role::Unknown => self.settings.data == DataMode::Replica,
        }
    }

    /// Whether writes are taken once it serves.
    pub(super) fn takes_writes(&self) -> bool {
        !self.follows() || self.settings.promotable
    }

    pub(super) fn slow_in_flight(&self, now: Time) -> bool {
        self.slow_until.is_some_and(|until| now < until)
    }

    /// A slow request was at work for so long that the requests beside it look degraded by it.
    fn slow_at_work(&self, now: Time, window: &WindowSummary, group: &Settings) -> bool {
        let min_shift = group.performance.min_shift;
        let ended = window.latency[CommandClass::Slow.index()].above(min_shift.as_micros() as u64) > 0;
        let began = |until: Time| until - group.timeout.slow;
        ended || window.slow_in_flight_until.is_some_and(|until| until > now && now - began(until) >= min_shift)
    }

    /// Nothing at all speaks against it at this moment: what it does now is how it is when it is well.
    fn is_calm(&self, now: Time) -> bool {
        self.looks_well(now)
            && self.stalled_since.is_none()
            && self.evidence.first_at.is_none()
            && self.breaker.state(now) == BreakerState::Closed
    }

    fn learn_allowances(&mut self, window: &WindowSummary, group: &Settings, actions: &mut Vec<Action>) {
        for class in CommandClass::ALL {
            let p99_us = window.latency[class.index()].quantile_us(0.99);
            let Some(p99_us) = p99_us.filter(|_| class != CommandClass::Slow) else { continue };
            if let Some(allowance) = self.allowances[class.index()].record(p99_us, &group.timeout) {
                actions.push(Action::SetAllowance { backend: self.settings.id, class, allowance });
            }
        }
    }
}

/// What kind of failure a probe's outcome is, if it is one.
fn failed_as(outcome: &ProbeOutcome) -> Option<FailureKind> {
    let cause = match outcome {
        ProbeOutcome::Ok(_) => return None,
        ProbeOutcome::TimedOut { .. } => Cause::Silent,
        ProbeOutcome::NotReady(word) => word.cause(),
        ProbeOutcome::AuthenticationFailed => Cause::WrongPassword,
        ProbeOutcome::Failed(edge) => edge.cause()?,
    };
    Some(cause.meaning().kind)
}
