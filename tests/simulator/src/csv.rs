//! One's own traffic: a file with a line for each task.

use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use thiserror::Error;

use crate::time::micros;
use crate::workload::Task;

/// The first line of a file.
pub const HEADER: &str = "arrival_s,service_s";
/// The first line of a file whose tasks are on several Task Queues of a fleet.
pub const HEADER_WITH_QUEUES: &str = "arrival_s,service_s,task_queue";
/// Most Task Queues of a file.
const MOST_QUEUES: usize = 100;
/// Longest time from the start that a file may name, and longest service time: a year, in seconds.
const LONGEST: f64 = 366.0 * 86_400.0;
/// The first bytes of a gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Why a file of tasks can't be used.
#[derive(Debug, Error)]
pub enum TraceError {
    /// It can't be read.
    #[error(
        "{file}, after line {line}: can't be read: {source}; the file must be UTF-8 text, or such text in gzip form"
    )]
    Unreadable {
        /// Its name.
        file: String,
        /// The last line that could be.
        line: usize,
        /// Why not.
        source: std::io::Error,
    },
    /// Its first line is another one.
    #[error("{file}, line 1: the header is {found:?}; make it {HEADER:?} or {HEADER_WITH_QUEUES:?}")]
    Header {
        /// Its name.
        file: String,
        /// The line.
        found: String,
    },
    /// A line has another number of fields.
    #[error(
        "{file}, line {line}: {found:?} has {fields} fields; write as many as the header has, as in 12.5,0.8 for {HEADER}"
    )]
    Fields {
        /// Its name.
        file: String,
        /// The line.
        line: usize,
        /// What it says.
        found: String,
        /// How many fields that is.
        fields: usize,
    },
    /// A field is no usable number.
    #[error("{file}, line {line}: {field} is {found:?}; write seconds from 0 to {LONGEST}, as in 12.5{}", hint(.field))]
    Value {
        /// Its name.
        file: String,
        /// The line.
        line: usize,
        /// The field's name.
        field: &'static str,
        /// What it says.
        found: String,
    },
    /// A task is on no Task Queue, or on one too many.
    #[error("{file}, line {line}: task_queue is {found:?}; write the name of one of at most {MOST_QUEUES} Task Queues")]
    Queue {
        /// Its name.
        file: String,
        /// The line.
        line: usize,
        /// What it says.
        found: String,
    },
    /// There is no task in it.
    #[error("{file} has no task; write one a line below the header, as in 12.5,0.8")]
    Empty {
        /// Its name.
        file: String,
    },
    /// There are too many.
    #[error("{file}, line {line}: more than {MOST_TASKS} tasks; split the file, or leave tasks out")]
    TooMany {
        /// Its name.
        file: String,
        /// The first line too many.
        line: usize,
    },
}

/// Most tasks of a file.
const MOST_TASKS: usize = 100_000_000;

fn hint(field: &str) -> &'static str {
    if field == "arrival_s" { " (counted from the start of the trace, not a date)" } else { "" }
}

/// The tasks of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tasks {
    /// In the order of the file.
    pub tasks: Vec<Task>,
    /// Their Task Queues in the order of their first tasks; one without a name if the file names none.
    pub queues: Vec<String>,
}

/// The tasks of `content`, plain or compressed with gzip; `file` names it in errors. The lines may be in any order.
///
/// # Errors
/// The first line that can't be used, and what to write instead.
pub fn read(file: &str, content: impl Read) -> Result<Tasks, TraceError> {
    let content = unpacked(content).map_err(|source| TraceError::Unreadable { file: file.into(), line: 0, source })?;
    parse(file, content)
}

/// `content` as it is, or what is in it if it is compressed with gzip.
pub(crate) fn unpacked<'r>(content: impl Read + 'r) -> std::io::Result<Box<dyn BufRead + 'r>> {
    let mut content = BufReader::new(content);
    if content.fill_buf()?.starts_with(&GZIP) {
        Ok(Box::new(BufReader::new(MultiGzDecoder::new(content))))
    } else {
        Ok(Box::new(content))
    }
}

fn parse(file: &str, content: impl BufRead) -> Result<Tasks, TraceError> {
    let mut read = Tasks::default();
    let mut header = None;
    for (index, text) in content.lines().enumerate() {
        let text = text.map_err(|source| TraceError::Unreadable { file: file.into(), line: index, source })?;
        let text = text.trim();
        let place = Place { file, line: index + 1 };
        match header {
            None => header = Some(place.header(text)?),
            Some(_) if text.is_empty() => {}
            Some(_) if read.tasks.len() == MOST_TASKS => {
                return Err(TraceError::TooMany { file: file.into(), line: place.line });
            }
            Some(columns) => {
                let task = place.task(text, columns, &mut read.queues)?;
                read.tasks.push(task);
            }
        }
    }
    match header {
        None => Err(TraceError::Header { file: file.into(), found: String::new() }),
        Some(_) if read.tasks.is_empty() => Err(TraceError::Empty { file: file.into() }),
        Some(_) => Ok(read),
    }
}

/// What a line has.
#[derive(Clone, Copy)]
enum Columns {
    Times,
    TimesAndQueue,
}

/// A line, for errors.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a str,
    line: usize,
}

