//! A node as a child process, and what tests ask it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long any condition may take to come true. Far beyond what it takes: only a bug reaches it.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How a node is started.
#[derive(Debug, Clone)]
pub struct Options {
    program: PathBuf,
    data_dir: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    input: Option<String>,
}

impl Options {
    /// A node that runs `program` and keeps its data in `data_dir`, on free ports of the loopback interface.
    #[must_use]
    pub fn new(program: &Path, data_dir: &Path) -> Self {
        let arguments = ["run", "--listen", "/ip4/127.0.0.1/tcp/0", "--http", "127.0.0.1:0", "--log", "info"];
        Self {
            program: program.to_owned(),
            data_dir: data_dir.to_owned(),
            arguments: arguments.map(str::to_owned).to_vec(),
            environment: Vec::new(),
            input: None,
        }
    }

    /// Another place for its data.
    #[must_use]
    pub fn data_dir(mut self, data_dir: &Path) -> Self {
        data_dir.clone_into(&mut self.data_dir);
        self
    }

    /// A peer to dial.
    #[must_use]
    pub fn peer(self, peer: &Node) -> Self {
        self.arguments(&["--peer", &peer.listen[0]])
    }

    /// Another place to listen for peers.
    #[must_use]
    pub fn listen(mut self, address: &str) -> Self {
        let at = self.arguments.iter().position(|argument| argument == "--listen").expect("it listens");
        address.clone_into(&mut self.arguments[at + 1]);
        self
    }

    /// Further arguments.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// What it gets on standard input, at this start and the next ones.
    #[must_use]
    pub fn input(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self
    }

    /// Without the arguments `--join -` and what is on standard input.
    #[must_use]
    pub fn without_join(mut self) -> Self {
        self.arguments.retain(|argument| argument != "--join" && argument != "-");
        self.input = None;
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the node and waits until it is ready.
    ///
    /// # Panics
    /// When it does not come up within [`DEADLINE`].
    #[must_use]
    pub fn start(&self) -> Node {
        let ready = self.data_dir.with_extension("ready");
        let log = self.data_dir.with_extension("log");
        // One of an earlier run would be taken for this one's.
        let _ = std::fs::remove_file(&ready);
        let log_file = std::fs::File::options().create(true).append(true).open(&log).expect("a log file");
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg("--data-dir").arg(&self.data_dir).arg("--ready-file").arg(&ready);
        command.envs(self.environment.iter().cloned());
        command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(log_file.try_clone().expect("a log file")).stderr(log_file);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        if let (Some(text), Some(mut pipe)) = (&self.input, child.stdin.take()) {
            pipe.write_all(text.as_bytes()).expect("the node reads its standard input");
        }
        let page = wait_for("the node is ready", || {
            if let Some(status) = child.try_wait().expect("a child") {
                panic!("the node ended with {status}: {}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            serde_json::from_slice::<Value>(&std::fs::read(&ready).ok()?).ok()
        });
        let listen = page["listen"].as_array().into_iter().flatten().filter_map(|a| a.as_str().map(str::to_owned)).collect();
        Node {
            child,
            options: self.clone(),
            url: format!("http://{}", page["http"].as_str().expect("an address")),
            peer_id: page["peer_id"].as_str().expect("a peer id").to_owned(),
            listen,
        }
    }
}

/// A running node. Dropped, it is killed.
#[derive(Debug)]
pub struct Node {
    child: Child,
    options: Options,
    /// `http://host:port`
    pub url: String,
    /// Who it is.
    pub peer_id: String,
    /// Where it listens for peers.
    pub listen: Vec<String>,
}

/// An answer: status and JSON body.
pub type Answer = (u16, Value);

impl Node {
    /// `kill -9`, while other threads still talk to it.
    ///
    /// # Panics
    /// When it can't be killed.
    pub fn kill_now(&self) {
        let sent = Command::new("kill").arg("-9").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(sent.success());
    }

    /// `kill -9`. How to start it again is returned.
    ///
    /// # Panics
    /// When it can't be killed.
    pub fn kill(mut self) -> Options {
        self.child.kill().expect("the node can be killed");
        self.child.wait().expect("the node ends");
        self.options.clone()
    }

    /// SIGTERM: the node stops by itself.
    ///
    /// # Panics
    /// When it does not end, or not with exit code 0.
    pub fn stop(mut self) -> Options {
        let sent = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(sent.success());
        let status: ExitStatus = wait_for("the node stops", || self.child.try_wait().expect("a child"));
        assert_eq!(status.code(), Some(0), "{}", self.log());
        self.options.clone()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.options.data_dir.with_extension("log")).unwrap_or_default()
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When the connection fails: the outcome is not known.
    pub fn send(&self, method: &str, path: &str, body: &str) -> Result<Answer, ureq::Error> {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE)).build();
        let agent: ureq::Agent = config.into();
        let url = format!("{}{path}", self.url);
        let mut response = match method {
            "GET" => agent.get(url).call()?,
            "DELETE" => agent.delete(url).call()?,
            "PUT" => agent.put(url).content_type("application/json").send(body)?,
            "PATCH" => agent.patch(url).content_type("application/json").send(body)?,
            "POST" => agent.post(url).content_type("application/json").send(body)?,
            other => panic!("{other} is not a method of this client"),
        };
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string()?;
        Ok((response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Puts a body; the status and what `Retry-After` says.
    ///
    /// # Panics
    /// When the node does not answer.
    #[must_use]
    pub fn put_with_headers(&self, path: &str, body: &str) -> (u16, Option<String>) {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE)).build();
        let response = ureq::Agent::from(config).put(format!("{}{path}", self.url)).send(body).expect("an answer");
        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        (response.status().as_u16(), retry_after.map(str::to_owned))
    }

    /// Sends a request with headers that must be answered.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn ask_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send_with(method, path, headers, body).expect("an answer")
    }

    /// As [`Node::send`], with headers.
    ///
    /// # Errors
    /// When the connection fails: the outcome is not known.
    pub fn send_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer, ureq::Error> {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE)).build();
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let mut response = ureq::Agent::from(config).run(request.body(body.to_owned())?)?;
        let text = response.body_mut().read_to_string()?;
        Ok((response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// The most memory the node ever held, MiB.
    #[must_use]
    pub fn peak_memory_mib(&self) -> u64 {
        self.memory_mib("VmHWM:")
    }

    /// The memory that the node holds now, MiB.
    #[must_use]
    pub fn resident_memory_mib(&self) -> u64 {
        self.memory_mib("VmRSS:")
    }

    fn memory_mib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1_024
    }

    /// How many threads it has now.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.count_in_proc("task")
    }

