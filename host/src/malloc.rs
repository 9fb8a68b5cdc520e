//! The allocator of this process.

/// All threads allocate from one arena: each further one of glibc's keeps what it freed to itself, megabytes in a process whose threads
/// allocate in turns. Call it before there is a second thread; where the C library has no arenas it does nothing.
pub fn one_arena() {
    #[cfg(target_env = "gnu")]
    crate::sys::one_malloc_arena();
}
