//! Pages of processes: which there are, what they are, where they are, and moving them.
//!
//! All of it needs `CAP_SYS_ADMIN`; for processes of other users also `CAP_SYS_PTRACE` and
//! `CAP_DAC_READ_SEARCH`.

pub mod kpageflags;
pub mod maps;
pub mod movable;
pub mod move_pages;
pub mod node_pfns;
pub mod numa_maps;
pub mod pagemap;

/// The size of a base page in bytes.
#[must_use]
pub fn page_size() -> u64 {
    crate::sys::page_size()
}
