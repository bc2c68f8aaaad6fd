//! What a server says of its place among others: `INFO replication`, read.

use std::time::Duration;

use crate::backend::Reply;

/// One look at a server's replication.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::control) struct Replication {
    pub(in crate::control) is_replica: bool,
    /// The master that it follows, as it was told.
    pub(in crate::control) master: Option<(String, u16)>,
    pub(in crate::control) link_is_up: bool,
    /// It is taking over the whole content of its master.
    pub(in crate::control) is_syncing: bool,
    /// How long it has heard nothing from its master, in whole seconds; absent while the link is down.
    pub(in crate::control) last_io: Option<Duration>,
    /// Bytes of the stream that it has produced, or taken in.
    pub(in crate::control) offset: u64,
    /// Which stream that is.
    pub(in crate::control) id: String,
    /// The stream that the present one continues since a promotion.
    pub(in crate::control) earlier_id: String,
    /// So many bytes are the same in both.
    pub(in crate::control) earlier_offset: u64,
    /// Host and port of those that follow it and are in step with its stream, as it knows them.
    pub(in crate::control) followers: Vec<(String, u16)>,
}

/// When a probe was asked, and how many requests that may write had been answered to clients until then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::control) struct Asked {
    pub(in crate::control) at_us: u64,
    pub(in crate::control) writes: u64,
}

impl Replication {
    /// `None` where the server does not tell.
    pub(in crate::control) fn read(reply: &Reply) -> Option<Self> {
        let text = reply.text()?;
        let mut look = Self::default();
        let (mut host, mut port, mut own_offset, mut taken_in) = (None, None, 0, None);
        let mut has_role = false;
        for line in text.lines() {
            let Some((key, value)) = line.trim_end().split_once(':') else { continue };
            match key {
                "role" => (has_role, look.is_replica) = (true, value == "slave"),
                "master_host" => host = Some(value.to_owned()),
                "master_port" => port = value.parse().ok(),
                "master_link_status" => look.link_is_up = value == "up",
                "master_sync_in_progress" => look.is_syncing = value != "0",
                "master_last_io_seconds_ago" => look.last_io = value.parse().ok().map(Duration::from_secs),
                "slave_repl_offset" => taken_in = value.parse().ok(),
                "master_repl_offset" => own_offset = value.parse().unwrap_or(0),
                "master_replid" => value.clone_into(&mut look.id),
                "master_replid2" => value.clone_into(&mut look.earlier_id),
                // The first byte of the new stream; -1 where it continues none.
                "second_repl_offset" => look.earlier_offset = value.parse::<u64>().unwrap_or(0).saturating_sub(1),
                _ if is_follower(key) => look.followers.extend(follower(value)),
                _ => {}
            }
        }
        look.master = host.zip(port);
        look.offset = taken_in.filter(|_| look.is_replica).unwrap_or(own_offset);
        has_role.then_some(look)
    }

    /// Whether it has what `other` has produced, but for what is under way: the same stream, or the one before.
    pub(in crate::control) fn continues(&self, other: &Self) -> bool {
        !other.id.is_empty() && (self.id == other.id || self.earlier_id == other.id)
    }

    /// Bytes that it has taken in of what `master` has produced; `None` where the two streams have nothing to do with each other.
    ///
    /// A promoted one goes on counting from there, with writes of its own.
    pub(in crate::control) fn taken_of(&self, master: &Self) -> Option<u64> {
        match () {
            () if self.id.is_empty() || master.id.is_empty() => None,
            () if self.id == master.id => Some(self.offset),
            () if self.earlier_id == master.id => Some(self.earlier_offset.min(self.offset)),
            // The master was promoted, and this one has not followed it since.
            () if master.earlier_id == self.id => Some(self.offset.min(master.earlier_offset)),
            () => None,
        }
    }

    /// Its master as `host:port`.
    pub(in crate::control) fn master_text(&self) -> Option<String> {
        let (host, port) = self.master.as_ref()?;
        Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    }
}

