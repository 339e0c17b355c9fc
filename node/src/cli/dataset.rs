//! `dataset create|delete|pause|resume|restart NAME`: what an operator may do to the datasets of a running node.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anabranch_protocol::id::DatasetId;
use anabranch_protocol::wire::Kind;
use clap::{Args, Subcommand};
use serde_json::{Map, Value as Json};
use ureq::http::Method;

use super::client::Node;
use super::query::QueryArgs;
use crate::process::Failure;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DatasetArgs {
    #[command(subcommand)]
    order: Order,
}

const EXAMPLES: &str = "\
Examples:
  anabranch dataset create logs --kind append --collections app,access
  anabranch dataset delete logs --yes
  anabranch dataset restart logs --node http://127.0.0.1:7071";

#[derive(Debug, Subcommand)]
enum Order {
    /// Create a dataset; it runs again at each start of the node until it is deleted.
    #[command(after_help = "Examples:
  anabranch dataset create orders --collections '*'
  anabranch dataset create logs --kind append --collections app,access")]
    Create(CreateArgs),
    /// Delete a dataset of this node with all its files; its peers keep theirs.
    #[command(after_help = "Example:\n  anabranch dataset delete logs --yes")]
    Delete(DeleteArgs),
    /// Close a dataset's store and answer nobody, until it is resumed or the node starts again.
    #[command(after_help = "Example:\n  anabranch dataset pause logs")]
    Pause(Named),
    /// End a pause.
    #[command(after_help = "Example:\n  anabranch dataset resume logs")]
    Resume(Named),
    /// Rebuild a dataset from its store; also one that failed too often, and one that is paused.
    #[command(after_help = "Example:\n  anabranch dataset restart logs --node http://127.0.0.1:7071")]
    Restart(Named),
}

#[derive(Debug, Args)]
struct CreateArgs {
    #[command(flatten)]
    named: Named,
    /// What it holds: documents or append [default: documents].
    #[arg(long)]
    kind: Option<Kind>,
    /// What it replicates, `*` for everything [default: nothing].
    #[arg(long, value_name = "COLLECTION,…", value_delimiter = ',')]
    collections: Vec<String>,
    /// `new` for a dataset that only syncs with datasets that take on its lineage, or 32 hex digits.
    #[arg(long, value_name = "new|HEX")]
    lineage: Option<String>,
    /// Peers that may sync it [default: everybody who may connect].
    #[arg(long, value_name = "PEER,…", value_delimiter = ',')]
    readers: Vec<String>,
    /// Peers whose commits count; the same list on every node of the dataset [default: everybody who may connect].
    #[arg(long, value_name = "PEER,…", value_delimiter = ',')]
    writers: Vec<String>,
}

#[derive(Debug, Args)]
struct DeleteArgs {
    #[command(flatten)]
    named: Named,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct Named {
    /// The dataset.
    #[arg(value_name = "NAME")]
    dataset: String,
    #[command(flatten)]
    query: QueryArgs,
}

impl Named {
    /// Checked here, so that no name leads to another path.
    fn checked(&self) -> Result<DatasetId, Failure> {
        DatasetId::new(&self.dataset).map_err(|error| Failure::Usage(format!("NAME: {error}")))
    }
}

pub fn dataset(args: &DatasetArgs) -> Result<(), Failure> {
    match &args.order {
        Order::Create(args) => create(args),
        Order::Delete(args) => delete(args),
        Order::Pause(named) => tell(named, "pause"),
        Order::Resume(named) => tell(named, "resume"),
        Order::Restart(named) => tell(named, "restart"),
    }
}

fn tell(named: &Named, word: &str) -> Result<(), Failure> {
    let dataset = named.checked()?;
    let answer = Node::of(&named.query.node)?.tell(&format!("/v1/datasets/{dataset}/{word}"))?;
    say(named, &answer, &format!("{dataset} is {}", answer["now"].as_str().unwrap_or("told")));
    Ok(())
}

fn create(args: &CreateArgs) -> Result<(), Failure> {
    let dataset = args.named.checked()?;
    let body = definition(&dataset, args).to_string();
    let answer = Node::of(&args.named.query.node)?.send_reader(Method::POST, "/v1/datasets", &mut body.as_bytes())?;
    let answer = Node::ok(answer)?;
    say(&args.named, &answer, &format!("{dataset} is created and {}", answer["state"].as_str().unwrap_or("told")));
    Ok(())
}

/// The body of `POST /v1/datasets`; what is not said is left to the node's defaults.
fn definition(dataset: &DatasetId, args: &CreateArgs) -> Json {
    let mut body = Map::from_iter([("dataset_id".to_owned(), dataset.as_str().into())]);
    let mut put = |key: &str, value: Option<Json>| body.extend(value.map(|value| (key.to_owned(), value)));
    let list = |words: &[String]| (!words.is_empty()).then(|| words.into());
    put("kind", args.kind.map(|kind| kind.to_string().into()));
    put("collections", list(&args.collections));
    put("lineage", args.lineage.clone().map(Json::from));
    put("readers", list(&args.readers));
    put("writers", list(&args.writers));
    body.into()
}

fn delete(args: &DeleteArgs) -> Result<(), Failure> {
    let dataset = args.named.checked()?;
    let node = Node::of(&args.named.query.node)?;
    if !args.yes {
        ask(&dataset)?;
    }
    let answer = Node::ok(node.send_empty(Method::DELETE, &format!("/v1/datasets/{dataset}"))?)?;
    say(&args.named, &answer, &format!("{dataset} is {}", answer["now"].as_str().unwrap_or("deleted")));
    Ok(())
}

/// Asks whoever sits at the terminal; where nobody does, `--yes` has to say so.
fn ask(dataset: &DatasetId) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(format!("--yes is missing: it says that everything of {dataset} on that node is to go")));
    }
    eprint!("Everything of {dataset} on that node is deleted, what was set aside too. Its name again, to go on: ");
    // Without a prompt the answer is still read.
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match read {
        Ok(_) if answer.trim() == dataset.as_str() => Ok(()),
        Ok(_) => Err(Failure::Other("nothing was deleted".to_owned())),
        Err(error) => Err(Failure::other("nothing was deleted: can't read the answer", error)),
    }
}

fn say(named: &Named, answer: &Json, words: &str) {
    if named.query.json {
        println!("{answer}");
    } else {
        println!("{words}");
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: DatasetArgs,
    }

    fn body(line: &[&str]) -> Json {
        let parsed = Line::try_parse_from([&["dataset", "create"], line].concat()).unwrap_or_else(|error| panic!("{error}"));
        let Order::Create(args) = parsed.args.order else { panic!("not create") };
        definition(&args.named.checked().unwrap_or_else(|error| panic!("{error}")), &args)
    }

    #[test]
    fn only_what_is_said_is_sent() {
        assert_eq!(body(&["logs"]), json!({"dataset_id": "logs"}));
        let said = ["logs", "--kind", "append", "--collections", "a,b", "--lineage", "new", "--writers", "x", "--readers", "y"];
        let expected = json!({
            "dataset_id": "logs", "kind": "append", "collections": ["a", "b"], "lineage": "new", "writers": ["x"], "readers": ["y"]
        });
        assert_eq!(body(&said), expected);
        assert!(Line::try_parse_from(["dataset", "create", "logs", "--kind", "logs"]).is_err());
    }
}
