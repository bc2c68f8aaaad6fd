//! What is seen of the demo: a screen of lines for the live view, single lines for the plain one. Draws, and knows nothing
//! of processes and sockets.

use std::collections::VecDeque;
use std::time::Duration;

use super::meter::Reading;
use super::screen::Size;
use super::stage::{BACKENDS, Notice, Ports, RESTART_PAUSE, ServerReport};
use crate::cli::output::harmless;
use crate::cli::render::{self, Tone};
use crate::control::api::{BackendReport, GroupReport, StatusReport};
use crate::telemetry::events::{Event, Severity};
use crate::telemetry::wall_time::WallTime;

/// Happenings kept for the live view: more than any terminal shows.
const HAPPENINGS_MAX: usize = 100;
/// Lines that one happening may take on a narrow terminal.
const HAPPENING_LINES_MAX: usize = 3;

/// An event of Standin, or something that befell a process of the demo.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Happening {
    at: WallTime,
    tone: Tone,
    kind: String,
    message: String,
}

impl Happening {
    pub(super) fn of_event(event: &Event) -> Self {
        let tone = match event.severity {
            Severity::Info => Tone::Plain,
            Severity::Warning => Tone::Warn,
            Severity::Error => Tone::Bad,
        };
        let message = match &event.backend {
            Some(backend) if !event.message.contains(backend.as_str()) => format!("{backend}: {}", event.message),
            _ => event.message.clone(),
        };
        Self { at: event.at, tone, kind: event.kind.as_str().replace('_', " "), message: harmless(&message) }
    }

    /// Something that happened now.
    pub(super) fn of_notice(notice: Notice) -> Self {
        let tone = if notice.is_bad { Tone::Bad } else { Tone::Good };
        Self { at: WallTime::now(), tone, kind: notice.kind.to_owned(), message: notice.message }
    }

    /// One line of the plain view.
    pub(super) fn line(&self) -> String {
        format!("{}  {:<18}  {}\n", self.at.time_of_day(), self.kind, self.message)
    }
}

/// Everything that is drawn.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) ports: Ports,
    pub(super) elapsed: Duration,
    /// The demo ends then; `None`: with Ctrl-C.
    pub(super) total: Option<Duration>,
    pub(super) reading: Reading,
    pub(super) servers: Vec<ServerReport>,
    /// The last one that came.
    pub(super) status: Option<StatusReport>,
    /// Why there is no newer one.
    pub(super) trouble: Option<String>,
    happenings: VecDeque<Happening>,
}

impl Scene {
    pub(super) fn new(ports: Ports, total: Option<Duration>) -> Self {
        Self {
            ports,
            elapsed: Duration::ZERO,
            total,
            reading: Reading::default(),
            servers: Vec::new(),
            status: None,
            trouble: None,
            happenings: VecDeque::new(),
        }
    }

    pub(super) fn remember(&mut self, happening: Happening) {
        if self.happenings.len() == HAPPENINGS_MAX {
            self.happenings.pop_front();
        }
        self.happenings.push_back(happening);
    }

    fn group(&self) -> Option<&GroupReport> {
        self.status.as_ref()?.groups.first()
    }

    /// The server that serves now and its process, if it runs.
    fn serving(&self) -> Option<(&str, u32)> {
        let active = self.group().map_or(Some(BACKENDS[0]), |group| group.active.as_deref())?;
        let server = self.servers.iter().find(|server| server.name == active)?;
        Some((server.name, server.process_id?))
    }

    /// What to try, and what it does.
    fn hints(&self) -> Vec<(String, String)> {
        let mut hints =
            vec![(format!("redis-cli -p {}", self.ports.front), "your own client, through Standin".to_owned())];
        if let Some((name, process_id)) = self.serving() {
            let pause = RESTART_PAUSE.as_secs();
            hints.push((
                format!("kill -9 {process_id}"),
                format!("breaks {name}, which serves now; it starts again, empty, after {pause} s"),
            ));
            hints.push((
                format!("kill -STOP {process_id}"),
                format!("freezes it instead; kill -CONT {process_id} thaws it"),
            ));
        }
        hints
    }
}

