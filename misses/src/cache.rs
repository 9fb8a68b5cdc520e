//! A last-level cache: physically indexed, set-associative, the least recently used line of a set leaves. One level and no
//! prefetching, so it misses more often than a machine's whole hierarchy would: a model that is hard on slow memory.

use crate::LINE;

/// No line of a machine has this number.
const NOTHING: u64 = u64::MAX;

/// The lines that are in it.
#[derive(Debug, Clone)]
pub struct Cache {
    /// Set by set, the most recently used line first.
    lines: Vec<u64>,
    ways: usize,
    sets: u64,
}

impl Cache {
    /// An empty one of `size` bytes.
    ///
    /// # Errors
    /// Where size and ways make no whole number of sets.
    pub fn new(size: u64, ways: usize) -> Result<Self, String> {
        let lines = size / LINE;
        let wrong = || format!("a cache of {size} bytes can't have {ways} ways of {LINE} bytes");
        if ways == 0 || !size.is_multiple_of(LINE) || lines == 0 || !lines.is_multiple_of(ways as u64) {
            return Err(wrong());
        }
        let places = usize::try_from(lines).map_err(|_| wrong())?;
        Ok(Self { lines: vec![NOTHING; places], ways, sets: lines / ways as u64 })
    }

    /// Whether the line of a physical address is there. It is afterwards.
    pub fn hits(&mut self, physical: u64) -> bool {
        let line = physical / LINE;
        let set = usize::try_from(line % self.sets).unwrap_or(0) * self.ways;
        let set = &mut self.lines[set..set + self.ways];
        if let Some(at) = set.iter().position(|&held| held == line) {
            set[..=at].rotate_right(1);
            return true;
        }
        set.rotate_right(1);
        set[0] = line;
        false
    }

    /// Forgets all lines.
    pub fn clear(&mut self) {
        self.lines.fill(NOTHING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(cache: &mut Cache, bytes: u64) -> usize {
        (0..bytes).step_by(64).filter(|at| !cache.hits(*at)).count()
    }

    #[test]
    fn what_fits_misses_once_and_what_does_not_misses_always() {
        let mut cache = Cache::new(64 << 10, 16).unwrap();
        assert_eq!((pass(&mut cache, 64 << 10), pass(&mut cache, 64 << 10)), (1024, 0));
        assert_eq!((pass(&mut cache, 128 << 10), pass(&mut cache, 128 << 10)), (1024, 2048));
    }

    #[test]
    fn the_least_recently_used_line_leaves() {
        // One set of two ways.
        let mut cache = Cache::new(128, 2).unwrap();
        let seen: Vec<bool> = [0, 64, 0, 128, 0, 64].iter().map(|at| cache.hits(*at)).collect();
        assert_eq!(seen, [false, false, true, false, true, false]);
    }

    #[test]
    fn a_size_that_makes_no_sets_is_refused() {
        assert!(Cache::new(100, 2).is_err() && Cache::new(1024, 0).is_err() && Cache::new(1024, 3).is_err());
    }
}
