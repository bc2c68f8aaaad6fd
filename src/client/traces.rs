//! What Standin does on a server for its own ends, as far as clients could see it: its keys in invalidation messages, and
//! its connections in MONITOR. A client is shown what it would see without us.

use std::net::SocketAddr;

use super::session::Session;
use crate::resp::{self, Protocol, write};

/// How invalidation messages begin, in RESP3 and in RESP2; other messages cost one comparison.
const INVALIDATIONS: [&[u8]; 2] =
    [b">2\r\n$10\r\ninvalidate\r\n", b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n"];

/// What the lines of MONITOR have shown so far.
#[derive(Default)]
pub(super) struct Watched {
    /// The address of a connection of ours that is introducing itself to the server.
    greeting: Vec<u8>,
}

/// What is left of a message for the client.
pub(super) enum Shown {
    Whole,
    Nothing,
    Part(Vec<u8>),
}

impl Watched {
    /// Whether a line of MONITOR shows something that no client asked for. `name` is what our connections call
    /// themselves, `prober` the address from which we probe.
    fn is_ours(&mut self, line: &[u8], name: &str, prober: Option<SocketAddr>) -> bool {
        let Some((address, command)) = parts(line) else { return false };
        if prober.is_some_and(|prober| address == prober.to_string().as_bytes()) {
            return true;
        }
        if command.starts_with(b"\"CLIENT\" \"SETNAME\" ") {
            let is_ours = command[b"\"CLIENT\" \"SETNAME\" \"".len()..].starts_with(name.as_bytes());
            self.greeting = if is_ours { address.to_vec() } else { Vec::new() };
            return is_ours;
        }
        // A handshake goes out in one piece, so that its lines follow each other.
        let is_greeting = self.greeting == address
            && [b"\"CLIENT\" \"ID\"".as_slice(), b"\"INFO\" ", b"\"CLIENT\" \"KILL\" "]
                .iter()
                .any(|start| command.starts_with(start));
        if !is_greeting {
            self.greeting.clear();
        }
        is_greeting
    }
}

/// Address and command of a line like `+1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`.
fn parts(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let open = line.iter().position(|byte| *byte == b'[')?;
    let close = open + line[open..].iter().position(|byte| *byte == b']')?;
    let space = open + line[open..close].iter().position(|byte| *byte == b' ')?;
    Some((&line[space + 1..close], line.get(close + 2..)?))
}

/// An invalidation message without the keys that begin with `own`; an empty one is not shown at all.
fn without_own_keys(frame: &[u8], own: &[String], protocol: Protocol) -> Shown {
    if !INVALIDATIONS.iter().any(|start| frame.starts_with(start)) {
        return Shown::Whole;
    }
    let mut elements: Vec<&[u8]> = resp::elements(frame).collect();
    let Some(keys) = elements.pop().filter(|keys| keys.first() == Some(&b'*')) else { return Shown::Whole };
    let count = resp::elements(keys).count();
    let is_ours =
        |key: &&[u8]| resp::bulk(key).is_some_and(|key| own.iter().any(|own| key.starts_with(own.as_bytes())));
    let left: Vec<&[u8]> = resp::elements(keys).filter(|key| !is_ours(key)).collect();
    if left.len() == count {
        return Shown::Whole;
    }
    if left.is_empty() {
        return Shown::Nothing;
    }
    let mut out = Vec::with_capacity(frame.len());
    match frame.first() {
        Some(b'>') => write::push_len(&mut out, elements.len() + 1, protocol),
        _ => write::array_len(&mut out, elements.len() + 1),
    }
    elements.iter().for_each(|element| out.extend_from_slice(element));
    write::array_len(&mut out, left.len());
    left.iter().for_each(|key| out.extend_from_slice(key));
    Shown::Part(out)
}

impl Session {
    /// What a message that answers no request shows the client.
    pub(super) fn shown_of(&self, frame: &[u8]) -> Shown {
        let context = &self.context;
        if self.monitoring.get() && frame.first() == Some(&b'+') {
            let (active, ..) = context.route_facts();
            let backend = context.group.backend(active);
            let is_ours = self.watched.borrow_mut().is_ours(frame, &backend.client_name, backend.prober_address());
            return if is_ours { Shown::Nothing } else { Shown::Whole };
        }
        without_own_keys(frame, &context.settings.own_keys, self.protocol.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_keys_are_taken_out_of_invalidation_messages() {
        let own = ["standin:a:".to_owned()];
        let check = |frame: &[u8], expected: Option<&[u8]>| match without_own_keys(frame, &own, Protocol::Resp3) {
            Shown::Whole => assert_eq!(Some(frame), expected),
            Shown::Nothing => assert_eq!(None, expected),
            Shown::Part(left) => assert_eq!(Some(left.as_slice()), expected),
        };
        let mixed = b">2\r\n$10\r\ninvalidate\r\n*2\r\n$15\r\nstandin:a:probe\r\n$1\r\nk\r\n";
        check(mixed, Some(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"));
        check(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$15\r\nstandin:a:probe\r\n", None);
        let resp2 = b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n*1\r\n$15\r\nstandin:a:probe\r\n";
        check(resp2, None);
        for whole in [
            b">2\r\n$10\r\ninvalidate\r\n_\r\n".as_slice(),
            b">2\r\n$10\r\ninvalidate\r\n*1\r\n$15\r\nstandin:b:probe\r\n",
            b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$15\r\nstandin:a:probe\r\n",
        ] {
            check(whole, Some(whole));
        }
    }

    #[test]
    fn monitor_shows_neither_our_handshakes_nor_our_probes() {
        let mut watched = Watched::default();
        let prober = "127.0.0.1:7".parse().ok();
        let mut is_ours = |line: &str| watched.is_ours(format!("+1.5 [0 {line}\r\n").as_bytes(), "standin-1", prober);
        assert!(is_ours("127.0.0.1:7] \"PING\""));
        assert!(!is_ours("127.0.0.1:8] \"PING\""));
        assert!(is_ours("127.0.0.1:9] \"CLIENT\" \"SETNAME\" \"standin-1\""));
        assert!(is_ours("127.0.0.1:9] \"CLIENT\" \"ID\""));
        assert!(is_ours("127.0.0.1:9] \"INFO\" \"server\""));
        assert!(!is_ours("127.0.0.1:9] \"get\" \"a\""));
        assert!(!is_ours("127.0.0.1:9] \"INFO\" \"server\""));
    }
}
