//! What people look at: `observe`, `status`, `explain`.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use tiering::Policy;

use crate::agent::{Agent, Grain, Start};
use crate::args::{Args, ExplainArgs, ObserveArgs, OutputFormat, StatusArgs};
use crate::commands::{DEFAULT_WIDTH, OpenRoot, init_telemetry, prepare, roots, terminal_size, wants_colour};
use crate::config::Config;
use crate::exit::{Cause, ExitCode, Failure, printed};
use crate::explain;
use crate::live;
use crate::shown::Shown;
use crate::snapshot::{Published, Snapshot};
use crate::socket;
use crate::table::observe_table;
use crate::text::wrapped;

/// `observe --once` waits so many intervals for a cgroup that can't be read.
const PATIENCE: u32 = 10;

/// Between two questions to the running agent.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Shows what is cold: what the running agent sees, or without one what this process finds.
pub(crate) fn observe(args: &Args, observe_args: &ObserveArgs, open: OpenRoot) -> Result<(), Failure> {
    let after: Duration = observe_args.after.into();
    let interval: Duration = observe_args.interval.into();
    let config = Config {
        engine: observe_args.engine.into(),
        ..Config::observing(&observe_args.glob, after, interval)?
    };
    let state = &observe_args.agent.state;
    if let Some(text) = ask(state)? {
        notice(
            "an agent runs on this host: it is asked, since two would spoil each other's ages; its policies say what is cold",
        );
        let once = observe_args.once || observe_args.output == OutputFormat::Json;
        let wanted = move |path: &str| config.policy_for(path).is_some();
        return show_agent(state, &text, once, observe_args.output, wanted);
    }
    let is_live = observe_args.output == OutputFormat::Table && !observe_args.once && live::is_possible();
    // The log would be drawn into the picture.
    if !is_live || !io::stderr().is_terminal() {
        init_telemetry(args)?;
    }
    if is_live { observe_live(args, config, open) } else { observe_plain(args, observe_args, config, open) }
}

fn observe_plain(
    args: &Args,
    observe_args: &ObserveArgs,
    config: Config,
    open: OpenRoot,
) -> Result<(), Failure> {
    let (once, output, interval) = (observe_args.once, observe_args.output, config.interval);
    if output == OutputFormat::Table && io::stderr().is_terminal() {
        notice("reading ages clears accessed bits of pages; no cgroup file is written");
        let interval = observe_args.interval;
        notice(&format!("the first look begins to count ages; the picture follows in {interval}"));
    }
    let began = std::time::Instant::now();
    let start = start(args, config, open)?;
    let agent = Agent::start(Start {
        after_round: Box::new(move |published| {
            let snapshot = published.latest();
            if once && !looked_twice(&snapshot, began.elapsed() >= interval * PATIENCE) {
                return true;
            }
            print(&snapshot, output).is_ok() && !once
        }),
        ..start
    })?;
    agent.run()
}

/// An agent that observes runs on a thread of its own and ends with this process: it has nothing to put back.
fn observe_live(args: &Args, config: Config, open: OpenRoot) -> Result<(), Failure> {
    let (pictures, shown) = channel();
    let args = args.clone();
    let agent = thread::Builder::new().name("observe".to_owned()).spawn(move || {
        let start = start(&args, config, open)?;
        let agent = Agent::start(Start {
            after_round: Box::new(move |published| {
                Shown::of(&published.latest()).is_ok_and(|picture| pictures.send(picture).is_ok())
            }),
            ..start
        })?;
        agent.run()
    });
    let agent = agent.map_err(anyhow::Error::from)?;
    live::show(&shown, wants_colour()).map_err(anyhow::Error::from)?;
    // It ended before the person wished so, or goes on and is left.
    if agent.is_finished() { agent.join().unwrap_or(Ok(())) } else { Ok(()) }
}

fn start(args: &Args, config: Config, open: OpenRoot) -> Result<Start, Failure> {
    Ok(Start {
        roots: roots(&args.host),
        root: prepare(&args.host, open)?,
        config,
        config_path: None,
        cluster: None,
        command: "observe",
        grain: Grain::Processes,
        state: None,
        published: Published::default(),
        after_round: Box::new(|_| true),
    })
}

/// Shows what the running agent sees and does.
pub(crate) fn status(args: &StatusArgs) -> Result<(), Failure> {
    let text = ask(&args.agent.state)?.ok_or_else(|| nobody(&args.agent.state))?;
    show_agent(&args.agent.state, &text, args.once, args.output, |_| true)
}

/// Says what the running agent does with one cgroup.
pub(crate) fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let text = ask(&args.agent.state)?.ok_or_else(|| nobody(&args.agent.state))?;
    let shown = Shown::read(&text).map_err(anyhow::Error::from)?;
    let usage = |words| Failure::new(ExitCode::Usage, words);
    let cgroup = explain::find(&shown, &args.name).map_err(usage)?;
    let width = if io::stdout().is_terminal() { terminal_size().0 } else { DEFAULT_WIDTH };
    let lines = explain::explain(&shown, cgroup);
    let lines = lines.iter().flat_map(|line| wrapped(line, width));
    // A cgroup may be named so that the terminal would obey it.
    let text: String = lines.flat_map(|line| [line, "\n".to_owned()]).collect();
    let text: String =
        text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect();
    printed(io::stdout().lock().write_all(text.as_bytes()))
}

