//! What is accepted, what is refused, and that the refusal says what to do.

use super::*;

fn judge(toml: &str, overrides: Overrides) -> Result<Config, ConfigError> {
    let page: Page =
        figment::Figment::from(<figment::providers::Toml as figment::providers::Format>::string(toml)).extract().unwrap();
    Config::judge(page, overrides)
}

fn refused(toml: &str) -> String {
    judge(toml, Overrides::default()).unwrap_err().0
}

#[test]
fn without_a_word_primary_replicates_everything() {
    let config = judge("", Overrides::default()).unwrap();
    assert_eq!(config.datasets.len(), 1);
    assert!(config.datasets[&DatasetId::primary()].registration.all);
    assert_eq!(config.http.addr.to_string(), "127.0.0.1:7070");
    assert_eq!(config.cache_bytes, 128 << 20);
}

#[test]
fn a_configured_dataset_without_collections_replicates_none() {
    let config = judge("[datasets.logs]\nkind = 'append'", Overrides::default()).unwrap();
    let logs = &config.datasets[&DatasetId::new("logs").unwrap()];
    assert!(!logs.registration.all && logs.registration.collections.is_empty());
    assert!(!config.datasets.contains_key(&DatasetId::primary()));
}

#[test]
fn with_dataset_flags_exactly_those_run() {
    let toml = "[datasets.a]\ncollections = ['x']\nenabled = false\n[datasets.b]";
    let flags = ["a:append".parse().unwrap(), "c=*".parse().unwrap()];
    let config = judge(toml, Overrides { datasets: flags.to_vec(), ..Overrides::default() }).unwrap();
    let names: Vec<_> = config.datasets.keys().map(DatasetId::as_str).collect();
    assert_eq!(names, ["a", "c"]);
    let a = &config.datasets[&DatasetId::new("a").unwrap()];
    assert_eq!(a.kind, anabranch_protocol::wire::Kind::Append);
    assert_eq!(a.registration, Registration::of([Collection::new("x").unwrap()]));
}

#[test]
fn what_would_have_no_effect_is_refused() {
    for toml in [
        "[datasets.a]\npolicy = { default = 'lww', customers = 'merge' }",
        "[datasets.a]\nimages_before = ['x']",
        "[datasets.a]\nretention = { age = '7d' }",
        "[datasets.a.sync]\nbandwidth_max = '8MiB'",
    ] {
        let message = refused(toml);
        assert!(message.contains("not supported by this version yet"), "{toml}: {message}");
    }
    assert!(judge("[datasets.a]\npolicy = { default = 'lww' }\nwriters = ['*']", Overrides::default()).is_ok());
}

#[test]
fn a_network_key_or_an_allow_list_guards_the_door() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let key = |byte: u8| anabranch_protocol::network_key::NetworkKey::new([byte; 32]).to_text();
    let (one, two, broken) = (write("one", &key(1)), write("two", &key(2)), write("broken", "secret"));
    let beyond = "listen = ['/ip4/0.0.0.0/tcp/4001']\n";
    let keyed = |files: &str| judge(&format!("{beyond}network_key_file = {files}"), Overrides::default());
    assert!(!keyed(&format!("'{}'", one.display())).unwrap().access.network_keys.is_open());
    assert!(keyed(&format!("['{}', '{}']", one.display(), two.display())).is_ok());
    let flag = Overrides { network_keys: vec![two], ..Overrides::default() };
    assert!(judge(beyond, flag).is_ok());
    let message = keyed(&format!("'{}'", broken.display())).unwrap_err().0;
    assert!(message.contains("broken") && !message.contains("secret"), "{message}");
    assert!(keyed("'/nonexistent'").unwrap_err().0.contains("/nonexistent"));

    let peer = anabranch_protocol::commit::Identity::from_secret(&[1; 32]).peer();
    assert!(judge(&format!("{beyond}[access]\nallow = ['{peer}']"), Overrides::default()).is_ok());
    // A deny list lets everyone else in.
    assert!(refused(&format!("{beyond}[access]\ndeny = ['{peer}']")).contains("--network-key"));
    let both = format!("[access]\nallow = ['{peer}']\ndeny = ['{peer}']");
    assert!(refused(&both).contains("access.deny"));
}

#[test]
fn readers_and_writers_are_peer_ids_or_everybody() {
    let peer = anabranch_protocol::commit::Identity::from_secret(&[1; 32]).peer();
    let config = judge(&format!("[datasets.a]\nwriters = ['{peer}']\nreaders = []"), Overrides::default()).unwrap();
    let a = &config.datasets[&DatasetId::new("a").unwrap()];
    assert!(a.writers.contains(&peer) && !a.readers.contains(&peer));
    assert!(refused("[datasets.a]\nwriters = ['bob']").contains("writers"));
    assert!(refused(&format!("[datasets.a]\nreaders = ['*', '{peer}']")).contains("stands alone"));
}

#[test]
fn beyond_loopback_the_door_must_be_closed() {
    let message = refused("listen = ['/ip4/0.0.0.0/tcp/4001']");
    assert!(message.contains("--insecure-open"), "{message}");
    let open = Overrides { insecure_open: true, ..Overrides::default() };
    assert!(judge("listen = ['/ip4/0.0.0.0/tcp/4001']", open.clone()).is_ok());
    let message = judge("[http]\naddr = '0.0.0.0:7070'", open).unwrap_err().0;
    assert!(message.contains("token_file"), "{message}");
}

