//! The page of a run says all that the run was, is a whole document, and takes no text for markup.

use anabranch_simulations::invariants::Violation;
use anabranch_simulations::options::Options;
use anabranch_simulations::world::{self, Report};
use anabranch_simulations::{report, scenarios};

const SECTIONS: [&str; 9] = ["verdict", "timeline", "lag", "convergence", "traffic", "nodes", "states", "faults", "options"];

fn run(about: &str) -> Report {
    let options = scenarios::find("default").unwrap();
    // Rates as in a run of five minutes, so that something happens in fifteen seconds.
    let faults = options.faults.iter().map(|(kind, rate)| (*kind, rate * 6.0)).collect();
    let about = about.to_owned();
    world::run(&Options { seed: 3, duration_s: 15, nodes: 3, look_every_s: 1, about, faults, ..options }, false, |_| {})
}

fn broken_at(report: &Report, at_ms: u64, how: &str) -> Report {
    let violation = Violation { invariant: "acked-durable".to_owned(), at_ms, how: how.to_owned() };
    // It ended there, as a run does that breaks.
    Report { violations: vec![violation], healing_from_ms: None, converged_after_ms: None, simulated_ms: at_ms, ..report.clone() }
}

/// Every tag is closed by its own, which a page with unescaped text, or a torn plot, is not.
fn assert_whole(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in html.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap_or_else(|| panic!("<{tag} has no end"));
        let name = tag.split([' ', '\n', '/']).find(|part| !part.is_empty()).unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes another one");
        } else if !tag.ends_with('/') && !["!doctype", "meta"].contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?} are not closed");
}

fn sections_of(html: &str) -> Vec<&str> {
    SECTIONS.into_iter().filter(|section| html.matches(&format!("<section id=\"{section}\">")).count() == 1).collect()
}

#[test]
fn a_page_has_every_section_and_says_what_the_report_does() {
    let run = run("as it comes");
    let html = report::html(&run).unwrap();
    assert_whole(&html);
    assert_eq!(sections_of(&html), SECTIONS);
    assert!(
        html.contains(&format!("All {} invariants held", anabranch_simulations::invariants::all().len()))
            && html.contains(&run.trace)
            && html.contains(&run.options.command())
    );
    let texts = run.datasets.iter().chain(run.sometimes.keys()).chain(run.traffic.by_kind.keys()).chain([&run.options.about]);
    for text in texts {
        assert!(html.contains(text.as_str()), "{text}");
    }
    // Each fault has its bar and its row, each life of a node its bar.
    assert!(run.faults.len() > 5, "a test of nothing");
    for fault in &run.faults {
        assert_eq!(html.matches(&format!("title=\"#{} {}, ", fault.number, fault.kind)).count(), 1, "{fault}");
        assert!(
            html.contains(&format!("<td>{}</td><td>{:.1}\u{a0}s</td>", fault.number, fault.at_ms as f64 / 1_000.0)),
            "{fault}"
        );
    }
    assert_eq!(html.matches(", life ").count() as u64, run.starts);
}

#[test]
fn plots_are_whole_and_nothing_is_loaded() {
    let html = report::html(&run("as it comes")).unwrap();
    let plots: Vec<&str> = html.split("<svg ").skip(1).map(|svg| svg.split_once("</svg>").unwrap().0).collect();
    assert_eq!(plots.len(), 2);
    for svg in plots {
        assert!(svg.contains("viewBox=\"0 0 480 320\"") && svg.matches("<polyline").count() >= 4, "{svg}");
    }
    let namespace = "http://www.w3.org/2000/svg";
    let rest = html.replace(namespace, "");
    for forbidden in ["NaN", "inf%", "http:", "https:", "src=", "url(", "@import", "<script", "<link"] {
        assert!(!rest.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn a_broken_run_leads_with_what_broke_and_how_to_see_it_again() {
    let hurt = "<img src=x onerror=\"alert(1)\"> & 'more'";
    let mut run = broken_at(&run("<script>alert(2)</script>"), 7_000, hurt);
    run.options.scenario = "my <scenario>.json".to_owned();
    run.options.only = Some(vec![2, 4]);
    let html = report::html(&run).unwrap();
    assert_whole(&html);
    assert!(!html.contains("<img") && !html.contains("<script") && !html.contains("<scenario"), "text is text");
    assert_eq!(html.matches("&lt;img src=x onerror=&quot;alert(1)&quot;&gt; &amp; &#39;more&#39;").count(), 2, "text and bar");
    assert_eq!(sections_of(&html), SECTIONS);
    let place = |what: &str| html.find(what).unwrap_or_else(|| panic!("no {what}"));
    assert!(place("Broken: acked-durable") < place("--scenario &#39;my &lt;scenario&gt;.json&#39; --seed 3"));
    assert!(place("--only 2,4</pre>") < place("these were left in"));
    assert!(place("these were left in") < place("<section id=\"timeline\">"));
    // What was still to come has a row, and no bar.
    let late = run.faults.iter().find(|fault| fault.at_ms > 7_000).unwrap();
    assert!(html.contains("it broke before") && !html.contains(&format!("title=\"#{} ", late.number)));
}

#[test]
fn a_run_of_next_to_nothing_has_a_page_too() {
    let options = Options { duration_s: 1, nodes: 1, datasets: 1, writes_per_second: 0.0, ..scenarios::find("calm").unwrap() };
    let mut run = world::run(&options, false, |_| {});
    assert_whole(&report::html(&run).unwrap());
    (run.lag, run.simulated_ms, run.traffic) = (Vec::new(), 0, Default::default());
    let html = report::html(&run).unwrap();
    assert_whole(&html);
    assert!(!html.contains("NaN") && !html.contains("inf%"));
}

#[test]
fn a_report_has_both_files() {
    let directory = tempfile::tempdir().unwrap();
    let run = run("as it comes");
    report::write(&run, &directory.path().join("new")).unwrap();
    let read = |name: &str| std::fs::read_to_string(directory.path().join("new").join(name)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&read("report.json")).unwrap();
    assert_eq!((json["trace"].as_str(), json["nodes"].as_array().map(Vec::len)), (Some(run.trace.as_str()), Some(3)));
    assert_eq!(json["healing_from_ms"], 15_000);
    assert_eq!(read("report.html"), report::html(&run).unwrap());
}
