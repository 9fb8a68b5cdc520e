//! Where events come from: signals and watches, in one wait.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use host::cgroup::{Cgroup, CgroupId, CgroupPath, CgroupRoot, ControlFile};
use host::roots::Roots;
use host::watch::{FileEvent, FileWatch, PressureWatch, TreeEvent, TreeWatch, Write, Writer, WriterWatch};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tiering::Ratio;

use crate::kubernetes::assignment::Assignment;
use crate::kubernetes::mailbox;

/// Everything that can happen to the agent, but for the passing of time.
#[derive(Debug)]
pub(super) enum Event {
    /// Cgroups came or went, in this order.
    TreeChanged(Vec<TreeEvent>),
    /// A file of ours may have been written, by the named writer where the kernel told.
    Written {
        /// The cgroup; `None` where events were lost: look at all.
        cgroup: Option<CgroupId>,
        /// The file.
        file: ControlFile,
        /// Who wrote.
        writer: Option<Writer>,
    },
    /// Tasks of a cgroup stalled for longer than its policy aims at.
    Stalled(CgroupId),
    /// The configuration file changed, or SIGHUP came.
    ConfigTouched,
    /// The cluster assigned pods to this node, or took some away.
    Assigned(Arc<Assignment>),
    /// SIGTERM or SIGINT came.
    Stop(&'static str),
}

/// Changes of the tree within this time are one event.
const TOGETHER: Duration = Duration::from_millis(50);

type Key = (CgroupId, ControlFile);

/// Who tells of writes to our files: with names where that is permitted.
enum Writes {
    Named(WriterWatch<Key>),
    Unnamed(FileWatch<Key>),
}

pub(super) struct Sources {
    signals: Vec<(i32, UnixStream)>,
    tree: TreeWatch,
    /// When the tree's events were last read.
    tree_read: Instant,
    writes: Writes,
    stalls: PressureWatch<CgroupId>,
    config: Option<(FileWatch<()>, PathBuf)>,
    assignments: Option<mailbox::Receiver>,
}

impl Sources {
    pub(super) fn new(
        roots: &Roots,
        root: &CgroupRoot,
        config: Option<&Path>,
        assignments: Option<mailbox::Receiver>,
        writes: bool,
    ) -> host::Result<Self> {
        let failed = |source| host::Error::io(Path::new("signals"), "catch", source);
        let mut signals = Vec::new();
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            let (read, write) = UnixStream::pair().map_err(failed)?;
            read.set_nonblocking(true).map_err(failed)?;
            signal_hook::low_level::pipe::register(signal, write).map_err(failed)?;
            signals.push((signal, read));
        }
        let writes = match writes.then(|| WriterWatch::new(&roots.proc)) {
            Some(Ok(watch)) => Writes::Named(watch),
            Some(Err(error)) => {
                tracing::warn!(%error, "writers of our files will be noticed but not named");
                Writes::Unnamed(FileWatch::new()?)
            }
            // Nothing is written, so nothing of ours can be changed.
            None => Writes::Unnamed(FileWatch::new()?),
        };
        let config = match config {
            None => None,
            Some(path) => {
                let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let mut watch = FileWatch::new()?;
                watch.add_directory((), directory.unwrap_or(Path::new(".")))?;
                Some((watch, path.to_owned()))
            }
        };
        let tree = TreeWatch::new(root, CgroupPath::root())?;
        Ok(Self {
            signals,
            tree,
            tree_read: Instant::now(),
            writes,
            stalls: PressureWatch::default(),
            config,
            assignments,
        })
    }

    /// Watches a file of ours.
    pub(super) fn watch(&mut self, cgroup: &Cgroup, file: ControlFile) -> host::Result<()> {
        let key = (cgroup.id(), file);
        match &mut self.writes {
            Writes::Named(watch) => watch.add(key, cgroup, file),
            Writes::Unnamed(watch) => watch.add_control_file(key, cgroup, file),
        }
    }

    /// Watches it no longer.
    pub(super) fn unwatch(&mut self, cgroup: CgroupId, file: ControlFile) {
        match &mut self.writes {
            Writes::Named(watch) => watch.remove(&(cgroup, file)),
            Writes::Unnamed(watch) => watch.remove(&(cgroup, file)),
        }
    }

    /// Tells when tasks of a cgroup stalled for this share of a window.
    pub(super) fn watch_stalls(
        &mut self,
        cgroup: &Cgroup,
        share: Ratio,
        window: Duration,
    ) -> host::Result<()> {
        let stalled = window.mul_f64(f64::from(share.ppm()) / 1e6);
        self.stalls.add(cgroup.id(), cgroup, stalled, window)
    }

