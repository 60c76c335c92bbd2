//! How a task has ended, for a person and for a shell.
//!
//! Enters: views. Leaves: a table, an exit code. Nothing can go wrong.

use crate::agent::engine::{StopCode, View};

/// What the command's exit code says of a task that has ended.
pub(in crate::cli) fn exit_code(view: &View) -> u8 {
    let code = view.exit_code().map(|code| u8::try_from(code).unwrap_or(1));
    match view.stop_code {
        Some(StopCode::EssentialContainerExited) => code.unwrap_or(1),
        Some(StopCode::UserInitiated) => 0,
        _ => 1,
    }
}

/// Rows below each other, each column as wide as its widest cell.
pub(in crate::cli) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|r| r.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// How it ended.
pub(in crate::cli) fn table(arn: &str, view: &View) -> String {
    let mut rows = vec![["CONTAINER", "STATUS", "EXIT", "HEALTH", "REASON"].map(str::to_owned)];
    for c in &view.containers {
        let health = c.health_status.map_or("-".to_owned(), |h| format!("{h:?}").to_uppercase());
        rows.push([
            format!("{}{}", c.name, if c.essential { "" } else { " (not essential)" }),
            c.last_status.clone(),
            c.exit_code.map_or("-".to_owned(), |code| code.to_string()),
            health,
            c.reason.clone().unwrap_or_default(),
        ]);
    }
    let mut text = format!("\n{arn}\n{}", columns(&rows));
    let code = view.stop_code.map(|c| format!("{c:?}: ")).unwrap_or_default();
    text.push_str(&format!("{code}{}\n", view.stopped_reason.clone().unwrap_or_default()));
    for c in view.containers.iter().filter(|c| !c.last_words.is_empty()) {
        text.push_str(&format!("\nlast words of {}:\n", c.name));
        c.last_words.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    text
}
