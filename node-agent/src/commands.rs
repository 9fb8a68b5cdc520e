//! What each command does.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::CommandFactory as _;
use host::cgroup::{CgroupRoot, controller_absence, enter_hosts_namespace};
use host::probe::Tries;
use host::roots::Roots;
use tiering::EngineChoice;

use crate::agent::{Agent, Cluster, Grain, Start};
use crate::args::{
    Args, Command, DEFAULT_CONFIG, HostArgs, NodeArgs, OutputFormat, ProbeArgs, RestoreArgs, RunArgs,
    SeccompArgs,
};
use crate::background::Background;
use crate::check;
use crate::config::Config;
use crate::engine::{Engine, Ground};
use crate::exit::{Cause, ExitCode, Failure, printed};
use crate::history::History;
use crate::http::Server;
use crate::kubernetes::assignment::Assignment;
use crate::kubernetes::client::{self, Client, ClientError};
use crate::kubernetes::last_known::LastKnown;
use crate::kubernetes::mailbox;
use crate::probe_output::probe_table;
use crate::promoter::{Chosen, Damon, Promoter};
use crate::record::Recorder;
use crate::report;
use crate::restore::{Outcome, Restored, restore_all};
use crate::seccomp;
use crate::snapshot::Published;
use crate::socket::Socket;
use crate::state::State;
use crate::tier_map::{in_words, tier_map};
use crate::watching;

/// Width of a picture that goes to no terminal.
pub(crate) const DEFAULT_WIDTH: usize = 120;

/// How a cgroup2 mount is opened.
pub type OpenRoot = fn(&Path) -> host::Result<CgroupRoot>;

/// Does what the command line says. `open` is [`CgroupRoot::open`]; for trees of plain files another.
pub fn dispatch(args: &Args, open: OpenRoot) -> Result<(), Failure> {
    if matches!(args.command, Command::Run(_) | Command::Observe(_) | Command::Restore(_) | Command::Probe(_))
    {
        // Before there are other threads, which would stay. Where it may not, the probe says what that costs.
        let _ = enter_hosts_namespace(&args.host.proc_root);
    }
    match &args.command {
        Command::Run(run_args) => run(args, run_args, open),
        Command::Observe(observe_args) => watching::observe(args, observe_args, open),
        Command::Status(status_args) => watching::status(status_args),
        Command::Explain(explain_args) => watching::explain(explain_args),
        Command::Report(report_args) => report::run(report_args),
        Command::Restore(restore_args) => restore(args, restore_args, open),
        Command::Check(check_args) => {
            check::check(check_args, &cgroup_mount(&args.host, open, CgroupRoot::find), roots(&args.host))
        }
        Command::Probe(probe_args) => probe(&args.host, probe_args, open),
        Command::Seccomp(seccomp_args) => seccomp(seccomp_args),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "thermocline-agent", &mut text);
            printed(io::stdout().lock().write_all(&text))
        }
        Command::Man => {
            let mut text = Vec::new();
            let page = clap_mangen::Man::new(Args::command()).section("8").render(&mut text);
            printed(page.and_then(|()| io::stdout().lock().write_all(&text)))
        }
    }
}

fn run(args: &Args, run_args: &RunArgs, open: OpenRoot) -> Result<(), Failure> {
    let path = match &run_args.config {
        None if run_args.kubernetes => None,
        None => Some(Path::new(DEFAULT_CONFIG)),
        Some(path) => Some(path.as_path()),
    };
    let config = match path {
        Some(path) if !run_args.kubernetes => Config::load(path)?,
        path => Config::load_node_settings(path)?,
    };
    init_telemetry(args)?;
    for warning in &config.warnings {
        tracing::warn!("{}: {}", path.unwrap_or(Path::new("")).display(), warning.message);
    }
    let root = prepare(&args.host, open)?;
    let roots = roots(&args.host);
    let state = State::open(&config.state_file, &boot_id(&roots.proc)?)?;
    let published = Published::default();
    let failed = |error: io::Error| {
        let message = format!(
            "cannot start the network's thread: {error}; look at the limit on tasks of the agent's unit"
        );
        Failure::new(ExitCode::Unexpected, message)
    };
    let background = run_args.kubernetes.then(Background::start).transpose().map_err(failed)?;
    let serve = |listen| Server::start(listen, published.clone(), config.interval);
    let server = config.listen.map(serve).transpose()?;
    if let Some(server) = &server {
        tracing::info!(address = %server.address(), "serving /metrics, /healthz, /readyz and /debug/state; `thermocline-agent status` shows this agent");
    }
    let cluster = match &background {
        Some(background) if run_args.kubernetes => {
            Some(join_cluster(&run_args.node, &config.state_file, background, &published)?)
        }
        _ => None,
    };
    let history = Arc::new(Mutex::new(History::default()));
    let socket = Socket::open(&config.state_file, published.clone(), Arc::clone(&history)).inspect_err(|error| {
        tracing::warn!(%error, "no socket beside the state file: `thermocline-agent status` and `explain` can't ask this agent");
    });
    let recorder = Recorder::start(&config.state_file, published.clone()).inspect_err(|error| {
        tracing::warn!(%error, "no record is kept for `thermocline-agent report`");
    });
    let agent = Agent::start(Start {
        roots,
        root,
        config,
        config_path: path.map(Path::to_owned),
        cluster,
        command: "run",
        grain: Grain::Uppermost,
        state: Some(state),
        published,
        after_round: Box::new(move |published| {
            history.lock().unwrap_or_else(PoisonError::into_inner).note(&published.latest());
            true
        }),
    })?;
    let ended = agent.run();
    drop((socket, recorder));
    ended
}

