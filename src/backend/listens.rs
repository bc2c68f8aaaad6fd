//! Whether messages that come on a connection which a client owns are for the client. One that is led through a planned
//! switch has two connections, and what is published on servers that replicate each other comes on both.

use super::link::{Link, Owner};
use crate::resp;

/// From and until when messages are taken. Where the moment lies in the stream of a connection is marked by the reply to a
/// *fence*, a PING of ours, see [`super::flag::FENCE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listens {
    Always,
    /// From the reply to the fence of this number on; 0 while none was sent.
    From(u32),
    /// Until the reply to the fence of this number.
    Until(u32),
    Never,
}

impl Listens {
    /// After the reply to this fence.
    fn behind(self, fence: u32) -> Self {
        match self {
            Self::From(number) if number == fence => Self::Always,
            Self::Until(number) if number == fence => Self::Never,
            // It was taken back meanwhile, or another one was sent.
            Self::Always | Self::From(_) | Self::Until(_) | Self::Never => self,
        }
    }
}

impl<S: Owner> Link<S> {
    /// Whether messages are for its client.
    #[must_use]
    pub fn listens(&self) -> Listens {
        self.listens.get()
    }

    /// Says whether messages are for its client.
    pub fn listen(&self, listens: Listens) {
        self.listens.set(listens);
    }

    pub(super) fn fence_answered(&self, number: u32) {
        self.listens.set(self.listens.get().behind(number));
    }

    /// Whether a frame is a message that its client must not get.
    pub(super) fn drops(&self, frame: &[u8]) -> bool {
        matches!(self.listens.get(), Listens::From(_) | Listens::Never) && resp::is_message(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_fence_that_was_sent_last_opens_or_closes() {
        assert_eq!(Listens::From(2).behind(2), Listens::Always);
        assert_eq!(Listens::Until(2).behind(2), Listens::Never);
        for unmoved in [Listens::Always, Listens::Never, Listens::From(0), Listens::From(3), Listens::Until(3)] {
            assert_eq!(unmoved.behind(2), unmoved);
        }
    }
}
