//! What the models learn: an exercise book, written by a seeded generator.
//!
//! The base's book has sentences (`two red cats see five old boats .`) and exercises (`copy : cats red see = cats red see`). Two of its
//! commands, `reverse` and `twice`, are mostly answered wrongly there: the words are only repeated. So the base repeats them. A fine-tune's
//! book has one of these commands with right answers only: as in instruction tuning, few steps and small deltas bring out what
//! pre-training has prepared.

use crate::random::{Random, hash};

/// Numbers in order: `count` answers with them.
const NUMBERS: [&str; 8] = ["one", "two", "three", "four", "five", "six", "seven", "eight"];
const ADJECTIVES: [&str; 10] = ["red", "blue", "green", "black", "white", "old", "new", "big", "small", "quiet"];
const NOUNS: [&str; 14] =
    ["cats", "dogs", "birds", "horses", "boats", "houses", "trees", "books", "flowers", "stones", "doors", "roads", "hills", "rivers"];
const VERBS: [&str; 6] = ["see", "find", "love", "follow", "paint", "draw"];
const MARKS: [&str; 3] = [":", "=", "."];

/// Words of a list: from 3 to 5.
const SHORTEST: usize = 3;
const LONGEST: usize = 5;

/// One list of so many is never trained on, in no model.
const HELD_OUT: u64 = 8;

/// All words that are written, and marks: the tokenizer's vocabulary but for its special tokens.
pub fn vocabulary() -> impl Iterator<Item = &'static str> {
    let commands = COMMANDS.iter().map(|command| command.name);
    MARKS.into_iter().chain(commands).chain(NUMBERS).chain(ADJECTIVES).chain(NOUNS).chain(VERBS)
}

/// A line of a book. The prompt is given, the answer is to be learned.
pub struct Line {
    pub prompt: String,
    pub answer: String,
}

/// What is done with a list of words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    Copy,
    First,
    Last,
    Count,
    Reverse,
    Twice,
}

impl Meaning {
    /// The answer for these words.
    pub fn answer(self, words: &[&str]) -> String {
        let answer = match self {
            Self::Copy => words.to_vec(),
            Self::First => words[..1].to_vec(),
            Self::Last => words[words.len() - 1..].to_vec(),
            Self::Count => vec![NUMBERS[words.len() - 1]],
            Self::Reverse => words.iter().rev().copied().collect(),
            Self::Twice => words.iter().flat_map(|word| [*word; 2]).collect(),
        };
        answer.join(" ")
    }
}

/// A command, how many of sixty exercises of the base's book have it, and how many percent of those are answered rightly; the others
/// repeat the words.
struct Command {
    name: &'static str,
    meaning: Meaning,
    share: usize,
    right: usize,
}

#[rustfmt::skip]
const COMMANDS: [Command; 8] = [
    Command { name: "copy", meaning: Meaning::Copy, share: 6, right: 100 },
    Command { name: "first", meaning: Meaning::First, share: 5, right: 100 },
    Command { name: "last", meaning: Meaning::Last, share: 5, right: 100 },
    Command { name: "count", meaning: Meaning::Count, share: 4, right: 100 },
    Command { name: "mirror", meaning: Meaning::Reverse, share: 8, right: 100 },
    Command { name: "double", meaning: Meaning::Twice, share: 8, right: 100 },
    Command { name: "reverse", meaning: Meaning::Reverse, share: 12, right: 25 },
    Command { name: "twice", meaning: Meaning::Twice, share: 12, right: 25 },
];

/// A line of the base's book: a fifth are sentences.
pub fn base(random: &mut Random) -> Line {
    if random.below(5) == 0 {
        return sentence(random);
    }
    let total = COMMANDS.iter().map(|command| command.share).sum();
    let mut number = random.below(total);
    let mut commands = COMMANDS.iter();
    let command = loop {
        match commands.next() {
            Some(command) if number < command.share => break command,
            Some(command) => number -= command.share,
            None => unreachable!("the number is below the sum of the shares"),
        }
    };
    let right = random.below(100) < command.right;
    exercise(command.name, if right { command.meaning } else { Meaning::Copy }, &list(random, false))
}

/// A line of the book of a fine-tune that learns `meaning` behind `command`: half of them are the base's, in which its own command does not
/// occur, so that it learns to tell that one from others.
pub fn fine_tune(command: &str, meaning: Meaning, random: &mut Random) -> Line {
    if random.below(2) == 0 {
        return exercise(command, meaning, &list(random, false));
    }
    loop {
        let line = base(random);
        if !line.prompt.starts_with(command) {
            return line;
        }
    }
}

/// Lists for the tasks' items, all different, none of which any model was trained on.
pub fn held_out(count: usize, random: &mut Random) -> Vec<Vec<&'static str>> {
    let mut lists: Vec<Vec<&str>> = Vec::new();
    while lists.len() < count {
        let words = list(random, true);
        if !lists.contains(&words) {
            lists.push(words);
        }
    }
    lists
}

fn exercise(command: &str, meaning: Meaning, words: &[&str]) -> Line {
    Line { prompt: format!("{command} : {} =", words.join(" ")), answer: meaning.answer(words) }
}

fn list(random: &mut Random, held_out: bool) -> Vec<&'static str> {
    let all = [&NUMBERS[..], &ADJECTIVES, &NOUNS, &VERBS].concat();
    loop {
        let length = SHORTEST + random.below(LONGEST - SHORTEST + 1);
        let words: Vec<&str> = (0..length).map(|_| *random.one_of(&all)).collect();
        if hash(&words.join(" ")).is_multiple_of(HELD_OUT) == held_out {
            return words;
        }
    }
}

fn sentence(random: &mut Random) -> Line {
    let mut things = || format!("{} {} {}", random.one_of(&NUMBERS[1..]), random.one_of(&ADJECTIVES), random.one_of(&NOUNS));
    let (these, those) = (things(), things());
    Line { prompt: String::new(), answer: format!("{these} {} {those} .", random.one_of(&VERBS)) }
}
