//! Cuts a stream of bytes into lines, each at most [`LINE_BYTES_MAX`] long.

use bytes::{Bytes, BytesMut};

/// Longest line: a value at its limit, however its JSON is written, and its place.
pub const LINE_BYTES_MAX: usize = 4 << 20;

/// A line that can't be one.
#[derive(Debug, PartialEq, Eq)]
pub enum LineError {
    /// No end within [`LINE_BYTES_MAX`].
    TooLong,
}

/// Bytes that came in and lines that are whole.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: BytesMut,
    /// How much of the buffer was searched for the end of a line already.
    searched: usize,
    finished: bool,
}

impl Lines {
    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The stream is over: what is left is a line, also without a newline.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The next whole line, without its newline.
    pub fn next_line(&mut self) -> Option<Result<Bytes, LineError>> {
        let newline = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        if let Some(end) = newline.map(|at| self.searched + at) {
            self.searched = 0;
            let mut line = self.buffer.split_to(end + 1);
            line.truncate(end);
            return Some(if end > LINE_BYTES_MAX { Err(LineError::TooLong) } else { Ok(line.freeze()) });
        }
        self.searched = self.buffer.len();
        if self.searched > LINE_BYTES_MAX {
            return Some(Err(LineError::TooLong));
        }
        if self.finished && !self.buffer.is_empty() {
            self.searched = 0;
            return Some(Ok(self.buffer.split().freeze()));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(lines: &mut Lines) -> Vec<String> {
        std::iter::from_fn(|| lines.next_line()).map(|line| String::from_utf8(line.unwrap().to_vec()).unwrap()).collect()
    }

    #[test]
    fn lines_are_whole_however_the_bytes_come() {
        let text = "one\n\ntwo\r\nthree";
        for size in 1..=text.len() {
            let mut lines = Lines::default();
            let mut all = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                lines.push(chunk);
                all.extend(taken(&mut lines));
            }
            assert_eq!(all, ["one", "", "two\r"], "chunks of {size}");
            lines.finish();
            assert_eq!(taken(&mut lines), ["three"]);
            assert!(lines.next_line().is_none());
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused_before_it_fills_memory() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; LINE_BYTES_MAX]);
        assert!(lines.next_line().is_none());
        lines.push(b"x");
        assert_eq!(lines.next_line(), Some(Err(LineError::TooLong)));
    }
}
