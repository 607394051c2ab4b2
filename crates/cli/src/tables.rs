//! Tables and numbers as people read them.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// A table with a header; columns named in `right` are numbers.
pub fn table(header: &[&str], right: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header.to_vec());
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

/// `2.20 GB`.
pub fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.2} {}", units[unit]) }
}

/// `1.10 B`, as model sizes are said.
pub fn parameters(count: u64) -> String {
    match count as f64 {
        count if count >= 1e9 => format!("{:.2} B", count / 1e9),
        count if count >= 1e6 => format!("{:.2} M", count / 1e6),
        _ => count.to_string(),
    }
}

/// `[2048, 5632]`.
pub fn shape(shape: &[u64]) -> String {
    format!("{shape:?}")
}
