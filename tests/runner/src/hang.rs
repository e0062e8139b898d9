//! What a program does that does not end: its threads, and the programs that it waits for.

use std::fs;

/// How deep programs that start programs are followed.
const DEPTH: usize = 4;
const LINE: usize = 160;

/// One line for each thread of the process `pid`, which libtest calls by its test, and for each program below it, with what
/// it waits for in the kernel. Empty when the process is gone.
pub fn picture(pid: u32) -> String {
    let mut lines = Vec::new();
    let threads = tasks(pid)
        .into_iter()
        .map(|task| format!("thread {}: {}", read(&format!("{task}/comm")).trim_end(), read(&format!("{task}/wchan"))));
    lines.extend(threads);
    describe_children(pid, DEPTH, &mut lines);
    let shortened = lines.into_iter().map(|line| line.chars().take(LINE).collect::<String>());
    shortened.collect::<Vec<_>>().join("\n")
}

fn describe_children(pid: u32, depth: usize, lines: &mut Vec<String>) {
    let children = tasks(pid).into_iter().map(|task| read(&format!("{task}/children"))).collect::<String>();
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        let command = read(&format!("/proc/{child}/cmdline")).replace('\0', " ");
        lines.push(format!("process {child}: {}: {command}", read(&format!("/proc/{child}/wchan"))));
        if depth > 0 {
            describe_children(child, depth - 1, lines);
        }
    }
}

/// Directories of a process's threads.
fn tasks(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.map(|task| task.path().display().to_string()).collect()
}

/// What a file says; nothing when it can't be read, as the thread may have ended.
fn read(file: &str) -> String {
    fs::read(file).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
}
