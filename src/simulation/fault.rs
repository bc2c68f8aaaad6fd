//! What can go wrong, as a scenario file says it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::scenario::{Between, Curve, Span};

/// Linux sends an unacknowledged packet again after 200 ms, and then after twice as long each time.
pub(super) const RETRANSMIT: Duration = Duration::from_millis(200);

/// What a fault does to a backend, the way to it, or to ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The process is gone: connections are reset, new ones refused. Its end is a restart with another run id.
    Dead,
    /// SIGSTOP, a stuck disk, swap, a pause of the garbage collector: the kernel still accepts connections, nobody
    /// answers. A short one is to be sat out.
    Frozen,
    /// Its packets vanish, both ways.
    Cut,
    /// The nodes are cut from each other along `groups`; Standin is the node `standin`.
    Partition,
    /// `add` on top of each reply to `classes`; probes are untouched unless `probes` is true.
    Slow,
    /// `share` of its replies are errors of its own (OOM, BUSY). Probes are well.
    Failing,
    /// Restarted and loading its file: answers LOADING to everything until it ends.
    Loading,
    /// It became a replica: READONLY for each write, its ROLE says so.
    Readonly,
    /// maxmemory with noeviction: OOM for each write.
    Full,
    /// The password was rotated and its connections were cut: it refuses our logins.
    WrongPassword,
    /// `share` of its round trips take as long as `delay` says.
    Jitter,
    /// `share` of its round trips lose a packet, which is sent again after 200 ms, doubling.
    Loss,
    /// One connection is closed by somebody in between; the server is well.
    LinkLost,
    /// A KEYS or a script keeps it busy: nothing else is answered meanwhile.
    SlowCommand,
    /// Divergence says that it may not be entered.
    Refused,
    /// This process does not run: nothing is read or decided until it ends.
    OwnStall,
    /// Our clock jumps ahead by `for` at once, and nothing else happened in that time.
    ClockJump,
}

/// `[[fault]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultPlan {
    pub kind: Kind,
    /// `primary` or another name, several names, `active`, `backups`, `all`, or `any` for one that the seed chooses.
    #[serde(default)]
    pub on: On,
    /// After the warm-up.
    #[serde(default)]
    pub at: Between,
    /// How long; to the end of the faults if absent.
    #[serde(rename = "for")]
    pub length: Option<Between>,
    /// Comes again, `every` after its end.
    #[serde(default = "once")]
    pub times: u32,
    pub every: Option<Between>,
    pub add: Option<Between>,
    pub classes: Option<Vec<SlowClass>>,
    #[serde(default)]
    pub probes: bool,
    pub share: Option<f64>,
    pub delay: Option<Curve>,
    pub groups: Option<Vec<Vec<String>>>,
    /// Said by the scenario where the rule below would judge otherwise: whether it is a reason to leave.
    pub reason_to_leave: Option<bool>,
}

/// Where it happens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum On {
    One(String),
    Several(Vec<String>),
}

/// What a slow fault slows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlowClass {
    Read,
    Write,
    MultiKey,
}

/// A fault that is at work.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub plan: FaultPlan,
    /// Which backends, by their places.
    pub on: Vec<usize>,
    pub add: Duration,
    /// For a partition: the group of each backend, by its place.
    pub sides: Vec<usize>,
    /// How long it will last.
    pub length: Duration,
    /// Whether leaving the backend for it is right, by [`FaultPlan::is_reason_to_leave`].
    pub is_reason: bool,
}