fn ask(state: &Path) -> Result<Option<String>, Failure> {
    socket::ask(state).map_err(|error| {
        let path = socket::path_beside(state);
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                Failure::new(Cause::NotPermitted, format!("{} is for root: {error}", path.display()))
            }
            _ => Failure::new(
                Cause::Told(ExitCode::Unexpected),
                format!("the agent does not answer on {}: {error}", path.display()),
            ),
        }
    })
}

fn nobody(state: &Path) -> Failure {
    let path = socket::path_beside(state);
    let message = format!(
        "no agent answers on {}: start one (systemctl start thermocline-agent), say with --state where its state file is, or \
         look yourself with `thermocline-agent observe`",
        path.display()
    );
    Failure::new(Cause::Told(ExitCode::Unexpected), message)
}

/// What the running agent sent, and on a terminal what it sends from then on.
fn show_agent(
    state: &Path,
    text: &str,
    once: bool,
    output: OutputFormat,
    wanted: impl Fn(&str) -> bool + Send + 'static,
) -> Result<(), Failure> {
    if output == OutputFormat::Json {
        let mut value: serde_json::Value = serde_json::from_str(text).map_err(anyhow::Error::from)?;
        if let Some(cgroups) = value.get_mut("cgroups").and_then(serde_json::Value::as_object_mut) {
            cgroups.retain(|path, _| wanted(path));
        }
        return printed(writeln!(io::stdout().lock(), "{value}"));
    }
    let read = move |text: &str| -> Result<Shown, Failure> {
        let mut shown = Shown::read(text).map_err(anyhow::Error::from)?;
        shown.keep(&wanted);
        Ok(shown)
    };
    let first = read(text)?;
    if once || !live::is_possible() {
        return printed(write_table(&first));
    }
    let (pictures, shown) = channel();
    let asked = state.to_owned();
    let picture = move || socket::ask(&asked).ok().flatten().and_then(|text| read(&text).ok());
    // It ends with this process.
    let asking =
        thread::Builder::new().name("ask".to_owned()).spawn(move || keep_asking(first, &pictures, picture));
    let asking = asking.map_err(anyhow::Error::from)?;
    live::show(&shown, wants_colour()).map_err(anyhow::Error::from)?;
    if asking.is_finished() {
        notice("the agent ended");
    }
    Ok(())
}

/// Sends pictures until there are none, or nobody takes them.
fn keep_asking(first: Shown, pictures: &Sender<Shown>, mut picture: impl FnMut() -> Option<Shown>) {
    let mut next = Some(first);
    while let Some(shown) = next {
        if pictures.send(shown).is_err() {
            return;
        }
        thread::sleep(ASK_EVERY);
        next = picture();
    }
}

/// Whether each cgroup of the picture was looked at twice, since ages need two looks. One that can't be read is waited for until
/// `patience_is_over`.
fn looked_twice(snapshot: &Snapshot, patience_is_over: bool) -> bool {
    snapshot.rounds >= 2 && (patience_is_over || snapshot.cgroups.values().all(|cgroup| cgroup.looks >= 2))
}

fn print(snapshot: &Snapshot, output: OutputFormat) -> io::Result<()> {
    match output {
        OutputFormat::Json => {
            let mut out = io::stdout().lock();
            serde_json::to_writer(&mut out, snapshot)?;
            writeln!(out)?;
            out.flush()
        }
        OutputFormat::Table => write_table(&Shown::of(snapshot)?),
    }
}

fn write_table(shown: &Shown) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let (width, colour) =
        if out.is_terminal() { (terminal_size().0, wants_colour()) } else { (DEFAULT_WIDTH, false) };
    out.write_all(observe_table(shown, width, colour).as_bytes())?;
    out.flush()
}

fn notice(words: &str) {
    // Nobody can be told that standard error is gone.
    let _ = writeln!(io::stderr(), "note: {words}");
}

/// The policy of `observe`: what the default policy would do.
impl Config {
    fn observing(glob: &str, after: Duration, interval: Duration) -> Result<Self, Failure> {
        let policy = Policy {
            mode: tiering::Mode::Observe,
            demote: tiering::DemotePolicy {
                after,
                after_max: after * tiering::DemotePolicy::AFTER_MAX_FACTOR,
                ..Policy::default().demote
            },
            ..Policy::default()
        };
        let policy = policy.validated().map_err(|error| Failure::new(ExitCode::Usage, error.to_string()))?;
        Self::of_one_policy("observe", glob, policy, interval)
            .map_err(|error| Failure::new(ExitCode::Usage, error))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn once_is_two_looks_at_each_cgroup_however_long_they_take() {
        let with = |rounds, looks: &[u64]| {
            let cgroup = |looks: &u64| crate::snapshot::CgroupView { looks: *looks, ..Default::default() };
            let cgroups = looks.iter().map(|looks| (looks.to_string(), Arc::new(cgroup(looks)))).collect();
            Snapshot { rounds, cgroups, ..Snapshot::default() }
        };
        assert!(!looked_twice(&with(1, &[1]), false));
        assert!(!looked_twice(&with(2, &[2, 1]), false));
        assert!(looked_twice(&with(2, &[2, 3]), false));
        assert!(looked_twice(&with(9, &[9, 0]), true));
        assert!(!looked_twice(&with(1, &[]), false) && looked_twice(&with(2, &[]), false));
    }
}
