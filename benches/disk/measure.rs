//! Processes and what they cost.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What one run, of one process or many, cost.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) seconds: f64,
    pub(crate) cpu: f64,
    /// Largest resident memory, of many the sum.
    pub(crate) peak_mib: f64,
}

/// Linux counts processor time by this much.
const TICKS_PER_SECOND: f64 = 100.0;

/// Who is measured has this processor, and the target the next one, as if they were two machines:
/// a scheduler that puts both on one while the other idles would be measured instead.
pub(crate) const INITIATOR_CORE: &str = "0";
pub(crate) const TARGET_CORE: &str = "1";

/// The same command on one processor.
pub(crate) fn on_core(core: &str, command: &Command) -> Command {
    let mut pinned = Command::new("taskset");
    pinned
        .args(["-c", core])
        .arg(command.get_program())
        .args(command.get_args());
    pinned
}

/// Runs all at once, on one processor.
pub(crate) fn run_on_one_core(commands: &[Command]) -> Cost {
    let pinned = commands
        .iter()
        .map(|command| on_core(INITIATOR_CORE, command));
    run(pinned.collect())
}

/// Runs all at once.
pub(crate) fn run(commands: Vec<Command>) -> Cost {
    let began = Instant::now();
    let mut children: Vec<(Child, Cost)> = commands
        .into_iter()
        .map(|mut command| {
            let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
            command.env("PATH", path).stdin(Stdio::null());
            command.stdout(Stdio::null());
            let child = command.spawn();
            (
                child.unwrap_or_else(|e| panic!("{command:?}: {e}")),
                Cost::default(),
            )
        })
        .collect();
    loop {
        let mut going = 0;
        for (child, cost) in &mut children {
            going += usize::from(goes_on(child, cost));
        }
        if going == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut all = Cost {
        seconds: began.elapsed().as_secs_f64(),
        ..Cost::default()
    };
    for (mut child, cost) in children {
        assert!(child.wait().unwrap().success(), "a competitor failed");
        all.cpu += cost.cpu;
        all.peak_mib += cost.peak_mib;
    }
    all
}

/// Looks at a process; one that ended is left as a zombie, which still tells its times.
fn goes_on(child: &Child, cost: &mut Cost) -> bool {
    let about = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap();
    let stat = about("stat");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |n: usize| fields[n].parse::<f64>().unwrap();
    cost.cpu = (ticks(11) + ticks(12)) / TICKS_PER_SECOND;
    let status = about("status");
    if let Some(line) = status.lines().find(|line| line.starts_with("VmHWM")) {
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        cost.peak_mib = kib / 1024.0;
    }
    fields[0] != "Z"
}

/// One way to do the work; called once a round.
pub(crate) struct Competitor<'a> {
    name: &'static str,
    work: Box<dyn FnMut() -> Cost + 'a>,
    costs: Vec<Cost>,
}

impl<'a> Competitor<'a> {
    pub(crate) fn new(name: &'static str, work: impl FnMut() -> Cost + 'a) -> Self {
        Self {
            name,
            work: Box::new(work),
            costs: Vec::new(),
        }
    }
}

/// Runs all in turns and prints how many times faster than each other one the last one is.
pub(crate) fn race(title: &str, rounds: usize, gib: f64, mut all: Vec<Competitor<'_>>) {
    for round in 0..rounds {
        for turn in 0..all.len() {
            let at = (round + turn) % all.len();
            let cost = (all[at].work)();
            all[at].costs.push(cost);
        }
    }
    println!("\n{title}");
    println!(
        "  {:<34} {:>8} {:>10} {:>9}  ours is × faster, × CPU",
        "", "seconds", "CPU s/GiB", "peak MiB"
    );
    let ours = all.last().unwrap().costs.clone();
    for one in &all {
        let of = |value: fn(&Cost) -> f64| middle(one.costs.iter().map(value).collect());
        let speed: Vec<f64> = one
            .costs
            .iter()
            .zip(&ours)
            .map(|(a, b)| a.seconds / b.seconds)
            .collect();
        let cpu: Vec<f64> = ours
            .iter()
            .zip(&one.costs)
            .map(|(a, b)| a.cpu / b.cpu.max(0.001))
            .collect();
        let (least, most) = (
            speed.iter().copied().fold(f64::INFINITY, f64::min),
            speed.iter().copied().fold(0.0, f64::max),
        );
        println!(
            "  {:<34} {:>8.3} {:>10.2} {:>9.1}  {:.2} [{least:.2}, {most:.2}]  {:.2}",
            one.name,
            of(|c| c.seconds),
            of(|c| c.cpu) / gib,
            of(|c| c.peak_mib),
            middle(speed),
            middle(cpu),
        );
    }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
