//! How many files the process may have open: each client is one, and one more where it needs a connection of its own.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files that are no clients: links, listeners, the control plane, the log.
const RESERVED: u64 = 256;

/// Raises the soft limit, which is often 1,024 for historical reasons, to the hard one, and returns what holds now.
#[must_use]
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    now.current.unwrap_or(u64::MAX)
}

/// How many clients one group may have at most under that limit: the next one is then told so, instead of hanging in the
/// queue of a listener that cannot accept it. A quarter is left for connections that clients own.
#[must_use]
pub fn clients_within(descriptors: u64, groups: usize) -> usize {
    let clients = descriptors.saturating_sub(RESERVED) / 4 * 3 / groups.max(1) as u64;
    usize::try_from(clients).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_room_for_the_connections_that_serve_them() {
        assert_eq!(clients_within(1024, 1), 576);
        assert_eq!(clients_within(20_000, 2), 7404);
        assert!(clients_within(1_048_576, 1) > 10_000, "the default limit of clients is far below a usual hard limit");
        assert_eq!(clients_within(10, 1), 1);
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        assert_eq!(Some(raise_descriptor_limit()), getrlimit(Resource::Nofile).maximum.or(Some(u64::MAX)));
    }
}