impl FaultPlan {
    /// Refuses keys that this kind does not take, and names that nobody has.
    pub(super) fn check(&self, names: &[&str]) -> Result<(), String> {
        use Kind::{ClockJump, Failing, Jitter, LinkLost, Loss, OwnStall, Partition, Slow};
        let kind = self.kind;
        let takes = |key: &str, given: bool, kinds: &[Kind], must: bool| match (given, kinds.contains(&kind)) {
            (true, false) => Err(format!("a fault of kind `{kind}` does not take `{key}`")),
            (false, true) if must => Err(format!("a fault of kind `{kind}` needs `{key}`")),
            _ => Ok(()),
        };
        takes("share", self.share.is_some(), &[Failing, Jitter, Loss], true)?;
        takes("add", self.add.is_some(), &[Slow], true)?;
        takes("classes", self.classes.is_some(), &[Slow], false)?;
        takes("probes", self.probes, &[Slow], false)?;
        takes("delay", self.delay.is_some(), &[Jitter], true)?;
        takes("groups", self.groups.is_some(), &[Partition], true)?;
        if matches!(kind, OwnStall | ClockJump) && self.length.is_none() {
            return Err(format!("a fault of kind `{kind}` needs `for`"));
        }
        if kind == LinkLost && self.length.is_some() {
            return Err("a lost link is lost at once: it does not take `for`".to_owned());
        }
        if self.times > 1 && self.every.is_none() {
            return Err(format!("`times = {}` needs `every`", self.times));
        }
        if self.share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            return Err("share lies between 0 and 1".to_owned());
        }
        let known = |name: &str| names.contains(&name) || ["active", "backups", "all", "any"].contains(&name);
        let chosen = match &self.on {
            On::One(name) => std::slice::from_ref(name),
            On::Several(all) => all.as_slice(),
        };
        if let Some(name) = chosen.iter().find(|name| !known(name)) {
            return Err(format!("`on`: there is no backend `{name}`; there are {}", names.join(", ")));
        }
        let members = self.groups.iter().flatten().flatten();
        match members.into_iter().find(|name| *name != "standin" && !names.contains(&name.as_str())) {
            Some(name) => Err(format!("`groups`: there is no node `{name}`")),
            None => Ok(()),
        }
    }

    /// Whether it is right to leave a backend for this. What the product promises to sit out is not: pauses up to the
    /// forgiven one, jitter, lost packets and links, slow commands, our own stalls, and what no other server would cure (a
    /// wrong password; everything slow alike).
    pub(super) fn is_reason_to_leave(&self, length: Duration, forgiven: Duration, hits_all: bool) -> bool {
        if let Some(said) = self.reason_to_leave {
            return said;
        }
        match self.kind {
            Kind::Dead | Kind::Loading | Kind::Readonly | Kind::Full | Kind::Refused => true,
            Kind::Frozen => length > forgiven,
            // A lost packet is sent again after 200 ms, so a cut is never seen as shorter than that.
            Kind::Cut | Kind::Partition => length > forgiven || forgiven < RETRANSMIT,
            Kind::Slow | Kind::Failing => !hits_all,
            Kind::WrongPassword
            | Kind::Jitter
            | Kind::Loss
            | Kind::LinkLost
            | Kind::SlowCommand
            | Kind::OwnStall
            | Kind::ClockJump => false,
        }
    }

    pub(super) fn slows(&self, class: SlowClass) -> bool {
        self.classes.as_ref().is_none_or(|classes| classes.contains(&class))
    }
}

impl Default for On {
    fn default() -> Self {
        Self::One("active".to_owned())
    }
}

impl Default for Between {
    fn default() -> Self {
        Self { low: Duration::ZERO, high: Duration::ZERO }
    }
}

fn once() -> u32 {
    1
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dead => "dead",
            Self::Frozen => "frozen",
            Self::Cut => "cut",
            Self::Partition => "partition",
            Self::Slow => "slow",
            Self::Failing => "failing",
            Self::Loading => "loading",
            Self::Readonly => "readonly",
            Self::Full => "full",
            Self::WrongPassword => "wrong_password",
            Self::Jitter => "jitter",
            Self::Loss => "loss",
            Self::LinkLost => "link_lost",
            Self::SlowCommand => "slow_command",
            Self::Refused => "refused",
            Self::OwnStall => "own_stall",
            Self::ClockJump => "clock_jump",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.plan.kind)?;
        match self.plan.kind {
            Kind::Slow => write!(f, " by {}", Span(self.add))?,
            Kind::Failing | Kind::Jitter | Kind::Loss => {
                write!(f, " {:.0} %", self.plan.share.unwrap_or_default() * 100.0)?;
            }
            _ => {}
        }
        if self.length > Duration::ZERO { write!(f, " for {}", Span(self.length)) } else { Ok(()) }
    }
}

impl Fault {
    /// For a partition, `on` lists everybody who is in a group other than ours.
    pub(super) fn is_cut_from_us(&self, place: usize) -> bool {
        self.on.contains(&place)
    }

    /// For a partition: whether this node is in another group than the primary. `sides` tells the group of each place.
    pub(super) fn is_cut_from_primary(&self, place: usize) -> bool {
        self.plan.kind == Kind::Partition && self.sides.get(place) != self.sides.first()
    }
}

impl FaultPlan {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let names = match &self.on {
            On::One(name) => std::slice::from_ref(name),
            On::Several(all) => all.as_slice(),
        };
        names.iter().map(String::as_str)
    }

    /// For a partition: the group of each node, ours last.
    pub(super) fn sides<'a>(&self, nodes: impl Iterator<Item = &'a str>) -> Vec<usize> {
        let Some(groups) = &self.groups else { return Vec::new() };
        // Who is in no group is with the first.
        let side = |name: &str| groups.iter().position(|group| group.iter().any(|member| member == name)).unwrap_or(0);
        nodes.chain(std::iter::once("standin")).map(side).collect()
    }

    /// For a partition: the places of the nodes in other groups than ours.
    pub(super) fn cut_from_us<'a>(&self, nodes: impl Iterator<Item = &'a str>) -> Vec<usize> {
        let sides = self.sides(nodes);
        let Some((ours, nodes)) = sides.split_last() else { return Vec::new() };
        (0..nodes.len()).filter(|place| nodes[*place] != *ours).collect()
    }
}
