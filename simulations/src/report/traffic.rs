//! What crossed the network.

use std::fmt::Write as _;

use crate::page::table::{Table, heads};
use crate::page::{bytes, counted, escaped, grouped, whole};
use crate::world::Report;

pub(super) fn html(report: &Report) -> String {
    let mut html = String::from("<h3>Bytes and messages by kind</h3><div class=\"key\">");
    html.push_str(
        "<span><i class=\"c0\"></i>bytes</span><span><i class=\"c1\"></i>messages</span></div><div class=\"lanes bars\">\n",
    );
    let mut kinds: Vec<(&String, u64, u64)> =
        report.traffic.by_kind.iter().map(|(kind, (count, bytes))| (kind, *count, *bytes)).collect();
    kinds.sort_by_key(|(_, _, bytes)| std::cmp::Reverse(*bytes));
    let most = |of: &dyn Fn(&(&String, u64, u64)) -> u64| whole(kinds.iter().map(of).max().unwrap_or(0).max(1));
    let (most_messages, most_bytes) = (most(&|kind| kind.1), most(&|kind| kind.2));
    for (kind, count, size) in &kinds {
        let (wide, narrow) = (whole(*size) / most_bytes * 100.0, whole(*count) / most_messages * 100.0);
        let (kind, value) = (escaped(kind), format!("{}, {}", bytes(whole(*size)), counted(*count, "message")));
        let _ = writeln!(
            html,
            "<div class=\"lane\"><span>{kind}</span><div class=\"track\"><i class=\"c0\" style=\"width:{wide:.2}%\"></i>\
             <i class=\"c1\" style=\"width:{narrow:.2}%\"></i></div><span class=\"value\">{value}</span></div>"
        );
    }
    html + "</div>\n" + &connections(report).html()
}

fn connections(report: &Report) -> Table {
    let traffic = &report.traffic;
    let (messages, size) = traffic.by_kind.values().fold((0, 0), |(messages, size), one| (messages + one.0, size + one.1));
    let rows = [
        ("messages", grouped(messages)),
        ("bytes", bytes(whole(size))),
        ("connections made", grouped(traffic.connected)),
        ("connections broken", grouped(traffic.broken)),
        ("requests lost", grouped(traffic.lost)),
        ("requests that arrived twice", grouped(traffic.duplicated)),
        ("announcements lost", grouped(traffic.gossip_lost)),
        ("messages on the way at once, at most", grouped(traffic.queue_max as u64)),
    ];
    Table {
        title: String::new(),
        note: "Bytes are those of encoded messages, of all nodes together.".to_owned(),
        heads: heads(&["in all", "count"]),
        rows: rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect(),
        words: false,
    }
}
