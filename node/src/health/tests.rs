//! Each thing that may be wrong is told with its threshold, and nothing else is.

use std::path::PathBuf;

use anabranch_actors::api::{DatasetInfo, Measured, PeerDataset, PeerInfo, PeerState, Peers, SetAside, Waiting};
use anabranch_protocol::commit::Identity;
use anabranch_protocol::id::{DatasetId, PeerId};
use anabranch_protocol::wire::Kind;

use super::*;
use crate::disk::DiskSpace;

fn sample(name: &str, state: DatasetState, reason: Option<&str>) -> DatasetSample {
    DatasetSample {
        info: DatasetInfo {
            dataset: DatasetId::new(name).unwrap(),
            kind: Kind::Documents,
            enabled: true,
            state,
            reason: reason.map(str::to_owned),
            restarts: 0,
            contents: None,
            counts: anabranch_actors::api::Counts::default(),
            set_aside: Vec::new(),
        },
        measured: Measured::default(),
        waiting: Waiting::default(),
        peers: None,
        read_only: false,
        restarts_lately: 0,
    }
}

fn seen(datasets: Vec<DatasetSample>) -> Seen {
    Seen { datasets, disabled: Vec::new(), peers: Some(Vec::new()), disk: None }
}

fn judge(seen: &Seen) -> (Condition, String) {
    let health = Health::of(seen, &HealthLimits::default());
    (health.condition, health.why.join("; "))
}

fn peer(byte: u8) -> PeerId {
    Identity::from_secret(&[byte; 32]).peer()
}

fn apart(byte: u8, lag_commits: u64, waited: Duration) -> PeerSample {
    let standing = PeerDataset { state: PeerState::Behind, lag_commits, lag: waited, reason: None };
    PeerSample { peer: peer(byte), standing, waited }
}

#[test]
fn health_names_who_does_not_run_and_why() {
    let well = sample("a", DatasetState::Running, None);
    let failed = sample("b", DatasetState::Failed, Some("disk"));
    assert_eq!(judge(&seen(vec![well.clone()])), (Condition::Healthy, String::new()));
    let both = Health::of(&seen(vec![well, failed.clone()]), &HealthLimits::default());
    assert_eq!(
        (both.condition, both.why.concat(), both.not_running.join("")),
        (Condition::Degraded, "b is failed: disk".into(), "b".into())
    );
    assert_eq!(judge(&seen(vec![failed])).0, Condition::Unhealthy);
    let importing = seen(vec![sample("a", DatasetState::Importing, Some("orders is imported"))]);
    assert_eq!(judge(&importing).0, Condition::Degraded);
    assert!(Health::of(&importing, &HealthLimits::default()).not_running.is_empty());
    assert_eq!(judge(&seen(vec![sample("a", DatasetState::Running, Some("clock"))])).0, Condition::Degraded);
}

#[test]
fn a_peer_that_is_too_far_apart_is_named_with_both_values() {
    let limits = HealthLimits::default();
    let with = |connected: Vec<PeerSample>, away: Vec<PeerSample>| {
        let peers = Peers { connected, away, ..Peers::default() };
        seen(vec![DatasetSample { peers: Some(peers), ..sample("a", DatasetState::Running, None) }])
    };
    let second = Duration::from_secs(1);
    let within = apart(1, limits.lag_commits_max, limits.lag_time_max);
    assert_eq!(judge(&with(vec![within.clone()], vec![within])).0, Condition::Healthy);
    let (condition, why) = judge(&with(vec![apart(1, 7, limits.lag_time_max + second)], vec![apart(2, 5, second)]));
    assert_eq!(condition, Condition::Degraded);
    assert!(why.contains("7 commits") && why.contains("15m 1s") && why.contains("lag_time_max is 15m"), "{why}");
    let far = limits.lag_commits_max + 1;
    let (_, why) = judge(&with(vec![apart(1, far, second)], vec![apart(2, far + 1, second)]));
    assert!(why.contains(&peer(2).to_string()) && why.contains("and 1 more"), "{why}");
}

#[test]
fn who_is_away_and_refused_the_dataset_is_not_waited_for() {
    let away = vec![apart(1, u64::MAX, Duration::from_secs(u64::from(u32::MAX)))];
    let peers = Peers { away, ..Peers::default() };
    let mut seen = seen(vec![DatasetSample { peers: Some(peers), ..sample("a", DatasetState::Running, None) }]);
    assert_eq!(judge(&seen).0, Condition::Degraded);
    let refused = PeerDataset { state: PeerState::Refused, lag_commits: 0, lag: Duration::ZERO, reason: None };
    let datasets = vec![(DatasetId::new("a").unwrap(), refused)];
    let info = PeerInfo { peer: peer(1), connected: true, rtt: None, addresses: Vec::new(), refused: None, datasets };
    seen.peers = Some(vec![info]);
    assert_eq!(judge(&seen).0, Condition::Healthy);
}

#[test]
fn thresholds_of_a_dataset_are_told_with_their_values() {
    let aside = SetAside { name: "x".into(), path: PathBuf::new(), at: String::new(), reason: String::new() };
    let mut with_aside = sample("a", DatasetState::Running, None);
    with_aside.info.set_aside = vec![aside];
    let (condition, why) = judge(&seen(vec![with_aside.clone()]));
    assert!(condition == Condition::Degraded && why.contains("set_aside_max is 0"), "{why}");
    let lenient = HealthLimits { set_aside_max: 1, ..HealthLimits::default() };
    assert_eq!(Health::of(&seen(vec![with_aside]), &lenient).condition, Condition::Healthy);

    let restarts = |restarts_lately| seen(vec![DatasetSample { restarts_lately, ..sample("a", DatasetState::Running, None) }]);
    let most = HealthLimits::default().restarts_max;
    assert_eq!(judge(&restarts(most)).0, Condition::Healthy);
    assert!(judge(&restarts(most + 1)).1.contains(&format!("restarted {} times", most + 1)));
}

#[test]
fn thresholds_of_the_node_are_told_with_their_values() {
    let limits = HealthLimits { disk_free_min: 1 << 20, peers_min: 1, ..HealthLimits::default() };
    let mut seen = seen(vec![sample("a", DatasetState::Running, None)]);
    seen.disk = Some(DiskSpace { free: (1 << 20) - 1, size: 1 << 30 });
    let why = Health::of(&seen, &limits).why;
    assert!(why.len() == 2 && why[0].contains("disk_free_min is 1.0 MiB") && why[1].contains("0 peers are connected"), "{why:?}");
    seen.disk = Some(DiskSpace { free: 1 << 20, size: 1 << 30 });
    assert_eq!(Health::of(&seen, &limits).why.len(), 1);
    seen.peers = None;
    assert!(judge(&seen).1.contains("did not answer"));
}
