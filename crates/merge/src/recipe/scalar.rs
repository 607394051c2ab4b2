//! How YAML 1.1 reads scalars, with the numbers that it misses (`1e-10`).

use super::Scalar;

impl Scalar {
    /// A scalar as written; in quotes it stays text.
    pub(super) fn read(text: &str, plain: bool) -> Self {
        if !plain {
            return Scalar::Text(text.to_owned());
        }
        match (truth(text), number(text)) {
            (Some(truth), _) => Scalar::Bool(truth),
            (_, Some(number)) => Scalar::Number(number),
            _ => Scalar::Text(text.to_owned()),
        }
    }

    /// Its value as a number: a truth value counts as 0 or 1, text as the number that it spells.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Scalar::Bool(truth) => Some(f64::from(u8::from(*truth))),
            Scalar::Number(value) => Some(*value),
            Scalar::Text(text) => number(text),
        }
    }

    /// Its truth: a number is true where it is not 0, as in Python.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Scalar::Bool(truth) => Some(*truth),
            other => other.as_number().map(|number| number != 0.0),
        }
    }

    /// Whether it is a number, or text that spells one.
    pub(super) fn is_numeric(&self) -> bool {
        !matches!(self, Scalar::Bool(_)) && self.as_number().is_some()
    }
}

/// YAML 1.1's truth values.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// A decimal number, or `.inf` and `.nan`, which callers refuse by name. `010` is none: YAML 1.1 reads it as 8, everyone else as 10.
pub(super) fn number(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    match unsigned {
        ".inf" | ".Inf" | ".INF" => return Some(sign * f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let octal = exponent.is_none() && !mantissa.contains('.') && whole.len() > 1 && whole.starts_with('0');
    let decimal = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty()) && !octal;
    (decimal && exponent.is_none_or(|part| !part.is_empty() && digits(part))).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_read_as_yaml_1_1_reads_them_and_numbers_it_misses_too() {
        for (text, expected) in [
            ("1", Scalar::Number(1.0)),
            ("-0.5", Scalar::Number(-0.5)),
            ("+.5", Scalar::Number(0.5)),
            ("1.", Scalar::Number(1.0)),
            ("1e-10", Scalar::Number(1e-10)),
            ("1.0E+3", Scalar::Number(1000.0)),
            ("yes", Scalar::Bool(true)),
            ("Off", Scalar::Bool(false)),
            ("FALSE", Scalar::Bool(false)),
            ("oN", Scalar::Text("oN".into())),
            ("y", Scalar::Text("y".into())),
            ("1_000", Scalar::Text("1_000".into())),
            ("010", Scalar::Text("010".into())),
            ("0x10", Scalar::Text("0x10".into())),
            ("inf", Scalar::Text("inf".into())),
            ("nan", Scalar::Text("nan".into())),
            ("1e", Scalar::Text("1e".into())),
            (".", Scalar::Text(".".into())),
            ("-", Scalar::Text("-".into())),
            ("1 2", Scalar::Text("1 2".into())),
        ] {
            assert_eq!(Scalar::read(text, true), expected, "{text}");
        }
        assert_eq!(Scalar::read(".inf", true).as_number(), Some(f64::INFINITY));
        assert!(Scalar::read("-.NaN", true).as_number().unwrap().is_nan());
        assert_eq!(Scalar::read("1e999", true).as_number(), Some(f64::INFINITY));
    }

    #[test]
    fn quoted_text_that_spells_a_number_counts_as_one() {
        let text = Scalar::read("0.25", false);
        assert_eq!(text, Scalar::Text("0.25".into()));
        assert_eq!((text.as_number(), text.as_bool()), (Some(0.25), Some(true)));
        assert_eq!(Scalar::read("true", false).as_bool(), None);
        assert_eq!((Scalar::Bool(true).as_number(), Scalar::Number(0.0).as_bool()), (Some(1.0), Some(false)));
    }
}