    /// How many files it has open now.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.count_in_proc("fd")
    }

    fn count_in_proc(&self, what: &str) -> usize {
        std::fs::read_dir(format!("/proc/{}/{what}", self.child.id())).map_or(0, Iterator::count)
    }

    /// Sends a request that must be answered.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.send(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()))
    }

    /// Puts a document of `primary`.
    ///
    /// # Panics
    /// When it is not acknowledged.
    pub fn put(&self, collection: &str, key: &str, value: &Value) {
        let (status, body) = self.ask("PUT", &document(collection, key), &value.to_string());
        assert!(status == 200 || status == 201, "{status} {body}");
    }

    /// A document of `primary`.
    #[must_use]
    pub fn get(&self, collection: &str, key: &str) -> Option<Value> {
        let (status, body) = self.ask("GET", &document(collection, key), "");
        (status == 200).then_some(body)
    }

    /// A dataset's status.
    #[must_use]
    pub fn dataset(&self, dataset: &str) -> Value {
        self.ask("GET", &format!("/v1/datasets/{dataset}"), "").1
    }

    /// Everything in a collection, page by page.
    #[must_use]
    pub fn list(&self, dataset: &str, collection: &str) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/datasets/{dataset}/collections/{collection}/docs?limit=1000{after}");
            let (status, mut page) = self.ask("GET", &path, "");
            assert_eq!(status, 200, "{page}");
            all.extend(page["docs"].as_array_mut().map(std::mem::take).unwrap_or_default());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return all,
            }
        }
    }

    /// Vector and fingerprint: equal on equal replicas.
    #[must_use]
    pub fn standing(&self, dataset: &str) -> Value {
        let info = self.dataset(dataset);
        json!({ "vector": info["vector"], "fingerprint": info["fingerprint"], "documents": info["documents"] })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.options.data_dir.display(), self.log());
        }
    }
}

/// The path of a document of `primary`.
#[must_use]
pub fn document(collection: &str, key: &str) -> String {
    format!("/v1/datasets/primary/collections/{collection}/docs/{key}")
}

/// Waits until all nodes have equal vectors, fingerprints and listings of a collection.
///
/// # Panics
/// After [`DEADLINE`].
pub fn converged(nodes: &[&Node], dataset: &str, collection: &str) -> Vec<Value> {
    let mut last = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let standings: Vec<Value> = nodes.iter().map(|node| node.standing(dataset)).collect();
        if standings.iter().all(|standing| *standing == standings[0] && standing["fingerprint"].is_string()) {
            let listings: Vec<_> = nodes.iter().map(|node| node.list(dataset, collection)).collect();
            let unchanged = nodes.iter().map(|node| node.standing(dataset)).eq(standings.iter().cloned());
            if unchanged {
                // Equal vectors and fingerprints promise equal documents: anything else is a bug, not a delay.
                assert!(
                    listings.iter().all(|listing| *listing == listings[0]),
                    "equal standings, other documents: {standings:?}"
                );
                return listings.into_iter().next().unwrap_or_default();
            }
        }
        assert!(Instant::now() < deadline, "not converged: {standings:#?}\nbefore: {last:#?}");
        last = standings;
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for a condition.
///
/// # Panics
/// After [`DEADLINE`].
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Copies a directory with everything in it, as a backup would.
///
/// # Panics
/// When the file system refuses.
pub fn copy_directory(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success());
}
