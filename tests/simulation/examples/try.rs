use standin_simulation::simulation::{self, Scenario, Summary};
fn main() {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().unwrap();
    let (seed, runs): (u64, u64) = (arguments.next().unwrap().parse().unwrap(), arguments.next().unwrap().parse().unwrap());
    let rate = arguments.next().map(|rate| rate.parse().unwrap());
    let scenario = match Scenario::parse(&std::fs::read_to_string(&file).unwrap()) { Ok(s) => s, Err(e) => { println!("{e}"); return } };
    let settings = simulation::settings_of(&scenario);
    let mut summary = Summary::default();
    for seed in seed..seed + runs {
        let outcome = simulation::run(&scenario, &settings, seed, rate);
        if runs == 1 { println!("{outcome}"); }
        summary.add(&outcome);
    }
    summary.finish();
    println!("{summary}");
    for f in &summary.failing { println!("{} {} {:?}", f.seed, f.rate, f.what); }
    println!("failed {}", summary.failed);
}
