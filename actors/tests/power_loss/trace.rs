//! Records a process with `strace` and reads back what it did to its files, in order and with all data.
//!
//! strace prints a call that another thread interrupts on two lines. A call therefore has a span of line numbers: it
//! began somewhere after the first and was done before the second.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A system call that changes files or makes changes durable.
#[derive(Debug, Clone)]
pub struct Call {
    pub start: usize,
    pub end: usize,
    pub kind: Kind,
}

/// What the call did. `sync_file_range` is left out: it promises nothing about power loss.
#[derive(Debug, Clone)]
pub enum Kind {
    Open {
        path: PathBuf,
        creates: bool,
        truncates: bool,
    },
    /// At an offset, or where the file's last write ended.
    Write {
        path: PathBuf,
        data: Vec<u8>,
        offset: Option<u64>,
    },
    Truncate {
        path: PathBuf,
        length: u64,
    },
    Sync {
        path: PathBuf,
    },
    MakeDirectory {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
}

const CALLS: &str = "open,openat,creat,write,writev,pwrite64,pwritev,pwritev2,truncate,ftruncate,fallocate,fsync,\
    fdatasync,sync,syncfs,msync,copy_file_range,sendfile,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,unlink,\
    unlinkat,rmdir";

/// Runs the command under strace; the trace holds every byte it wrote.
pub fn record(command: &mut Command, trace: &Path) -> Vec<Call> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-y", "-xx", "--seccomp-bpf", "-s", "16777216", "-e"]);
    strace.arg(format!("trace={CALLS}")).arg("-o").arg(trace).arg(command.get_program()).args(command.get_args());
    strace.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = match strace.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("this test needs strace: install it with `apt-get install -y strace`")
        }
        other => other.expect("strace runs"),
    };
    assert!(output.status.success(), "the recorded process failed: {}", String::from_utf8_lossy(&output.stderr));
    parse(&fs::read_to_string(trace).expect("strace prints ASCII"))
}

fn parse(text: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut unfinished: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let (process, rest) = line.split_once(' ').expect("a process id first");
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            unfinished.insert(process, (number, begun.trim_end()));
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let (start, begun) = unfinished.remove(process).expect("what resumes was begun");
            let (_, result) = resumed.split_once(" resumed>").expect("a resumed call");
            calls.extend(call(begun, result).map(|kind| Call { start, end: number, kind }));
        } else if !rest.starts_with(['+', '-']) {
            calls.extend(call(rest, rest).map(|kind| Call { start: number, end: number, kind }));
        }
    }
    calls.sort_by_key(|call| call.start);
    calls
}

/// The call whose arguments are in `begun` and whose result ends `finished`; `None` if it failed or changes nothing.
fn call(begun: &str, finished: &str) -> Option<Kind> {
    let (_, result) = finished.rsplit_once(") ")?;
    let result = result.trim_start().strip_prefix("= ")?;
    if result.starts_with('-') {
        return None;
    }
    let (name, arguments) = begun.split_once('(')?;
    let strings = quoted(arguments, '"', '"');
    let descriptor = || quoted(arguments, '<', '>').into_iter().next().map(path);
    let named = |index: usize| strings.get(index).map(|text| path(text));
    let kind = match name {
        "openat" | "open" | "creat" => Kind::Open {
            path: named(0)?,
            creates: name == "creat" || arguments.contains("O_CREAT"),
            truncates: name == "creat" || arguments.contains("O_TRUNC"),
        },
        "write" | "pwrite64" => {
            let data = bytes(strings.first().copied().unwrap_or_default());
            // A question mark is a write that its process did not outlive. The child waits so that there are none; should
            // one slip through, it is taken as done.
            let whole = result.trim() == data.len().to_string() || result.trim() == "?";
            assert!(whole, "a short or shortened {name}: {result}");
            let offset = (name == "pwrite64").then(|| last_number(arguments));
            Kind::Write { path: descriptor()?, data, offset }
        }
        "ftruncate" => Kind::Truncate { path: descriptor()?, length: last_number(arguments) },
        "fsync" | "fdatasync" => Kind::Sync { path: descriptor()? },
        "mkdir" => Kind::MakeDirectory { path: named(0)? },
        "rename" => Kind::Rename { from: named(0)?, to: named(1)? },
        "unlink" => Kind::Unlink { path: named(0)? },
        other => panic!("the model does not know {other}; teach it: {}", &begun[..begun.len().min(200)]),
    };
    Some(kind)
}

/// The texts between the two marks. strace writes all other characters of names and data in hexadecimal.
fn quoted(text: &str, open: char, close: char) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(open) {
        let Some((inside, tail)) = after.split_once(close) else {
            break;
        };
        found.push(inside);
        rest = tail;
    }
    found
}

fn path(hexadecimal: &str) -> PathBuf {
    PathBuf::from(String::from_utf8(bytes(hexadecimal)).expect("test paths are UTF-8"))
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes();
    assert!(digits.len().is_multiple_of(4), "strace was asked for hexadecimal: {hexadecimal:.80}");
    digits.chunks_exact(4).map(|byte| digit(byte[2]) << 4 | digit(byte[3])).collect()
}

fn digit(character: u8) -> u8 {
    match character {
        b'0'..=b'9' => character - b'0',
        b'a'..=b'f' => character - b'a' + 10,
        other => panic!("{other} is no hexadecimal digit"),
    }
}

fn last_number(arguments: &str) -> u64 {
    let arguments = arguments.rsplit_once(") ").map_or(arguments, |(arguments, _)| arguments);
    let (_, number) = arguments.rsplit_once(", ").expect("several arguments");
    number.trim_end_matches(')').parse().expect("a number")
}
