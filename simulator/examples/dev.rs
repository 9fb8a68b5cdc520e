use std::time::Instant;
fn main() {
    let seeds: u64 = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    for path in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&path).unwrap();
        let world = simulator::world::World::parse(&text).map_err(|e| format!("{path}: {e}")).unwrap();
        for seed in 0..seeds {
            let began = Instant::now();
            let judged = simulator::judge::judge(&world, seed);
            println!("{path} seed {seed} {:.1}s", began.elapsed().as_secs_f64());
            for v in &judged.verdicts {
                println!("  {} {}: {} ({})", if v.holds { "ok  " } else { "FAIL" }, v.what, v.seen, v.asked);
            }
            for l in &judged.lines {
                println!("    {:20} saved {:.1}% slow {:.3}% regret {:.2} down {} up {}", l.law, l.regret.saved_share()*100., l.regret.slow_share()*100., l.regret.ratio(), l.demoted/262144, l.promoted/262144);
            }
            if std::env::var("MINUTES").is_ok() {
                for pod in judged.run.host.pods.iter().filter(|p| p.managed).take(4) {
                    println!("  {}", pod.name);
                    for (i, m) in pod.ledger.minutes.iter().enumerate() {
                        if i < 40 || i % 30 == 0 { println!("    {i:4} fast {:8} slow {:8} ws {:8} touched {:7} ans {:7} down {:7} up {:7} age {:.0}", m.fast, m.slow, m.working_set, m.slow_touched, m.answered_for, m.demoted, m.promoted, m.age); }
                    }
                }
            }
        }
    }
}
