//! The table of series, its documentation, the alerts and the dashboard name the same things.

use std::collections::BTreeSet;
use std::path::Path;

use super::series::{ALL, Kind};

fn doc(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn registered() -> BTreeSet<String> {
    ALL.iter().map(|series| series.name.to_owned()).collect()
}

/// Every word of a text that looks like a series, without what histograms add to their names.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let series = words.filter(|word| word.len() > "anabranch_".len() && word.starts_with("anabranch_")).map(|word| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word);
        let histogram = ALL.iter().any(|series| series.name == base && series.kind == Kind::Histogram);
        if histogram { base } else { word }.to_owned()
    });
    series.collect()
}

#[test]
fn names_follow_the_rules_of_their_kind() {
    assert_eq!(registered().len(), ALL.len(), "a name is used twice");
    for series in ALL {
        let name = series.name;
        assert!(name.starts_with("anabranch_") && series.help.ends_with('.'), "{name}");
        assert_eq!(series.kind == Kind::Counter, name.ends_with("_total"), "{name}");
        assert!(series.kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
        assert_eq!(name.starts_with("anabranch_dataset_"), series.labels.first() == Some(&"dataset") && !name.contains("_peer_"));
    }
}

#[test]
fn every_series_is_documented_and_nothing_else_is() {
    let text = doc("metrics.md");
    let rows: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `anabranch_")?.split_once('`'))
        .map(|(name, _)| format!("anabranch_{name}"))
        .collect();
    assert_eq!(rows, registered());
    assert_eq!(&named(&text) - &registered(), BTreeSet::new(), "the text speaks of series that are not there");
    for series in ALL {
        let row = text.lines().find(|line| line.starts_with(&format!("| `{}` ", series.name))).unwrap();
        let kind = format!("{:?}", series.kind).to_lowercase();
        let labels: Vec<_> = series.labels.iter().map(|label| format!("`{label}`")).collect();
        assert!(row.contains(&format!("| {kind} | {} |", labels.join(", "))), "{row}");
    }
}

#[test]
fn alerts_and_dashboard_use_series_that_there_are() {
    for name in ["prometheus/rules.yml", "grafana/anabranch.json"] {
        let used = named(&doc(name));
        assert_eq!(&used - &registered(), BTreeSet::new(), "{name}");
        assert!(used.len() > 10, "{name}: the reader of names sees something");
    }
}

/// As code hosts name a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_names_its_signal() {
    let (rules, operations) = (doc("prometheus/rules.yml"), doc("operations.md"));
    let part = operations.split("\n## ").find(|part| part.starts_with("Runbook")).expect("a runbook");
    let sections: Vec<(String, &str)> =
        part.split("\n### ").skip(1).map(|section| (anchor(section.lines().next().unwrap_or_default()), section)).collect();
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 10);
    for alert in alerts {
        let name = alert.lines().next().unwrap_or_default();
        let runbook = alert.lines().find_map(|line| line.trim().strip_prefix("runbook: docs/operations.md#"));
        let runbook = runbook.unwrap_or_else(|| panic!("{name} has no runbook"));
        let section = sections.iter().find(|(anchor, _)| anchor == runbook);
        let (_, section) = section.unwrap_or_else(|| panic!("{name}: docs/operations.md has no runbook #{runbook}"));
        assert!(section.contains(&format!("`{name}`")), "{name}: its runbook does not name it");
        for series in named(alert) {
            assert!(section.contains(&series), "{name}: its runbook does not name {series}");
        }
    }
}
