//! `move_pages(2)`.

use std::io;

use serde::Serialize;

use crate::sys;

/// Move only pages that no other process maps (`MPOL_MF_MOVE`).
const MOVE_EXCLUSIVE: i32 = 1 << 1;

/// Addresses that one `process_vm_readv` takes (`IOV_MAX`).
const READ_AT_ONCE: usize = 1024;

/// What statuses hold before the call; the kernel leaves it where it gave up on a batch.
const UNTOUCHED: i32 = i32::MIN;

/// Why a page did not move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Reason {
    /// Pinned, being migrated or written, or part of a huge page that is already moving. Worth another try.
    Busy,
    /// Not present: swapped out, freed or never touched.
    NotPresent,
    /// Not a page that can move: no such mapping, or the zero page.
    NotMovable,
    /// The target has no room. Worth another try when it has.
    NoMemory,
    /// Mapped by several processes.
    Shared,
    /// The kernel did not say.
    Unknown,
}

/// Where a page is, or why that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageStatus {
    /// On this node.
    Node(u32),
    /// Nowhere.
    None(Reason),
}

/// Pages not moved, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // see Reason
pub struct Failures {
    pub busy: u64,
    pub not_present: u64,
    pub not_movable: u64,
    pub no_memory: u64,
    pub shared: u64,
    pub unknown: u64,
}

impl Failures {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.busy + self.not_present + self.not_movable + self.no_memory + self.shared + self.unknown
    }

    fn count(&mut self, reason: Reason) {
        *match reason {
            Reason::Busy => &mut self.busy,
            Reason::NotPresent => &mut self.not_present,
            Reason::NotMovable => &mut self.not_movable,
            Reason::NoMemory => &mut self.no_memory,
            Reason::Shared => &mut self.shared,
            Reason::Unknown => &mut self.unknown,
        } += 1;
    }
}

/// What came of a move. Counts addresses: a huge page given by one address counts once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MoveOutcome {
    /// Now on the target, those that already were included.
    pub moved: u64,
    /// Left where they were.
    pub failed: Failures,
    /// Read by this very call, to find them: see [`move_pages`]. Their mappings look accessed now.
    pub touched: u64,
}

/// Why nothing was tried, or the call stopped before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MoveError {
    /// EACCES.
    #[error("node {0} is outside the process's cpuset.mems; widen it before moving pages there")]
    OutsideCpuset(u32),
    /// ENODEV.
    #[error("node {0} is offline or has no memory")]
    NoSuchNode(u32),
    /// EPERM.
    #[error("moving pages of process {0} is not permitted; CAP_SYS_PTRACE is needed")]
    Denied(i32),
    /// ESRCH: an answer, not a failure.
    #[error("process {0} is gone")]
    Gone(i32),
    /// The kernel has no page migration, or refused for another reason.
    #[error("move_pages of process {pid}: {source}")]
    Io {
        /// The process.
        pid: i32,
        /// The errno.
        source: io::Error,
    },
}

/// Where pages of a process are, by address. Cheap: nothing is touched or moved.
pub fn query(pid: i32, addresses: &[u64]) -> Result<Vec<PageStatus>, MoveError> {
    Ok(query_raw(pid, addresses)?.into_iter().map(page_status).collect())
}

/// Moves pages of a process to a node: those mapped by it alone, a huge page whole. Give one address per folio: every
/// address that does not move costs a batch.
///
/// Give addresses whose pages are there (`pagemap`). Up to 6.5 the kernel finds no page that NUMA balancing has hidden to
/// see its next access; such a page is read once, which ends that, and tried again.
///
/// Blocks for the copying: give bounded batches. The target node may reclaim to make room: check its free pages first.
pub fn move_pages(pid: i32, addresses: &[u64], node: u32) -> Result<MoveOutcome, MoveError> {
    let mut statuses = move_once(pid, addresses, node)?;
    // Of a huge page that is hidden it says the same as where there is no mapping.
    let hidden = [Reason::NotPresent, Reason::NotMovable].map(PageStatus::None);
    let hidden: Vec<usize> =
        (0..statuses.len()).filter(|&index| hidden.contains(&page_status(statuses[index]))).collect();
    let at: Vec<u64> = hidden.iter().map(|&index| addresses[index]).collect();
    let touched = touch(pid, &at)?;
    if touched > 0 {
        for (index, status) in hidden.into_iter().zip(move_once(pid, &at, node)?) {
            statuses[index] = status;
        }
    }
    let mut outcome = MoveOutcome { touched, ..MoveOutcome::default() };
    for status in statuses {
        match page_status(status) {
            PageStatus::Node(at) if at == node => outcome.moved += 1,
            // Still elsewhere after a second look: the kernel gave up on its batch.
            PageStatus::Node(_) => outcome.failed.count(Reason::Busy),
            PageStatus::None(reason) => outcome.failed.count(reason),
        }
    }
    Ok(outcome)
}

/// The status of each address after a try to move it.
fn move_once(pid: i32, addresses: &[u64], node: u32) -> Result<Vec<i32>, MoveError> {
    let Ok(target) = i32::try_from(node) else { return Err(MoveError::NoSuchNode(node)) };
    let mut statuses = vec![UNTOUCHED; addresses.len()];
    if addresses.is_empty() {
        return Ok(statuses);
    }
    let nodes = vec![target; addresses.len()];
    match sys::move_pages(pid, addresses, Some(&nodes), &mut statuses, MOVE_EXCLUSIVE) {
        Ok(_) => {}
        // Part of the way: the statuses, and a second look, say what moved.
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {}
        Err(error) => return Err(move_error(pid, Some(node), error)),
    }
    settle(addresses, &mut statuses, |unsaid| query_raw(pid, unsaid))?;
    Ok(statuses)
}

