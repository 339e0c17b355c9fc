use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::options::Options;
use crate::scenarios;
use crate::sometimes::STATES;
use crate::world;

/// What a campaign goes through.
#[derive(Debug, Args)]
pub struct CampaignArgs {
    /// How long, by the clock on the wall.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "60m")]
    time: Duration,
    /// At most so many seeds, those of earlier calls included. The regressions are run before them.
    #[arg(long, value_name = "N", default_value_t = u64::MAX)]
    seeds: u64,
    /// The first seed.
    #[arg(long, value_name = "N", default_value_t = 1)]
    first: u64,
    /// Remembers how far it is; a campaign that is called again goes on there.
    #[arg(long, value_name = "FILE", default_value = "campaign.json")]
    state: PathBuf,
    /// Simulated time of each run.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Makes all faults so many times as frequent.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    intensity: f64,
    /// Runs at once; as many as there are cores where it is not given.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Also fails where an interesting state was never reached.
    #[arg(long)]
    all_states: bool,
}

/// How far a campaign is.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// Seeds that were run.
    done: u64,
    /// Simulated hours.
    simulated_hours: f64,
    /// Commands that break an invariant, and how.
    broken: BTreeMap<String, String>,
    /// How often interesting states were reached.
    sometimes: BTreeMap<String, u64>,
}

/// Whether all held.
pub(super) fn main(arguments: &CampaignArgs) -> Result<bool, String> {
    let mut state = State::default();
    if arguments.state.is_file() {
        let text = std::fs::read_to_string(&arguments.state).map_err(|error| error.to_string())?;
        state = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", arguments.state.display()))?;
        println!("goes on after {} seeds", state.done);
    }
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let bar = ProgressBar::new(arguments.time.as_secs());
    bar.set_style(ProgressStyle::with_template("[{bar:30}] {elapsed} {msg}").map_err(|error| error.to_string())?);
    let (next, began) = (AtomicU64::new(state.done), Instant::now());
    let (shared, regressions) = (Mutex::new(state), scenarios::regressions());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while began.elapsed() < arguments.time {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(options) = options(arguments, &regressions, number) else { return };
                    one(arguments, &options, &shared, &bar);
                    bar.set_position(began.elapsed().as_secs());
                }
            });
        }
    });
    bar.finish_and_clear();
    let state = shared.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(judge(arguments, &state))
}

/// The options of a campaign's run, while there are any: the regressions, then all scenarios in turn, each with seeds of its own.
fn options(arguments: &CampaignArgs, regressions: &[Options], number: u64) -> Option<Options> {
    let Some(number) = number.checked_sub(regressions.len() as u64) else {
        return regressions.get(usize::try_from(number).ok()?).cloned();
    };
    if number >= arguments.seeds {
        return None;
    }
    let all = scenarios::all();
    let place = usize::try_from(number % all.len() as u64).unwrap_or(0);
    let mut options = all[place].clone();
    options.seed = arguments.first + number / all.len() as u64;
    options.intensity = arguments.intensity;
    options.duration_s = arguments.duration.map_or(options.duration_s, |duration| duration.as_secs());
    Some(options)
}

fn one(arguments: &CampaignArgs, options: &Options, shared: &Mutex<State>, bar: &ProgressBar) {
    let report = std::panic::catch_unwind(|| world::run(options, false, |_| {}));
    let mut state = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    state.done += 1;
    let broken = match report {
        Ok(report) => {
            state.simulated_hours += report.simulated_ms as f64 / 3_600_000.0;
            for (name, count) in report.sometimes {
                *state.sometimes.entry(name).or_default() += u64::from(count > 0);
            }
            report.violations.first().map(|violation| format!("{}: {}", violation.invariant, violation.how))
        }
        Err(_) => Some("the run panicked".to_owned()),
    };
    if let Some(how) = broken {
        bar.println(format!("broken: {how}\n  {}", options.command()));
        state.broken.insert(options.command(), how);
    }
    bar.set_message(format!("{} seeds, {:.1} h simulated, {} broken", state.done, state.simulated_hours, state.broken.len()));
    if let Ok(text) = serde_json::to_string_pretty(&*state) {
        // What can't be remembered is run again.
        let _ = std::fs::write(&arguments.state, text);
    }
}

fn judge(arguments: &CampaignArgs, state: &State) -> bool {
    println!("{} seeds, {:.1} simulated hours, {} broken", state.done, state.simulated_hours, state.broken.len());
    for name in STATES {
        println!("  {:>6} runs: {name}", state.sometimes.get(name).copied().unwrap_or(0));
    }
    for (command, how) in &state.broken {
        println!("broken: {how}\n  {command}");
    }
    let missed = STATES.iter().filter(|name| state.sometimes.get(**name).copied().unwrap_or(0) == 0).count();
    if missed > 0 && arguments.all_states {
        println!("{missed} interesting states were never reached");
    }
    state.broken.is_empty() && (missed == 0 || !arguments.all_states)
}
