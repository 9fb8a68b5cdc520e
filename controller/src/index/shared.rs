//! What many pods have in common is kept once.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Values by content. A value that nobody else holds any more is forgotten some time later.
#[derive(Debug)]
pub(super) struct Shared<T: ?Sized> {
    values: HashSet<Arc<T>>,
    /// Looked through for values to forget when there are this many.
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 1024;

impl<T: ?Sized + Eq + Hash> Default for Shared<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), sweep_at: FIRST_SWEEP }
    }
}

impl<T: ?Sized + Eq + Hash> Shared<T> {
    /// The one copy of a value.
    pub(super) fn get<V>(&mut self, value: V) -> Arc<T>
    where
        V: Borrow<T>,
        Arc<T>: From<V>,
    {
        if let Some(known) = self.values.get(value.borrow()) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = FIRST_SWEEP.max(self.values.len() * 2);
        }
        let new: Arc<T> = value.into();
        self.values.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one() {
        let mut shared = Shared::<str>::default();
        let first = shared.get("web");
        assert!(Arc::ptr_eq(&first, &shared.get(String::from("web").as_str())));
        assert!(!Arc::ptr_eq(&first, &shared.get("db")));
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let mut shared = Shared::<str>::default();
        let held = shared.get("held");
        for n in 0..100 * FIRST_SWEEP {
            shared.get(n.to_string().as_str());
        }
        assert!(shared.values.len() <= FIRST_SWEEP);
        assert!(Arc::ptr_eq(&held, &shared.get("held")));
    }
}
