//! `parameters`: which of them the method knows, and the forms of their values.

use deltaic_checkpoint::Result;

use super::document::escaped;
use super::node::{Content, Node};
use super::unknown::{Context, nearest};
use super::{Parameters, Scalar, Setting, Spanned, not_yet};
use crate::methods::{self, Definition, Kind, Parameter, Preset, Scope};

/// Reads a block of `parameters`; what has no effect on `method` is noted and left out. `own`: whether the block is a model's own.
pub(super) fn parameters(context: &mut Context<'_>, node: Option<&Node>, method: &Definition, own: bool) -> Result<Parameters> {
    let Some(node) = node else { return Ok(Vec::new()) };
    let Some(pairs) = node.pairs() else {
        return context.error(node.span, format!("`parameters` is a mapping of names to values; found {}", node.described()), "");
    };
    let mut read = Vec::new();
    for (key, value) in pairs {
        let Some(parameter) = method.parameters.iter().find(|parameter| parameter.name == key.text) else {
            stranger(context, key, method);
            continue;
        };
        if own && parameter.scope == Scope::Shared {
            let message = format!("`{}` is one value for all models, and stands in the parameters of one", parameter.name);
            context.note(key.span, message, None, "it belongs in the recipe's or the slice's `parameters`".to_owned());
            continue;
        }
        if value.is_null() {
            return context.error(key.span, format!("`{}` has no value", parameter.name), format!("expected {}", expected(parameter.kind)));
        }
        let setting = setting(context, value, parameter, false)?;
        if setting != Setting::Gradient(Vec::new()) {
            read.push((key.text.clone(), Spanned { value: setting, span: value.span }));
        }
    }
    Ok(read)
}

/// Notes a parameter that the method does not have.
fn stranger(context: &mut Context<'_>, key: &super::node::Key, method: &Definition) {
    let name = key.text.as_str();
    if name == "name" {
        return;
    }
    let owners: Vec<&Definition> = methods::all().filter(|other| other.parameters.iter().any(|parameter| parameter.name == name)).collect();
    let same_name = owners.iter().find(|owner| owner.name == method.name);
    if let Some(owner) = same_name {
        let other = if owner.preset == Some(Preset::Paper) { "paper" } else { "mergekit" };
        let message = format!("`{name}` is a parameter of {} under `preset: {other}` only", method.name);
        context.note(key.span, message, None, String::new());
    } else if let Some(owner) = owners.iter().find(|owner| owner.preset == method.preset).or(owners.first()) {
        let message = format!("`{name}` is a parameter of {}, not of {}", owner.name, method.name);
        context.note(key.span, message, None, String::new());
    } else {
        let later = not_yet::PARAMETERS.contains(&name);
        let near = if later { None } else { nearest(name, method.parameters.iter().map(|parameter| parameter.name)) };
        context.note(key.span, format!("unknown key `{}` in parameters of {}", escaped(name), method.name), near, String::new());
    }
}

/// Reads a value: a scalar, a list over the layers, or clauses `{filter, value}`.
fn setting(context: &mut Context<'_>, node: &Node, parameter: &Parameter, nested: bool) -> Result<Setting> {
    match &node.content {
        Content::Scalar { .. } => Ok(Setting::Scalar(scalar(context, node, parameter)?)),
        Content::Mapping(_) => conditional(context, node.span, std::slice::from_ref(node), parameter, nested),
        Content::Sequence(items) if items.iter().any(|item| item.pairs().is_some()) => {
            conditional(context, node.span, items, parameter, nested)
        }
        Content::Sequence(items) => {
            let values: Vec<Scalar> = items.iter().map(|item| scalar(context, item, parameter)).collect::<Result<_>>()?;
            if values.iter().all(Scalar::is_numeric) {
                Ok(Setting::Gradient(values.iter().filter_map(Scalar::as_number).collect()))
            } else {
                Ok(Setting::Steps(values))
            }
        }
    }
}

fn conditional(context: &mut Context<'_>, span: super::Span, clauses: &[Node], parameter: &Parameter, nested: bool) -> Result<Setting> {
    let name = parameter.name;
    if nested {
        return context.error(span, format!("a filter of `{name}` inside another one"), "a clause's value is a scalar or a list");
    }
    let mut read = Vec::new();
    for clause in clauses {
        if clause.pairs().is_none() {
            let message = format!("`{name}` mixes values and `{{filter, value}}` clauses in one list");
            return context.error(
                clause.span,
                message,
                format!("write `value: {}` for all other tensors", clause.described().trim_matches('`')),
            );
        }
        let fields = context.fields(clause, &format!("a clause of `{name}`"), &["filter", "value"])?;
        let filter = match fields.get("filter") {
            None => None,
            Some(filter) => match filter.text() {
                Some(text) => Some(text.to_owned()),
                None => {
                    return context.error(filter.span, format!("a filter is part of a tensor's name; found {}", filter.described()), "");
                }
            },
        };
        let Some(value) = fields.get("value") else {
            return context.error(
                clause.span,
                format!("a clause of `{name}` without `value`"),
                "write `{filter: PART_OF_A_NAME, value: …}`",
            );
        };
        read.push((filter, setting(context, value, parameter, true)?));
    }
    Ok(Setting::Conditional(read))
}

/// Reads one value and checks it against the parameter's kind.
fn scalar(context: &Context<'_>, node: &Node, parameter: &Parameter) -> Result<Scalar> {
    let name = parameter.name;
    let wrong =
        |label: &str| context.error(node.span, format!("`{name}` is {}; expected {}", node.described(), expected(parameter.kind)), label);
    let Content::Scalar { text, plain } = &node.content else { return wrong("") };
    let value = Scalar::read(text, *plain);
    if let Some(number) = value.as_number() {
        // The arithmetic is f32: what is beyond it would be infinite there.
        if !(number as f32).is_finite() {
            return context.error(
                node.span,
                format!("`{name}` is {}; expected a number that is finite in f32", node.described()),
                "at most 3.4e38",
            );
        }
        if parameter.kind == Kind::Rate && !(0.0..=1.0).contains(&number) {
            return context.error(node.span, format!("`{name}` is {text}; expected a rate"), "a rate lies within 0 and 1");
        }
        return Ok(value);
    }
    wrong(if parameter.kind == Kind::Bool && super::scalar::truth(text).is_some() { "without quotes" } else { "" })
}

fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Number => "a number",
        Kind::Rate => "a number within 0 and 1",
        Kind::Bool => "true or false",
    }
}
