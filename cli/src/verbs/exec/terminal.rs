//! The terminal that we run in: raw mode, size.

use std::io::{self, IsTerminal as _};

use rustix::termios::{self, OptionalActions, Termios};

/// The terminal is in raw mode as long as this lives.
pub struct RawMode {
    before: Termios,
}

// === impl RawMode ===

impl RawMode {
    /// Passes every key on as it is. `None` when standard input is no terminal.
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal is gone when this fails: nothing is left to restore.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Width and height of the terminal.
pub fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(io::stdout()).ok()?;
    Some((size.ws_col, size.ws_row))
}
