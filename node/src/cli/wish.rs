//! What a write is asked for beside writing: who else has to have it, and what has to be there before.

use std::str::FromStr;
use std::time::Duration;

use anabranch_protocol::idempotency::IdempotencyKey;
use clap::Args;
use serde_json::Value as Json;

use super::documents::Place;

/// See the module documentation.
#[derive(Debug, Args)]
pub struct WriteWish {
    /// Wait until so many other nodes have it durably, or every enrolled peer: see `anabranch peers`.
    #[arg(long, value_name = "N|all")]
    pub ack: Option<Ack>,
    /// For how long to wait for them; the write stands whatever comes of it [default: 5s].
    #[arg(long, value_name = "T", value_parser = humantime::parse_duration, requires = "ack")]
    pub timeout: Option<Duration>,
    /// Write only over the version with this stamp, `*` over any.
    #[arg(long, value_name = "STAMP|*", conflicts_with = "if_none_match")]
    if_match: Option<String>,
    /// Write only where there is no such document.
    #[arg(long)]
    if_none_match: bool,
    /// Sent again under the same key within 24 hours, the write is answered as it was and does not happen again: safe to repeat
    /// whatever became of the first try. 1 to 255 visible ASCII characters, a new key for every new write.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<IdempotencyKey>,
}

/// `local`, `all`, or how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack(String);

impl FromStr for Ack {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let counts = text.parse::<u16>().is_ok_and(|count| count > 0);
        if counts || text == "all" { Ok(Self(text.to_owned())) } else { Err("use a number of nodes, or `all`".to_owned()) }
    }
}

impl WriteWish {
    /// What it adds to a path.
    pub fn query(&self) -> String {
        let ack = |ack: &Ack| format!("?ack={}{}", ack.0, timeout_ms(self.timeout, '&'));
        self.ack.as_ref().map(ack).unwrap_or_default()
    }

    /// What it adds to the headers.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let tag = |stamp: &String| if stamp == "*" { stamp.clone() } else { format!("\"{}\"", stamp.trim_matches('"')) };
        let if_match = self.if_match.as_ref().map(|stamp| ("If-Match", tag(stamp)));
        let if_none_match = self.if_none_match.then(|| ("If-None-Match", "*".to_owned()));
        let key = self.idempotency_key.as_ref().map(|key| ("Idempotency-Key", key.quoted()));
        if_match.into_iter().chain(if_none_match).chain(key).collect()
    }

    /// Too few have it: what that means.
    pub fn unconfirmed(&self, word: &str, place: &Place, body: &Json, confirmed: usize) -> String {
        let Place { collection, key } = place;
        if body["replicated"].as_bool() == Some(false) {
            return format!(
                "{word} {collection}/{key}, on this node only: the collection is not registered here, so nobody else can have it"
            );
        }
        let wanted = self.ack.as_ref().map_or("", |ack| ack.0.as_str());
        let wanted = if wanted == "all" { "every enrolled peer".to_owned() } else { wanted.to_owned() };
        let waited = humantime::format_duration(self.timeout.unwrap_or(Duration::from_secs(5)));
        let have = match confirmed {
            0 => "no other node has".to_owned(),
            1 => "1 other node has".to_owned(),
            count => format!("{count} other nodes have"),
        };
        format!(
            "{word} {collection}/{key}, but {have} confirmed it within {waited} (asked for: {wanted}); the write stands and goes on \
             spreading. `anabranch peers` shows who lags"
        )
    }
}

/// A wait as a parameter.
pub fn timeout_ms(timeout: Option<Duration>, before: char) -> String {
    timeout.map(|timeout| format!("{before}timeout_ms={}", timeout.as_millis())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        wish: WriteWish,
    }

    fn wish(line: &[&str]) -> Result<WriteWish, String> {
        let parsed = Line::try_parse_from([&["put"], line].concat());
        parsed.map(|line| line.wish).map_err(|error| error.to_string())
    }

    #[test]
    fn a_wish_is_a_query_and_headers() {
        assert_eq!(wish(&[]).map(|wish| (wish.query(), wish.headers())), Ok((String::new(), Vec::new())));
        assert_eq!(wish(&["--ack", "2"]).map(|wish| wish.query()), Ok("?ack=2".into()));
        assert_eq!(wish(&["--ack", "all", "--timeout", "1m"]).map(|wish| wish.query()), Ok("?ack=all&timeout_ms=60000".into()));
        let headers = |line: &[&str]| wish(line).map(|wish| wish.headers());
        assert_eq!(headers(&["--if-match", "a"]), Ok(vec![("If-Match", "\"a\"".into())]));
        assert_eq!(headers(&["--if-match", "\"a\""]), Ok(vec![("If-Match", "\"a\"".into())]));
        assert_eq!(headers(&["--if-match", "*"]), Ok(vec![("If-Match", "*".into())]));
        assert_eq!(headers(&["--if-none-match"]), Ok(vec![("If-None-Match", "*".into())]));
        assert_eq!(headers(&["--idempotency-key", "a\"b"]), Ok(vec![("Idempotency-Key", r#""a\"b""#.into())]));
        assert!(wish(&["--idempotency-key", "a b"]).unwrap_err().contains("visible ASCII"));
        for bad in [&["--ack", "0"][..], &["--ack", "some"], &["--timeout", "1s"], &["--if-match", "a", "--if-none-match"]] {
            assert!(wish(bad).is_err(), "{bad:?}");
        }
    }
}
