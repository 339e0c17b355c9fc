//! The first day: what the README tells its reader to type, typed in an empty directory, answers what the README says.
//!
//! Only what every run has to have for itself is different: the program is the one that was built, and the ports are free ones.

mod transcript;

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anabranch_tests::process::wait_for;
use serde_json::Value;

use crate::world::shipped;
use transcript::{Block, Peers, blocks};

/// Where the page's reader is, and how it calls what was built there.
const PAGE_DIR: &str = "/tmp/anabranch/";
const PAGE_PROGRAM: &str = "target/release/anabranch";
const PAGE_CARGO: &str = "cargo run --release --";

fn page() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("README.md");
    std::fs::read_to_string(file).expect("the README")
}

/// `count` ports in a row that nobody uses, for TCP and UDP, outside of what the kernel hands out for port 0.
fn free_ports(count: u16) -> u16 {
    let free = |port: u16| {
        let at = (Ipv4Addr::LOCALHOST, port);
        TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()
    };
    // Neighbours of this process begin elsewhere.
    let first = 12_000 + u16::try_from(std::process::id() % 1_000).expect("below a thousand") * 20;
    let mut candidates = (first..32_000).step_by(20).chain((12_000..first).step_by(20));
    candidates.find(|from| (*from..from + count).all(free)).expect("some ports are free")
}

/// A reader at a desk: an empty directory, a shell, and terminals with a node in each.
struct Reader {
    dir: PathBuf,
    program: PathBuf,
    http: u16,
    p2p: u16,
    /// What was typed to be there for later commands.
    setup: String,
    peers: Peers,
}

impl Reader {
    fn new(dir: &Path) -> Self {
        let http = free_ports(4);
        let dir = dir.canonicalize().expect("a directory");
        Self { dir, program: shipped(), http, p2p: http + 2, setup: String::new(), peers: Peers::default() }
    }

    /// The page as it would read for this reader.
    fn own(&self, text: &str) -> String {
        let program_dir = self.program.parent().expect("it is in a directory").display().to_string();
        let program = self.program.display().to_string();
        text.replace("$PWD/target/release", &program_dir)
            .replace(PAGE_CARGO, &program)
            .replace(PAGE_PROGRAM, &program)
            .replace(PAGE_DIR, &format!("{}/", self.dir.display()))
            .replace(":7070", &format!(":{}", self.http))
            .replace(":7071", &format!(":{}", self.http + 1))
            .replace("/4001", &format!("/{}", self.p2p))
            .replace("/4002", &format!("/{}", self.p2p + 1))
    }

    /// A shell with the page's variables; the defaults of a node and its commands are this reader's ports.
    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{}\n{command}", self.setup)).current_dir(&self.dir).stdin(Stdio::null());
        shell.env("ANABRANCH_HTTP__ADDR", format!("127.0.0.1:{}", self.http));
        shell.env("ANABRANCH_LISTEN", format!("/ip4/127.0.0.1/tcp/{0},/ip4/127.0.0.1/udp/{0}/quic-v1", self.p2p));
        shell
    }

    /// Types a command and waits for its end.
    fn types(&self, command: &str) -> String {
        let asks_default_node = command.contains("anabranch ");
        let node = if asks_default_node { format!(" --node http://127.0.0.1:{}", self.http) } else { String::new() };
        let output = self.shell(&format!("{command}{node}")).output().expect("a shell");
        assert!(output.status.success(), "{command}{node}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Types a command whose answer has to be the page's; a question is asked again until it is.
    fn types_and_sees(&mut self, command: &str, answer: &[String]) {
        let (command, answer) = (self.own(command), answer.iter().map(|line| self.own(line)).collect::<Vec<_>>());
        let is_question = !command.contains(" -X ");
        let mut last = String::new();
        wait_for(&format!("{command} answers {answer:#?}"), || match self.peers.compare(&answer, &self.types(&command)) {
            Ok(()) => Some(()),
            Err(why) => {
                assert!(is_question, "{command}: {why}");
                if why != last {
                    eprintln!("not yet: {why}");
                    last = why;
                }
                None
            }
        });
    }

    /// Starts a node in a terminal of its own, and waits until it has said as much as the page says it does.
    fn starts(&mut self, command: &str, greeting: &[String]) -> Terminal {
        let (command, greeting) = (self.own(command), greeting.iter().map(|line| self.own(line)).collect::<Vec<_>>());
        let screen = tempfile::NamedTempFile::new().expect("a file");
        let child = self.shell(&format!("exec {command}")).stdout(file_of(&screen)).stderr(file_of(&screen)).spawn();
        let mut terminal = Terminal { child: child.expect("a shell"), screen };
        let said = wait_for("the node greets", || terminal.said().contains("\n  ").then(|| terminal.said()));
        if !greeting.is_empty() {
            self.peers.compare(&greeting, &said).unwrap_or_else(|why| panic!("{command}: {why}"));
        }
        wait_for("the node answers", || {
            assert_eq!(terminal.child.try_wait().expect("a child"), None, "{}", terminal.screen());
            let http = said.lines().find_map(|line| line.strip_prefix("http ")).expect("it says where").trim();
            self.shell(&format!("curl -sf {http}/readyz")).output().expect("a shell").status.success().then_some(())
        });
        terminal
    }
}

fn file_of(screen: &tempfile::NamedTempFile) -> File {
    File::options().append(true).open(screen.path()).expect("a file")
}

/// A node in a terminal. Closed, it is killed.
struct Terminal {
    child: Child,
    screen: tempfile::NamedTempFile,
}

impl Terminal {
    fn screen(&self) -> String {
        std::fs::read_to_string(self.screen.path()).unwrap_or_default()
    }

    /// What the node said, without its log, up to the line that starts a second one.
    fn said(&self) -> String {
        let screen = self.screen();
        let is_log = |line: &&str| line.get(..4).is_some_and(|year| year.bytes().all(|b| b.is_ascii_digit()));
        screen.lines().filter(|line| !is_log(line)).collect::<Vec<_>>().join("\n")
    }

    /// The command to paste into a second terminal.
    fn to_paste(&self) -> String {
        self.said().lines().last().expect("a line").trim().to_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- a node's terminal\n{}", self.screen());
        }
    }
}