impl Place<'_> {
    fn header(self, text: &str) -> Result<Columns, TraceError> {
        // A byte order mark, as spreadsheets write it, is no part of the name.
        match text.trim_start_matches('\u{feff}') {
            HEADER => Ok(Columns::Times),
            HEADER_WITH_QUEUES => Ok(Columns::TimesAndQueue),
            found => Err(TraceError::Header { file: self.file.into(), found: found.into() }),
        }
    }

    fn task(self, text: &str, columns: Columns, queues: &mut Vec<String>) -> Result<Task, TraceError> {
        let fields: Vec<&str> = text.split(',').collect();
        let (arrival, service, queue) = match (columns, &fields[..]) {
            (Columns::Times, [arrival, service]) => (arrival, service, None),
            (Columns::TimesAndQueue, [arrival, service, queue]) => (arrival, service, Some(queue.trim())),
            _ => {
                let (file, found) = (self.file.into(), text.into());
                return Err(TraceError::Fields { file, line: self.line, found, fields: fields.len() });
            }
        };
        Ok(Task {
            arrival: micros(self.value("arrival_s", arrival)?),
            service: micros(self.value("service_s", service)?),
            queue: self.queue(queue, queues)?,
        })
    }

    /// The number of a Task Queue, which it gets with its first task.
    fn queue(self, name: Option<&str>, queues: &mut Vec<String>) -> Result<u16, TraceError> {
        let wrong = || TraceError::Queue { file: self.file.into(), line: self.line, found: name.unwrap_or("").into() };
        let number = queues.iter().position(|queue| queue == name.unwrap_or("")).unwrap_or(queues.len());
        if name == Some("") || number == MOST_QUEUES {
            return Err(wrong());
        }
        if number == queues.len() {
            queues.push(name.unwrap_or("").into());
        }
        u16::try_from(number).map_err(|_| wrong())
    }

    fn value(self, field: &'static str, text: &str) -> Result<f64, TraceError> {
        let value: Option<f64> = text.trim().parse().ok();
        value.filter(|value| (0.0..=LONGEST).contains(value)).ok_or_else(|| TraceError::Value {
            file: self.file.into(),
            line: self.line,
            field,
            found: text.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{Tasks, read};
    use crate::workload::Task;

    fn message(content: &str) -> String {
        read("my.csv", content.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn plain_and_compressed_files_give_the_same_tasks() {
        let text = "arrival_s,service_s\n0,1.5\r\n\n12.25, 0.000001\n";
        let task = |arrival, service| Task { arrival, service, queue: 0 };
        let tasks = Tasks { tasks: vec![task(0, 1_500_000), task(12_250_000, 1)], queues: vec![String::new()] };
        assert_eq!(read("a.csv", text.as_bytes()).unwrap(), tasks);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        assert_eq!(read("a.csv.gz", gzip.finish().unwrap().as_slice()).unwrap(), tasks);
    }

    #[test]
    fn task_queues_are_numbered_by_their_first_tasks() {
        let text = "arrival_s,service_s,task_queue\n1,2,mail\n3,4, video\n5,6,mail\n";
        let read = read("a.csv", text.as_bytes()).unwrap();
        assert_eq!(read.queues, ["mail", "video"]);
        assert_eq!(read.tasks.iter().map(|task| task.queue).collect::<Vec<_>>(), [0, 1, 0]);
        assert_eq!(
            message("arrival_s,service_s,task_queue\n1,2,\n"),
            r#"my.csv, line 2: task_queue is ""; write the name of one of at most 100 Task Queues"#
        );
        let many: String = (0..=100).map(|queue| format!("1,2,q{queue}\n")).collect();
        let said = message(&format!("arrival_s,service_s,task_queue\n{many}"));
        assert!(said.starts_with(r#"my.csv, line 102: task_queue is "q100""#), "{said}");
    }

    #[test]
    fn an_error_names_file_line_value_and_remedy() {
        assert_eq!(
            message("a,b\n"),
            r#"my.csv, line 1: the header is "a,b"; make it "arrival_s,service_s" or "arrival_s,service_s,task_queue""#
        );
        assert_eq!(
            message(""),
            r#"my.csv, line 1: the header is ""; make it "arrival_s,service_s" or "arrival_s,service_s,task_queue""#
        );
        assert_eq!(
            message("arrival_s,service_s\n1,2\n1,2,3\n"),
            r#"my.csv, line 3: "1,2,3" has 3 fields; write as many as the header has, as in 12.5,0.8 for arrival_s,service_s"#
        );
        assert_eq!(
            message("arrival_s,service_s\n1,-2\n"),
            r#"my.csv, line 2: service_s is "-2"; write seconds from 0 to 31622400, as in 12.5"#
        );
        assert_eq!(
            message("arrival_s,service_s\n2026-01-01,2\n"),
            "my.csv, line 2: arrival_s is \"2026-01-01\"; write seconds from 0 to 31622400, as in 12.5 (counted from the \
             start of the trace, not a date)"
        );
        assert!(message("arrival_s,service_s\nNaN,2\n").contains(r#"arrival_s is "NaN""#));
        assert!(message("arrival_s,service_s\n").contains("has no task"));
    }

    #[test]
    fn a_file_that_ends_in_the_middle_is_an_error() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"arrival_s,service_s\n1,2\n").unwrap();
        let mut bytes = gzip.finish().unwrap();
        bytes.truncate(bytes.len() - 6);
        let message = read("cut.csv.gz", bytes.as_slice()).unwrap_err().to_string();
        assert!(message.starts_with("cut.csv.gz, after line"), "{message}");
    }
}
