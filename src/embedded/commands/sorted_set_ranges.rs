//! Ranges of sorted sets by rank, score and name: read, counted, stored, removed.
//!
//! Every form comes down to a range of ranks, counted from the lowest member.

use std::ops::Range;

use super::*;
use crate::embedded::arguments::{integer, is, parse_float, range};
use crate::embedded::dispatch::{FAST, GROWS, READ, WRITE};
use crate::embedded::reply::Reply;
use crate::embedded::sorted_set::SortedSet;
use crate::embedded::value::Kind;

pub(super) const ROWS: &[Row] = &[
    row("zrange", -4, READ, ONE_KEY, |context, arguments| {
        let query = Query::parse(&arguments[2..], None, Words::Range)?;
        answer(context, arguments[1], &query)
    }),
    row("zrevrange", -4, READ, ONE_KEY, |context, arguments| {
        let query = Query::parse(&arguments[2..], Some((By::Rank, true)), Words::ScoresOnly)?;
        answer(context, arguments[1], &query)
    }),
    row("zrangebyscore", -4, READ, ONE_KEY, |context, arguments| {
        let query = Query::parse(&arguments[2..], Some((By::Score, false)), Words::LimitAndScores)?;
        answer(context, arguments[1], &query)
    }),
    row("zrevrangebyscore", -4, READ, ONE_KEY, |context, arguments| {
        let query = Query::parse(&arguments[2..], Some((By::Score, true)), Words::LimitAndScores)?;
        answer(context, arguments[1], &query)
    }),
    row("zrangebylex", -4, READ, ONE_KEY, |context, arguments| {
        let query = Query::parse(&arguments[2..], Some((By::Name, false)), Words::LimitOnly)?;
        answer(context, arguments[1], &query)
    }),
    row("zrevrangebylex", -4, READ, ONE_KEY, |context, arguments| {
        let query = Query::parse(&arguments[2..], Some((By::Name, true)), Words::LimitOnly)?;
        answer(context, arguments[1], &query)
    }),
    row("zrangestore", -5, WRITE | GROWS, TWO_KEYS, zrangestore),
    row("zcount", 4, READ | FAST, ONE_KEY, |context, arguments| count(context, arguments, By::Score)),
    row("zlexcount", 4, READ | FAST, ONE_KEY, |context, arguments| count(context, arguments, By::Name)),
    row("zremrangebyrank", 4, WRITE, ONE_KEY, |context, arguments| remove(context, arguments, By::Rank)),
    row("zremrangebyscore", 4, WRITE, ONE_KEY, |context, arguments| remove(context, arguments, By::Score)),
    row("zremrangebylex", 4, WRITE, ONE_KEY, |context, arguments| remove(context, arguments, By::Name)),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Name,
}

/// One end of a range by score: `5`, `(5`, `-inf`.
#[derive(Clone, Copy)]
struct ScoreEnd {
    score: f64,
    excluded: bool,
}

fn score_end(text: &[u8]) -> Result<ScoreEnd, Error> {
    let (number, excluded) = text.strip_prefix(b"(").map_or((text, false), |number| (number, true));
    let score = parse_float(number).ok_or(Error::text("ERR min or max is not a float"))?;
    Ok(ScoreEnd { score, excluded })
}

/// One end of a range by name: `[a`, `(a`, `-`, `+`.
#[derive(Clone)]
enum NameEnd {
    Lowest,
    Highest,
    Included(Vec<u8>),
    Excluded(Vec<u8>),
}

fn name_end(text: &[u8]) -> Result<NameEnd, Error> {
    match text {
        b"-" => Ok(NameEnd::Lowest),
        b"+" => Ok(NameEnd::Highest),
        [b'[', name @ ..] => Ok(NameEnd::Included(name.to_vec())),
        [b'(', name @ ..] => Ok(NameEnd::Excluded(name.to_vec())),
        _ => Err(Error::text("ERR min or max not valid string range item")),
    }
}

impl NameEnd {
    /// As the lower end: whether `name` lies before the range.
    fn is_above(&self, name: &[u8]) -> bool {
        match self {
            Self::Lowest => false,
            Self::Highest => true,
            Self::Included(end) => name < end.as_slice(),
            Self::Excluded(end) => name <= end.as_slice(),
        }
    }

    /// As the upper end: whether `name` lies before the range's end.
    fn reaches(&self, name: &[u8]) -> bool {
        match self {
            Self::Lowest => false,
            Self::Highest => true,
            Self::Included(end) => name <= end.as_slice(),
            Self::Excluded(end) => name < end.as_slice(),
        }
    }
}

enum Span {
    /// Start and end rank, negative from the end; counted from the highest member if the query is reversed.
    Ranks(i64, i64),
    Scores(ScoreEnd, ScoreEnd),
    Names(NameEnd, NameEnd),
}

impl Span {
    fn parse(by: By, low: &[u8], high: &[u8]) -> Result<Self, Error> {
        Ok(match by {
            By::Rank => Self::Ranks(integer(low)?, integer(high)?),
            By::Score => Self::Scores(score_end(low)?, score_end(high)?),
            By::Name => Self::Names(name_end(low)?, name_end(high)?),
        })
    }

