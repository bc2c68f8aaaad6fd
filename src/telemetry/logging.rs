//! Structured logs on standard error, as text for people or as JSON lines for machines.
//!
//! Secrets and payloads are never logged: no code hands them to `tracing`. Standard output stays free for the answers of
//! commands.

use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt};

/// Overrides `log.level`, in the same form.
pub const LEVEL_VARIABLE: &str = "STANDIN_LOG";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error(
        "the log level {text:?} from {origin} is not a filter like `info` or `info,standin::backend=debug`: {error}"
    )]
    Level { text: String, origin: &'static str, error: ParseError },
    #[error("logging was already set up in this process: {0}")]
    AlreadySetUp(#[from] TryInitError),
}

/// Sets up the process's logging. `level` is the configured filter, `variable` is what [`LEVEL_VARIABLE`] holds; empty counts as absent.
pub fn init(level: &str, format: LogFormat, variable: Option<&str>) -> Result<(), LoggingError> {
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let layer = layer(format, coloured, std::io::stderr);
    tracing_subscriber::registry().with(layer.with_filter(filter(level, variable)?)).try_init()?;
    Ok(())
}

/// The variable wins over the configuration, so that one start can be made verbose without touching a file.
fn filter(configured: &str, variable: Option<&str>) -> Result<EnvFilter, LoggingError> {
    let (text, origin) = match variable.filter(|text| !text.trim().is_empty()) {
        Some(text) => (text, LEVEL_VARIABLE),
        None => (configured, "log.level"),
    };
    EnvFilter::builder().parse(text).map_err(|error| LoggingError::Level { text: text.to_owned(), origin, error })
}

fn layer<W>(format: LogFormat, coloured: bool, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    match format {
        LogFormat::Text => fmt::layer().with_ansi(coloured).with_writer(writer).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_ansi(false).with_writer(writer).boxed(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::telemetry::events::{Event, EventKind, History};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged while `body` runs.
    fn logged(format: LogFormat, level: &str, body: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = layer(format, false, move || writer.clone()).with_filter(filter(level, None).unwrap());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), body);
        String::from_utf8(std::mem::take(&mut lines.0.lock().unwrap())).unwrap()
    }

    fn record(kind: EventKind) {
        let event = Event::new(kind, "primary refused the password").group("default").backend("primary");
        History::default().record(event.detail(serde_json::json!({ "attempts": 3 })));
    }

    #[test]
    fn an_event_is_one_json_line_with_its_fields() {
        let text = logged(LogFormat::Json, "info", || record(EventKind::AuthenticationFailed));
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "ERROR");
        assert_eq!(line["event"], "authentication_failed");
        assert_eq!((&line["group"], &line["backend"], &line["id"]), (&"default".into(), &"primary".into(), &1.into()));
        assert_eq!(line["message"], "primary refused the password");
        assert_eq!(line["detail"], r#"{"attempts":3}"#);
        assert!(line.get("trigger").is_none(), "{text}");
    }

    #[test]
    fn an_event_is_one_text_line_too_and_its_severity_is_its_level() {
        let text = logged(LogFormat::Text, "info", || {
            record(EventKind::LinksLost);
            record(EventKind::BackendUp);
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains(" WARN ") && lines[0].contains(r#"event="links_lost""#), "{text}");
        assert!(lines[1].contains(" INFO ") && lines[1].contains("primary refused the password"), "{text}");
    }

    #[test]
    fn the_level_keeps_back_what_is_below_it() {
        assert_eq!(logged(LogFormat::Text, "warn", || record(EventKind::BackendUp)), "");
        assert_eq!(logged(LogFormat::Text, "info,standin::event=off", || record(EventKind::NoBackend)), "");
    }

    #[test]
    fn control_characters_of_a_servers_text_do_not_reach_the_terminal() {
        let text = logged(LogFormat::Text, "info", || {
            History::default().record(Event::new(EventKind::Config, "said \u{1b}[2Jgone"));
        });
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn the_variable_wins_and_an_empty_one_counts_as_absent() {
        assert_eq!(filter("info", Some("debug")).unwrap().to_string(), "debug");
        assert_eq!(filter("info", Some(" ")).unwrap().to_string(), "info");
    }

    #[test]
    fn a_level_that_is_none_is_refused_with_its_origin() {
        let error = filter("info", Some("standin=loud")).unwrap_err().to_string();
        assert!(error.contains("STANDIN_LOG") && error.contains("standin=loud"), "{error}");
        assert!(filter("standin=loud", None).unwrap_err().to_string().contains("log.level"));
    }
}