/// Starts the client of this node; the loop is told what it hears.
fn join_cluster(
    args: &NodeArgs,
    state_file: &Path,
    background: &Background,
    published: &Published,
) -> Result<Cluster, Failure> {
    let usage = |error: ClientError| Failure::new(ExitCode::Usage, error.to_string());
    let Some(node) = args.node_name.clone().filter(|name| !name.is_empty()) else {
        let message = "--kubernetes needs the name of this node: --node-name NAME, or NODE_NAME in the environment (in a pod, \
                       from the field spec.nodeName)";
        return Err(Failure::new(ExitCode::Usage, message));
    };
    let config = background.handle().block_on(client::config(args.kubeconfig.as_deref())).map_err(usage)?;
    let last_known = LastKnown::beside(state_file, &node);
    let object = last_known.load();
    let known = object.map(|object| Assignment::read(&object, &Assignment::default()));
    if let Some(known) = &known {
        let path = last_known.path().display();
        tracing::info!(%path, generation = known.generation, pods = known.pods.len(), "beginning with what was last assigned");
    }
    let known = Arc::new(known.unwrap_or_default());
    let (sender, assignments) =
        mailbox::mailbox().map_err(|error| Failure::from(anyhow::Error::from(error)))?;
    let settings = client::Settings { config, node, between_writes: args.status_interval.0 };
    // The client starts a task of its own when it is made.
    let entered = background.handle().enter();
    let client =
        Client::new(settings, last_known, Arc::clone(&known), sender, published.clone()).map_err(usage)?;
    drop(entered);
    background.handle().spawn(client.run());
    Ok(Cluster { last_known: known, assignments })
}

/// See <https://no-color.org>.
pub(crate) fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

pub(crate) fn terminal_size() -> (usize, usize) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    match rustix::termios::tcgetwinsize(io::stdout()) {
        // A serial console does not know its size.
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (number("COLUMNS").unwrap_or(100), number("LINES").unwrap_or(30)),
    }
}

fn restore(args: &Args, restore_args: &RestoreArgs, open: OpenRoot) -> Result<(), Failure> {
    be_root()?;
    put_back(&args.host, restore_args, open)
}

fn put_back(host_args: &HostArgs, restore_args: &RestoreArgs, open: OpenRoot) -> Result<(), Failure> {
    let roots = roots(host_args);
    let mut state = State::open(&restore_args.state, &boot_id(&roots.proc)?)?;
    let mut out = io::stdout().lock();
    let mut tell = |line: String| printed(writeln!(out, "{line}"));
    // That is so on any host, whatever it lacks.
    if state.is_empty() {
        return tell("nothing to put back".to_owned());
    }
    let root = prepare(host_args, open)?;
    let report = restore_all(&roots, &root, &mut state)?;
    let mut failed = 0;
    for Restored { what, original, outcome } in &report {
        let original = if original.is_empty() { "(inherited)" } else { original.as_str() };
        tell(match outcome {
            Outcome::PutBack => format!("{what}: {original} put back"),
            Outcome::AlreadyBack => format!("{what}: {original} stood already"),
            Outcome::Foreign(value) => format!("{what}: left at {value}, which another writer set"),
            Outcome::Gone => format!("{what}: gone with its cgroup"),
            Outcome::Failed(error) => {
                failed += 1;
                format!("{what}: {original} could not be put back: {error}")
            }
        })?;
    }
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::new(
        ExitCode::RestoreIncomplete,
        format!("{failed} of {} values are not back", report.len()),
    ))
}

