//! `config check` and `config show`: what a node would run with, without running it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::query::print_json;
use crate::config::{Config, Overrides, shown};
use crate::process::Failure;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch config check --config anabranch.toml
  ANABRANCH_HTTP__ADDR=127.0.0.1:8080 anabranch config show --config a.toml")]
pub struct ConfigArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say whether `run` would accept it; exit code 2 and the first mistake if not.
    #[command(after_help = "Example:\n  anabranch config check --config anabranch.toml")]
    Check(Of),
    /// Print the effective configuration and where each value came from. No secret is printed, only the names of their files.
    #[command(after_help = "Example:\n  anabranch config show --config anabranch.toml")]
    Show(Of),
}

#[derive(Debug, Args)]
struct Of {
    /// Configuration file (TOML); environment variables ANABRANCH_… go over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON, for scripts.
    #[arg(long)]
    json: bool,
}

pub fn config(args: &ConfigArgs) -> Result<(), Failure> {
    match &args.what {
        What::Check(of) => check(of),
        What::Show(of) => show(of),
    }
}

fn check(of: &Of) -> Result<(), Failure> {
    let config = Config::load(of.config.as_deref(), Overrides::default())?;
    let names: Vec<_> = config.datasets.keys().map(ToString::to_string).collect();
    if of.json {
        return print_json(&json!({ "valid": true, "datasets": names }));
    }
    let source = of.config.as_ref().map_or_else(|| "the configuration".to_owned(), |file| file.display().to_string());
    println!("{source} is valid: it runs {}", names.join(", "));
    Ok(())
}

fn show(of: &Of) -> Result<(), Failure> {
    // What does not hold is not shown as if it did.
    Config::load(of.config.as_deref(), Overrides::default())?;
    let settings = shown::settings(of.config.as_deref())?;
    if of.json {
        return print_json(&shown::json(&settings));
    }
    print!("{}", shown::toml(&settings));
    Ok(())
}
