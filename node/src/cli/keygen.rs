//! `anabranch keygen`

use std::path::PathBuf;

use clap::Args;

use crate::process::Failure;
use crate::process::data_dir::write_whole;
use crate::process::identity::{IDENTITY_FILE, NodeKey};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  anabranch keygen --out ./anabranch-data/identity.key")]
pub struct KeygenArgs {
    /// Where the key goes; put it into a data directory as `identity.key` before the node's first start.
    #[arg(long, value_name = "FILE", default_value = IDENTITY_FILE)]
    out: PathBuf,
}

pub fn keygen(args: &KeygenArgs) -> Result<(), Failure> {
    let out = &args.out;
    // Another node may live by that key; losing it can't be undone.
    if out.exists() {
        return Err(Failure::Other(format!("{} exists already: name another file with --out", out.display())));
    }
    let key = NodeKey::generate();
    write_whole(out, &key.encode()).map_err(|error| Failure::other(format!("can't write {}", out.display()), error))?;
    println!("{}", key.identity().peer());
    Ok(())
}
