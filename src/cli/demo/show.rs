//! The loop that brings stage, load, watch and view together, from the first process to the last.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::DemoArgs;
use super::load::{LoadSettings, RunningLoad};
use super::screen::Screen;
use super::stage::{Notice, Stage, loopback};
use super::summary::Summary;
use super::view::{self, Happening, Scene};
use super::watch::{Sighting, Watch};
use crate::cli::output;
use crate::telemetry::events::EventKind;

/// How soon a process that ended is noticed, and how exactly the times of the command line are kept.
const TICK: Duration = Duration::from_millis(100);
/// One window of the figures, and one redraw.
const LIVE_PERIOD: Duration = Duration::from_millis(500);
const PLAIN_PERIOD: Duration = Duration::from_secs(1);

/// Runs the whole demo. `None` if it was told to end before it had begun.
pub(super) async fn show(arguments: &DemoArgs) -> anyhow::Result<Option<Summary>> {
    let mut signals = Signals::listen()?;
    let mut voice = Voice::choose(arguments);
    let stage = tokio::select! {
        // Told to end, the half-built stage is dropped, and its processes with it.
        () = signals.end() => return Ok(None),
        stage = Stage::build(arguments.port) => stage?,
    };
    let settings =
        LoadSettings { address: loopback(stage.ports.front), clients: arguments.clients, rate: arguments.rate };
    let load = RunningLoad::start(settings).context("cannot start the load")?;
    let mut watch = Watch::start(loopback(stage.ports.control));
    let mut run = Run::new(arguments, stage, load);
    let went_well = run.go_on(&mut signals, &mut watch, &mut voice).await;
    // The terminal is given back before anything else is said, and the load ends while everything still serves it.
    voice.quieten();
    let Run { stage, load, mut counts, scene, .. } = run;
    let reading = load.end();
    if went_well.is_ok() {
        for sighting in watch.last().await {
            counts.take(&sighting);
        }
    }
    let summary = Summary {
        lasted: scene.elapsed,
        reading,
        failovers: counts.failovers,
        recoveries: counts.recoveries,
        failover_expected: arguments.kill_primary_after.is_some(),
        logs: None,
    };
    let keep_logs = went_well.is_err() || !summary.faults().is_empty();
    let logs = stage.end(keep_logs).await;
    went_well?;
    Ok(Some(Summary { logs, ..summary }))
}

/// Every way in which somebody from outside ends the demo.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Cancel-safe.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// Where and how the demo speaks.
#[derive(Debug)]
enum Voice {
    /// `None` until the screen is first needed, and after it was given back.
    Live {
        screen: Option<Screen>,
        coloured: bool,
    },
    Out,
    /// Standard output is kept free for the summary.
    Error,
}

