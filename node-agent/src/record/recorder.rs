//! Who writes the record: a thread of its own, so that no round waits for a disk.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Header, RecordError, Sample, VERSION, parse, path_beside};
use crate::snapshot::Published;

/// From the start to the first sample.
const FIRST: Duration = Duration::from_mins(1);

/// Between two samples.
const EVERY: Duration = Duration::from_mins(5);

/// Samples that are kept: a day of them.
const KEPT: usize = 24 * 12;

/// Samples that come to them before the file is made anew.
const SLACK: usize = 24;

/// The file is never greater. Where lines are long, less than a day fits.
pub const MOST_BYTES: u64 = 6 << 20;

/// Keeps the record while it lives; the last sample is taken when it goes.
#[derive(Debug)]
pub struct Recorder {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Begins to keep the record beside the state file. The caller holds the state file's lock, so nobody else writes it.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn start(state_file: &Path, published: Published) -> io::Result<Self> {
        let path = path_beside(state_file);
        let (stop, stopped) = channel::<()>();
        let thread = thread::Builder::new().name("record".to_owned()).spawn(move || {
            let mut file = match RecordFile::open(&path) {
                Ok(file) => file,
                Err(error) => {
                    tracing::warn!(
                        "no record is kept, and `thermocline-agent report` has nothing to tell: {error}"
                    );
                    return;
                }
            };
            let mut pause = FIRST;
            let mut told = false;
            loop {
                let goes_on = stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout);
                pause = EVERY;
                let sample = published.read(|snapshot| (snapshot.rounds > 0).then(|| Sample::of(snapshot)));
                if let Some(sample) = sample {
                    let written = file.add(&sample);
                    // A disk that is full stays so for a while.
                    if let Err(error) = &written
                        && !told
                    {
                        tracing::warn!("the record lacks a sample: {error}");
                    }
                    told = written.is_err();
                }
                if !goes_on {
                    return;
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        drop(self.stop.take());
        // It panicked, and said so.
        self.thread.take().map(JoinHandle::join);
    }
}

/// The file, and how long each of its lines is.
#[derive(Debug)]
struct RecordFile {
    path: PathBuf,
    file: File,
    header: u64,
    lines: VecDeque<u64>,
}

impl RecordFile {
    /// Opens the record to go on with it. One that is not understood is kept aside, and another begun.
    fn open(path: &Path) -> Result<Self, RecordError> {
        let failed = |error| RecordError::Io { path: path.to_owned(), error };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let text = String::from_utf8_lossy(&bytes);
        if let Err(error) = parse(path, &text) {
            let aside = path.with_file_name("record.unreadable");
            fs::rename(path, &aside).map_err(failed)?;
            tracing::warn!(aside = %aside.display(), "the record is begun anew, the old one is kept aside: {error}");
            return Self::begin(path).map_err(failed);
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut lines: VecDeque<u64> =
            bytes[..whole].split_inclusive(|byte| *byte == b'\n').map(|line| line.len() as u64).collect();
        let Some(header) = lines.pop_front() else { return Self::begin(path).map_err(failed) };
        let open = || {
            let mut file = options().open(path)?;
            // What a crash cut off would spoil the next line.
            file.set_len(whole as u64)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        Ok(Self { path: path.to_owned(), file: open().map_err(failed)?, header, lines })
    }

    fn begin(path: &Path) -> io::Result<Self> {
        let mut file = options().truncate(true).open(path)?;
        let header = line(&Header { version: VERSION })?;
        file.write_all(&header)?;
        Ok(Self { path: path.to_owned(), file, header: header.len() as u64, lines: VecDeque::new() })
    }

    fn len(&self) -> u64 {
        self.header + self.lines.iter().sum::<u64>()
    }

    fn add(&mut self, sample: &Sample) -> Result<(), RecordError> {
        let failed = |path: &Path, error| RecordError::Io { path: path.to_owned(), error };
        let line = line(sample).map_err(|error| failed(&self.path, error))?;
        let length = line.len() as u64;
        if self.lines.len() >= KEPT + SLACK || self.len() + length > MOST_BYTES {
            self.forget_oldest(length).map_err(|error| failed(&self.path, error))?;
        }
        let before = self.len();
        // In one write: who reads meanwhile sees all of it or knows that the line is not ended.
        if let Err(error) = self.file.write_all(&line) {
            self.file.set_len(before).map_err(|error| failed(&self.path, error))?;
            self.file.seek(SeekFrom::Start(before)).map_err(|error| failed(&self.path, error))?;
            return Err(failed(&self.path, error));
        }
        self.lines.push_back(length);
        Ok(())
    }

    /// Copies the newest samples into a new file that takes the place of this one.
    fn forget_oldest(&mut self, coming: u64) -> io::Result<()> {
        let mut skipped = self.header;
        let mut lines = self.lines.clone();
        let mut bytes: u64 = lines.iter().sum();
        // A tenth less than fits, so that it is not done again at the next sample.
        while lines.len() >= KEPT || self.header + bytes + coming > MOST_BYTES / 10 * 9 {
            let Some(line) = lines.pop_front() else { break };
            bytes -= line;
            skipped += line;
        }
        let path = self.path.with_file_name("record.new");
        let mut old = File::open(&self.path)?;
        let mut new = options().truncate(true).open(&path)?;
        io::copy(&mut (&old).take(self.header), &mut new)?;
        old.seek(SeekFrom::Start(skipped))?;
        io::copy(&mut old.take(bytes), &mut new)?;
        fs::rename(&path, &self.path)?;
        (self.file, self.lines) = (new, lines);
        Ok(())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).write(true).mode(0o600);
    options
}

fn line(value: &impl serde::Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::record::{Held, read};

    fn sample(at: u64, names: usize) -> Sample {
        let cgroups = (0..names).map(|i| Held { name: format!("{i}{}", "x".repeat(180)), ..Held::default() });
        Sample { at, cgroups: cgroups.collect(), ..Sample::default() }
    }

    #[test]
    fn a_day_is_kept_over_restarts_and_what_is_older_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        let mut file = RecordFile::open(&path).unwrap();
        for at in 0..1000 {
            if at % 100 == 0 {
                file = RecordFile::open(&path).unwrap();
            }
            file.add(&sample(at, 2)).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), file.len());
        }
        let samples = read(&path).unwrap();
        assert!((KEPT..=KEPT + SLACK).contains(&samples.len()), "{}", samples.len());
        assert_eq!(samples.last().unwrap().at, 999);
        assert!(samples.windows(2).all(|two| two[1].at == two[0].at + 1));
    }

    #[test]
    fn the_file_is_never_greater_than_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        let mut file = RecordFile::open(&path).unwrap();
        for at in 0..400 {
            file.add(&sample(at, 64)).unwrap();
            assert!(fs::metadata(&path).unwrap().len() <= MOST_BYTES);
        }
        assert!(read(&path).unwrap().len() > 150);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_crash_cut_off_goes_and_what_is_not_understood_is_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        RecordFile::open(&path).unwrap().add(&sample(1, 1)).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], b"{\"at\":2,\"clu"].concat()).unwrap();
        RecordFile::open(&path).unwrap().add(&sample(3, 1)).unwrap();
        assert_eq!(read(&path).unwrap().iter().map(|sample| sample.at).collect::<Vec<_>>(), [1, 3]);

        for garbage in [&b"{\"version\":9}\n{}\n"[..], b"\xff\xfe\n", b"{\"version\":1}\nno sample\n"] {
            fs::write(&path, garbage).unwrap();
            RecordFile::open(&path).unwrap().add(&sample(4, 1)).unwrap();
            assert_eq!(read(&path).unwrap().len(), 1);
            assert_eq!(fs::read(dir.path().join("record.unreadable")).unwrap(), garbage);
        }
    }

    #[test]
    fn the_last_sample_is_taken_when_the_agent_ends() {
        let dir = tempfile::tempdir().unwrap();
        let published = Published::default();
        let recorder = Recorder::start(&dir.path().join("state"), published.clone()).unwrap();
        published.publish(fixture::full());
        drop(recorder);
        let samples = read(&dir.path().join("record")).unwrap();
        assert_eq!(samples, [Sample::of(&fixture::full())]);
    }
}
