use std::fmt::Write as _;

use super::{Effective, reference::lines};

/// The effective configuration as TOML, each value with what set it in a comment behind it. Secrets are left out.
pub(crate) fn show(effective: &Effective) -> String {
    let mut text = String::new();
    for line in lines(&effective.config) {
        if line.opens_section {
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}[{}]", line.section);
        }
        let path = line.path();
        let origin = effective.origin(&path);
        let shown = if line.secret && !effective.is_default(&path) {
            format!("# {} = (hidden)", line.key)
        } else {
            format!("{} = {}", line.key, line.value)
        };
        let _ = writeln!(text, "{shown:<48} # {origin}");
    }
    text
}