    /// Tells of them no longer.
    pub(super) fn unwatch_stalls(&mut self, cgroup: CgroupId) {
        self.stalls.remove(&cgroup);
    }

    /// How many cgroups' changes can't be seen.
    pub(super) fn unwatched(&self) -> usize {
        self.tree.unwatched()
    }

    /// Waits until something happens or the time is over. What happens to the tree is taken together for a while: who makes
    /// and removes cgroups without end does not get us to do nothing else.
    pub(super) fn wait(&mut self, at_most: Duration) -> host::Result<Vec<Event>> {
        let resting = TOGETHER.saturating_sub(self.tree_read.elapsed());
        let with_tree = resting.is_zero();
        let at_most = if with_tree { at_most } else { at_most.min(resting) };
        let mut fds: Vec<_> = self.signals.iter().map(|(_, stream)| stream.as_fd()).collect();
        fds.extend(with_tree.then(|| self.tree.as_fd()));
        fds.push(match &self.writes {
            Writes::Named(watch) => watch.as_fd(),
            Writes::Unnamed(watch) => watch.as_fd(),
        });
        fds.extend(self.config.as_ref().map(|(watch, _)| watch.as_fd()));
        fds.extend(self.assignments.as_ref().map(AsFd::as_fd));
        let (happened, stalled) = host::watch::wait(&fds, &mut self.stalls, at_most)?;
        if !happened {
            return Ok(Vec::new());
        }
        let mut events = self.signal_events();
        events.extend(stalled.into_iter().map(Event::Stalled));
        if with_tree {
            let changes = self.tree.read()?;
            if !changes.is_empty() {
                self.tree_read = Instant::now();
                events.push(Event::TreeChanged(changes));
            }
        }
        events.extend(self.writes()?);
        if let Some((watch, path)) = &mut self.config {
            // A volume of Kubernetes replaces the directory of its files under another name.
            let ours = |name: Option<&std::ffi::OsStr>| {
                name.is_none() || name == path.file_name() || name == Some(std::ffi::OsStr::new("..data"))
            };
            let touched = watch.read()?.iter().any(|event| match event {
                FileEvent::Written { name, .. } => ours(name.as_deref()),
                FileEvent::Rescan => true,
            });
            if touched {
                events.push(Event::ConfigTouched);
            }
        }
        // After the tree's events: a pod's cgroup is known by then.
        events.extend(self.assignments.as_mut().and_then(mailbox::Receiver::take).map(Event::Assigned));
        Ok(events)
    }

    /// Whether a new assignment waits, which is not to wait for long.
    pub(super) fn has_assignment(&self) -> bool {
        self.assignments.as_ref().is_some_and(mailbox::Receiver::is_waiting)
    }

    fn signal_events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for (signal, stream) in &mut self.signals {
            let mut bytes = [0; 64];
            if io::Read::read(stream, &mut bytes).is_ok_and(|read| read > 0) {
                events.push(match *signal {
                    SIGHUP => Event::ConfigTouched,
                    SIGTERM => Event::Stop("SIGTERM"),
                    _ => Event::Stop("SIGINT"),
                });
            }
        }
        events
    }

    /// Writes of others to our files, so far.
    pub(super) fn writes(&mut self) -> host::Result<Vec<Event>> {
        let mut events = Vec::new();
        let lost = || {
            [ControlFile::MemoryHigh, ControlFile::CpusetMems].map(|file| Event::Written {
                cgroup: None,
                file,
                writer: None,
            })
        };
        match &mut self.writes {
            Writes::Named(watch) => {
                for write in watch.read()? {
                    match write {
                        Write::By { writer, .. } if writer.is_self() => {}
                        Write::By { key: (cgroup, file), writer } => {
                            events.push(Event::Written { cgroup: Some(cgroup), file, writer: Some(writer) });
                        }
                        Write::Lost => events.extend(lost()),
                    }
                }
            }
            Writes::Unnamed(watch) => {
                for write in watch.read()? {
                    match write {
                        FileEvent::Written { key: (cgroup, file), .. } => {
                            events.push(Event::Written { cgroup: Some(cgroup), file, writer: None });
                        }
                        FileEvent::Rescan => events.extend(lost()),
                    }
                }
            }
        }
        Ok(events)
    }
}
