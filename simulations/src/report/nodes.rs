//! Starts of nodes and restarts of datasets.

use super::{lag, seconds};
use crate::page::plot::{Plot, PlotError};
use crate::page::table::Table;
use crate::world::{NodeReport, Report};

pub(super) fn plot(report: &Report) -> Result<Plot, PlotError> {
    lag::over_time(report, "Restarts of datasets", "restarts", |lag| &lag.restarts)
}

pub(super) fn html(report: &Report) -> String {
    let named = ["node", "starts", "was up"].into_iter().map(str::to_owned);
    let heads = named.chain(report.datasets.iter().map(|dataset| format!("restarts of {dataset}"))).collect();
    let lived = report.nodes.iter().enumerate().filter(|(_, node)| !node.lives.is_empty());
    let row = |(number, node): (usize, &NodeReport)| {
        let restarts = node.restarts.iter().map(ToString::to_string);
        [number.to_string(), node.lives.len().to_string(), seconds(up(report, node))].into_iter().chain(restarts).collect()
    };
    let note =
        "A start is one of the whole process, a restart one of the children of a dataset while the process lives.".to_owned();
    Table { title: String::new(), note, heads, rows: lived.map(row).collect(), words: false }.html()
}

fn up(report: &Report, node: &NodeReport) -> u64 {
    node.lives.iter().map(|life| life.to_ms.unwrap_or(report.simulated_ms).saturating_sub(life.from_ms)).sum()
}
