//! A method's parameters for one tensor: looked up in the recipe's places, in their order, and checked.

use deltaic_checkpoint::{Error, Result};

use crate::methods::{Default, Kind, Parameter, Scope, Value, Values};
use crate::recipe::{Parameters, Recipe, lookup};

/// Where a tensor's parameters may stand, and what is tested against filters.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    pub recipe: &'a Recipe,
    /// The model's own block.
    pub own: Option<&'a Parameters>,
    pub slice: Option<&'a Parameters>,
    /// For shared parameters the output's name of the tensor, for a model's the source's.
    pub tensor: &'a str,
    /// Layer position.
    pub t: f64,
    /// Whose parameters these are, for messages.
    pub whose: &'a str,
}

/// The values of all parameters of one scope: shared ones, or a model's (`is_base` says which of these).
pub(super) fn resolve(places: &Places<'_>, shared: bool, is_base: bool) -> Result<Values> {
    let wanted = |parameter: &&Parameter| match parameter.scope {
        Scope::Shared => shared,
        Scope::PerModel => !shared && !is_base,
        Scope::PerInput => !shared,
    };
    let mut values = Values::default();
    for parameter in places.recipe.method.parameters.iter().filter(wanted).filter(|parameter| !parameter.no_effect) {
        if let Some(value) = one(places, parameter, shared)? {
            values.0.push((parameter.name, value));
        }
    }
    Ok(values)
}

fn one(places: &Places<'_>, parameter: &Parameter, shared: bool) -> Result<Option<Value>> {
    let own = if shared { None } else { places.own };
    let blocks: Vec<&Parameters> = own.into_iter().chain(places.slice).chain([&places.recipe.parameters]).collect();
    let Some(found) = lookup(&blocks, parameter.name, places.tensor, places.t) else {
        return match parameter.default {
            Default::Number(number) => Ok(Some(Value::Number(number))),
            Default::Bool(truth) => Ok(Some(Value::Bool(truth))),
            Default::Absent => Ok(None),
            Default::Required => Err(Error::new(format!(
                "{}: {} gives {} no `{}` for {}",
                places.recipe.document.name, places.recipe.method.name, places.whose, parameter.name, places.tensor
            ))
            .help(format!("add `{}` to the parameters, or a clause without a filter: `- value: …`", parameter.name))),
        };
    };
    let wrong =
        |expected: &str| Err(places.recipe.document.error(found.span, format!("`{}` for {}", parameter.name, places.tensor), expected));
    match (parameter.kind, found.value.as_number(), found.value.as_bool()) {
        (Kind::Bool, _, Some(truth)) => Ok(Some(Value::Bool(truth))),
        (Kind::Bool, _, None) => wrong("expected true or false"),
        (Kind::Number, Some(number), _) => Ok(Some(Value::Number(number))),
        (Kind::Rate, Some(number), _) if (0.0..=1.0).contains(&number) => Ok(Some(Value::Number(number))),
        (Kind::Rate, ..) => wrong("expected a number within 0 .. 1"),
        (Kind::Number, None, _) => wrong("expected a number"),
    }
}