fn seccomp(seccomp_args: &SeccompArgs) -> Result<(), Failure> {
    match &seccomp_args.install {
        Some(path) => Ok(seccomp::install(path)?),
        None => printed(io::stdout().lock().write_all(seccomp::PROFILE.as_bytes())),
    }
}

fn probe(host_args: &HostArgs, probe_args: &ProbeArgs, open: OpenRoot) -> Result<(), Failure> {
    let roots = roots(host_args);
    let report = host::probe::run(&roots, &cgroup_mount(host_args, open, CgroupRoot::find), Tries::All);
    let tiers = host::tiers::read_tier_facts(&roots.sys)
        .map_err(|error| error.to_string())
        .and_then(|facts| tier_map(&facts, &[]).map_err(|error| error.to_string()));
    let words = tiers.as_ref().map_or_else(Clone::clone, in_words);
    let (engine, promoter) = match tiers {
        Err(error) => (Err(error), Chosen::default()),
        Ok(tiers) if !tiers.has_lower_tier() => {
            (Err("no memory node is slower than the others".to_owned()), Chosen::default())
        }
        Ok(tiers) => {
            let ground = Ground::new(roots, tiers);
            match Engine::choose(EngineChoice::Auto, &report, &ground) {
                Ok(engine) => {
                    let promoter =
                        Promoter::choose(Some(&engine), &report, &ground.tiers, true, Damon::NotAsked);
                    (Ok(engine.name()), promoter)
                }
                Err(missing) => (Err(missing), Chosen::default()),
            }
        }
    };
    let mut out = io::stdout().lock();
    let written = match probe_args.output {
        OutputFormat::Table => {
            let terminal = out.is_terminal();
            let width = if terminal { terminal_size().0 } else { DEFAULT_WIDTH };
            let engine = engine.as_ref().map_err(String::as_str).copied();
            let colour = terminal && wants_colour();
            write!(out, "{}", probe_table(&report, &words, engine, &promoter, width, colour))
        }
        OutputFormat::Json => {
            let engine = engine.map_or_else(|missing| format!("none: {missing}"), str::to_owned);
            let value = serde_json::json!({ "rows": report.rows, "tiers": words, "engine": engine, "promoter": promoter.promoter, "promotion": promoter.words });
            serde_json::to_writer_pretty(&mut out, &value)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(out))
        }
    };
    printed(written)
}

fn be_root() -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::new(ExitCode::NotPermitted, "this user is not root"))
}

/// The hierarchy where the command line says, or where this host has it: beside cgroup v1 that is elsewhere.
fn find_root(host_args: &HostArgs, open: OpenRoot, find: OpenRoot) -> host::Result<CgroupRoot> {
    open(&host_args.cgroup_root).or_else(|error| find(&host_args.proc_root).map_err(|_| error))
}

/// Where that is, for what goes on without it.
fn cgroup_mount(host_args: &HostArgs, open: OpenRoot, find: OpenRoot) -> PathBuf {
    find_root(host_args, open, find)
        .map_or_else(|_| host_args.cgroup_root.clone(), |root| root.mount().to_owned())
}

/// What `run`, `observe` and `restore` need of the host, checked in an order that names the first thing to mend.
pub(crate) fn prepare(host_args: &HostArgs, open: OpenRoot) -> Result<CgroupRoot, Failure> {
    be_root()?;
    hierarchy(host_args, open)
}

fn hierarchy(host_args: &HostArgs, open: OpenRoot) -> Result<CgroupRoot, Failure> {
    let root = find_root(host_args, open, CgroupRoot::find)
        .map_err(|error| Failure::new(ExitCode::NoCgroup2, error.to_string()))?;
    let controllers = root
        .cgroup(&host::cgroup::CgroupPath::root())
        .and_then(|top| top.read_cgroup_controllers())
        .map_err(|error| Failure::new(ExitCode::NoCgroup2, error.to_string()))?;
    if !controllers.unwrap_or_default().contains("memory") {
        let absence = controller_absence(&host_args.proc_root, "memory");
        let message =
            format!("{} has no memory controller: {}", root.mount().display(), absence.finding("memory"));
        return Err(Failure::new(Cause::NoMemoryController(absence), message));
    }
    Ok(root)
}

pub(crate) fn roots(host_args: &HostArgs) -> Roots {
    Roots::new(host_args.proc_root.clone(), host_args.sysfs_root.clone(), host_args.debugfs_root.clone())
}

