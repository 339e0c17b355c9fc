//! What is asked of a peer when nothing happens, and what heals what was not heard.

use super::*;

fn names() -> Vec<DatasetId> {
    (0..10).map(|n| DatasetId::new(&format!("set-{n}")).unwrap()).chain([DatasetId::primary()]).collect()
}

fn node(network: &Arc<Network>, seed: u8, kind: Kind) -> TestNode {
    let datasets = names().into_iter().map(|name| (name, dataset(kind, Registration::all()))).collect();
    start_with(network, seed, NOON, Arc::new(MemoryEngine::default()), datasets)
}

#[test]
fn peers_that_are_equal_ask_one_small_question_for_all_datasets() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let (a, b) = (node(&network, 1, Kind::Documents), node(&network, 2, Kind::Documents));
        a.handle.open_all().await;
        b.handle.open_all().await;
        network.connect(a.peer, b.peer).await;
        a.put("k", "1").await;
        converged(&[&a, &b], 1).await;
        // Twice the time between two comparisons.
        network.falls_silent("heads").await;
        let (rounds, heads) = (network.requests("round"), network.requests("heads"));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while network.requests("round") < rounds + 6 {
            assert!(tokio::time::Instant::now() < deadline, "rounds do not go on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(network.requests("heads"), heads, "equal datasets are compared one by one");
    });
}

#[test]
fn what_no_announcement_told_a_round_finds() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        // Records are pulled, never pushed: who hears nothing has to ask.
        let (a, b) = (node(&network, 1, Kind::Append), node(&network, 2, Kind::Append));
        network.connect(a.peer, b.peer).await;
        a.write(Op::Append { value: json("1") }).await;
        converged(&[&a, &b], 1).await;
        network.falls_silent("heads").await;
        network.silent.store(true, Ordering::Relaxed);
        // A statement would tell as well.
        network.lose("confirm", usize::MAX);
        a.write(Op::Append { value: json("2") }).await;
        converged(&[&a, &b], 2).await;
    });
}