#[test]
fn bounds_and_contradictions_name_both_values() {
    let message = refused("cache_bytes = '1KiB'");
    assert!(message.contains("1.0 KiB") && message.contains("1.0 MiB"), "{message}");
    let message = refused("[datasets.a.sync]\nannounce_interval = '20s'");
    assert!(message.contains("20s") && message.contains("15s"), "{message}");
    assert!(refused("max_clock_skew = '0s'").contains("max_clock_skew"));
    assert!(refused("[datasets.a]\ncollections = ['*', 'x']").contains("stands alone"));
    assert!(refused("[datasets.a]\ncollections = ['_control']").contains("reserved"));
    assert!(refused("[datasets.A]").contains("dataset name"));
    assert!(refused("[features]\nmulti_dataset = false\n[datasets.a]").contains("multi_dataset"));
}

#[test]
fn an_address_is_tcp_or_quic_where_the_build_has_it() {
    let listen = |address: &str| judge(&format!("listen = ['{address}']"), Overrides::default());
    let quic = "/ip4/127.0.0.1/udp/4001/quic-v1";
    let listens_by_default = judge("", Overrides::default()).unwrap().listen.iter().any(|address| address.to_string() == quic);
    assert_eq!(listens_by_default, cfg!(feature = "quic"));
    match listen(quic) {
        Ok(config) => assert!(cfg!(feature = "quic") && config.listen[0].to_string() == quic),
        Err(error) => assert!(!cfg!(feature = "quic") && error.0.contains("cargo feature `quic`"), "{error}"),
    }
    assert!(listen("/ip4/127.0.0.1/udp/4001").unwrap_err().0.contains("quic-v1"));
    assert!(listen("/ip4/127.0.0.1/tcp/4001/ws").unwrap_err().0.contains("/p2p/"));
}

#[test]
fn limits_are_taken_over_and_held_to_their_bounds() {
    let limits = judge("[limits]\nconnections_max = 7\nmemory_max = '1GiB'\ntransfer_timeout = '2s'", Overrides::default())
        .unwrap()
        .limits;
    assert_eq!((limits.connections_max, limits.memory_max, limits.bulk_timeout), (7, Some(1 << 30), Duration::from_secs(2)));
    assert_eq!(limits.connections_per_peer_max, crate::swarm::SwarmLimits::default().connections_per_peer_max);
    assert!(refused("[limits]\nhello_rate_max = 0").contains("hello_rate_max"));
    assert!(refused("[limits]\nmemory_max = '1KiB'").contains("64.0 MiB"));
    assert!(refused("[limits]\ntransfer_timeout = '1ms'").contains("100ms"));
}

#[test]
fn mdns_is_taken_where_the_build_has_it() {
    assert_eq!(judge("mdns = true", Overrides::default()).is_ok(), cfg!(feature = "mdns"));
    assert!(!judge("", Overrides::default()).unwrap().mdns);
}

#[test]
fn what_does_not_run_is_known_and_says_why() {
    let toml = "[datasets.primary]\n[datasets.logs]\nkind = 'append'\nenabled = false\n[datasets.more]";
    let config = judge(toml, Overrides::default()).unwrap();
    let logs = &config.disabled[&DatasetId::new("logs").unwrap()];
    assert_eq!((config.datasets.len(), config.disabled.len(), logs.kind), (2, 1, anabranch_protocol::wire::Kind::Append));
    assert!(logs.reason.contains("datasets.logs.enabled"), "{}", logs.reason);
    let config = judge(&format!("{toml}\n[features]\nmulti_dataset = false"), Overrides::default()).unwrap();
    assert_eq!((config.datasets.len(), config.disabled.len()), (1, 2));
    assert_eq!(config.disabled[&DatasetId::new("more").unwrap()].reason, ONLY_PRIMARY);
    assert!(refused("[datasets.a]\n[datasets.b]\nenabled = false\nkind = 'x'").contains("kind"));
}

#[test]
fn a_lineage_is_new_or_spelled_out() {
    let lineage_of = |text: &str| judge(&format!("[datasets.a]\nlineage = '{text}'"), Overrides::default());
    let setting = |text: &str| lineage_of(text).unwrap().datasets[&DatasetId::new("a").unwrap()].lineage;
    assert_eq!(setting("new"), LineageSetting::New);
    assert_eq!(setting(&"0a".repeat(16)), LineageSetting::Fixed(Lineage([0x0a; 16])));
    assert!(lineage_of("0a").unwrap_err().0.contains("32 lower-case hex digits"));
    assert!(lineage_of(&"00".repeat(16)).unwrap_err().0.contains("leave it out"));
}

#[test]
fn health_thresholds_are_taken_over_and_held_to_their_bounds() {
    let toml = "[health]\nlag_commits_max = 7\nlag_time_max = '2h'\ndisk_free_min = '1GiB'\nrestarts_max = 9\nset_aside_max = 2\npeers_min = 3";
    let expected = HealthLimits {
        lag_commits_max: 7,
        lag_time_max: Duration::from_secs(7_200),
        disk_free_min: 1 << 30,
        restarts_max: 9,
        set_aside_max: 2,
        peers_min: 3,
    };
    assert_eq!(judge(toml, Overrides::default()).unwrap().health, expected);
    assert_eq!(judge("", Overrides::default()).unwrap().health, HealthLimits::default());
    let message = refused("[health]\nlag_time_max = '0s'");
    assert!(message.contains("health.lag_time_max") && message.contains("1s"), "{message}");
    let message = refused("[limits]\nconnections_max = 2\n[health]\npeers_min = 3");
    assert!(message.contains("`health.peers_min` (3)") && message.contains("`limits.connections_max` (2)"), "{message}");
}
