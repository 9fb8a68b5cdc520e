//! Globs of cgroup paths.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Why globs do not compile.
pub(super) struct GlobError {
    /// Which of them, from 0, if it is one of them.
    pub(super) index: Option<usize>,
    /// What is wrong and what to write.
    pub(super) message: String,
}

/// Globs in which `*` does not cross `/` and `**` does.
pub(super) fn compile(globs: &[String]) -> Result<GlobSet, GlobError> {
    let mut set = GlobSetBuilder::new();
    for (i, text) in globs.iter().enumerate() {
        let error = |message: String| GlobError { index: Some(i), message };
        check(text).map_err(|what| {
            error(format!(
                "{what}: write a path below the cgroup mount with * for any name and ** for any depth, for example \
                 /system.slice/*"
            ))
        })?;
        // A backslash is a plain character: systemd escapes with it, as in app\x2dweb.slice.
        let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(false).build();
        set.add(glob.map_err(|problem| error(format!("`{text}` is not a glob: {}", problem.kind())))?);
    }
    set.build()
        .map_err(|problem| GlobError { index: None, message: format!("globs cannot be used: {problem}") })
}

fn check(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("a cgroup's glob is empty".to_owned());
    }
    if text.trim_matches('/').is_empty() {
        return Err(format!("`{text}` is the root cgroup, which has no limits and is not managed"));
    }
    if !text.starts_with('/') {
        return Err(format!("`{text}` does not begin with /"));
    }
    if text.starts_with("/sys/fs/cgroup/") {
        return Err(format!("`{text}` begins with the cgroup mount, which is left out"));
    }
    if text.ends_with('/') || text.contains("//") || text.split('/').any(|part| matches!(part, "." | "..")) {
        return Err(format!("`{text}` is not how the kernel writes a cgroup's path"));
    }
    Ok(())
}
