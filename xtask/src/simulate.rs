//! `cargo xtask simulate`: worlds in the simulated host, judged.

mod beside;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use simulator::judge::{Judged, judge, peers};
use simulator::report::Report;
use simulator::world::World;
use thermocline_tests::scenario::{Kernel, Machine};

use crate::guest_image::root;
use crate::machines::MachineArgs;
use crate::{out, say};

/// Runs at a time.
const AT_A_TIME: usize = 2;

/// What to simulate.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Worlds by name, or files of your own; without any, all of simulator/worlds
    worlds: Vec<PathBuf>,
    /// A policy that every managed pod has, instead of those that the worlds give: its keys, or the whole object
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Only this seed; 0 is the world as it is written
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// So many seeds, from 0 on
    #[arg(long, value_name = "N", default_value_t = 2, conflicts_with = "seed")]
    seeds: u64,
    /// Shows what the peers' laws and the kernel alone do in each world
    #[arg(long)]
    peers: bool,
    /// Prints what the law said of the first pods, and each minute of them
    #[arg(long)]
    explain: bool,
    /// Runs the worlds in guests as well, and shows both beside each other; without a name, those that have bounds for it
    #[arg(long, conflicts_with_all = ["seed", "seeds", "peers", "explain"])]
    beside_guest: bool,
    #[command(flatten)]
    machine: MachineArgs,
    /// Where the pictures go, one a world
    #[arg(long, value_name = "DIR", default_value = "target/simulate")]
    pictures: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    if args.beside_guest {
        let machine = args.machine.or(Kernel::V7_2);
        return beside_guests(&args.worlds, args.policy.as_deref(), machine);
    }
    let worlds = worlds(&args.worlds, args.policy.as_deref())?;
    let seeds: Vec<u64> = match args.seed {
        Some(seed) => vec![seed],
        None => (0..args.seeds.max(1)).collect(),
    };
    let pictures = root().join(&args.pictures);
    std::fs::create_dir_all(&pictures).with_context(|| format!("{} can't be made", pictures.display()))?;
    let began = Instant::now();
    say!("{} worlds, {} seeds each", worlds.len(), seeds.len());
    let (mut holds, mut open) = (0, Vec::new());
    for ((name, world), runs) in worlds.iter().zip(judged(&worlds, &seeds)) {
        let report = Report::of(name, &runs);
        out!("{}", report.table().trim_end());
        if args.peers {
            for line in peers(world, seeds[0]) {
                out!("{}", simulator::report::law_line(&line));
            }
        }
        if args.explain {
            out!("{}", simulator::report::explained(&runs[0].run.host).trim_end());
        }
        let file = pictures.join(format!("{name}.svg"));
        let svg = simulator::picture::svg(&runs[0].run.host, &format!("{name}, seed {}", runs[0].seed))
            .map_err(anyhow::Error::msg)?;
        std::fs::write(&file, svg).with_context(|| format!("{} can't be written", file.display()))?;
        holds += report.bars.iter().filter(|(verdict, ..)| verdict.holds).count();
        let failing = report.bars.iter().filter(|(verdict, ..)| !verdict.holds);
        open.extend(failing.map(|(verdict, ..)| format!("{name}: {}: {}", verdict.what, verdict.seen)));
    }
    out!("{holds} bars hold, {} do not; pictures in {}", open.len(), args.pictures.display());
    for bar in &open {
        out!("  FAIL {bar}");
    }
    say!("{:.1} s", began.elapsed().as_secs_f64());
    Ok(open.is_empty())
}

/// That the simulated host does what the newest kernel does.
pub(crate) fn beside() -> Result<bool> {
    beside_guests(&[], None, MachineArgs::usual().or(Kernel::V7_2))
}

/// The worlds that are named, or all that say how far a guest may be from them, in guests as well.
fn beside_guests(named: &[PathBuf], policy: Option<&Path>, machine: Machine) -> Result<bool> {
    let worlds = worlds(named, policy)?;
    let is_meant = |(_, world): &&(String, World)| !named.is_empty() || world.beside_guest.is_some();
    let mut holds = true;
    for (name, world) in worlds.iter().filter(is_meant) {
        holds &= beside::run(name, world, machine)?;
    }
    Ok(holds)
}

/// All runs, a few at a time; of each world, in the order of the seeds.
fn judged(worlds: &[(String, World)], seeds: &[u64]) -> Vec<Vec<Judged>> {
    let next = AtomicUsize::new(0);
    let jobs = worlds.len() * seeds.len();
    let done: Vec<Mutex<Option<Judged>>> = (0..jobs).map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    let Some(place) = done.get(job) else { break };
                    let (name, world) = &worlds[job / seeds.len()];
                    let began = Instant::now();
                    let judged = judge(world, seeds[job % seeds.len()]);
                    if began.elapsed().as_secs() >= 5 {
                        say!("{name}, seed {}: {:.0} s", judged.seed, began.elapsed().as_secs_f64());
                    }
                    *place.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(judged);
                }
            });
        }
    });
    let mut judged =
        done.into_iter().map(|place| place.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
    worlds.iter().map(|_| judged.by_ref().take(seeds.len()).flatten().collect()).collect()
}

/// The worlds that are named, all without a name; with a policy from a file, all have that.
fn worlds(named: &[PathBuf], policy: Option<&Path>) -> Result<Vec<(String, World)>> {
    let own = root().join("simulator/worlds");
    let files: Vec<PathBuf> = if named.is_empty() {
        let mut files = yaml_files(&own)?;
        files.sort();
        files
    } else {
        named.iter().map(|world| find(&own, world)).collect::<Result<_>>()?
    };
    let policy = match policy {
        None => None,
        Some(file) => {
            let text =
                std::fs::read_to_string(file).with_context(|| format!("{} can't be read", file.display()))?;
            Some(simulator::world::parse_policy(&text).with_context(|| file.display().to_string())?)
        }
    };
    ensure!(!files.is_empty(), "there are no worlds in {}", own.display());
    files
        .into_iter()
        .map(|file| {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("{} can't be read", file.display()))?;
            let world = World::parse(&text).with_context(|| file.display().to_string())?;
            let world = match &policy {
                Some(policy) => world.with_policy(policy)?,
                None => world,
            };
            let name = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
            Ok((name, world))
        })
        .collect()
}

fn yaml_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("{} can't be read", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    Ok(files)
}

fn find(own: &Path, world: &Path) -> Result<PathBuf> {
    let by_name = own.join(format!("{}.yaml", world.display()));
    if by_name.is_file() {
        return Ok(by_name);
    }
    if world.is_file() {
        return Ok(world.to_owned());
    }
    let mut names: Vec<String> = yaml_files(own)?
        .iter()
        .filter_map(|file| Some(file.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    bail!("there is no world and no file {}; worlds are {}", world.display(), names.join(", "))
}
