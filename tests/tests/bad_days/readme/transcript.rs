//! A page of Markdown as the commands that it tells its reader to type, and what it says they answer.
//!
//! What differs from run to run is not compared: the middle of what is shortened with `…`, stamps, round trips, how wide a
//! column is. Peer ids are compared in that one on the page stands for one of the run, all along.

use std::collections::HashMap;
use std::process::Command;

use regex::Regex;

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// What it is said to be: `sh`, `console`.
    pub language: String,
    /// The last paragraph above it, as one line.
    pub before: String,
    pub lines: Vec<String>,
}

/// A command and the lines that follow it on the page.
#[derive(Debug)]
pub struct Step {
    pub command: String,
    pub answer: Vec<String>,
}

/// The blocks below a heading, up to the next one.
pub fn blocks(page: &str, heading: &str) -> Vec<Block> {
    let mut lines = page.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.starts_with("## "));
    let (mut blocks, mut before, mut ended) = (Vec::new(), Vec::<String>::new(), true);
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let lines = lines.by_ref().take_while(|line| *line != "```").map(str::to_owned).collect();
            let before = std::mem::take(&mut before).join(" ");
            blocks.push(Block { language: language.to_owned(), before, lines });
        } else if line.is_empty() {
            ended = true;
        } else {
            if std::mem::take(&mut ended) {
                before.clear();
            }
            before.push(line.to_owned());
        }
    }
    blocks
}

impl Block {
    /// The commands of a session: what is typed stands behind `$ `, and goes on for as long as a shell would wait for more.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for line in &self.lines {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step { command: command.to_owned(), answer: Vec::new() }),
                (None, Some(step)) if step.answer.is_empty() && !is_whole(&step.command) => {
                    step.command = format!("{}\n{line}", step.command);
                }
                (None, Some(step)) => step.answer.push(line.clone()),
                (None, None) => panic!("a session begins with a command, not with {line:?}"),
            }
        }
        // An empty line in front of the next command is no answer.
        for step in &mut steps {
            while step.answer.last().is_some_and(String::is_empty) {
                step.answer.pop();
            }
        }
        steps
    }
}

fn is_whole(command: &str) -> bool {
    let parsed = Command::new("sh").args(["-n", "-c", command]).output().expect("a shell");
    parsed.status.success() && !command.ends_with('\\')
}

/// Whom the page's peer ids stand for in this run.
#[derive(Debug, Default)]
pub struct Peers(HashMap<String, String>);

impl Peers {
    /// What is different from the page, if anything is. Peer ids are learnt from what is the same.
    pub fn compare(&mut self, page: &[String], answer: &str) -> Result<(), String> {
        let answer: Vec<&str> = answer.trim_end().lines().collect();
        if page.len() != answer.len() {
            return Err(format!("the page has\n{}\nand the answer is\n{}", page.join("\n"), answer.join("\n")));
        }
        page.iter().zip(answer).try_for_each(|(page, answer)| self.compare_line(page, answer))
    }

    fn compare_line(&mut self, page: &str, answer: &str) -> Result<(), String> {
        let (pattern, named) = self.pattern(page);
        let pattern = Regex::new(&pattern).expect("made of escaped parts");
        let Some(found) = pattern.captures(answer) else {
            return Err(format!("the page has\n{page}\nand the answer is\n{answer}\nwhich is not {pattern}"));
        };
        for (on_page, real) in named.into_iter().zip(found.iter().skip(1).flatten()) {
            let known = self.0.entry(on_page.clone()).or_insert_with(|| real.as_str().to_owned());
            if known != real.as_str() {
                return Err(format!("{on_page} of the page is {known} and {} in one answer", real.as_str()));
            }
        }
        Ok(())
    }

    /// What an answer has to look like, and the unknown peer ids of the page, in the order of the pattern's groups.
    fn pattern(&self, page: &str) -> (String, Vec<String>) {
        let varying = Regex::new(
            r"12D3KooW[1-9A-Za-z]+…?|[0-9a-f]{16}\.|[A-Za-z0-9_-]*…[A-Za-z0-9_-]*|[0-9.]+ (?:ms|KiB|MiB)|[0-9.]+ s| {2,}|[0-9]+/s",
        );
        let varying = varying.expect("a fixed, valid pattern");
        let (mut pattern, mut named, mut end) = ("^".to_owned(), Vec::new(), 0);
        for found in varying.find_iter(page) {
            pattern += &regex::escape(&page[end..found.start()]);
            end = found.end();
            let text = found.as_str();
            pattern += &match text {
                text if text.starts_with("12D3KooW") => self.peer(text, &mut named),
                text if text.ends_with('.') => r"[0-9a-f]{16}\.".to_owned(),
                text if text.contains('…') => "[A-Za-z0-9_-]+".to_owned(),
                text if text.starts_with(' ') => " {2,}".to_owned(),
                text if text.ends_with("/s") => "[0-9]+/s".to_owned(),
                text => format!("[0-9.]+ {}", if text.ends_with(" s") { "s" } else { "[a-zA-Z]+" }),
            };
        }
        (pattern + &regex::escape(&page[end..]) + "$", named)
    }

    fn peer(&self, text: &str, named: &mut Vec<String>) -> String {
        let start = text.trim_end_matches('…');
        let known = self.0.iter().find(|(on_page, _)| on_page.starts_with(start));
        match known {
            Some((_, real)) => real.clone(),
            // Shortened, it says nothing that could be told from another one later.
            None if start != text => "12D3KooW[1-9A-Za-z]{44}".to_owned(),
            None => {
                named.push(text.to_owned());
                "(12D3KooW[1-9A-Za-z]{44})".to_owned()
            }
        }
    }
}
