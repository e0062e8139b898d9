//! What a container said before it ended, for people to read in a condition.

use serde_json::Value;

/// Longest text that is shown, in characters.
const LONGEST: usize = 300;

/// The last words in a termination message: the runtime's last error where the lines are its log, else the last line. Of
/// a log in JSON nothing but errors is shown, since at other levels handlers speak in it. At most 300 characters.
#[must_use]
pub fn last_words(message: &str) -> Option<String> {
    // A log is cut to its end, so that the first line may be a part of one.
    let lines = || message.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_log = lines().any(|line| log_line(line).is_some());
    let words = if is_log {
        lines().filter_map(log_line).rev().find_map(|line| error(&line))?
    } else {
        lines().next_back()?.to_owned()
    };
    Some(words.chars().take(LONGEST).collect())
}

fn log_line(line: &str) -> Option<Value> {
    serde_json::from_str::<Value>(line).ok().filter(|line| line["level"].is_string())
}

fn error(line: &Value) -> Option<String> {
    let message = line["fields"]["message"].as_str()?;
    (line["level"] == "ERROR").then(|| message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::last_words;

    #[test]
    fn of_a_log_the_last_error_is_shown_and_nothing_of_other_levels() {
        let log = r#"rt of a line"}
            {"level":"ERROR","fields":{"message":"an older one"}}
            {"level":"ERROR","fields":{"message":"handlers[y].exec.command[0]: \"/y\" is not there"}}
            {"level":"DEBUG","fields":{"message":"what a handler printed"}}"#;
        assert_eq!(last_words(log).unwrap(), r#"handlers[y].exec.command[0]: "/y" is not there"#);
        assert_eq!(last_words(r#"{"level":"DEBUG","fields":{"message":"what a handler printed"}}"#), None);
    }

    #[test]
    fn of_other_text_the_last_line_is_shown_and_cut() {
        assert_eq!(last_words("first\n the port is taken \n\n").unwrap(), "the port is taken");
        assert_eq!(last_words(&"é".repeat(400)).unwrap().chars().count(), 300);
        assert_eq!(last_words("\n"), None);
    }
}
