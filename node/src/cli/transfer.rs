//! `import` and `export`: a collection from and to a file, streamed, as NDJSON or CSV.

mod cells;
mod export;
mod import;
mod lines;
mod progress;

use std::path::{Path, PathBuf};

use clap::ValueEnum;

pub use export::{ExportArgs, export};
pub use import::{ImportArgs, import};
pub(super) use progress::{Progress, rate};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use {cells::fuzz as fuzz_cells, lines::fuzz as fuzz_import};

use crate::process::Failure;

/// How documents stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A JSON object a line.
    Ndjson,
    /// A row a document, its first line names the columns.
    Csv,
}

impl Format {
    /// The format that was asked for, or that the file's name says.
    fn of(asked: Option<Self>, file: &Path) -> Result<Self, Failure> {
        if let Some(format) = asked {
            return Ok(format);
        }
        let extension = file.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        match extension.as_deref() {
            Some("csv") => Ok(Self::Csv),
            Some("ndjson" | "jsonl" | "json") => Ok(Self::Ndjson),
            _ if is_stdio(file) => Ok(Self::Ndjson),
            _ => {
                let file = file.display();
                Err(Failure::Usage(format!("{file}: name the format with --format ndjson or --format csv")))
            }
        }
    }
}

fn is_stdio(file: &Path) -> bool {
    file == Path::new("-")
}

/// What a half-written file is called until it is whole.
fn partial(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_the_format_unless_told() {
        let of = |asked, file: &str| Format::of(asked, Path::new(file)).ok();
        assert_eq!(of(None, "a.CSV"), Some(Format::Csv));
        assert_eq!(of(None, "a.jsonl"), Some(Format::Ndjson));
        assert_eq!(of(None, "-"), Some(Format::Ndjson));
        assert_eq!(of(Some(Format::Csv), "a.json"), Some(Format::Csv));
        assert_eq!(of(None, "a.txt"), None);
    }
}
