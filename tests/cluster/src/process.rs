//! Programs as child processes that never outlive this one.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The server's binary, as `cargo xtask kube` left it, else in `KUBEBUILDER_ASSETS`.
///
/// # Errors
/// When it is in neither place: the message says what to run.
pub fn server_binary(name: &str) -> Result<PathBuf> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    find(name, [Some(cache().join("kube")), assets])
}

/// helm, kubectl or promtool, as `cargo xtask kube` left it.
///
/// # Errors
/// When it is not there: the message says what to run.
pub fn tool(name: &str) -> Result<PathBuf> {
    find(name, [Some(cache().join("tools")), None])
}

fn find(name: &str, places: [Option<PathBuf>; 2]) -> Result<PathBuf> {
    let places: Vec<_> = places.into_iter().flatten().map(|dir| dir.join(name)).collect();
    match places.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => bail!("there is no {}: run `cargo xtask kube`", places[0].display()),
    }
}

/// `target`, or `THERMOCLINE_KUBE_CACHE`, as in `cargo xtask kube`.
fn cache() -> PathBuf {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("THERMOCLINE_KUBE_CACHE").map_or_else(|| checkout.join("target"), PathBuf::from)
}

/// A running program. Killed when dropped, and by the kernel when this process ends in whatever way.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts the program in the directory of `log`, which what it prints is appended to.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // Some servers leave files where they are started.
        command.current_dir(log.parent().context("a log has a directory")?);
        let child = spawn(command).with_context(|| format!("cannot start {name} (setpriv)"))?;
        Ok(Self { name, child, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Kills it and waits until it is gone. Nothing is given time to be put in order.
    pub fn kill(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The last lines of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        format!("the last lines of {}:\n{}", self.name, lines[lines.len().saturating_sub(20)..].join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.last_words());
        }
    }
}

/// Spawns from a thread that lives as long as the process: the kernel sends a parent's death signal when the spawning
/// *thread* ends, and a test's thread may end before a server that other tests use, too.
fn spawn(command: Command) -> io::Result<Child> {
    type Job = (Command, SyncSender<io::Result<Child>>);
    static SPAWNER: LazyLock<Sender<Job>> = LazyLock::new(|| {
        let (sender, jobs) = channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in jobs {
                // The asking thread waits for it.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let gone = || io::Error::other("the spawning thread panicked");
    let (answer, answered) = sync_channel(1);
    SPAWNER.send((command, answer)).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

/// A loopback port that nobody listens on, below the range that the kernel takes outgoing connections' ports from: so
/// it stays free while a server that had it is down.
///
/// # Errors
/// When all are taken.
pub fn free_port() -> Result<u16> {
    const FIRST: u16 = 10_000;
    const COUNT: u64 = 20_000;
    for attempt in 0..100_u32 {
        let offset = RandomState::new().hash_one(attempt) % COUNT;
        let port = FIRST + u16::try_from(offset)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no loopback port from {FIRST} to {} is free", u64::from(FIRST) + COUNT)
}

/// 128 random bits in hexadecimal.
pub(crate) fn random_token() -> Result<String> {
    let mut bytes = [0; 16];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, content: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, content.as_bytes()).with_context(|| path.display().to_string())?;
    Ok(())
}
