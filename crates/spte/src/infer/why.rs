//! The reasons why one reading is preferred to the next, in words. The main type is [`Why`]; [`super::judge`] fills it, `decode` prints
//! it. It only selects and merges reasons that scoring has given.

use alloc::{format, string::String, vec::Vec};

use super::{
    Candidate, Reading,
    readings::{same_answer, whose},
    tries::Trial,
};

/// The reasons for the best reading and against the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Why {
    /// The reasons for the best reading, the weightiest first.
    pub best: Vec<String>,
    /// The reasons against it.
    pub doubts: Vec<String>,
    /// The paging mode and releases of the next reading with another answer.
    pub next: Option<String>,
    /// The reasons against that one.
    pub against: Vec<String>,
    /// The reasons for this era and not the next one in the same paging mode.
    pub era: Vec<String>,
}

/// The most reasons of one kind that are shown.
const SHOWN: usize = 3;

pub(super) fn why(trial: &Trial<'_>, candidates: &[Candidate], plausible: &[Reading]) -> Why {
    let Some(best) = plausible.first().and_then(|r| candidates.get(r.candidates[0])) else {
        return Why::default();
    };
    let reasons = |c: &Candidate| merged(trial.score(&c.resolved, c.era, true).tally.reasons);
    let ours = reasons(best);
    let next = match plausible.get(1) {
        Some(second) => candidates.get(second.candidates[0]),
        None => candidates.iter().find(|c| !same_answer(best, c)),
    };
    let era = candidates
        .iter()
        .find(|c| {
            c.resolved.layout.mode == best.resolved.layout.mode
                && c.score - c.prior < best.score - best.prior - 2
        })
        .map_or_else(Vec::new, |other| era(&ours, &reasons(other)));
    let Some(next) = next else {
        let picked = pick(ours.iter().filter(|r| r.points > 0).map(|r| (r.points, r)));
        return Why { best: picked, doubts: doubts(&ours), era, ..Why::default() };
    };
    let theirs = reasons(next);
    let points_of =
        |list: &[Reason], text: &str| list.iter().find(|r| r.text == text).map_or(0, |r| r.points);
    let better = ours.iter().map(|r| (r.points - points_of(&theirs, &r.text), r));
    let picked = pick(better.filter(|(more, r)| *more > 0 && r.points > 0));
    let worse = theirs.iter().map(|r| (points_of(&ours, &r.text) - r.points, r));
    let against = pick(worse.filter(|(more, r)| *more > 0 && r.points < 0));
    let eras = trial.eras;
    let alike: Vec<usize> = (0..candidates.len())
        .filter(|&n| same_answer(&candidates[n], next) && candidates[n].score > next.score - 20)
        .collect();
    Why { best: picked, doubts: doubts(&ours), next: Some(whose(candidates, &alike, eras)), against, era }
}

fn points_of(list: &[Reason], text: &str) -> i32 {
    list.iter().find(|r| r.text == text).map_or(0, |r| r.points)
}

/// The reasons that the best reading has and another era lacks; without any, the reasons against the other era.
fn era(ours: &[Reason], theirs: &[Reason]) -> Vec<String> {
    let better = ours.iter().map(|r| (r.points - points_of(theirs, &r.text), r));
    let picked = pick(better.filter(|(more, r)| *more > 0 && r.points > 0));
    if !picked.is_empty() {
        return picked;
    }
    let worse = theirs.iter().map(|r| (points_of(ours, &r.text) - r.points, r));
    pick(worse.filter(|(more, r)| *more > 0 && r.points < 0))
        .iter()
        .map(|t| format!("in another era {t}"))
        .collect()
}

fn doubts(ours: &[Reason]) -> Vec<String> {
    pick(ours.iter().filter(|r| r.points <= -20).map(|r| (-r.points, r)))
}

/// A reason, with its weight summed over all values that give it.
struct Reason {
    text: String,
    points: i32,
    /// The first value that gives it, as a prefix: `0x…: `.
    first: String,
    more: usize,
}

/// Merges equal reasons that several values give.
fn merged(reasons: Vec<(i32, String)>) -> Vec<Reason> {
    let mut list: Vec<Reason> = Vec::new();
    for (points, text) in reasons.into_iter().filter(|(_, text)| !text.is_empty()) {
        let (first, text) = match text.split_once(": ") {
            Some((value, rest)) if value.starts_with("0x") => (format!("{value}: "), String::from(rest)),
            _ => (String::new(), text),
        };
        match list.iter_mut().find(|r| r.text == text) {
            Some(reason) => {
                reason.points += points;
                reason.more += 1;
            }
            None => list.push(Reason { text, points, first, more: 0 }),
        }
    }
    list
}

fn pick<'r>(reasons: impl Iterator<Item = (i32, &'r Reason)>) -> Vec<String> {
    let mut list: Vec<(i32, &Reason)> = reasons.collect();
    list.sort_by_key(|(points, _)| core::cmp::Reverse(*points));
    let said = |r: &Reason| match r.more {
        0 => format!("{}{}", r.first, r.text),
        1 => format!("{}{} (and so for another value)", r.first, r.text),
        n => format!("{}{} (and so for {n} more values)", r.first, r.text),
    };
    list.iter().take(SHOWN).map(|(_, r)| said(r)).collect()
}
