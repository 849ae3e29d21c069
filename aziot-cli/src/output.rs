//! Writing to the terminal. A closed pipe is no error.

use std::fmt;
use std::io::{self, Write as _};

/// Writes a line to standard output.
pub fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Writes text to standard output at once, without ending the line.
pub fn say_part(text: fmt::Arguments<'_>) {
    let mut stdout = io::stdout();
    let _ = write!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Writes bytes to standard output as they are.
pub fn say_bytes(bytes: &[u8]) {
    let _ = io::stdout().write_all(bytes);
}

/// Writes a line to standard error.
pub fn complain(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}
