//! `anabranch network-key`

use std::path::PathBuf;

use anabranch_protocol::network_key::NetworkKey;
use clap::Args;

use crate::process::Failure;
use crate::process::data_dir::write_whole;

#[derive(Debug, Args)]
#[command(after_help = "Example:
  anabranch network-key --out network.key
  anabranch run --network-key network.key")]
pub struct NetworkKeyArgs {
    /// Where the key goes; copy the file to every node of the private network.
    #[arg(long, value_name = "FILE", default_value = "network.key")]
    out: PathBuf,
}

pub fn network_key(args: &NetworkKeyArgs) -> Result<(), Failure> {
    let out = &args.out;
    // Nodes may hold that key: overwritten, it locks them out.
    if out.exists() {
        return Err(Failure::Other(format!("{} exists already: name another file with --out", out.display())));
    }
    let text = format!("{}\n", NetworkKey::new(rand::random()).to_text());
    write_whole(out, text.as_bytes()).map_err(|error| Failure::other(format!("can't write {}", out.display()), error))?;
    // The secret itself is not printed: terminals and their logs remember.
    println!("{}: a new network key; start every node of the network with --network-key {}", out.display(), out.display());
    Ok(())
}
