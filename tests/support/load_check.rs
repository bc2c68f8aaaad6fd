//! What a client may read of a key that only it writes.

/// What one reply to a GET means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The newest value, or a newer one whose acknowledgement never came.
    Fresh,
    /// Nothing, although a value was acknowledged: a cold backup, or a key removed so as not to be stale.
    Miss,
    /// Older than something already acknowledged or seen: the one thing that must never happen.
    Stale { read: u64, floor: u64 },
    /// A value that this client never wrote to this key.
    Foreign { read: u64 },
}

/// The history of one key. Each write and delete takes the next number; values carry theirs.
///
/// The floor is the newest operation known to have happened, because it was acknowledged or because its value was read:
/// from then on nothing older may be seen, whichever server answers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KeyRecord {
    issued: u64,
    floor: u64,
    floor_is_value: bool,
}

impl KeyRecord {
    /// The number of the next write or delete, which is in doubt until it is acknowledged.
    pub(crate) fn issue(&mut self) -> u64 {
        self.issued += 1;
        self.issued
    }

    pub(crate) fn acknowledge_set(&mut self, number: u64) {
        self.raise(number, true);
    }

    pub(crate) fn acknowledge_delete(&mut self, number: u64) {
        self.raise(number, false);
    }

    /// Judges what a GET answered: the number within the value, or nothing.
    pub(crate) fn judge(&mut self, read: Option<u64>) -> Verdict {
        match read {
            None if self.floor_is_value => Verdict::Miss,
            None => Verdict::Fresh,
            Some(read) if read > self.issued => Verdict::Foreign { read },
            Some(read) if read < self.floor => Verdict::Stale { read, floor: self.floor },
            Some(read) if read == self.floor && !self.floor_is_value => Verdict::Foreign { read },
            Some(read) => {
                self.raise(read, true);
                Verdict::Fresh
            }
        }
    }

    /// A loss has been found: from now on no more is expected than was read.
    pub(crate) fn rewind(&mut self, read: Option<u64>) {
        self.floor = read.unwrap_or(0);
        self.floor_is_value = read.is_some();
    }

    fn raise(&mut self, number: u64, is_value: bool) {
        if number > self.floor || self.floor == 0 {
            self.floor = number;
            self.floor_is_value = is_value;
        }
    }
}
