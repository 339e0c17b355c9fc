//! What the run was made of.

use serde_json::Value;

use crate::page::escaped;
use crate::page::table::{Table, heads};
use crate::world::Report;

pub(super) fn html(report: &Report) -> String {
    let options = serde_json::to_value(&report.options).unwrap_or_default();
    let text = serde_json::to_string_pretty(&options).unwrap_or_default();
    let rows = options.as_object().into_iter().flatten().flat_map(|(name, value)| rows(name, value)).collect();
    let heads = heads(&["option", "value"]);
    let note = "Rates of faults are a minute.".to_owned();
    let table = Table { title: String::new(), note, heads, rows, words: true }.html();
    let (command, text) = (escaped(&report.options.command()), escaped(&text));
    format!("{table}<p>Again:</p><pre>{command}</pre><details><summary>As a scenario file</summary><pre>{text}</pre></details>")
}

/// One row, or one for each entry.
fn rows(name: &str, value: &Value) -> Vec<Vec<String>> {
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value {
        Value::Object(entries) => entries.iter().map(|(entry, value)| vec![format!("{name}: {entry}"), shown(value)]).collect(),
        other => vec![vec![name.to_owned(), shown(other)]],
    }
}
