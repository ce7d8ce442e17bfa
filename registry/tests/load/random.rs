//! Random numbers for what happens when; a failure says with which ones it began.

use std::hash::{BuildHasher as _, RandomState};

#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        Self(RandomState::new().hash_one(0) | 1)
    }

    /// Numbers of its own for another task.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next() | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn milliseconds(&mut self, range: std::ops::Range<u64>) -> std::time::Duration {
        let length = range.end - range.start;
        std::time::Duration::from_millis(range.start + self.below(length))
    }
}
