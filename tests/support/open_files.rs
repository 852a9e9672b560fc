use std::{fs, process::Command};

/// How many files this process may have open, after asking for as many as it can get.
pub(crate) fn open_files_max() -> usize {
    let id = std::process::id().to_string();
    let hard = limit(2);
    let asked = Command::new("prlimit")
        .args(["--pid", &id, &format!("--nofile={hard}:{hard}")])
        .status();
    if !asked.is_ok_and(|status| status.success()) {
        eprintln!("the limit of open files cannot be raised");
    }
    limit(1)
}

/// The first is the soft limit, the second the hard one; see proc(5).
fn limit(at: usize) -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .unwrap();
    line.split_whitespace()
        .nth(at - 1)
        .unwrap()
        .parse()
        .unwrap_or(usize::MAX)
}
