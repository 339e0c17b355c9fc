fn main() {
    let name = std::env::args().nth(1).unwrap_or_else(|| "default".into());
    let seed: u64 = std::env::args().nth(2).and_then(|s| s.parse().ok()).unwrap_or(1);
    let loud = std::env::args().nth(3).is_some();
    let mut options = anabranch_simulations::scenarios::find(&name).unwrap();
    options.seed = seed;
    let began = std::time::Instant::now();
    let report = anabranch_simulations::world::run(&options, loud, |_| {});
    println!("{} seed {seed}: trace {} events {} took {:?}", name, report.trace, report.events, began.elapsed());
    println!("requests {:?} commits {:?} converged {:?} restarts {} starts {}", report.requests, report.commits, report.converged_after_ms, report.restarts, report.starts);
    for v in &report.violations { println!("VIOLATION {v:?}"); }
}
