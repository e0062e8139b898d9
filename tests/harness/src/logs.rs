//! The end of a log, for error messages.

use std::fs;
use std::path::Path;

const LINES: usize = 20;
/// Component logs have lines of several kilobytes; a message needs only their beginning.
const LINE_CHARACTERS: usize = 400;

/// The last lines of a log, with its path.
#[must_use]
pub fn tail(path: &Path) -> String {
    let text = fs::read(path).map(|raw| String::from_utf8_lossy(&raw).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let mut shown = String::new();
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        shown.push_str("  | ");
        shown.extend(line.chars().take(LINE_CHARACTERS));
        shown.push('\n');
    }
    format!("{shown}  the whole log: {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_the_last_lines_and_the_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), (0..50).map(|n| format!("line {n}\n")).collect::<String>()).unwrap();
        let tail = tail(file.path());
        assert!(tail.starts_with("  | line 30\n"), "{tail}");
        assert!(tail.contains("  | line 49\n") && tail.ends_with(&file.path().display().to_string()), "{tail}");
    }
}
