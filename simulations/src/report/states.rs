//! Which of the *sometimes* checks were reached.

use crate::page::{escaped, grouped};
use crate::world::Report;

pub(super) fn html(report: &Report) -> String {
    let reached = report.sometimes.values().filter(|count| **count > 0).count();
    let all = report.sometimes.len();
    let item = |(state, count): (&String, &u64)| {
        let state = escaped(state);
        if *count == 0 {
            format!("<li class=\"missed\"><b>–</b><span>{state}</span>not reached</li>\n")
        } else {
            format!("<li><b>✓</b><span>{state}</span>{}×</li>\n", grouped(*count))
        }
    };
    let items: String = report.sometimes.iter().map(item).collect();
    format!(
        "<p>{reached} of {all} interesting states were reached. A campaign has to reach them all; one run need not.</p><ul class=\"states\">{items}</ul>"
    )
}
