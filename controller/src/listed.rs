//! Objects by name, and what a list says of them: those that it does not have are gone.

use std::collections::BTreeMap;

use crate::index::Name;

/// Objects by name. After [`Self::begin_list`] each that comes again is [inserted](Self::insert) or [kept](Self::keep); the others are
/// [missing](Self::missing) from the list.
#[derive(Debug)]
pub struct Listed<T> {
    /// Counts lists.
    list: u32,
    /// Each with the list that had it last.
    objects: BTreeMap<Name, (u32, T)>,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { list: 0, objects: BTreeMap::new() }
    }
}

impl<T> Listed<T> {
    /// All objects come again; until they do, those of before stay.
    pub fn begin_list(&mut self) {
        self.list = self.list.wrapping_add(1);
    }

    /// Names of those that have not come since the list began.
    #[must_use]
    pub fn missing(&self) -> Vec<Name> {
        let missing = self.objects.iter().filter(|(_, (list, _))| *list != self.list);
        missing.map(|(name, _)| Name::clone(name)).collect()
    }

    /// It came: what was there before under its name.
    pub fn insert(&mut self, name: Name, object: T) -> Option<T> {
        self.objects.insert(name, (self.list, object)).map(|(_, before)| before)
    }

    /// It is so now, whether or not a list under way has it.
    pub fn store(&mut self, name: Name, object: T) {
        let list = self.objects.get(&name).map_or(self.list.wrapping_sub(1), |(list, _)| *list);
        self.objects.insert(name, (list, object));
    }

    /// It came, and stays as it was: what is known of it, where anything is.
    pub fn keep(&mut self, name: &str) -> Option<&mut T> {
        let (list, object) = self.objects.get_mut(name)?;
        *list = self.list;
        Some(object)
    }

    /// It is known now, whether it came or others speak of it.
    pub fn known(&mut self, name: &Name) -> &mut T
    where
        T: Default,
    {
        let list = self.list;
        &mut self.objects.entry(Name::clone(name)).or_insert_with(|| (list, T::default())).1
    }

    /// It is gone.
    pub fn remove(&mut self, name: &str) -> Option<(Name, T)> {
        self.objects.remove_entry(name).map(|(name, (_, object))| (name, object))
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&T> {
        self.objects.get(name).map(|(_, object)| object)
    }

    /// One of them, to be changed by what others say of it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut T> {
        self.objects.get_mut(name).map(|(_, object)| object)
    }

    /// One of them, with its name as it is kept.
    #[must_use]
    pub fn get_key_value(&self, name: &str) -> Option<(&Name, &T)> {
        self.objects.get_key_value(name).map(|(name, (_, object))| (name, object))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &T)> {
        self.objects.iter().map(|(name, (_, object))| (name, object))
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.objects.keys()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_list_does_not_have_is_missing() {
        let mut listed = Listed::default();
        for name in ["a", "b", "c"] {
            listed.insert(name.into(), 1);
        }
        assert!(listed.missing().is_empty(), "no list was begun");
        listed.begin_list();
        listed.insert("a".into(), 2);
        listed.keep("b");
        assert!(listed.keep("d").is_none());
        assert_eq!(listed.missing(), ["c".into()]);
        listed.remove("c");
        assert_eq!((listed.missing().len(), listed.len()), (0, 2));
        // A list that was cut short: the next says it all.
        listed.begin_list();
        listed.begin_list();
        listed.insert("b".into(), 3);
        assert_eq!(listed.missing(), ["a".into()]);
    }
}
