//! What chat templates take from Python: methods of strings, and `json.dumps`.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Deepest nesting of what is written as JSON, lest a template exhausts the stack.
const MAX_DEPTH: usize = 100;

/// Methods of Python's `str`, `list` and `dict`: those of `minijinja-contrib`, and three more that published templates call.
pub(crate) fn methods(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return unknown_method_callback(state, value, method, args) };
    match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            let parts = match text.split_once(separator) {
                Some((before, after)) => [before, separator, after],
                None => [text, "", ""],
            };
            Ok(Value::from(Tuple::from(parts.map(Value::from))))
        }
        _ => unknown_method_callback(state, value, method, args),
    }
}

/// How JSON is written: Python's `json.dumps` with the arguments that transformers passes through.
struct Style {
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    ensure_ascii: bool,
    sort_keys: bool,
}

/// `tojson` as transformers has it: `json.dumps(x, ensure_ascii=False)` unless the arguments say otherwise; nothing is escaped for HTML.
pub(crate) fn tojson(state: &State, value: &Value, ensure_ascii: Option<bool>, kwargs: Kwargs) -> Result<Value, Error> {
    let ascii = match ensure_ascii {
        Some(ascii) => Some(ascii),
        None => kwargs.get("ensure_ascii")?,
    };
    let indent: Option<Value> = kwargs.get("indent")?;
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) if indent.as_str().is_some() => indent.as_str().map(str::to_owned),
        Some(indent) => Some(" ".repeat(usize::try_from(indent)?.min(MAX_DEPTH))),
    };
    let separators: Option<Vec<String>> =
        kwargs.get::<Option<Value>>("separators")?.filter(|value| !value.is_none()).map(to_texts).transpose()?;
    let (item_separator, key_separator) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "tojson: expected two separators")),
        // Python leaves the space out where a line ends.
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let sort_keys = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let style = Style { indent, item_separator, key_separator, ensure_ascii: ascii.unwrap_or(false), sort_keys };
    let mut text = String::new();
    style.write(state, &mut text, value, 0)?;
    Ok(Value::from(text))
}

fn to_texts(value: Value) -> Result<Vec<String>, Error> {
    value.try_iter()?.map(|item| item.as_str().map(str::to_owned).ok_or_else(|| not_serializable(&item))).collect()
}

fn not_serializable(value: &Value) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("tojson: a value of kind {} cannot be written as JSON", value.kind()))
}

impl Style {
    fn write(&self, state: &State, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: nested deeper than {MAX_DEPTH}")));
        }
        let before = out.len();
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => _ = write!(out, "{value}"),
            ValueKind::String => self.write_text(out, value.as_str().unwrap_or("")),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.write_items(out, '[', ']', depth, items.len(), |out, i| self.write(state, out, &items[i], depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.write_items(out, '{', '}', depth, keys.len(), |out, i| {
                    match keys[i].as_str() {
                        Some(key) => self.write_text(out, key),
                        None => self.write_text(out, &keys[i].to_string()),
                    }
                    out.push_str(&self.key_separator);
                    self.write(state, out, &value.get_item(&keys[i])?, depth + 1)
                })?;
            }
            _ => return Err(not_serializable(value)),
        }
        // One unit is 64 bytes; what is nested is paid for at each level, which is bounded.
        state.consume_fuel((out.len() - before) as u64 / 64 + 1)
    }

    fn write_items(
        &self,
        out: &mut String,
        open: char,
        close: char,
        depth: usize,
        count: usize,
        mut item: impl FnMut(&mut String, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        for i in 0..count {
            if i > 0 {
                out.push_str(&self.item_separator);
            }
            self.write_line_end(out, depth + 1);
            item(out, i)?;
        }
        if count > 0 {
            self.write_line_end(out, depth);
        }
        out.push(close);
        Ok(())
    }

    fn write_line_end(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    fn write_text(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || self.ensure_ascii && (c > '~') => {
                    c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| _ = write!(out, "\\u{unit:04x}"));
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}