/// Reads a byte of each page. Returns how many were there to be read: what is gone is passed over, and where reading is not
/// permitted nothing is read.
fn touch(pid: i32, addresses: &[u64]) -> Result<u64, MoveError> {
    let mut touched = 0;
    let mut rest = addresses;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(READ_AT_ONCE));
        match sys::read_a_byte_each(pid, now) {
            Ok(read) => {
                touched += read as u64;
                // It stops at an address where nothing is any more.
                rest = if read < now.len() { &rest[read + 1..] } else { later };
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EFAULT) => rest = &rest[1..],
                Some(libc::ESRCH) => return Err(MoveError::Gone(pid)),
                _ => break,
            },
        }
    }
    Ok(touched)
}

/// Replaces statuses that the kernel did not write by a second look.
fn settle(
    addresses: &[u64],
    statuses: &mut [i32],
    query: impl FnOnce(&[u64]) -> Result<Vec<i32>, MoveError>,
) -> Result<(), MoveError> {
    let unsaid: Vec<usize> = (0..statuses.len()).filter(|&index| statuses[index] == UNTOUCHED).collect();
    if unsaid.is_empty() {
        return Ok(());
    }
    let again: Vec<u64> = unsaid.iter().map(|&index| addresses[index]).collect();
    for (index, status) in unsaid.into_iter().zip(query(&again)?) {
        statuses[index] = status;
    }
    Ok(())
}

fn query_raw(pid: i32, addresses: &[u64]) -> Result<Vec<i32>, MoveError> {
    let mut statuses = vec![UNTOUCHED; addresses.len()];
    if !addresses.is_empty() {
        sys::move_pages(pid, addresses, None, &mut statuses, 0).map_err(|e| move_error(pid, None, e))?;
    }
    Ok(statuses)
}

fn page_status(status: i32) -> PageStatus {
    match u32::try_from(status) {
        Ok(node) => PageStatus::Node(node),
        Err(_) => PageStatus::None(match status.checked_neg() {
            Some(libc::EBUSY | libc::EAGAIN) => Reason::Busy,
            Some(libc::ENOENT) => Reason::NotPresent,
            Some(libc::EFAULT) => Reason::NotMovable,
            Some(libc::ENOMEM) => Reason::NoMemory,
            Some(libc::EACCES) => Reason::Shared,
            _ => Reason::Unknown,
        }),
    }
}

fn move_error(pid: i32, node: Option<u32>, source: io::Error) -> MoveError {
    match (source.raw_os_error(), node) {
        (Some(libc::EACCES), Some(node)) => MoveError::OutsideCpuset(node),
        (Some(libc::ENODEV), Some(node)) => MoveError::NoSuchNode(node),
        (Some(libc::EPERM), _) => MoveError::Denied(pid),
        (Some(libc::ESRCH), _) => MoveError::Gone(pid),
        _ => MoveError::Io { pid, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_say_where_or_why_not() {
        let cases = [
            (0, PageStatus::Node(0)),
            (3, PageStatus::Node(3)),
            (-libc::EBUSY, PageStatus::None(Reason::Busy)),
            (-libc::ENOENT, PageStatus::None(Reason::NotPresent)),
            (-libc::EFAULT, PageStatus::None(Reason::NotMovable)),
            (-libc::ENOMEM, PageStatus::None(Reason::NoMemory)),
            (-libc::EACCES, PageStatus::None(Reason::Shared)),
            (UNTOUCHED, PageStatus::None(Reason::Unknown)),
        ];
        for (status, expected) in cases {
            assert_eq!(page_status(status), expected, "{status}");
        }
    }

    #[test]
    fn what_the_kernel_left_unsaid_is_looked_up_again() {
        let mut statuses = [1, UNTOUCHED, -libc::EBUSY, UNTOUCHED];
        settle(&[10, 20, 30, 40], &mut statuses, |again| {
            assert_eq!(again, [20, 40]);
            Ok(vec![0, 1])
        })
        .unwrap();
        assert_eq!(statuses, [1, 0, -libc::EBUSY, 1]);
    }

    #[test]
    fn what_is_gone_is_passed_over_when_pages_are_read() {
        let mut memory = vec![1_u8; 3 * READ_AT_ONCE];
        let there = memory.as_mut_ptr().addr() as u64;
        let mut addresses: Vec<u64> = (0..2 * READ_AT_ONCE as u64).map(|offset| there + offset).collect();
        addresses[0] = 0;
        addresses[7] = 8;
        addresses.push(16);
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(touch(own, &addresses).unwrap(), 2 * READ_AT_ONCE as u64 - 2);
        assert_eq!(touch(own, &[]).unwrap(), 0);
    }

    #[test]
    fn errors_of_the_whole_call_say_what_to_do() {
        let error = |errno| move_error(7, Some(1), io::Error::from_raw_os_error(errno));
        assert!(matches!(error(libc::EACCES), MoveError::OutsideCpuset(1)));
        assert!(matches!(error(libc::ENODEV), MoveError::NoSuchNode(1)));
        assert!(matches!(error(libc::EPERM), MoveError::Denied(7)));
        assert!(matches!(error(libc::ESRCH), MoveError::Gone(7)));
        assert!(error(libc::EACCES).to_string().contains("cpuset.mems"));
    }
}
