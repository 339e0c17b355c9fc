//! Tables: the same on a terminal and on a page.

use std::fmt::Write as _;

use super::escaped;

/// A table: a title, the heads of columns, rows.
pub(crate) struct Table {
    /// Nothing is shown where it is empty.
    pub title: String,
    /// Below the title; nothing is shown where it is empty.
    pub note: String,
    pub heads: Vec<String>,
    pub rows: Vec<Vec<String>>,
    /// Words stand left, numbers right.
    pub words: bool,
}

pub(crate) fn heads(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl Table {
    pub fn text(&self) -> String {
        let all: Vec<&Vec<String>> = std::iter::once(&self.heads).chain(&self.rows).collect();
        let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let mut text = format!("{}\n", self.title);
        for row in all {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
            let _ = writeln!(text, "  {}", cells.collect::<Vec<_>>().join("  "));
        }
        text
    }

    pub fn html(&self) -> String {
        let mut html = String::new();
        if !self.title.is_empty() {
            let _ = write!(html, "<h2>{}</h2>", escaped(&self.title));
        }
        if !self.note.is_empty() {
            let _ = write!(html, "<p>{}</p>", escaped(&self.note));
        }
        let row = |cells: &[String], tag: &str| {
            let cells = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell)));
            format!("<tr>{}</tr>\n", cells.collect::<String>())
        };
        let rows: String = self.rows.iter().map(|cells| row(cells, "td")).collect();
        let _ = write!(
            html,
            "<div class=\"wide\"><table{}><thead>{}</thead><tbody>{rows}</tbody></table></div>",
            if self.words { " class=\"words\"" } else { "" },
            row(&self.heads, "th")
        );
        html
    }
}
