//! Real nodes as child processes.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running `anabranch` with a data directory of its own.
#[derive(Debug)]
pub struct BenchNode {
    child: Child,
    /// `http://host:port`
    pub url: String,
    /// Multiaddrs to paste.
    pub listen: Vec<String>,
    agent: ureq::Agent,
}

impl BenchNode {
    /// Starts a node on free ports and waits until it is ready.
    ///
    /// # Panics
    /// When it does not come up: there is nothing to measure then.
    #[must_use]
    pub fn start(data_dir: &Path, datasets: &[&str], peers: &[String]) -> Self {
        let ready = data_dir.with_extension("ready");
        // A ready file of an earlier run would be taken for this one's.
        let _ = std::fs::remove_file(&ready);
        let mut command = Command::new(binary());
        command.args(["run", "--listen", "/ip4/127.0.0.1/tcp/0", "--http", "127.0.0.1:0", "--log", "warn"]);
        for dataset in datasets {
            command.args(["--dataset", dataset]);
        }
        command.arg("--data-dir").arg(data_dir).arg("--ready-file").arg(&ready);
        for peer in peers {
            command.args(["--peer", peer]);
        }
        let child = command.stdout(Stdio::null()).spawn().expect("build the node first: cargo build --release --bin anabranch");
        let page = wait_for(Duration::from_secs(60), || {
            std::fs::read(&ready).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        });
        let listen = page["listen"].as_array().into_iter().flatten().filter_map(|a| a.as_str().map(str::to_owned)).collect();
        let url = format!("http://{}", page["http"].as_str().expect("an address"));
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(600)));
        Self { child, url, listen, agent: config.build().into() }
    }

    /// Stops it as an operator does, and waits until it has.
    ///
    /// # Panics
    /// When it can't be told.
    pub fn stop(mut self) {
        let told = Command::new("kill").arg(self.child.id().to_string()).status().expect("`kill` runs");
        assert!(told.success(), "the node is told to stop");
        let _ = self.child.wait().expect("it ends");
    }

    /// A GET that answers JSON.
    ///
    /// # Panics
    /// When the node does not answer.
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        let mut response = self.agent.get(format!("{}{path}", self.url)).call().expect("the node answers");
        serde_json::from_str(&response.body_mut().read_to_string().expect("a body")).unwrap_or(Value::Null)
    }

    /// Streams NDJSON into a dataset.
    ///
    /// # Panics
    /// When the node refuses.
    #[must_use]
    pub fn ingest(&self, dataset: &str, body: &[u8]) -> Value {
        let url = format!("{}/v1/datasets/{dataset}/ingest", self.url);
        let mut response = self.agent.post(url).content_type("application/x-ndjson").send(body).expect("the node answers");
        let text = response.body_mut().read_to_string().expect("a body");
        assert_eq!(response.status(), 200, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Puts one document.
    ///
    /// # Panics
    /// When the node refuses.
    pub fn put(&self, key: &str, json: &str) {
        let url = format!("{}/v1/datasets/primary/collections/items/docs/{key}", self.url);
        let response = self.agent.put(url).content_type("application/json").send(json).expect("the node answers");
        assert!(response.status().is_success(), "{}", response.status());
    }

    /// Whether a document is readable.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        let url = format!("{}/v1/datasets/primary/collections/items/docs/{key}", self.url);
        self.agent.get(url).call().is_ok_and(|mut response| {
            // Read to the end, or the connection can't be used again.
            let _ = response.body_mut().as_reader().read_to_end(&mut Vec::new());
            response.status() == 200
        })
    }

    /// Whether every dataset serves.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.agent.get(format!("{}/readyz", self.url)).call().is_ok_and(|answer| answer.status() == 200)
    }

    /// Documents in a dataset.
    #[must_use]
    pub fn documents(&self, dataset: &str) -> u64 {
        self.get(&format!("/v1/datasets/{dataset}"))["documents"].as_u64().unwrap_or(0)
    }

    /// Processor time that the node took so far.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // Fields 14 and 15, counted behind the name, which may hold spaces: proc_pid_stat(5). A tick is 10 ms on Linux.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
        Duration::from_millis(10 * fields.take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>())
    }

    /// The most memory the node ever held, MiB.
    #[must_use]
    pub fn peak_memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1_024
    }
}

impl Drop for BenchNode {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a condition.
///
/// # Panics
/// After `limit`.
pub fn wait_for<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "the condition did not come true within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The node beside this program.
fn binary() -> PathBuf {
    let here = std::env::current_exe().expect("a path");
    here.with_file_name("anabranch")
}
