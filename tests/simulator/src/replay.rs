//! Makes recorded decisions again, and compares.

use std::collections::BTreeSet;
use std::io::{BufRead, Read};

use operator_core::scaling::DecisionRecord;
use thiserror::Error;

use crate::csv::unpacked;

/// What is shown of a line on each side of its first difference.
const CONTEXT: usize = 60;

/// Why a recording can't be replayed, or where it differs.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// It can't be read.
    #[error("{file}, after line {line}: can't be read: {source}")]
    Unreadable {
        /// Its name.
        file: String,
        /// The last line that could be.
        line: usize,
        /// Why not.
        source: std::io::Error,
    },
    /// A line is no decision of this version of the operator.
    #[error(
        "{file}, line {line}: is no recorded decision: {source}; replay a file that --record-decisions of the same version \
         wrote"
    )]
    Line {
        /// Its name.
        file: String,
        /// The line.
        line: usize,
        /// Why not.
        source: serde_json::Error,
    },
    /// There is no decision in it.
    #[error("{file} has no decision; record some with --record-decisions")]
    Empty {
        /// Its name.
        file: String,
    },
}

/// A recording that was replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Decisions that were made again, up to the first one that differs.
    pub decisions: usize,
    /// Their fleets.
    pub fleets: BTreeSet<String>,
    /// The first difference.
    pub difference: Option<Difference>,
    /// Whether the last line is not whole: its writer was ended.
    pub cut: bool,
}

/// A decision that came out otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its line.
    pub line: usize,
    /// Its fleet.
    pub fleet: String,
    /// What differs: `the decision`, `the state after`, or `what was recorded` when that does not even read back.
    pub what: &'static str,
    /// The first byte that differs, from 0.
    pub byte: usize,
    /// The recorded line around it.
    pub recorded: String,
    /// What was made around it.
    pub made: String,
}

/// Makes every decision of `content` again, plain or compressed with gzip, up to the first one that differs by a byte;
/// `file` names it in errors.
///
/// # Errors
/// When it is no recording.
pub fn replay(file: &str, content: impl Read) -> Result<Replayed, ReplayError> {
    let unreadable = |line, source| ReplayError::Unreadable { file: file.into(), line, source };
    let mut lines = unpacked(content).map_err(|source| unreadable(0, source))?;
    let mut replayed = Replayed { decisions: 0, fleets: BTreeSet::new(), difference: None, cut: false };
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        lines.read_until(b'\n', &mut text).map_err(|source| unreadable(line - 1, source))?;
        if text.is_empty() {
            break;
        }
        let whole = text.pop_if(|last| *last == b'\n').is_some();
        match again(&text) {
            Ok((fleet, difference)) => {
                replayed.decisions += 1;
                replayed.difference = difference.map(|difference| Difference { line, ..difference });
                replayed.fleets.insert(fleet);
            }
            Err(_) if !whole => replayed.cut = true,
            Err(source) => return Err(ReplayError::Line { file: file.into(), line, source }),
        }
        if replayed.difference.is_some() {
            break;
        }
    }
    if replayed.decisions == 0 { Err(ReplayError::Empty { file: file.into() }) } else { Ok(replayed) }
}

/// The fleet of a line, and how the decision differs when it is made again.
fn again(line: &[u8]) -> serde_json::Result<(String, Option<Difference>)> {
    let recorded: DecisionRecord<'_> = serde_json::from_slice(line)?;
    let made = recorded.made_again()?;
    let text = serde_json::to_vec(&made)?;
    let fleet = recorded.fleet.clone().into_owned();
    if text == line {
        return Ok((fleet, None));
    }
    let what = if serde_json::to_vec(&recorded)? != line {
        "what was recorded"
    } else if serde_json::to_vec(&recorded.decision)? != serde_json::to_vec(&made.decision)? {
        "the decision"
    } else {
        "the state after"
    };
    let byte = line.iter().zip(&text).take_while(|(one, other)| one == other).count();
    let difference = Difference {
        line: 0,
        fleet: fleet.clone(),
        what,
        byte,
        recorded: around(line, byte),
        made: around(&text, byte),
    };
    Ok((fleet, Some(difference)))
}

fn around(text: &[u8], byte: usize) -> String {
    let end = text.len().min(byte + CONTEXT);
    String::from_utf8_lossy(&text[byte.saturating_sub(CONTEXT).min(end)..end]).into_owned()
}

/// What came of it, in words.
#[must_use]
pub fn print(file: &str, replayed: &Replayed) -> String {
    let Replayed { decisions, fleets, difference, cut } = replayed;
    let cut = if *cut { "; its last line is cut off" } else { "" };
    match difference {
        None => {
            format!("{file}: {decisions} decisions of {} fleets, each made again byte for byte{cut}\n", fleets.len())
        }
        Some(Difference { line, fleet, what, byte, recorded, made }) => format!(
            "{file}, line {line}, fleet {fleet}: {what} differs from byte {byte} on; the {} before do not\n  recorded: \
             …{recorded}…\n  now:      …{made}…\n",
            decisions - 1
        ),
    }
}