/// What the plain view says first.
pub(super) fn opening(scene: &Scene) -> String {
    let Ports { front, control, .. } = scene.ports;
    let mut text = format!("three cache servers, and Standin before them on 127.0.0.1:{front}\n");
    let page = (format!("http://127.0.0.1:{control}/"), "the live page of its control port".to_owned());
    for (command, effect) in scene.hints().into_iter().chain([page]) {
        text += &format!("  {command:<24}  {effect}\n");
    }
    text
}

/// One line of the plain view, for the second that passed.
pub(super) fn second(scene: &Scene) -> String {
    let reading = &scene.reading;
    let serving = match (&scene.trouble, scene.group()) {
        (Some(trouble), _) => format!("status unknown: {}", harmless(trouble)),
        (None, Some(group)) => serving(group).0,
        (None, None) => "starting".to_owned(),
    };
    let latency = |quantile| reading.window.latencies.quantile_us(quantile).map_or("-".to_owned(), render::latency);
    format!(
        "{:>4} s  {serving}  {:.0} requests/s  p50 {}  p99 {}  errors {}  stale reads {}  longest gap {}\n",
        scene.elapsed.as_secs(),
        reading.operations_per_second(),
        latency(0.5),
        latency(0.99),
        reading.whole.errors,
        reading.whole.stale_reads,
        gap(reading)
    )
}

/// Who serves, and how that is.
fn serving(group: &GroupReport) -> (String, Tone) {
    match &group.active {
        Some(name) => {
            let text = format!("{} serves ({})", harmless(name), harmless(&group.status).replace('_', " "));
            (text, Tone::of_status(&group.status))
        }
        None => (format!("no backend serves ({})", harmless(&group.availability)), Tone::Bad),
    }
}

fn gap(reading: &Reading) -> String {
    format!("{:.1} ms", reading.gap_longest.length.as_secs_f64() * 1e3)
}

/// Pieces of one line, each with its tone.
#[derive(Debug, Clone, Default)]
struct Line(Vec<(String, Tone)>);

impl Line {
    fn of(text: impl Into<String>, tone: Tone) -> Self {
        Self(vec![(text.into(), tone)])
    }

    fn push(&mut self, text: impl Into<String>, tone: Tone) {
        self.0.push((text.into(), tone));
    }

    /// At most so many columns wide.
    fn cut(&self, columns: usize, coloured: bool) -> String {
        let mut left = columns;
        let mut text = String::new();
        for (piece, tone) in &self.0 {
            let shown: String = piece.chars().take(left).collect();
            left -= shown.chars().count();
            if !shown.is_empty() {
                text += &render::toned(&shown, *tone, coloured);
            }
        }
        text
    }
}

/// The whole screen, as many lines as it has and none wider.
pub(super) fn screen(scene: &Scene, size: Size, coloured: bool) -> Vec<String> {
    let mut lines = vec![title(scene), Line::default()];
    for (command, effect) in scene.hints() {
        let mut line = Line::of(format!("  {command:<20}"), Tone::Head);
        line.push(format!("  {effect}"), Tone::Dim);
        lines.push(line);
    }
    lines.push(Line::default());
    lines.push(state(scene));
    lines.extend(columns(&backends(scene)));
    lines.extend(notes(scene));
    lines.push(Line::default());
    lines.extend(columns(&figures(&scene.reading)));
    if let Some((text, count)) = scene.reading.error_texts.first() {
        lines.push(Line::of(format!("  {count} times: {}", harmless(text)), Tone::Bad));
    }
    lines.push(Line::default());
    let left = size.lines.saturating_sub(lines.len());
    lines.extend(happenings(&scene.happenings, size.columns, left));
    lines.truncate(size.lines);
    lines.iter().map(|line| line.cut(size.columns, coloured)).collect()
}

