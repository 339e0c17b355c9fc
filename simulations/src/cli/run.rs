use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::Seeds;
use crate::options::Options;
use crate::scenarios;
use crate::shrink::shrink;
use crate::world::{self, Report};

pub(super) const EXAMPLES: &str = "Examples:
  anabranch-simulations run                                   the default scenario, seed 1
  anabranch-simulations run --scenario crashes --seeds 1..50  fifty seeds of one scenario
  anabranch-simulations run --scenario mine.json --seed 7 --report report/
A scenario file is JSON with the fields that a run prints first; those that are left out are the default's.";

/// A run that has not ended after so long, by the clock on the wall, hangs.
const HANGS_AFTER: Duration = Duration::from_secs(600);
/// Stack of a run's thread: debug builds are deep.
const STACK_BYTES: usize = 64 << 20;

/// What is run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A scenario of `list`, or a file.
    #[arg(long, value_name = "NAME|FILE", default_value = "default")]
    scenario: String,
    /// The seed.
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Several seeds, both ends included.
    #[arg(long, value_name = "A..B")]
    seeds: Option<Seeds>,
    /// Nodes at the beginning.
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Datasets on every node.
    #[arg(long, value_name = "N")]
    datasets: Option<usize>,
    /// For how long there are writes and faults, simulated time.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Makes all faults so many times as frequent.
    #[arg(long, value_name = "FACTOR")]
    intensity: Option<f64>,
    /// Only these faults of the plan, by number: what a failure prints to reproduce it.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    only: Option<Vec<usize>>,
    /// Writes report.json and report.html of the last seed, or of the first that fails, into a directory.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Prints every event: messages, barriers, faults, answers.
    #[arg(long)]
    trace: bool,
}

impl RunArgs {
    fn options(&self) -> Result<Options, String> {
        let mut options = find(&self.scenario)?;
        options.nodes = self.nodes.unwrap_or(options.nodes);
        options.datasets = self.datasets.unwrap_or(options.datasets);
        options.duration_s = self.duration.map_or(options.duration_s, |duration| duration.as_secs());
        options.intensity = self.intensity.unwrap_or(options.intensity);
        options.only = self.only.clone().or(options.only);
        options.seed = self.seed.or(self.seeds.map(|seeds| seeds.first)).unwrap_or(options.seed);
        options.check()?;
        Ok(options)
    }
}

fn find(scenario: &str) -> Result<Options, String> {
    if let Some(options) = scenarios::find(scenario) {
        return Ok(options);
    }
    if !Path::new(scenario).is_file() {
        let names: Vec<String> = scenarios::all().into_iter().map(|options| options.scenario).collect();
        return Err(format!("no scenario and no file is named {scenario:?}; there are: {}", names.join(", ")));
    }
    let text = std::fs::read_to_string(scenario).map_err(|error| format!("{scenario} can't be read: {error}"))?;
    let options: Options = serde_json::from_str(&text).map_err(|error| format!("{scenario}: {error}"))?;
    Ok(Options { scenario: scenario.to_owned(), ..options })
}

/// Whether all held.
pub(super) fn main(arguments: &RunArgs) -> Result<bool, String> {
    let options = arguments.options()?;
    println!("seed: {}", options.seed);
    println!("options: {}", serde_json::to_string(&options).map_err(|error| error.to_string())?);
    let seeds = arguments.seeds.unwrap_or(Seeds { first: options.seed, last: options.seed });
    let mut last = None;
    for seed in seeds.first..=seeds.last {
        let report = one(&Options { seed, ..options.clone() }, arguments.trace)?;
        println!("trace: {} (seed {seed})", report.trace);
        let failed = !report.violations.is_empty();
        last = Some(report);
        if failed {
            break;
        }
    }
    let Some(report) = last else { return Ok(true) };
    let report = if report.violations.is_empty() { report } else { explain(report)? };
    if let Some(directory) = &arguments.report {
        crate::report::write(&report, directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        println!("report: {}", directory.join("report.html").display());
    }
    if report.violations.is_empty() {
        println!("{}", in_words(&report));
    } else {
        println!("reproduce: {}", command(&report.options));
    }
    Ok(report.violations.is_empty())
}

fn in_words(report: &Report) -> String {
    let converged = report.converged_after_ms.map_or_else(|| "never".to_owned(), |ms| format!("{:.0} s", ms as f64 / 1_000.0));
    format!(
        "all invariants held: {} faults, {} starts of nodes, {} restarts of datasets, {} commits, converged {converged} after the last fault",
        report.faults.len(),
        report.starts,
        report.restarts,
        report.commits.iter().sum::<usize>(),
    )
}

/// One run on a thread of its own, with progress on a terminal.
fn one(options: &Options, loud: bool) -> Result<Report, String> {
    let bar = ProgressBar::new(1_000);
    bar.set_style(ProgressStyle::with_template("{prefix} [{bar:40}] {percent} %").map_err(|error| error.to_string())?);
    bar.set_prefix(format!("seed {}", options.seed));
    let (told, tells) = mpsc::channel();
    let of_run = options.clone();
    let run = move || {
        let progress = told.clone();
        let report = world::run(&of_run, loud, move |share| drop(progress.send(Err(share))));
        drop(told.send(Ok(Box::new(report))));
    };
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).map_err(|error| error.to_string())?;
    loop {
        match tells.recv_timeout(HANGS_AFTER) {
            Ok(Err(share)) => bar.set_position(share),
            Ok(Ok(report)) => {
                bar.finish_and_clear();
                return Ok(*report);
            }
            Err(_) => {
                println!("reproduce: {}", command(options));
                return Err(format!("the run of seed {} panicked, or stood still for {HANGS_AFTER:?}", options.seed));
            }
        }
    }
}

/// Says what was broken, and finds the faults that it takes.
fn explain(report: Report) -> Result<Report, String> {
    for violation in &report.violations {
        println!("broken: {} at {:.3} s: {}", violation.invariant, violation.at_ms as f64 / 1_000.0, violation.how);
    }
    let invariant = report.violations[0].invariant.clone();
    println!("{} faults were planned; looking for those that it takes", report.faults.len());
    let bar = ProgressBar::new_spinner();
    let found = shrink(report, &mut |options| {
        bar.set_message(format!("{} faults", options.only.as_ref().map_or(0, Vec::len)));
        bar.tick();
        one(options, false).ok().filter(|report| report.violations.iter().any(|violation| violation.invariant == invariant))
    });
    bar.finish_and_clear();
    for fault in &found.faults {
        println!("fault {fault}");
    }
    Ok(found)
}

/// What reproduces a run.
pub(super) fn command(options: &Options) -> String {
    let mut command = format!(
        "cargo run --release -p anabranch-simulations -- run --scenario {} --seed {} --nodes {} --datasets {} --duration {}s",
        options.scenario, options.seed, options.nodes, options.datasets, options.duration_s
    );
    if (options.intensity - 1.0).abs() > f64::EPSILON {
        command.push_str(&format!(" --intensity {}", options.intensity));
    }
    if let Some(only) = &options.only {
        let only: Vec<String> = only.iter().map(ToString::to_string).collect();
        command.push_str(&format!(" --only {}", only.join(",")));
    }
    command
}
