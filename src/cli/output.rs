//! Writing to a terminal or a pipe: no panic when the reader has gone, no control characters of a stranger.

use std::io::{self, IsTerminal, Write};

/// Writes to standard output. Whoever piped us into `head` has gone once it has enough; that is no error.
pub(super) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes `standin: TEXT` to standard error.
pub(super) fn error(text: &str) {
    if !text.is_empty() {
        let _ = writeln!(io::stderr().lock(), "standin: {text}");
    }
}

/// Whether the reader is a terminal that wants colours.
pub(super) fn wants_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A text that came over the network, fit for a terminal: an escape sequence could rewrite what the operator reads.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}
