//! Memory of a node, taken away and given back.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{read, write_file};

/// Takes a node's memory away; what is on it is moved elsewhere. Returns the number of blocks.
pub fn offline_node(node: usize) -> Result<usize> {
    let blocks = blocks(node)?;
    ensure!(!blocks.is_empty(), "node {node} has no memory blocks");
    for block in &blocks {
        write_file(block.join("state"), "offline").with_context(|| block.display().to_string())?;
    }
    Ok(blocks.len())
}

/// Who may use memory that is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Processes alone, as a kmem node comes up.
    Movable,
    /// The kernel for itself, too.
    Kernel,
}

/// Gives back all memory that was taken away.
pub fn online_all(for_use: Use) -> Result<()> {
    let command = match for_use {
        Use::Movable => "online_movable",
        Use::Kernel => "online_kernel",
    };
    for entry in std::fs::read_dir("/sys/devices/system/memory")? {
        let state = entry?.path().join("state");
        if state.exists() && read(&state)?.trim() == "offline" {
            write_file(&state, command)?;
        }
    }
    Ok(())
}

fn blocks(node: usize) -> Result<Vec<PathBuf>> {
    let directory = Path::new("/sys/devices/system/node").join(format!("node{node}"));
    let entries = std::fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    let mut blocks = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_block =
            name.strip_prefix("memory").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
        if is_block && read(entry.path().join("state"))?.trim() == "online" {
            blocks.push(entry.path());
        }
    }
    Ok(blocks)
}