fn title(scene: &Scene) -> Line {
    let elapsed = render::duration(scene.elapsed.as_secs());
    let time = match scene.total {
        Some(total) => format!("  {elapsed} of {}; Ctrl-C ends it", render::duration(total.as_secs())),
        None => format!("  {elapsed}; Ctrl-C ends it"),
    };
    let mut line = Line::of("Standin demo", Tone::Head);
    line.push(time, Tone::Dim);
    line
}

fn state(scene: &Scene) -> Line {
    let mut line = Line::of("  ", Tone::Plain);
    match (&scene.trouble, scene.group()) {
        (Some(trouble), _) => line.push(format!("status unknown: {}", harmless(trouble)), Tone::Bad),
        (None, None) => line.push("starting", Tone::Dim),
        (None, Some(group)) => {
            let (text, tone) = serving(group);
            line.push(text, tone);
            line.push(format!(" since {}, epoch {}", group.since.time_of_day(), group.epoch), Tone::Plain);
        }
    }
    line
}

type Row = Vec<(String, Tone)>;

/// One row for each server, in an order that does not change when another one serves.
fn backends(scene: &Scene) -> Vec<Row> {
    let head = ["", "backend", "health", "score", "p50", "p99", "probes", "content", "process"];
    let mut rows: Vec<Row> = vec![head.map(|name| (name.to_owned(), Tone::Dim)).to_vec()];
    for server in &scene.servers {
        let report = scene.group().and_then(|group| group.backends.iter().find(|one| one.name == server.name));
        let process = match server.process_id {
            Some(process_id) => (process_id.to_string(), Tone::Plain),
            None => (format!("ended, again in {} s", server.starts_in.as_secs_f64().ceil()), Tone::Bad),
        };
        let mut row = report.map_or_else(|| unknown_backend(server.name), known_backend);
        row.push(process);
        rows.push(row);
    }
    rows
}

fn unknown_backend(name: &str) -> Row {
    let mut row = vec![(String::new(), Tone::Plain), (name.to_owned(), Tone::Plain)];
    row.extend(std::iter::repeat_n(("-".to_owned(), Tone::Dim), 6));
    row
}

fn known_backend(report: &BackendReport) -> Row {
    let health = Tone::of_health(&report.health);
    let probes = match (report.probes.ok_in_a_row, report.probes.failed_in_a_row) {
        (0, 0) => "none ok".to_owned(),
        (ok, 0) => format!("{ok} ok"),
        (_, failed) => format!("{failed} failed"),
    };
    let content = match report.divergence.state.as_ref() {
        "keys" => format!("missed {} keys", report.divergence.keys),
        state => harmless(state),
    };
    let latency = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), render::latency);
    vec![
        (if report.active { "*" } else { "" }.to_owned(), Tone::Good),
        (harmless(&report.name), if report.active { Tone::Head } else { Tone::Plain }),
        (harmless(&report.health), health),
        (report.score.map_or_else(|| "-".to_owned(), |score| format!("{score:.0}")), health),
        (latency(report.latency.map(|latency| latency.p50_us)), Tone::Plain),
        (latency(report.latency.map(|latency| latency.p99_us)), Tone::Plain),
        (probes, Tone::Plain),
        (content, Tone::Plain),
    ]
}

/// Why a score is low or a backend cannot be entered: one line for each backend, the weightiest reason.
fn notes(scene: &Scene) -> Vec<Line> {
    let backends = scene.group().map(|group| group.backends.as_slice()).unwrap_or_default();
    let note = |report: &BackendReport| {
        let refused = (!report.enterable && !report.active).then_some(report.why_not.as_ref()).flatten();
        let why = report.reasons.first().or(refused).or(report.probes.last_error.as_ref())?;
        Some(Line::of(format!("     {}: {}", harmless(&report.name), harmless(why)), Tone::Warn))
    };
    backends.iter().filter_map(note).collect()
}

