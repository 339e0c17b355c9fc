//! The command line.

pub(crate) mod client;
mod config;
mod dataset;
mod demo;
mod doctor;
mod documents;
mod invite;
mod keygen;
mod load;
mod network_key;
mod peers;
mod query;
mod status;
mod tables;
mod transfer;
mod wish;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use transfer::{fuzz_cells, fuzz_import};

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::config::{DatasetFlag, Overrides};
use crate::process::Failure;
use crate::process::logging::{FILTER_DEFAULT, LogFormat};
use crate::run::{RunOptions, World, run};

/// Keeps datasets in sync between peers, offline first.
#[derive(Debug, Parser)]
#[command(name = "anabranch", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  anabranch run                              a node with `primary`
  anabranch run --peer /ip4/192.0.2.1/tcp/4001     in sync with that peer
  anabranch put orders o-1 '{\"total\": 12}'   write a document
  anabranch status                           what a running node holds
  anabranch invite | ssh there anabranch run --join -
  anabranch demo                             three nodes to look at";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until Ctrl-C or SIGTERM.
    Run(RunArgs),
    /// Run three nodes with three datasets and sample load, to look at.
    Demo(demo::DemoArgs),
    /// Make a node identity and print its peer id.
    Keygen(keygen::KeygenArgs),
    /// Make a key for a private network.
    NetworkKey(network_key::NetworkKeyArgs),
    /// Make a string that lets another node join.
    Invite(invite::InviteArgs),
    /// Show a running node and its datasets.
    #[command(after_help = "Examples:\n  anabranch status\n  anabranch status --node http://127.0.0.1:7071 --json")]
    Status(query::QueryArgs),
    /// Show with whom a node syncs and how far apart they are; or enrol, demote, disable, remove a peer.
    Peers(peers::PeersArgs),
    /// Show the datasets of a running node.
    #[command(after_help = "Examples:\n  anabranch datasets\n  anabranch datasets --node http://127.0.0.1:7071 --json")]
    Datasets(query::QueryArgs),
    /// Create, delete, pause, resume or restart a dataset of a running node.
    Dataset(dataset::DatasetArgs),
    /// Show a document.
    Get(documents::GetArgs),
    /// Write a document.
    Put(documents::PutArgs),
    /// Change fields of a document.
    Patch(documents::PutArgs),
    /// Delete a document.
    Delete(documents::DeleteArgs),
    /// List documents of a collection.
    List(documents::ListArgs),
    /// Write the documents of a file into a collection.
    Import(transfer::ImportArgs),
    /// Write a collection into a file.
    Export(transfer::ExportArgs),
    /// Write sample documents, to see what a node can take.
    Load(load::LoadArgs),
    /// Write a report of a node and its machine, to send to whoever helps.
    Doctor(doctor::DoctorArgs),
    /// Check a configuration, or show what it comes to.
    Config(config::ConfigArgs),
    /// Print completions for a shell.
    #[command(after_help = "Example:
  anabranch completions fish > ~/.config/fish/completions/anabranch.fish")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
struct RunArgs {
    /// Configuration file (TOML); environment variables ANABRANCH_… go over it, flags over both.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything of the node is kept [default: ./anabranch-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen for peers, by TCP or QUIC; port 0 takes a free one [default: port 4001 of 127.0.0.1, both].
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// A peer to keep in sync with, as it prints itself at its start.
    #[arg(long, value_name = "MULTIADDR")]
    peer: Vec<String>,
    /// Join a node by its invite: the string, a file that holds it, or `-` for standard input. Its network key and address are
    /// kept in the data directory, so that later starts need no --join. The string itself shows in the process list.
    #[arg(long, value_name = "INVITE|FILE|-")]
    join: Option<String>,
    /// A key of the private network, made by `anabranch network-key`; repeat it while a key is being rotated.
    #[arg(long, value_name = "FILE")]
    network_key: Vec<PathBuf>,
    /// Where to serve HTTP; port 0 takes a free one [default: 127.0.0.1:7070].
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// A dataset to run, its kind (documents, append) and what it replicates; given, exactly these run.
    #[arg(long, value_name = "NAME[:KIND][=COLLECTION,…]")]
    dataset: Vec<DatasetFlag>,
    /// Gets the body of GET /v1/node once the node is ready.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// What to log, such as `warn` or `info,anabranch_node=debug`.
    #[arg(long, value_name = "FILTER", default_value = FILTER_DEFAULT)]
    log: String,
    /// How a line of log looks.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Listen beyond loopback although whoever reaches the node can read and write its datasets.
    #[arg(long)]
    insecure_open: bool,
}

