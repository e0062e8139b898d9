//! Lines of bounded length from a pipe.

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::MAX_OUTPUT;

/// Longest line: the largest answer, and what the protocol puts around it.
const MAX_LINE: usize = MAX_OUTPUT + 4096;
/// Bytes that are read at a time.
const CHUNK: usize = 16 * 1024;

/// Why there is no line.
#[derive(Debug)]
pub(super) enum LineError {
    /// The pipe is closed.
    Closed,
    /// The line is longer than any answer may be.
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The system can't read.
    Read(std::io::Error),
}

/// Pieces that are read become lines.
#[derive(Debug)]
pub(super) struct LineBuffer {
    /// What was read and not given out yet.
    unread: Vec<u8>,
    /// How much of it is known to hold no end of a line.
    searched: usize,
    /// Longest line, in bytes.
    longest: usize,
}

impl Default for LineBuffer {
    fn default() -> Self {
        Self::of(MAX_LINE)
    }
}

impl LineBuffer {
    /// For lines of at most `longest` bytes.
    pub(super) fn of(longest: usize) -> Self {
        Self { unread: Vec::new(), searched: 0, longest }
    }

    /// Adds what was read.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.unread.extend_from_slice(piece);
    }

    /// The next line, without its end; none before it was read as a whole.
    ///
    /// # Errors
    /// It is too long.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        let end = self.unread[self.searched..].iter().position(|byte| *byte == b'\n').map(|end| self.searched + end);
        if end.unwrap_or(self.unread.len()) > self.longest {
            return Err(LineError::TooLong { limit: MAX_OUTPUT });
        }
        if let Some(end) = end {
            let rest = self.unread.split_off(end + 1);
            let mut line = std::mem::replace(&mut self.unread, rest);
            self.searched = 0;
            line.pop();
            return Ok(Some(line));
        }
        self.searched = self.unread.len();
        Ok(None)
    }

    /// What follows the last end of a line.
    pub(super) fn rest(self) -> Vec<u8> {
        self.unread
    }
}

/// Reads lines.
#[derive(Debug)]
pub(super) struct Lines<R> {
    pipe: R,
    buffer: LineBuffer,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// The lines of `pipe`.
    pub(super) fn new(pipe: R) -> Self {
        Self { pipe, buffer: LineBuffer::default() }
    }

    /// The next line, without its end. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// There is none, it is too long, or the system can't read.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, LineError> {
        loop {
            if let Some(line) = self.buffer.next()? {
                return Ok(line);
            }
            self.buffer.unread.reserve(CHUNK);
            match self.pipe.read_buf(&mut self.buffer.unread).await {
                Ok(0) => return Err(LineError::Closed),
                Ok(_) => {}
                Err(error) => return Err(LineError::Read(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_given_out_whole_however_they_arrive() {
        let pipe = pipe_of(&[b"on", b"e\ntwo\n\nthr", b"ee"]);
        let mut lines = Lines::new(pipe);
        for expected in [&b"one"[..], b"two", b""] {
            assert_eq!(lines.next().await.unwrap(), expected);
        }
        assert!(matches!(lines.next().await, Err(LineError::Closed)), "a line without an end is none");
    }

    #[tokio::test]
    async fn a_line_that_never_ends_is_refused_with_bounded_memory() {
        let mut lines = Lines::new(tokio::io::repeat(b'x'));
        assert!(matches!(lines.next().await, Err(LineError::TooLong { limit: MAX_OUTPUT })));
        assert!(lines.buffer.unread.capacity() <= 4 * MAX_LINE);
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_though_its_end_came_with_it() {
        let mut lines = LineBuffer::of(3);
        lines.push(b"one\nfour\n");
        assert_eq!(lines.next().unwrap().unwrap(), b"one");
        assert!(lines.next().is_err());
    }

    /// A pipe that gives one piece at a time.
    fn pipe_of(pieces: &[&'static [u8]]) -> impl AsyncRead + Unpin + use<> {
        let pieces: Vec<_> = pieces.to_vec();
        let (reader, mut writer) = tokio::io::duplex(8);
        tokio::spawn(async move {
            for piece in pieces {
                tokio::io::AsyncWriteExt::write_all(&mut writer, piece).await.unwrap();
            }
        });
        reader
    }
}