fn figures(reading: &Reading) -> Vec<Row> {
    let head = ["", "requests/s", "p50", "p99", "operations", "errors", "stale reads", "longest gap"];
    let whole = &reading.whole;
    let bad = |count: u64| (count.to_string(), if count == 0 { Tone::Good } else { Tone::Bad });
    let latency = |quantile| {
        let us = reading.window.latencies.quantile_us(quantile);
        (us.map_or_else(|| "-".to_owned(), render::latency), Tone::Plain)
    };
    let row = vec![
        (String::new(), Tone::Plain),
        (format!("{:.0}", reading.operations_per_second()), Tone::Head),
        latency(0.5),
        latency(0.99),
        (whole.operations.to_string(), Tone::Plain),
        bad(whole.errors),
        bad(whole.stale_reads),
        (gap(reading), Tone::Plain),
    ];
    vec![head.map(|name| (name.to_owned(), Tone::Dim)).to_vec(), row]
}

/// Aligned columns, two spaces before each.
fn columns(rows: &[Row]) -> Vec<Line> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|(text, _)| text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Row| {
        let cells = row.iter().zip(&widths);
        Line(cells.map(|((text, tone), width)| (format!("  {text:<width$}"), *tone)).collect())
    };
    rows.iter().map(line).collect()
}

/// The newest that fit into so many lines, the newest last, each whole or not at all.
fn happenings(happenings: &VecDeque<Happening>, columns: usize, lines_max: usize) -> Vec<Line> {
    let mut shown: VecDeque<Vec<Line>> = VecDeque::new();
    let mut used = 0;
    for happening in happenings.iter().rev() {
        let lines = happening_lines(happening, columns);
        used += lines.len();
        if used > lines_max {
            break;
        }
        shown.push_front(lines);
    }
    shown.into_iter().flatten().collect()
}

fn happening_lines(happening: &Happening, columns: usize) -> Vec<Line> {
    const INDENT: usize = 4;
    let head = format!("  {}  {}  ", happening.at.time_of_day(), happening.kind);
    let first_width = columns.saturating_sub(head.chars().count());
    let texts = wrapped(&happening.message, first_width, columns.saturating_sub(INDENT));
    let mut lines = Vec::new();
    for (number, text) in texts.into_iter().take(HAPPENING_LINES_MAX).enumerate() {
        let mut line = if number == 0 { Line::of(head.clone(), happening.tone) } else { Line::default() };
        line.push(if number == 0 { text } else { format!("{:INDENT$}{text}", "") }, Tone::Plain);
        lines.push(line);
    }
    lines
}