fn boot_id(proc: &Path) -> Result<String, Failure> {
    host::proc::read_boot_id(proc).map_err(|error| Failure::new(ExitCode::Unexpected, error.to_string()))
}

pub(crate) fn init_telemetry(args: &Args) -> Result<(), Failure> {
    telemetry::init(args.log.log_format, &args.log.log_level)
        .map_err(|error| Failure::new(ExitCode::Usage, error.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use host::Error;

    use std::time::Duration;

    use super::*;

    fn nowhere(mount: &Path) -> host::Result<CgroupRoot> {
        Err(Error::NotCgroup2 { path: mount.to_owned() })
    }

    #[test]
    fn where_nothing_stands_there_is_nothing_to_put_back_on_any_host() {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path().join("proc");
        std::fs::create_dir_all(proc.join("sys/kernel/random")).unwrap();
        std::fs::write(proc.join("sys/kernel/random/boot_id"), "this\n").unwrap();
        let state = dir.path().join("run/state");
        let line =
            ["thermocline-agent".into(), "restore".into(), "--proc-root".into(), proc.into_os_string()];
        let args = Args::try_parse_from(line).unwrap();
        put_back(&args.host, &RestoreArgs { state }, nowhere).unwrap();
    }

    /// Each cause of a command's end, made, and what its `to do` says.
    #[test]
    fn the_remedy_is_right_for_the_cause() {
        fn opened(mount: &Path) -> host::Result<CgroupRoot> {
            CgroupRoot::open_unchecked(mount)
        }
        fn check<T: std::fmt::Debug>(outcome: Result<T, Failure>, code: ExitCode, to_do: &str) {
            let failure = outcome.unwrap_err();
            assert_eq!(failure.code(), code, "{failure}");
            let remedy = failure.cause.remedy();
            assert!(remedy.contains(to_do), "{failure}");
            assert_eq!(remedy.is_empty(), to_do.is_empty(), "{failure}");
        }
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let mut args = Args::try_parse_from(["thermocline-agent", "probe"]).unwrap();
        args.host.cgroup_root = dir.path().join("cgroup");
        args.host.proc_root = dir.path().join("proc");
        write("proc/self/mountinfo", "");
        write("cgroup/cgroup.controllers", "cpuset\n");
        check(hierarchy(&args.host, nowhere), ExitCode::NoCgroup2, "mount -t cgroup2");
        let no_memory = ExitCode::NoMemoryController;
        write("proc/cmdline", "cgroup_disable=memory\n");
        check(hierarchy(&args.host, opened), no_memory, "boot without cgroup_disable=memory");
        write("proc/cmdline", "quiet\n");
        write("proc/self/mountinfo", "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
        check(hierarchy(&args.host, opened), no_memory, "systemd.unified_cgroup_hierarchy=1");

        let state = dir.path().join("run/state");
        let held = State::open(&state, "boot").unwrap();
        let again = || State::open(&state, "boot").map_err(Failure::from);
        check(again(), ExitCode::AlreadyRunning, "stop it first");
        drop(held);
        write("run/state", "garbage");
        check(again(), ExitCode::StateNotWritable, "");
        let below_a_file = State::open(&dir.path().join("proc/cmdline/state"), "boot");
        check(below_a_file.map_err(Failure::from), ExitCode::StateNotWritable, "`stateFile`");

        let missing = Config::load(&dir.path().join("agent.yaml")).map_err(Failure::from);
        assert!(!format!("{missing:?}").contains("--config"), "`check` has no --config");
        check(missing, ExitCode::Usage, "");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::start(taken.local_addr().unwrap(), Published::default(), Duration::from_secs(1));
        check(server.map(drop).map_err(Failure::from), ExitCode::Usage, "");
    }

    #[test]
    fn the_hierarchy_is_where_the_command_line_says_or_where_it_is_found() {
        fn opened(mount: &Path) -> host::Result<CgroupRoot> {
            CgroupRoot::open_unchecked(mount)
        }
        let said = tempfile::tempdir().unwrap();
        let found = tempfile::tempdir().unwrap();
        let mut args = Args::try_parse_from(["thermocline-agent", "probe"]).unwrap();
        args.host.cgroup_root = said.path().to_owned();
        args.host.proc_root = found.path().to_owned();
        assert_eq!(cgroup_mount(&args.host, opened, nowhere), said.path());
        assert_eq!(cgroup_mount(&args.host, nowhere, opened), found.path());
        assert_eq!(cgroup_mount(&args.host, nowhere, nowhere), said.path());
    }
}
