//! The scenarios that ship: what a campaign goes through.

use std::collections::BTreeMap;

use crate::faults::Kind;
use crate::options::Options;

/// All scenarios, by name.
#[must_use]
pub fn all() -> Vec<Options> {
    vec![
        named(
            "default",
            "a little of most things that happen to nodes in the field",
            &[
                (Kind::Partition, 0.4),
                (Kind::Kill, 0.6),
                (Kind::KillAtAwait, 0.4),
                (Kind::KillInWrite, 0.4),
                (Kind::Pause, 0.3),
                (Kind::Panic, 0.4),
                (Kind::BadLink, 0.5),
                (Kind::GossipLost, 0.3),
                (Kind::RequestsLost, 0.3),
                (Kind::DiskSlow, 0.2),
                (Kind::ClockStep, 0.2),
            ],
        ),
        named("calm", "no faults at all", &[]),
        // Few keys, so that writers that don't hear of each other meet on them.
        Options {
            keys: 6,
            ..named(
                "partitions",
                "links are cut in every way",
                &[(Kind::Partition, 1.0), (Kind::OneWay, 1.0), (Kind::Bridge, 0.6), (Kind::Ring, 0.6), (Kind::Clog, 1.0)],
            )
        },
        named(
            "links",
            "links lose, delay, repeat and hold back",
            &[(Kind::BadLink, 3.0), (Kind::GossipLost, 2.0), (Kind::RequestsLost, 2.0), (Kind::Clog, 2.0)],
        ),
        named(
            "crashes",
            "processes die at every point",
            &[
                (Kind::Kill, 2.0),
                (Kind::KillAtAwait, 3.0),
                (Kind::KillInWrite, 4.0),
                (Kind::RestartLoop, 0.6),
                (Kind::Pause, 1.0),
            ],
        ),
        named("panics", "actors panic and are rebuilt", &[(Kind::Panic, 6.0), (Kind::SupervisorStorm, 0.6), (Kind::Kill, 0.3)]),
        named(
            "disks",
            "disks are slow, full and broken",
            &[(Kind::DiskSlow, 1.0), (Kind::DiskFull, 1.0), (Kind::DiskBroken, 1.0), (Kind::KillInWrite, 1.0)],
        ),
        named("rot", "bits flip, at rest and on the way", &[(Kind::BitFlip, 1.0), (Kind::ReadFlips, 0.4), (Kind::Kill, 0.5)]),
        named(
            "clocks",
            "wall clocks drift, step and freeze, and one is decades ahead",
            &[
                (Kind::ClockDrift, 0.6),
                (Kind::ClockStep, 1.0),
                (Kind::ClockFrozen, 0.6),
                (Kind::ClockAhead, 0.3),
                (Kind::Kill, 0.5),
            ],
        ),
        named(
            "membership",
            "nodes join, leave, and return after months",
            &[(Kind::Join, 0.4), (Kind::Leave, 0.2), (Kind::Away, 0.4), (Kind::Partition, 0.3), (Kind::Kill, 0.3)],
        ),
        named(
            "copies",
            "disks are rolled back, data directories cloned",
            &[(Kind::Rollback, 0.4), (Kind::Clone, 0.3), (Kind::Kill, 0.3)],
        ),
        named(
            "registration",
            "collections are registered and unregistered while all syncs",
            &[(Kind::Registration, 2.0), (Kind::Partition, 0.5), (Kind::KillInWrite, 0.5)],
        ),
        named(
            "versions",
            "nodes that speak another version until they are upgraded",
            &[(Kind::OtherVersion, 1.0), (Kind::Kill, 0.5), (Kind::Partition, 0.3)],
        ),
        named(
            "hostile",
            "a peer sends what no honest node sends",
            &[(Kind::Hostile, 2.0), (Kind::Kill, 0.3), (Kind::Partition, 0.3)],
        ),
        named(
            "flood",
            "telemetry floods one dataset while the others go on",
            &[(Kind::Flood, 2.0), (Kind::Kill, 0.5), (Kind::BadLink, 0.5)],
        ),
    ]
}

/// Seeds that once broke an invariant, each with what they found: they broke it on the commit before it was mended, and no seed of
/// theirs may break anything again.
///
/// # Panics
/// Where the file in the source is no list of options.
#[must_use]
pub fn regressions() -> Vec<Options> {
    serde_json::from_str(include_str!("regressions.json")).expect("regressions.json is a list of options")
}

/// The scenario or regression of a name.
#[must_use]
pub fn find(name: &str) -> Option<Options> {
    all().into_iter().chain(regressions()).find(|options| options.scenario == name)
}

fn named(name: &str, about: &str, faults: &[(Kind, f64)]) -> Options {
    Options {
        scenario: name.to_owned(),
        about: about.to_owned(),
        faults: faults.iter().copied().collect::<BTreeMap<_, _>>(),
        ..Options::default()
    }
}