/// Breaks a text at its spaces. A word that is wider than a line is left so, and cut when it is drawn.
fn wrapped(text: &str, first_width: usize, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let limit = if lines.len() == 1 { first_width } else { width };
        let Some(line) = lines.last_mut() else { break };
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > limit {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::control::api::tests::sample_status;
    use crate::telemetry::events::EventKind;

    const SIZE: Size = Size { columns: 100, lines: 30 };

    fn scene() -> Scene {
        let ports = Ports { front: 6380, control: 9180, backends: [20_001, 20_002, 20_003] };
        let server = |name, process_id| ServerReport { name, process_id, starts_in: Duration::ZERO };
        let mut scene = Scene::new(ports, Some(Duration::from_secs(60)));
        scene.elapsed = Duration::from_millis(12_300);
        scene.servers = vec![server("primary", Some(4711)), server("backup-a", Some(4712)), server("backup-b", None)];
        scene.servers[2].starts_in = Duration::from_millis(2_100);
        scene.status = Some(sample_status());
        let mut event = Event::new(EventKind::BackendDown, "backup-b refuses connections");
        event.at = WallTime::from_ms(1_795_315_639_120);
        scene.remember(Happening::of_event(&event));
        scene
    }

    fn text(scene: &Scene, size: Size) -> String {
        screen(scene, size, false).iter().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    #[test]
    fn the_screen_shows_who_serves_how_each_is_what_to_try_and_what_happened() {
        let expected = "\
Standin demo  12 s of 1 min 0 s; Ctrl-C ends it

  redis-cli -p 6380     your own client, through Standin
  kill -9 4711          breaks primary, which serves now; it starts again, empty, after 5 s
  kill -STOP 4711       freezes it instead; kill -CONT 4711 thaws it

  primary serves (active) since 02:47:19, epoch 1
     backend   health    score  p50   p99    probes   content  process
  *  primary   healthy   100    88us  1.9ms  17 ok    clean    4711
     backup-a  degraded  84     -     -      none ok  unknown  4712
     backup-b  -         -      -     -      -        -        ended, again in 3 s
     backup-a: probes take 4 times their baseline

    requests/s  p50  p99  operations  errors  stale reads  longest gap
    0           -    -    0           0       0            0.0 ms

  02:47:19  backend down  backup-b refuses connections
";
        assert_eq!(text(&scene(), SIZE), expected);
    }

    #[test]
    fn a_small_terminal_gets_no_line_too_wide_and_none_too_many() {
        let mut scene = scene();
        for number in 0..HAPPENINGS_MAX {
            let message =
                format!("number {number} says so much that no narrow terminal has it on a single line of its own");
            scene.remember(Happening::of_event(&Event::new(EventKind::Config, message)));
        }
        for (columns, lines) in [(80, 24), (40, 24), (20, 10), (1, 1)] {
            for coloured in [false, true] {
                let drawn = screen(&scene, Size { columns, lines }, coloured);
                assert!(drawn.len() <= lines, "{columns}x{lines}: {}", drawn.len());
                assert!(coloured || drawn.iter().all(|line| line.chars().count() <= columns), "{drawn:#?}");
            }
        }
        let drawn = text(&scene, Size { columns: 80, lines: 24 });
        assert!(drawn.contains("number 99 ") && !drawn.contains("number 0 "), "the newest are shown:\n{drawn}");
    }

    #[test]
    fn the_kill_line_names_the_server_that_serves_now() {
        let mut scene = scene();
        scene.status.as_mut().unwrap().groups[0].active = Some("backup-a".to_owned());
        assert!(text(&scene, SIZE).contains("kill -9 4712          breaks backup-a,"));
        let group = &mut scene.status.as_mut().unwrap().groups[0];
        (group.active, group.availability) = (None, "no_backend".into());
        let drawn = text(&scene, SIZE);
        assert!(!drawn.contains("kill") && drawn.contains("no backend serves (no_backend)"), "{drawn}");
        scene.status = None;
        assert!(opening(&scene).contains("kill -9 4711"), "before the first status it is the primary");
    }

    #[test]
    fn colours_are_written_only_where_they_are_wanted() {
        let drawn = |coloured| screen(&scene(), SIZE, coloured).concat();
        assert!(drawn(true).contains("\u{1b}[32mprimary serves (active)\u{1b}[0m"));
        assert!(!drawn(false).contains('\u{1b}'));
    }

    #[test]
    fn a_plain_line_says_the_same_in_one_line_and_hides_no_trouble() {
        let mut scene = scene();
        let expected = "  12 s  primary serves (active)  0 requests/s  p50 -  p99 -  errors 0  stale reads 0  longest gap 0.0 ms\n";
        assert_eq!(second(&scene), expected);
        scene.trouble = Some("nobody answers\u{1b}[2J".to_owned());
        let line = second(&scene);
        assert!(line.contains("status unknown: nobody answers?[2J") && line.lines().count() == 1, "{line}");
    }

    #[test]
    fn a_text_is_broken_at_its_spaces_and_never_loses_a_word() {
        assert_eq!(wrapped("one two three four", 7, 10), ["one two", "three four"]);
        assert_eq!(wrapped("unbreakable words", 3, 3), ["unbreakable", "words"]);
        assert_eq!(wrapped("", 3, 3), [""]);
    }
}
