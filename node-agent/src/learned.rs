//! What was learned of cgroups, in a file beside the state file: the next agent need not make the same errors again, nor a replica.
//!
//! Nothing depends on it. Where a file can't be understood, is of another version or too large, that is said, and learning begins anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tiering::Instant;
use tiering::law::Learned;

/// More lessons than this are not kept: those of the shortest watch go.
const MOST: usize = 4096;

/// A file larger than this is none of ours.
const MOST_BYTES: u64 = 16 << 20;

/// Changes with the meaning of the file.
const VERSION: u32 = 1;

/// Letters and digits that Kubernetes makes names of.
const SAFE: &str = "bcdfghjklmnpqrstvwxz2456789";

/// See the module.
#[derive(Debug, Default)]
pub struct LearnedFile {
    path: Option<PathBuf>,
    lessons: BTreeMap<String, Learned>,
    /// When it was written.
    pub kept: Instant,
}

#[derive(Deserialize)]
struct Contents {
    version: u32,
    lessons: BTreeMap<String, Learned>,
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    lessons: &'a BTreeMap<String, Learned>,
}

impl LearnedFile {
    /// The file beside this state file, with what is in it.
    #[must_use]
    pub fn beside(state_file: &Path) -> Self {
        let path = state_file.with_file_name("learned");
        let lessons = read(&path).unwrap_or_else(|why| {
            tracing::warn!(file = %path.display(), why, "what was learned can't be read; learning begins anew");
            BTreeMap::new()
        });
        Self { path: Some(path), lessons, kept: Instant::default() }
    }

    /// What was learned of a subject.
    #[must_use]
    pub fn of(&self, subject: &str) -> Option<&Learned> {
        self.lessons.get(subject)
    }

    /// Takes what was learned of a subject. Of two replicas the lessons are merged.
    pub fn note(&mut self, subject: String, learned: &Learned) {
        let merged = self.lessons.get(&subject).map(|known| known.merged(learned));
        self.lessons.insert(subject, merged.unwrap_or_else(|| learned.clone()));
        if self.lessons.len() > MOST {
            let shortest = self.lessons.iter().min_by_key(|(_, learned)| learned.watched_seconds);
            if let Some(subject) = shortest.map(|(subject, _)| subject.clone()) {
                self.lessons.remove(&subject);
            }
        }
    }

    /// Writes it: beside and renamed, so that a crash leaves the old or the new one.
    ///
    /// # Errors
    /// It can't be written.
    pub fn save(&self) -> std::io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let new = path.with_extension("new");
        let file = std::fs::File::create(&new)?;
        let mut out = std::io::BufWriter::new(file);
        serde_json::to_writer(&mut out, &Written { version: VERSION, lessons: &self.lessons })?;
        out.into_inner()?.sync_all()?;
        std::fs::rename(&new, path)
    }
}

fn read(path: &Path) -> Result<BTreeMap<String, Learned>, String> {
    let text = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Ok(file) if file.len() > MOST_BYTES => {
            return Err(format!("it has {} bytes, at most {MOST_BYTES} are ours", file.len()));
        }
        Ok(_) | Err(_) => std::fs::read(path).map_err(|error| error.to_string())?,
    };
    let contents: Contents = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if contents.version != VERSION {
        return Err(format!("its version is {}, this agent writes {VERSION}", contents.version));
    }
    Ok(contents.lessons.into_iter().filter(|(_, learned)| learned.is_usable()).take(MOST).collect())
}

/// The workload of a pod, as its name tells: that of all replicas, whatever Kubernetes put behind it.
#[must_use]
pub fn workload_of(namespace: &str, pod: &str, container: Option<&str>) -> String {
    let made = |part: &str, least: usize, most: usize| {
        (least..=most).contains(&part.len()) && part.chars().all(|c| SAFE.contains(c))
    };
    let name = match pod.rsplit_once('-') {
        // Of a StatefulSet.
        Some((name, ordinal)) if !ordinal.is_empty() && ordinal.chars().all(|c| c.is_ascii_digit()) => name,
        Some((name, random)) if made(random, 5, 5) => match name.rsplit_once('-') {
            // Of a Deployment: the hash of its template, too.
            Some((name, hash)) if made(hash, 6, 10) => name,
            _ => name,
        },
        _ => pod,
    };
    match container {
        Some(container) => format!("{namespace}/{name}/{container}"),
        None => format!("{namespace}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lesson(watched_seconds: u64) -> Learned {
        Learned { version: Learned::VERSION, wanted: vec![1, 2], working_set: 3, watched_seconds }
    }

    #[test]
    fn what_was_learned_is_there_for_the_next_agent() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let mut file = LearnedFile::beside(&state);
        file.note("/pods/a".to_owned(), &lesson(60));
        file.save().unwrap();
        assert_eq!(LearnedFile::beside(&state).of("/pods/a"), Some(&lesson(60)));
    }

    #[test]
    fn a_file_that_can_t_be_understood_teaches_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for (text, why) in [
            ("", "EOF"),
            ("{}", "missing field"),
            ("{\"version\":9,\"lessons\":{}}", "its version is 9"),
            ("nonsense", "line 1"),
        ] {
            let path = dir.path().join("learned");
            std::fs::write(&path, text).unwrap();
            let told = read(&path).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
            assert!(LearnedFile::beside(&dir.path().join("state")).lessons.is_empty(), "{text}");
        }
    }

    #[test]
    fn lessons_are_bounded() {
        let mut file = LearnedFile::default();
        for i in 0..MOST + 10 {
            file.note(format!("/pods/{i}"), &lesson(i as u64));
        }
        assert_eq!(file.lessons.len(), MOST);
        assert!(file.of("/pods/0").is_none());
    }

    #[test]
    fn replicas_are_one_workload() {
        let check = |pod, workload| assert_eq!(workload_of("shop", pod, None), format!("shop/{workload}"));
        check("cart-6d4b75cb6d-hx2lk", "cart");
        check("cart-hx2lk", "cart");
        check("db-0", "db");
        check("db-12", "db");
        check("single", "single");
        check("my-cache", "my-cache");
        assert_eq!(workload_of("shop", "db-0", Some("proxy")), "shop/db/proxy");
    }
}
