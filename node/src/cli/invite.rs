//! `anabranch invite`: one string that lets another node join.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value as Json, json};
use ureq::http::Method;

use super::client::{Node, NodeArgs};
use super::query::print_json;
use crate::process::Failure;
use crate::process::data_dir::write_whole;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch invite > invite.txt       there: anabranch run --join invite.txt
  anabranch invite | ssh there anabranch run --join -
  anabranch invite --expires 1h --out invite.txt
  anabranch invite --address /ip4/203.0.113.5/tcp/4001     a router's address

The invite is a secret: it holds the network key. That it expires keeps an old
one from being used by mistake; it takes nothing back from who has read it.
See docs/security.md.")]
pub struct InviteArgs {
    /// How long it serves, such as 1h or 7d, or `never`.
    #[arg(long, value_name = "T", default_value = "1d")]
    expires: String,
    /// Where else the node can be dialed, as a multiaddr.
    #[arg(long, value_name = "MULTIADDR")]
    address: Vec<String>,
    /// Write it to a file that only you can read, instead of printing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArgs,
    /// Print JSON, for scripts.
    #[arg(long, conflicts_with = "out")]
    json: bool,
}

pub fn invite(args: &InviteArgs) -> Result<(), Failure> {
    let body = json!({ "expires_in": args.expires, "addresses": args.address }).to_string();
    let answer = Node::of(&args.node)?.send_reader(Method::POST, "/v1/invites", &mut body.as_bytes())?;
    let answer = Node::ok(answer)?;
    if args.json {
        return print_json(&answer);
    }
    let invite = answer["invite"].as_str().ok_or_else(|| Failure::Other("the node answered without an invite".to_owned()))?;
    let argument = match &args.out {
        None => {
            println!("{invite}");
            "-".to_owned()
        }
        Some(out) => {
            let failed = |error| Failure::other(format!("can't write {}", out.display()), error);
            write_whole(out, format!("{invite}\n").as_bytes()).map_err(failed)?;
            out.display().to_string()
        }
    };
    // Beside the invite, so that a pipe gets nothing else.
    eprint!("{}", hints(&answer, &argument));
    Ok(())
}

fn hints(answer: &Json, argument: &str) -> String {
    let secret =
        if answer["network_key"].as_bool() == Some(true) { "It is a secret: it holds the network key" } else { "Keep it" };
    let until =
        answer["expires_at"].as_str().map_or_else(|| "It does not expire".to_owned(), |at| format!("It serves until {at}"));
    let mut text = format!("{secret}. {until}. On the other machine: anabranch run --join {argument}\n");
    if answer["this_machine_only"].as_bool() == Some(true) {
        text += "This node listens on loopback only: the invite serves on this machine alone. Start the node with --listen \
                 /ip4/0.0.0.0/tcp/4001 and --network-key FILE, or name an --address.\n";
    }
    text
}