/// The blocks of "Two minutes, two nodes", each with what the page says it is.
fn tour(page: &str) -> [Block; 6] {
    let blocks = blocks(page, "## Two minutes, two nodes");
    let tour: [Block; 6] = blocks.try_into().unwrap_or_else(|blocks| panic!("the tour has other blocks now: {blocks:#?}"));
    let languages = tour.each_ref().map(|block| block.language.as_str());
    assert_eq!(languages, ["console", "sh", "console", "console", "console", "sh"]);
    assert!(tour[1].before.contains("Paste that last line into a second terminal"), "{}", tour[1].before);
    assert!(tour[4].before.starts_with("Now kill the first node (`kill -9` if you like), write on the second one, and start"));
    tour
}

#[test]
fn what_the_readme_shows_is_what_its_reader_sees() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut reader = Reader::new(dir.path());
    let page = page();
    let [first, variables, writes, batches, after_a_kill, commands] = tour(&page);

    let start = &first.steps()[0];
    let mut node = reader.starts(&start.command, &start.answer);
    let second = reader.starts(&node.to_paste(), &[]);
    reader.setup = reader.own(&variables.lines.join("\n"));
    for step in writes.steps().iter().chain(&batches.steps()) {
        reader.types_and_sees(&step.command, &step.answer);
    }

    // Dropped, a terminal is killed as by `kill -9`.
    drop(node);
    let steps = after_a_kill.steps();
    reader.types_and_sees(&steps[0].command, &steps[0].answer);
    node = reader.starts(&start.command, &start.answer);
    for step in &steps[1..] {
        reader.types_and_sees(&step.command, &step.answer);
    }
    wait_for("what the page says to compare is equal", || {
        let compared = ["$A", "$B"].map(|node| {
            let dataset: Value = serde_json::from_str(&reader.types(&format!("curl {node}"))).expect("JSON");
            (dataset["vector"].clone(), dataset["fingerprint"].clone())
        });
        (compared[0] == compared[1] && compared[0].1.is_string()).then_some(())
    });

    for line in &commands.lines {
        // Half a minute of samples is for whoever watches it.
        let command = line.split(" # ").next().unwrap_or_default().trim_end().replace("--duration 30s", "--duration 1s");
        reader.types(&reader.own(&command));
    }
    reader.types("anabranch import orders orders.csv");
    let csv = std::fs::read_to_string(dir.path().join("orders.csv")).expect("what was exported");
    assert!(csv.contains("o-1") && csv.contains("o-5"), "{csv}");
    let mut left: Vec<_> =
        std::fs::read_dir(dir.path()).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect();
    left.sort();
    assert_eq!(left, ["anabranch-data", "anabranch-data-2", "anabranch-doctor.txt", "orders.csv"]);
    drop((node, second));
}

#[test]
fn the_first_commands_of_the_readme_exist() {
    let page = page();
    let [commands] = <[Block; 1]>::try_from(blocks(&page, "## Two commands")).expect("one block");
    let reader = Reader::new(&std::env::temp_dir());
    let nodes: Vec<_> = commands.lines.iter().filter(|line| line.starts_with(PAGE_CARGO)).collect();
    assert_eq!(nodes.len(), 2, "{commands:?}");
    for line in nodes {
        let command = line.split(" # ").next().unwrap_or_default().trim_end();
        assert!(reader.types(&format!("{} --help # ", reader.own(command))).contains("Examples"), "{command}");
    }
    let gate = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(".ci/run")).expect("the gate");
    let tests = commands.lines.iter().find_map(|line| line.split(" # ").next()?.trim_end().strip_prefix("cargo test"));
    assert!(
        gate.contains(&format!("\ncargo test{} --locked\n", tests.expect("it says how to test"))),
        "the gate tests another way"
    );
}