const RUN_EXAMPLES: &str = "\
Examples:
  anabranch run
  anabranch run --data-dir ./b --listen /ip4/127.0.0.1/tcp/0 \\
      --http 127.0.0.1:0 --peer /ip4/127.0.0.1/tcp/4001
  ssh there anabranch invite | anabranch run --data-dir ./b --join -
  anabranch run --dataset orders=* --dataset logs:append=app,access
  ANABRANCH_HTTP__ADDR=127.0.0.1:8080 anabranch run --config anabranch.toml

Exit codes: 0 stopped cleanly, 2 bad arguments or configuration,
3 data directory in use, 1 anything else.";

/// The program: parses the process's arguments and does what they say.
#[must_use]
pub fn main(world: World) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version come this way too, with exit code 0; everything else ends with 2.
        Err(error) => error.exit(),
    };
    match dispatch(cli.command, world) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}", for_terminal(&failure.to_string()));
            failure.exit_code()
        }
    }
}

/// Broken between words where somebody looks, lines as they are where a program does.
fn for_terminal(failure: &str) -> String {
    let width = console::Term::stderr().size_checked().map_or(usize::MAX, |(_, columns)| usize::from(columns));
    let line = |(number, line)| tables::wrapped(line, if number == 0 { "anabranch: " } else { "" }, width);
    failure.lines().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

fn dispatch(command: Command, world: World) -> Result<(), Failure> {
    match command {
        Command::Run(args) => run(&args.into(), world),
        Command::Demo(args) => demo::demo(&args, &world),
        Command::Keygen(args) => keygen::keygen(&args),
        Command::NetworkKey(args) => network_key::network_key(&args),
        Command::Invite(args) => invite::invite(&args),
        Command::Status(args) => query::status(&args),
        Command::Peers(args) => peers::peers(&args),
        Command::Datasets(args) => query::datasets(&args),
        Command::Dataset(args) => dataset::dataset(&args),
        Command::Get(args) => documents::get(&args),
        Command::Put(args) => documents::put(&args),
        Command::Patch(args) => documents::patch(&args),
        Command::Delete(args) => documents::delete(&args),
        Command::List(args) => documents::list(&args),
        Command::Import(args) => transfer::import(&args),
        Command::Export(args) => transfer::export(&args),
        Command::Load(args) => load::load(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Config(args) => config::config(&args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "anabranch", &mut std::io::stdout());
            Ok(())
        }
    }
}

impl From<RunArgs> for RunOptions {
    fn from(args: RunArgs) -> Self {
        let overrides = Overrides {
            data_dir: args.data_dir,
            listen: args.listen,
            peers: args.peer,
            network_keys: args.network_key,
            http: args.http,
            datasets: args.dataset,
            insecure_open: args.insecure_open,
            join: None,
        };
        Self {
            config_file: args.config,
            overrides,
            join: args.join,
            ready_file: args.ready_file,
            log_filter: args.log,
            log_format: args.log_format,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_of_itself_that_fit_eighty_columns() {
        fn look(command: &clap::Command, path: &str) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let of_itself = |line: &str| line.starts_with(&format!("  {path}")) || line.contains(&format!(" {path} "));
            assert!(help.contains("Example") && help.lines().any(of_itself), "{path}: {help}");
            let too_wide = help.lines().find(|line| console::measure_text_width(line) > 79);
            assert_eq!(too_wide, None, "{path}");
            for inner in command.get_subcommands() {
                look(inner, &format!("{path} {}", inner.get_name()));
            }
        }
        look(&Cli::command(), "anabranch");
    }

    #[test]
    fn dataset_flags_repeat() {
        let cli = Cli::try_parse_from(["anabranch", "run", "--dataset", "a=*", "--dataset", "b:append"]).unwrap();
        let Command::Run(args) = cli.command else { panic!("not run") };
        assert_eq!(args.dataset.len(), 2);
        let refused = Cli::try_parse_from(["anabranch", "run", "--dataset", "A"]).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
    }
}