    /// The ranks from the lowest member that the span covers.
    fn ranks(&self, set: &SortedSet, reversed: bool) -> Range<usize> {
        let length = set.len();
        let (start, end) = match self {
            Self::Ranks(start, end) => {
                let found = range(*start, *end, length);
                return if reversed { length - found.end..length - found.start } else { found };
            }
            Self::Scores(low, high) => (
                set.count_while(|score, _| score < low.score || (low.excluded && score == low.score)),
                set.count_while(|score, _| score < high.score || (!high.excluded && score == high.score)),
            ),
            Self::Names(low, high) => {
                (set.count_while(|_, name| low.is_above(name)), set.count_while(|_, name| high.reaches(name)))
            }
        };
        start..end.max(start)
    }
}

/// Which options a form of the command has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    /// BYSCORE, BYLEX, REV, LIMIT, WITHSCORES.
    Range,
    /// As `Range` without WITHSCORES.
    Store,
    ScoresOnly,
    LimitAndScores,
    LimitOnly,
}

struct Query {
    span: Span,
    reversed: bool,
    with_scores: bool,
    offset: i64,
    count: i64,
}

impl Query {
    /// `words` is `start end [options]`; `form` is what an old command's name says, which has the ends swapped when it is
    /// reversed and not by rank, as ZRANGE with REV has.
    fn parse(words: &[&[u8]], form: Option<(By, bool)>, allowed: Words) -> Result<Self, Error> {
        let (mut by, mut reversed) = form.unwrap_or((By::Rank, false));
        let (mut with_scores, mut limit) = (false, None);
        let new_form = matches!(allowed, Words::Range | Words::Store);
        let mut rest = words[2..].iter();
        while let Some(word) = rest.next() {
            if is(word, "withscores") && !matches!(allowed, Words::LimitOnly | Words::Store) {
                with_scores = true;
            } else if is(word, "limit") && allowed != Words::ScoresOnly {
                let (Some(offset), Some(count)) = (rest.next(), rest.next()) else { return Err(error::SYNTAX) };
                limit = Some((integer(offset)?, integer(count)?));
            } else if is(word, "byscore") && new_form {
                by = By::Score;
            } else if is(word, "bylex") && new_form {
                by = By::Name;
            } else if is(word, "rev") && new_form {
                reversed = true;
            } else {
                return Err(error::SYNTAX);
            }
        }
        if limit.is_some() && by == By::Rank {
            return Err(Error::text(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Name {
            return Err(Error::text("ERR syntax error, WITHSCORES not supported in combination with BYLEX"));
        }
        let swapped = reversed && by != By::Rank;
        let (low, high) = if swapped { (words[1], words[0]) } else { (words[0], words[1]) };
        let (offset, count) = limit.unwrap_or((0, -1));
        Ok(Self { span: Span::parse(by, low, high)?, reversed, with_scores, offset, count })
    }

    fn members<'a>(&self, set: &'a SortedSet) -> Vec<(&'a [u8], f64)> {
        let ranks = self.span.ranks(set, self.reversed);
        let Ok(offset) = usize::try_from(self.offset) else { return Vec::new() };
        let wanted = usize::try_from(self.count).unwrap_or(usize::MAX);
        let wanted = ranks.len().saturating_sub(offset).min(wanted);
        if wanted == 0 {
            return Vec::new();
        }
        if self.reversed {
            set.iter_down_from(ranks.end - 1 - offset).take(wanted).collect()
        } else {
            set.iter_from(ranks.start + offset).take(wanted).collect()
        }
    }
}

/// Members, with scores in pairs for RESP3 and in turn for RESP2.
pub(super) fn write_members(reply: &mut Reply<'_>, members: &[(&[u8], f64)], with_scores: bool) {
    let in_pairs = with_scores && reply.is_resp3();
    reply.array(if with_scores && !in_pairs { members.len() * 2 } else { members.len() });
    for (member, score) in members {
        if in_pairs {
            reply.array(2);
        }
        reply.bulk(member);
        if with_scores {
            reply.double(*score);
        }
    }
}

fn answer(context: &mut Context<'_>, key: &[u8], query: &Query) -> Result<(), Error> {
    let (database, reply) = context.split();
    let members = database.read::<SortedSet>(key)?.map_or_else(Vec::new, |set| query.members(set));
    write_members(reply, &members, query.with_scores);
    Ok(())
}

fn zrangestore(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let query = Query::parse(&arguments[3..], None, Words::Store)?;
    let (database, reply) = context.split();
    let mut result = SortedSet::default();
    if let Some(set) = database.read::<SortedSet>(arguments[2])? {
        for (member, score) in query.members(set) {
            result.insert(member, score);
        }
    }
    reply.count(result.len());
    database.remove(arguments[1]);
    if !result.is_empty() {
        database.put(arguments[1], result.into_value(), None);
    }
    Ok(())
}

fn count(context: &mut Context<'_>, arguments: &[&[u8]], by: By) -> Result<(), Error> {
    let span = Span::parse(by, arguments[2], arguments[3])?;
    let (database, reply) = context.split();
    reply.count(database.read::<SortedSet>(arguments[1])?.map_or(0, |set| span.ranks(set, false).len()));
    Ok(())
}

fn remove(context: &mut Context<'_>, arguments: &[&[u8]], by: By) -> Result<(), Error> {
    let span = Span::parse(by, arguments[2], arguments[3])?;
    let (database, reply) = context.split();
    let removed = database.update(arguments[1], |set: &mut SortedSet| {
        let ranks = span.ranks(set, false);
        let members: Vec<Box<[u8]>> =
            set.iter_from(ranks.start).take(ranks.len()).map(|(member, _)| member.into()).collect();
        members.iter().filter(|member| set.remove(member).is_some()).count()
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}
