//! The terminal while the live view is on it: another screen, drawn in place, given back as it was.

use std::fs::File;
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Another screen, and no cursor on it.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l\u{1b}[2J";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
const HOME: &str = "\u{1b}[H";
const ERASE_LINE: &str = "\u{1b}[K";
const ERASE_BELOW: &str = "\u{1b}[J";

/// Columns and lines of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) lines: usize,
}

/// What every terminal has at least, and what is taken where it does not say.
const SIZE_USUAL: Size = Size { columns: 80, lines: 24 };

impl Size {
    /// Asks `stty`, since the system call that it makes cannot be made from safe code.
    fn measure() -> Self {
        let asked = File::open("/dev/tty")
            .and_then(|terminal| Command::new("stty").arg("size").stdin(terminal).stderr(Stdio::null()).output());
        let text = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.ok().and_then(|text| Self::parse(&text)).unwrap_or(SIZE_USUAL)
    }

    /// `LINES COLUMNS`. A terminal that says 0 does not know.
    fn parse(text: &str) -> Option<Self> {
        let (lines, columns) = text.trim().split_once(' ')?;
        let size = Self { columns: columns.parse().ok()?, lines: lines.parse().ok()? };
        (size.columns > 0 && size.lines > 0).then_some(size)
    }
}

/// Dropping it gives the terminal back.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) size: Size,
}

impl Screen {
    pub(super) fn enter() -> io::Result<Self> {
        write(ENTER)?;
        Ok(Self { size: Size::measure() })
    }

    /// After the terminal's window changed.
    pub(super) fn measure(&mut self) {
        self.size = Size::measure();
    }

    /// Draws over what was there, in one write, so that nothing flickers. The lines must fit the width.
    pub(super) fn draw(&self, lines: &[String]) -> io::Result<()> {
        write(&frame(lines, self.size.lines))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing back.
        let _ = write(LEAVE);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// No line break after the last line: it would scroll a full screen.
fn frame(lines: &[String], lines_max: usize) -> String {
    let shown: Vec<String> = lines.iter().take(lines_max).map(|line| format!("{line}{ERASE_LINE}")).collect();
    format!("{HOME}{}{ERASE_BELOW}", shown.join("\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_read_as_stty_writes_it_and_nonsense_is_no_size() {
        assert_eq!(Size::parse("50 132\n"), Some(Size { columns: 132, lines: 50 }));
        for text in ["", "0 0", "50", "a b", "50 132 7"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_frame_never_scrolls_the_screen() {
        let lines: Vec<String> = (0..5).map(|n| n.to_string()).collect();
        assert_eq!(frame(&lines, 3), "\u{1b}[H0\u{1b}[K\r\n1\u{1b}[K\r\n2\u{1b}[K\u{1b}[J");
    }
}
