//! YAML text as a tree of nodes that know where they stand.
//!
//! Scalars keep their text: whether `1e-10` is a number or `on` a truth value is decided where a type is asked for.

use std::borrow::Cow;
use std::collections::HashMap;

use deltaic_checkpoint::{Error, Result};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput, Tag};

use super::{Document, Span};

/// Greatest depth of nesting; a recipe needs about eight.
const MAX_DEPTH: usize = 64;
/// Greatest size of the tree with all aliases replaced by what they stand for: bytes of text, and some for each node.
const MAX_TREE: usize = 8_000_000;
const BYTES_PER_NODE: usize = 64;
/// YAML's core tags (`!!str`). Others under the same prefix, such as `!!python/object/apply`, are not of the core.
const CORE_TAGS: [&str; 7] = ["str", "int", "float", "bool", "null", "seq", "map"];

/// A value of the document.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where it stands (an alias: where it is used).
    pub span: Span,
    pub content: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    /// Text, and whether it stood there without quotes, so that it may be read as a number or a truth value.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Node>),
    /// Keys in the order written; no key twice.
    Mapping(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub text: String,
    pub span: Span,
}

impl Node {
    /// Whether it is YAML's null: nothing, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The text of a scalar that is not null.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// The elements of a list.
    pub fn items(&self) -> Option<&[Node]> {
        match &self.content {
            Content::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// Keys and values of a mapping.
    pub fn pairs(&self) -> Option<&[(Key, Node)]> {
        match &self.content {
            Content::Mapping(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// Key and value of a mapping, null or not.
    pub fn entry(&self, key: &str) -> Option<&(Key, Node)> {
        self.pairs()?.iter().find(|(known, _)| known.text == key)
    }

    /// The value of a mapping's key, where it is there and not null.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value).filter(|value| !value.is_null())
    }

    /// What it is, for messages.
    pub fn described(&self) -> String {
        match &self.content {
            _ if self.is_null() => "nothing".to_owned(),
            Content::Scalar { text, .. } => {
                let mut shown: String = text.chars().take(40).collect();
                if shown.len() < text.len() {
                    shown.push('…');
                }
                format!("`{}`", super::document::escaped(&shown))
            }
            Content::Sequence(_) => "a list".to_owned(),
            Content::Mapping(_) => "a mapping".to_owned(),
        }
    }

    /// Levels of nesting below it.
    fn height(&self) -> usize {
        match &self.content {
            Content::Scalar { .. } => 0,
            Content::Sequence(items) => 1 + items.iter().map(Node::height).max().unwrap_or(0),
            Content::Mapping(pairs) => 1 + pairs.iter().map(|(_, value)| value.height()).max().unwrap_or(0),
        }
    }

    /// Its size as counted against [`MAX_TREE`].
    fn size(&self) -> usize {
        BYTES_PER_NODE
            + match &self.content {
                Content::Scalar { text, .. } => text.len(),
                Content::Sequence(items) => items.iter().map(Node::size).sum(),
                Content::Mapping(pairs) => pairs.iter().map(|(key, value)| key.text.len() + value.size()).sum(),
            }
    }
}

/// Reads a document's one YAML mapping.
///
/// # Errors
/// It is no valid YAML, empty, no mapping, nested too deeply, too large once aliases are expanded, or has a key twice; several documents in
/// one file are not built yet.
pub(super) fn read(document: &Document) -> Result<Node> {
    let mut builder = Builder {
        document,
        offsets: Offsets::new(&document.text),
        parser: Parser::new_from_str(&document.text),
        anchors: HashMap::new(),
        left: MAX_TREE,
    };
    let root = loop {
        match builder.next()? {
            (Event::StreamEnd, _) => return Err(empty(document)),
            (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
            (event, span) => break builder.node(event, span, 0)?,
        }
    };
    loop {
        match builder.next()? {
            (Event::StreamEnd, _) => break,
            (Event::DocumentStart(_), span) => return Err(document.not_yet(span, "several documents in one recipe")),
            _ => {}
        }
    }
    match &root.content {
        Content::Mapping(_) => Ok(root),
        _ if root.is_null() => Err(empty(document)),
        _ => Err(document.error(root.span, format!("a recipe is a mapping of keys to values; found {}", root.described()), "")),
    }
}

fn empty(document: &Document) -> Error {
    Error::new(format!("{}: the recipe is empty", document.name))
        .help("a recipe needs `merge_method`, `models` (or `slices`) and mostly `base_model`; `deltaic methods NAME` shows one that runs")
}

struct Builder<'a> {
    document: &'a Document,
    offsets: Offsets<'a>,
    parser: Parser<'a, StrInput<'a>>,
    /// Complete nodes that carry an anchor.
    anchors: HashMap<usize, Node>,
    /// What is left of [`MAX_TREE`].
    left: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span)> {
        match self.parser.next_event() {
            None => Ok((Event::StreamEnd, self.span(Marker::default(), Marker::default()))),
            Some(Ok((event, span))) => Ok((event, self.span(span.start, span.end))),
            Some(Err(error)) => {
                let span = self.span(*error.marker(), *error.marker());
                let line_start = self.document.text[..span.start].rfind('\n').map_or(0, |at| at + 1);
                let indent = self.document.text[line_start..].chars().take_while(|c| *c == ' ' || *c == '\t');
                let label = if indent.into_iter().any(|c| c == '\t') { "YAML indents with spaces, never with tabs" } else { "" };
                Err(self.document.error(span, format!("not valid YAML: {}", error.info()), label))
            }
        }
    }

    fn span(&self, start: Marker, end: Marker) -> Span {
        let start = self.offsets.byte(start.index());
        Span { start, end: self.offsets.byte(end.index()).max(start) }
    }

    /// The node that `event` begins.
    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node> {
        if depth > MAX_DEPTH {
            return Err(self.document.error(span, format!("nested more than {MAX_DEPTH} levels deep"), ""));
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = self.plain(style, tag, span)?;
                self.spend(BYTES_PER_NODE + text.len(), span)?;
                (Node { span: self.quoted(self.trimmed(span), style), content: Content::Scalar { text: text.into_owned(), plain } }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.plain(ScalarStyle::Plain, tag, span)?;
                self.spend(BYTES_PER_NODE, span)?;
                (self.sequence(span, depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.plain(ScalarStyle::Plain, tag, span)?;
                self.spend(BYTES_PER_NODE, span)?;
                (self.mapping(span, depth)?, anchor)
            }
            Event::Alias(anchor) => return self.alias(anchor, span, depth),
            other => return Err(self.document.error(span, format!("not valid YAML: unexpected {other:?}"), "")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: Span, depth: usize) -> Result<Node> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(self.document.error(span, "an alias inside the node that it stands for", ""));
        };
        if depth + node.height() > MAX_DEPTH {
            return Err(self.document.error(span, format!("nested more than {MAX_DEPTH} levels deep"), ""));
        }
        let node = Node { span, content: node.content.clone() };
        self.spend(node.size(), span)?;
        Ok(node)
    }

    fn sequence(&mut self, span: Span, depth: usize) -> Result<Node> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, end) => return Ok(Node { span: self.joined(span, end), content: Content::Sequence(items) }),
                (event, at) => items.push(self.node(event, at, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, span: Span, depth: usize) -> Result<Node> {
        let mut pairs: Vec<(Key, Node)> = Vec::new();
        let mut lines: HashMap<String, Span> = HashMap::new();
        let mut merged = Vec::new();
        let end = loop {
            let (key, plain) = match self.next()? {
                (Event::MappingEnd, end) => break end,
                (event, at) => self.key(event, at, depth)?,
            };
            if let Some(first) = lines.insert(key.text.clone(), key.span) {
                let message = format!("the key `{}` stands twice in one mapping", super::document::escaped(&key.text));
                return Err(self.document.error(key.span, message, format!("first in line {}", self.document.line(first))));
            }
            let (event, at) = self.next()?;
            let value = self.node(event, at, depth + 1)?;
            if plain && key.text == "<<" { merged.push(value) } else { pairs.push((key, value)) }
        };
        for value in merged {
            self.merge(&mut pairs, value)?;
        }
        Ok(Node { span: self.joined(span, end), content: Content::Mapping(pairs) })
    }

    fn key(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<(Key, bool)> {
        let node = self.node(event, span, depth + 1)?;
        match node.content {
            Content::Scalar { text, plain } => Ok((Key { text, span: node.span }, plain)),
            _ => Err(self.document.error(node.span, format!("a key must be text; found {}", node.described()), "")),
        }
    }

    /// Adds what a merge key (`<<`) brings, which gives way to the mapping's own keys.
    fn merge(&self, pairs: &mut Vec<(Key, Node)>, value: Node) -> Result<()> {
        let sources = match value.content {
            Content::Sequence(items) => items,
            _ => vec![value],
        };
        for source in sources {
            let (span, described) = (source.span, source.described());
            let Content::Mapping(added) = source.content else {
                return Err(self.document.error(span, format!("`<<` takes a mapping or a list of mappings; found {described}"), ""));
            };
            for (key, value) in added {
                if pairs.iter().all(|(known, _)| known.text != key.text) {
                    pairs.push((key, value));
                }
            }
        }
        Ok(())
    }

    /// Whether a scalar may be read as other than text. Tags outside YAML's core are an error, as in PyYAML's safe loader.
    fn plain(&self, style: ScalarStyle, tag: Option<Cow<'_, Tag>>, span: Span) -> Result<bool> {
        match tag {
            None => Ok(style == ScalarStyle::Plain),
            Some(tag) if tag.is_yaml_core_schema() && CORE_TAGS.contains(&tag.suffix.as_str()) => Ok(tag.suffix != "str"),
            Some(tag) => Err(self.document.error(span, format!("the YAML tag `{tag}` means nothing in a recipe"), "")),
        }
    }

    fn spend(&mut self, size: usize, span: Span) -> Result<()> {
        match self.left.checked_sub(size) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self.document.error(span, "too much for a recipe (with what aliases stand for)", "")),
        }
    }

    /// From the start of `start` to the end of `end`, without white space at the end.
    fn joined(&self, start: Span, end: Span) -> Span {
        self.trimmed(Span { start: start.start, end: end.end.max(start.end) })
    }

    /// The span of a scalar: the parser counts a comment behind a quoted one in.
    fn quoted(&self, span: Span, style: ScalarStyle) -> Span {
        let quote = match style {
            ScalarStyle::SingleQuoted => b'\'',
            ScalarStyle::DoubleQuoted => b'"',
            _ => return span,
        };
        let text = &self.document.text.as_bytes()[span.start..span.end];
        let Some(open) = text.iter().position(|byte| *byte == quote) else { return span };
        let mut at = open + 1;
        while at < text.len() {
            match (text[at], text.get(at + 1)) {
                (b'\\', _) if quote == b'"' => at += 2,
                (byte, Some(next)) if byte == quote && quote == b'\'' && *next == quote => at += 2,
                (byte, _) if byte == quote => return Span { end: span.start + at + 1, ..span },
                _ => at += 1,
            }
        }
        span
    }

    fn trimmed(&self, span: Span) -> Span {
        Span { end: span.start + self.document.text[span.start..span.end].trim_end().len(), ..span }
    }
}

/// Byte offsets of characters: the parser counts characters.
struct Offsets<'a> {
    text: &'a str,
    /// Byte offset of every `STEP`-th character; empty where a character is a byte.
    known: Vec<usize>,
}

const STEP: usize = 256;

impl<'a> Offsets<'a> {
    fn new(text: &'a str) -> Self {
        let known = if text.is_ascii() { Vec::new() } else { text.char_indices().step_by(STEP).map(|(at, _)| at).collect() };
        Self { text, known }
    }

    /// Byte offset of the character with that index, or the text's length.
    fn byte(&self, index: usize) -> usize {
        if self.known.is_empty() {
            return index.min(self.text.len());
        }
        let Some(&near) = self.known.get(index / STEP) else { return self.text.len() };
        self.text[near..].char_indices().nth(index % STEP).map_or(self.text.len(), |(at, _)| near + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Result<Node> {
        read(&Document::new("r", text, ""))
    }

    fn message(text: &str) -> String {
        tree(text).unwrap_err().to_string()
    }

    #[test]
    fn spans_are_bytes_also_behind_other_alphabets() {
        let text = format!("\u{feff}# {}\r\nmodèle: 'ü x'  # n\r\nb: [1, {{c: ß}}]\r\n", "é".repeat(700));
        let root = tree(&text).unwrap();
        let shown = |span: Span| &text[span.start..span.end];
        assert_eq!(shown(root.pairs().unwrap()[0].0.span), "modèle");
        assert_eq!(shown(root.get("modèle").unwrap().span), "'ü x'");
        let list = root.get("b").unwrap();
        assert_eq!(shown(list.span), "[1, {c: ß}]");
        assert_eq!(shown(list.items().unwrap()[1].get("c").unwrap().span), "ß");
    }

    #[test]
    fn aliases_and_merge_keys_stand_for_their_anchors() {
        let root = tree("a: &x {p: 1, q: 2}\nb: *x\nc: {<<: *x, q: 3}\nd: {<<: [{r: 4}, *x]}\ne: {'<<': 5}\n").unwrap();
        assert_eq!(root.get("b").unwrap().get("p").unwrap().text(), Some("1"));
        let merged = root.get("c").unwrap();
        assert_eq!((merged.get("p").unwrap().text(), merged.get("q").unwrap().text()), (Some("1"), Some("3")));
        assert_eq!(root.get("d").unwrap().pairs().unwrap().len(), 3);
        assert_eq!(root.get("e").unwrap().get("<<").unwrap().text(), Some("5"));
        assert!(message("a: {<<: 5}").contains("`<<` takes a mapping"));
    }

    #[test]
    fn aliases_cannot_blow_up_the_tree() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..20 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
            text += &format!("a{i}: &a{i} [{aliases}]\n");
        }
        assert!(message(&text).contains("with what aliases stand for"));
        let mut deep = "a0: &a0 [x]\n".to_owned();
        for i in 1..200 {
            deep += &format!("a{i}: &a{i} [*a{}]\n", i - 1);
        }
        assert!(message(&deep).contains("nested more than 64 levels"));
        assert!(message("a: &a [*a]").contains("alias"));
        assert!(message("a: *b").contains("not valid YAML"));
        assert!(message(&"[".repeat(1000)).contains("nested more than") || message(&"[".repeat(1000)).contains("recursion"));
        assert!(message(&"a: {".repeat(300)).contains("r:1:"));
    }

    #[test]
    fn what_is_no_recipe_at_all_is_said_so() {
        for (text, expected) in [
            ("", "the recipe is empty\n  = a recipe needs `merge_method`"),
            ("# nothing\n", "the recipe is empty"),
            ("---\n", "the recipe is empty"),
            ("~", "the recipe is empty"),
            ("- a\n", "r:1: a recipe is a mapping of keys to values; found a list"),
            ("hello", "r:1: a recipe is a mapping of keys to values; found `hello`"),
            ("a: 1\nb: 2\na: 3\n", "r:3: the key `a` stands twice in one mapping\n  3 | a: 3\n    | ^ first in line 1"),
            ("a:\n\tb: 1\n", "YAML indents with spaces, never with tabs"),
            ("a: 1\n---\nb: 2\n", "not yet: r:2: several documents in one recipe"),
            ("a: !x 1\n", "the YAML tag `!x` means nothing in a recipe"),
            ("? [a]\n: b\n", "r:1: a key must be text; found a list"),
            ("a: [1, 2\n", "r:2: not valid YAML"),
        ] {
            assert!(message(text).contains(expected), "{text:?}: {}", message(text));
        }
    }
}
