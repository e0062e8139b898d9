//! The live table: redrawn in place on a terminal, else lines for what changed.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::fleets::Fleet;

/// Least time between two lines of a fleet whose replicas stay the same.
const LINE_INTERVAL: Duration = Duration::from_secs(3);
/// Lines are cut at the terminal's edge rather than wrapped while the table is drawn.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// Whether somebody watches: a terminal, and no CI.
#[must_use]
pub fn is_watched() -> bool {
    let ci = std::env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
    !ci && std::io::stdout().is_terminal()
}

/// Shows the fleets until it is dropped; what was shown last stays.
pub struct Table {
    watched: bool,
    start: Instant,
    /// Lines of the table on the terminal.
    drawn: usize,
    /// What was told last of each fleet, and of the whole.
    told: BTreeMap<String, Told>,
}

/// A line that was printed, by the numbers that make another one urgent.
struct Told {
    when: Instant,
    line: String,
    urgent: (Option<i32>, i32),
}

impl Table {
    /// A table whose clock starts now.
    pub fn new(watched: bool) -> Self {
        Self { watched, start: Instant::now(), drawn: 0, told: BTreeMap::new() }
    }

    /// Shows the fleets as they are now, and a note on the whole.
    pub fn show(&mut self, fleets: &[Fleet], note: &str) {
        let seconds = self.start.elapsed().as_secs();
        if self.watched {
            let mut lines = vec![format!("  {seconds:>4} s  {note}"), heading()];
            lines.extend(fleets.iter().map(row));
            self.redraw(&lines);
        } else {
            for line in self.changes(fleets, note, Instant::now()) {
                println!("  {seconds:>4} s  {line}");
            }
        }
    }

    fn redraw(&mut self, lines: &[String]) {
        let up = if self.drawn == 0 { String::new() } else { format!("\x1b[{}A", self.drawn) };
        let body: String = lines.iter().map(|line| format!("\r\x1b[K{line}\n")).collect();
        print!("{NO_WRAP}{up}{body}{WRAP}");
        std::io::stdout().flush().ok();
        self.drawn = lines.len();
    }

    /// Lines for a change of replicas at once, for a change of anything else at intervals.
    fn changes(&mut self, fleets: &[Fleet], note: &str, now: Instant) -> Vec<String> {
        let whole = [(String::new(), note.to_owned(), (None, 0))];
        let lines = fleets.iter().map(|fleet| (fleet.name.clone(), plain(fleet), (fleet.desired, fleet.ready)));
        let mut changes = Vec::new();
        for (name, line, urgent) in whole.into_iter().chain(lines) {
            let is_due = self.told.get(&name).is_none_or(|told| {
                told.urgent != urgent || (told.line != line && now.duration_since(told.when) >= LINE_INTERVAL)
            });
            if is_due {
                changes.push(line.clone());
                self.told.insert(name, Told { when: now, line, urgent });
            }
        }
        changes
    }
}

fn heading() -> String {
    format!("  {:<12} {:>8} {:>10} {:>8} {:>6}  {}", "fleet", "backlog", "in flight", "desired", "ready", "why")
}

fn row(fleet: &Fleet) -> String {
    format!(
        "  {:<12} {:>8} {:>10} {:>8} {:>6}  {}",
        fleet.name,
        or_dash(fleet.backlog),
        or_dash(fleet.in_flight),
        or_dash(fleet.desired.map(i64::from)),
        fleet.ready,
        fleet.why,
    )
}

fn plain(fleet: &Fleet) -> String {
    format!(
        "{:<12} backlog {:<4} in flight {:<3} desired {:<2} ready {:<2} {}",
        fleet.name,
        or_dash(fleet.backlog),
        or_dash(fleet.in_flight),
        or_dash(fleet.desired.map(i64::from)),
        fleet.ready,
        fleet.why,
    )
}

fn or_dash(value: Option<i64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(backlog: i64, desired: i32) -> Fleet {
        Fleet { name: "thumbnails".into(), backlog: Some(backlog), desired: Some(desired), ..Fleet::default() }
    }

    #[test]
    fn without_a_terminal_a_change_of_replicas_is_told_at_once_and_others_at_intervals() {
        let mut table = Table::new(false);
        let start = table.start;
        assert_eq!(table.changes(&[fleet(0, 0)], "0 of 40", start).len(), 2);
        assert_eq!(table.changes(&[fleet(40, 0)], "1 of 40", start).len(), 0, "too soon");
        assert_eq!(table.changes(&[fleet(40, 4)], "1 of 40", start).len(), 1, "replicas changed");
        assert_eq!(table.changes(&[fleet(9, 4)], "0 of 40", start + LINE_INTERVAL).len(), 1);
        assert_eq!(table.changes(&[fleet(9, 4)], "0 of 40", start + 2 * LINE_INTERVAL).len(), 0, "nothing changed");
        assert_eq!(table.changes(&[fleet(9, 4)], "10 of 40", start + 2 * LINE_INTERVAL), ["10 of 40"]);
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_columns_stand_below_their_headings() {
        let line = row(&Fleet { backlog: None, in_flight: Some(12), ..fleet(0, 3) });
        assert_eq!(line.find(" -").map(|at| at + 2), heading().find("backlog").map(|at| at + 7), "{line}");
        assert_eq!(line.find("12").map(|at| at + 2), heading().find("in flight").map(|at| at + 9), "{line}");
    }
}
