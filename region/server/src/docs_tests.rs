//! What the README and its companions say is so.

use antiphon_gateway::Problem;
use antiphon_session::Refusal;
use antiphon_types::ErrorCode;

const README: &str = include_str!("../../../README.md");
const ARCHITECTURE: &str = include_str!("../../../ARCHITECTURE.md");
const KINDS: &str = include_str!("../../../core/types/src/kind.rs");
const CONFIG: &str = include_str!("../../../docs/CONFIG.md");

#[test]
fn each_error_code_is_listed_with_its_status() {
    for code in ErrorCode::ALL {
        let status = Problem::from(Refusal::new(code, "")).status;
        let row = format!("\n| `{code}` | {status} |");
        assert!(README.contains(&row), "missing: {row}");
    }
}

#[test]
fn the_limits_listed_are_the_defaults() {
    let limits = README
        .split("\n## Limits")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let rows: Vec<&str> = limits.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(rows.len() > 10);
    for row in rows {
        let mut cells = row.split('`');
        let (key, default) = (cells.nth(1).unwrap(), cells.nth(1).unwrap());
        let (section, key) = key.split_once('.').unwrap();
        let of_section = CONFIG.split(&format!("\n## `[{section}]`")).nth(1).unwrap();
        let of_section = of_section.split("\n## ").next().unwrap();
        assert!(of_section.contains(&format!("\n| `{key}` | `{default}` |")), "{row}");
    }
}

#[test]
fn the_architecture_lists_each_kind_of_key() {
    let kinds: Vec<&str> = KINDS
        .lines()
        .filter_map(|line| line.strip_prefix("pub const "))
        .collect();
    assert!(kinds.len() >= 15);
    for kind in kinds {
        let (name, number) = kind.trim_end_matches(';').split_once(": u16 = ").unwrap();
        assert!(
            ARCHITECTURE.contains(&format!("\n| `{number}` {name} |")),
            "{name} is not listed"
        );
    }
}