/// `slave0`, `slave1`, ...
fn is_follower(key: &str) -> bool {
    key.strip_prefix("slave").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `ip=..,port=..,state=online,offset=..,lag=..`; only one that is in step with the stream.
fn follower(line: &str) -> Option<(String, u16)> {
    let field = |name: &str| line.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let port = field("port")?.parse().ok()?;
    (field("state") == Some("online")).then(|| field("ip").map(|ip| (ip.to_owned(), port))).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;

    fn read(text: &'static str) -> Replication {
        Replication::read(&Reply::Bulk(Bytes::from_static(text.as_bytes()))).unwrap()
    }

    #[test]
    fn a_master_says_what_it_has_produced_and_who_is_in_step() {
        let look = read(
            "# Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
             slave0:ip=10.0.0.2,port=6380,state=online,offset=123,lag=0\r\n\
             slave1:ip=10.0.0.3,port=6380,state=wait_bgsave,offset=0,lag=0\r\n\
             master_replid:abc\r\nmaster_replid2:000\r\nmaster_repl_offset:130\r\n",
        );
        assert_eq!((look.is_replica, look.offset, look.id.as_str()), (false, 130, "abc"));
        assert_eq!(look.followers, [("10.0.0.2".to_owned(), 6380)]);
        assert_eq!(look.master, None);
    }

    #[test]
    fn a_replica_says_whom_it_follows_and_how_far_it_got() {
        let look = read(
            "role:slave\r\nmaster_host:::1\r\nmaster_port:6379\r\nmaster_link_status:up\r\n\
             master_last_io_seconds_ago:2\r\nmaster_sync_in_progress:0\r\nslave_read_repl_offset:99\r\n\
             slave_repl_offset:98\r\nmaster_replid:abc\r\nmaster_replid2:000\r\nmaster_repl_offset:97\r\n",
        );
        assert!(look.is_replica && look.link_is_up && !look.is_syncing);
        assert_eq!((look.offset, look.last_io), (98, Some(Duration::from_secs(2))));
        assert_eq!(look.master_text().as_deref(), Some("[::1]:6379"));
        let down = read("role:slave\r\nmaster_link_status:down\r\nmaster_last_io_seconds_ago:-1\r\n");
        assert!(!down.link_is_up && down.last_io.is_none());
    }

    #[test]
    fn a_promoted_replica_continues_the_stream_of_its_master_and_not_the_other_way_round() {
        let with = |id: &str, earlier: &str| Replication {
            id: id.to_owned(),
            earlier_id: earlier.to_owned(),
            ..Replication::default()
        };
        let (old, promoted) = (with("a", "0"), with("b", "a"));
        assert!(promoted.continues(&old) && !old.continues(&promoted));
        assert!(!with("c", "").continues(&with("", "")), "one that does not tell");
    }

    #[test]
    fn what_a_promoted_replica_has_of_its_master_ends_where_its_own_writes_begin() {
        let look = |id: &str, earlier: &str, offset, earlier_offset| Replication {
            id: id.to_owned(),
            earlier_id: earlier.to_owned(),
            offset,
            earlier_offset,
            ..Replication::default()
        };
        let (old, replica, promoted) = (look("a", "0", 130, 0), look("a", "0", 99, 0), look("b", "a", 500, 99));
        assert_eq!((replica.taken_of(&old), promoted.taken_of(&old)), (Some(99), Some(99)));
        assert_eq!(old.taken_of(&promoted), Some(99), "what the old one has beyond is no part of the new stream");
        assert_eq!(look("c", "0", 700, 0).taken_of(&old), None, "another stream");
        let read = read(
            "role:master\r\nmaster_replid:b\r\nmaster_replid2:a\r\nmaster_repl_offset:500\r\nsecond_repl_offset:100\r\n",
        );
        assert_eq!(read.earlier_offset, 99);
    }

    #[test]
    fn a_server_that_does_not_tell_is_not_taken_for_a_master() {
        assert_eq!(Replication::read(&Reply::Error("NOPERM".to_owned())), None);
        assert_eq!(Replication::read(&Reply::Bulk(Bytes::new())), None);
    }
}
