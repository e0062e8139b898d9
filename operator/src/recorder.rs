//! Records scaling decisions in a file, so that they can be made again elsewhere.
//!
//! A reconcile hands over a line and goes on: a thread of its own writes it. When that falls behind, decisions are left out;
//! when it can't write any more, it ends. Both are said once.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};

use operator_core::scaling::DecisionRecord;

/// Lines that may wait to be written.
const WAITING: usize = 256;
/// Size at which a file is full: it gets the ending `.1`, in place of one that has it, and a new one is begun.
const FULL: u64 = 128 << 20;

/// The way to the thread that writes.
pub struct Recorder {
    lines: SyncSender<String>,
    /// Whether decisions were left out since the last one that was not.
    behind: AtomicBool,
}

impl Recorder {
    /// Begins to record, after what `file` holds already.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn start(file: &Path) -> io::Result<Self> {
        Self::with_size(file, FULL)
    }

    fn with_size(file: &Path, full: u64) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(WAITING);
        let mut writer = Writer::open(file, full)?;
        let write = move || {
            if let Err(error) = writer.write_all(&waiting) {
                tracing::error!(%error, file = %writer.path.display(), "decisions are no longer recorded");
            }
        };
        std::thread::Builder::new().name("recorder".into()).spawn(write)?;
        Ok(Self { lines, behind: AtomicBool::new(false) })
    }

    /// Records a decision, unless the thread that writes is behind.
    pub fn record(&self, record: serde_json::Result<DecisionRecord<'_>>) {
        match record.and_then(|record| serde_json::to_string(&record)) {
            Ok(line) => self.hand_over(line + "\n"),
            Err(error) => tracing::error!(%error, "a decision has no form in which it could be recorded"),
        }
    }

    fn hand_over(&self, line: String) {
        match self.lines.try_send(line) {
            Ok(()) => self.behind.store(false, Ordering::Relaxed),
            // The thread has said why it ended.
            Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                if !self.behind.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        waiting = WAITING,
                        "decisions are left out of the recording: its file is written too slowly"
                    );
                }
            }
        }
    }
}

/// The file that is written.
struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    size: u64,
    full: u64,
}

impl Writer {
    fn open(path: &Path, full: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), size, full })
    }

    /// Writes lines until nobody hands over any more. What is written is in the file whenever nothing waits.
    fn write_all(&mut self, waiting: &Receiver<String>) -> io::Result<()> {
        loop {
            let line = match waiting.try_recv() {
                Ok(line) => line,
                Err(TryRecvError::Disconnected) => return self.file.flush(),
                Err(TryRecvError::Empty) => {
                    self.file.flush()?;
                    let Ok(line) = waiting.recv() else { return Ok(()) };
                    line
                }
            };
            self.write(&line)?;
        }
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let length = line.len() as u64;
        if self.size > 0 && self.size + length > self.full {
            self.file.flush()?;
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
            *self = Self::open(&self.path, self.full)?;
        }
        self.file.write_all(line.as_bytes())?;
        self.size += length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// What a file holds once it ends with `end`.
    fn content(file: &Path, end: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let content = std::fs::read_to_string(file).unwrap_or_default();
            if content.ends_with(end) {
                return content;
            }
            assert!(Instant::now() < deadline, "{content:?} does not end with {end:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn lines_are_in_the_file_while_the_recorder_waits_for_more_and_a_new_one_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("decisions.jsonl");
        let first = Recorder::start(&file).unwrap();
        first.hand_over("one\n".into());
        first.hand_over("two\n".into());
        assert_eq!(content(&file, "two\n"), "one\ntwo\n");
        drop(first);
        Recorder::start(&file).unwrap().hand_over("three\n".into());
        assert_eq!(content(&file, "three\n"), "one\ntwo\nthree\n");
    }

    #[test]
    fn two_files_of_the_full_size_are_all_that_there_ever_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("decisions.jsonl");
        let recorder = Recorder::with_size(&file, 10).unwrap();
        for line in ["first\n", "second\n", "third\n", "fourth line\n", "end\n"] {
            recorder.hand_over(line.into());
        }
        assert_eq!(content(&file, "end\n"), "end\n");
        assert_eq!(content(&folder.path().join("decisions.jsonl.1"), "\n"), "fourth line\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn who_records_never_waits_for_the_file() {
        let (lines, waiting) = sync_channel(1);
        let recorder = Recorder { lines, behind: AtomicBool::new(false) };
        // Nobody writes.
        (0..3).for_each(|number| recorder.hand_over(format!("{number}\n")));
        assert!(recorder.behind.load(Ordering::Relaxed));
        assert_eq!(waiting.recv().unwrap(), "0\n");
        recorder.hand_over("3\n".into());
        assert!(!recorder.behind.load(Ordering::Relaxed));
        drop(waiting);
        recorder.hand_over("4\n".into());
        assert!(!recorder.behind.load(Ordering::Relaxed));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error_at_once() {
        assert!(Recorder::start(Path::new("/nonexistent/decisions.jsonl")).is_err());
    }
}