impl Voice {
    fn choose(arguments: &DemoArgs) -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        if arguments.json {
            Self::Error
        } else if arguments.plain || is_dumb || !io::stdout().is_terminal() {
            Self::Out
        } else {
            Self::Live { screen: None, coloured: output::wants_colour() }
        }
    }

    const fn period(&self) -> Duration {
        match self {
            Self::Live { .. } => LIVE_PERIOD,
            Self::Out | Self::Error => PLAIN_PERIOD,
        }
    }

    /// A line of the plain views. Fails when the reader has gone.
    fn say(&self, text: &str) -> io::Result<()> {
        match self {
            Self::Live { .. } => Ok(()),
            Self::Out => io::stdout().lock().write_all(text.as_bytes()),
            Self::Error => io::stderr().lock().write_all(text.as_bytes()),
        }
    }

    /// The live view, whole. Fails when the terminal has gone.
    fn draw(&mut self, scene: &Scene) -> io::Result<()> {
        let Self::Live { screen, coloured } = self else { return Ok(()) };
        let screen = match screen {
            Some(screen) => screen,
            None => screen.insert(Screen::enter()?),
        };
        screen.draw(&view::screen(scene, screen.size, *coloured))
    }

    fn measure(&mut self) {
        if let Self::Live { screen: Some(screen), .. } = self {
            screen.measure();
        }
    }

    fn quieten(&mut self) {
        if let Self::Live { screen, .. } = self {
            *screen = None;
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    failovers: u64,
    recoveries: u64,
}

impl Counts {
    fn take(&mut self, sighting: &Sighting) {
        let count = |kind| sighting.events.iter().filter(|event| event.kind == kind).count() as u64;
        self.failovers += count(EventKind::Failover);
        self.recoveries += count(EventKind::Recovery);
    }
}

/// A demo under way.
struct Run {
    stage: Stage,
    load: RunningLoad,
    scene: Scene,
    counts: Counts,
    begun: Instant,
    /// Until the primary is killed; `None` once that is done, or is not to be.
    kill_after: Option<Duration>,
    /// When the figures were last read.
    read_at: Instant,
}

impl Run {
    fn new(arguments: &DemoArgs, stage: Stage, load: RunningLoad) -> Self {
        let now = Instant::now();
        let mut scene = Scene::new(stage.ports, arguments.seconds.map(Duration::from_secs));
        scene.servers = stage.report(now);
        let kill_after = arguments.kill_primary_after.map(Duration::from_secs);
        Self { stage, load, scene, counts: Counts::default(), begun: now, kill_after, read_at: now }
    }

    /// Until the time is over or somebody ends it. Fails if a process of the stage is beyond help.
    async fn go_on(&mut self, signals: &mut Signals, watch: &mut Watch, voice: &mut Voice) -> anyhow::Result<()> {
        let mut window = signal(SignalKind::window_change()).context("cannot listen to signals")?;
        let mut turns = tokio::time::interval(TICK);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Whoever does not read any more has seen enough: the demo ends as by Ctrl-C.
        if voice.say(&view::opening(&self.scene)).is_err() {
            return Ok(());
        }
        loop {
            let spoken = tokio::select! {
                () = signals.end() => return Ok(()),
                _ = window.recv() => { voice.measure(); voice.draw(&self.scene) }
                Some(sighting) = watch.next() => self.take(sighting, voice),
                _ = turns.tick() => self.tick(voice)?,
            };
            if spoken.is_err() || self.scene.total.is_some_and(|total| self.scene.elapsed >= total) {
                return Ok(());
            }
        }
    }

    fn take(&mut self, sighting: Sighting, voice: &Voice) -> io::Result<()> {
        self.counts.take(&sighting);
        for event in &sighting.events {
            self.tell(Happening::of_event(event), voice)?;
        }
        match sighting.status {
            Ok(status) => {
                self.scene.status = Some(status);
                self.scene.trouble = None;
            }
            Err(why) => self.scene.trouble = Some(why),
        }
        Ok(())
    }

    /// The outer error ends the demo as failed, the inner one says that nobody listens.
    fn tick(&mut self, voice: &mut Voice) -> anyhow::Result<io::Result<()>> {
        let now = Instant::now();
        self.scene.elapsed = now - self.begun;
        let mut notices: Vec<Notice> = Vec::new();
        if self.kill_after.is_some_and(|after| self.scene.elapsed >= after) {
            self.kill_after = None;
            notices.extend(self.stage.kill_primary()?);
        }
        notices.extend(self.stage.look_after(now)?);
        self.scene.servers = self.stage.report(now);
        Ok(self.speak(now, notices, voice))
    }

    fn speak(&mut self, now: Instant, notices: Vec<Notice>, voice: &mut Voice) -> io::Result<()> {
        for notice in notices {
            self.tell(Happening::of_notice(notice), voice)?;
        }
        if now - self.read_at >= voice.period() {
            self.read_at = now;
            self.scene.reading = self.load.read();
            voice.say(&view::second(&self.scene))?;
            voice.draw(&self.scene)?;
        }
        Ok(())
    }

    fn tell(&mut self, happening: Happening, voice: &Voice) -> io::Result<()> {
        voice.say(&happening.line())?;
        self.scene.remember(happening);
        Ok(())
    }
}
