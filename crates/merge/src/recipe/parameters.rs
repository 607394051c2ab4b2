//! What a parameter's setting is for one tensor.

use super::{Parameters, Scalar, Setting, Spanned};

impl Setting {
    /// Its value for a tensor of that name at layer position `t` (0 ..= 1), or `None` where it yields none: no filter matches, or a list is
    /// empty.
    ///
    /// A gradient `v` of length m is linear between its points: with `s = t (m-1)`, `i = trunc(s)`, `j = min(m-1, i+1)` it is
    /// `(1-(s-i)) v[i] + (s-i) v[j]`; other lists give `v[trunc(s)]`. The first filter that is a substring of the name decides.
    pub fn at(&self, tensor_name: &str, t: f64) -> Option<Scalar> {
        match self {
            Setting::Scalar(scalar) => Some(scalar.clone()),
            Setting::Gradient(values) => {
                let (i, rest) = position(values.len(), t)?;
                let j = (i + 1).min(values.len() - 1);
                Some(Scalar::Number((1.0 - rest) * values[i] + rest * values[j]))
            }
            Setting::Steps(values) => position(values.len(), t).map(|(i, _)| values[i].clone()),
            Setting::Conditional(clauses) => {
                let matches = |filter: &Option<String>| filter.as_deref().is_none_or(|text| text == "*" || tensor_name.contains(text));
                clauses.iter().find(|(filter, _)| matches(filter)).and_then(|(_, setting)| setting.at(tensor_name, t))
            }
        }
    }
}

/// Index and remainder of position `t` in a list of `length` values.
fn position(length: usize, t: f64) -> Option<(usize, f64)> {
    let last = length.checked_sub(1)?;
    let s = t.clamp(0.0, 1.0) * last as f64;
    let i = (s as usize).min(last);
    Some((i, s - i as f64))
}

/// The value of parameter `name` from the first of `places` that yields one, for a tensor of that name at layer position `t`, with the
/// place of the setting in the document.
pub fn lookup(places: &[&Parameters], name: &str, tensor_name: &str, t: f64) -> Option<Spanned<Scalar>> {
    places.iter().find_map(|parameters| {
        let (_, setting) = parameters.iter().find(|(known, _)| known == name)?;
        Some(Spanned { value: setting.value.at(tensor_name, t)?, span: setting.span })
    })
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::*;

    fn number(setting: &Setting, tensor: &str, t: f64) -> Option<f64> {
        setting.at(tensor, t)?.as_number()
    }

    fn conditional(clauses: &[(Option<&str>, Setting)]) -> Setting {
        Setting::Conditional(clauses.iter().map(|(filter, setting)| (filter.map(str::to_owned), setting.clone())).collect())
    }

    fn one(value: f64) -> Setting {
        Setting::Scalar(Scalar::Number(value))
    }

    #[test]
    fn gradients_are_linear_between_their_points() {
        let two = Setting::Gradient(vec![0.0, 1.0]);
        let over_five_layers: Vec<_> = (0..5).map(|k| number(&two, "x", f64::from(k) / 4.0).unwrap()).collect();
        assert_eq!(over_five_layers, [0.0, 0.25, 0.5, 0.75, 1.0]);
        let three = Setting::Gradient(vec![0.0, 0.5, 0.3]);
        assert!((number(&three, "x", 0.75).unwrap() - 0.4).abs() < 1e-15);
        assert_eq!(number(&Setting::Gradient(vec![0.7]), "x", 0.3), Some(0.7));
        assert_eq!(number(&Setting::Gradient(vec![]), "x", 0.3), None);
    }

    #[test]
    fn other_lists_are_steps() {
        let steps = Setting::Steps(vec![Scalar::Bool(true), Scalar::Bool(false), Scalar::Text("x".into())]);
        let at = |t| steps.at("", t).unwrap();
        assert_eq!(
            (at(0.0), at(0.49), at(0.5), at(1.0)),
            (Scalar::Bool(true), Scalar::Bool(true), Scalar::Bool(false), Scalar::Text("x".into()))
        );
    }

    #[test]
    fn the_first_filter_that_is_a_substring_decides() {
        let weight = conditional(&[(Some("self_attn"), one(0.2)), (Some("layers.1"), one(0.7)), (None, one(0.5))]);
        assert_eq!(number(&weight, "model.layers.1.self_attn.q_proj.weight", 0.0), Some(0.2));
        assert_eq!(number(&weight, "model.layers.12.mlp.up_proj.weight", 0.0), Some(0.7));
        assert_eq!(number(&weight, "model.layers.2.mlp.up_proj.weight", 0.0), Some(0.5));
        assert_eq!(number(&conditional(&[(Some("*"), one(0.3)), (None, one(0.5))]), "lm_head", 0.0), Some(0.3));
        assert_eq!(number(&conditional(&[(Some("MLP"), one(0.3))]), "mlp", 0.0), None);
    }

    #[test]
    fn the_first_place_that_yields_a_value_gives_it() {
        let place = |start, setting: Setting| vec![("weight".to_owned(), Spanned { value: setting, span: Span { start, end: start } })];
        let own = place(1, conditional(&[(Some("mlp"), one(0.1)), (Some("norm"), Setting::Gradient(vec![]))]));
        let top = place(2, one(0.9));
        let value =
            |tensor: &str| lookup(&[&own, &Vec::new(), &top], "weight", tensor, 0.0).map(|v| (v.value.as_number().unwrap(), v.span.start));
        assert_eq!(value("mlp"), Some((0.1, 1)));
        assert_eq!(value("attn"), Some((0.9, 2)));
        assert_eq!(value("norm"), Some((0.9, 2)), "an empty list yields nothing");
        assert_eq!(lookup(&[&own, &top], "density", "mlp", 0.0), None);
    }
}
