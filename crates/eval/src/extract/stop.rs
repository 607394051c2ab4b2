//! Cutting a generated text before stop strings.

/// The text before whichever stop string begins first: what a server does with `stop`. Empty stop strings are passed over.
pub fn cut_at_earliest<'a>(text: &'a str, stops: &[impl AsRef<str>]) -> &'a str {
    let ends = stops.iter().map(AsRef::as_ref).filter(|stop| !stop.is_empty()).filter_map(|stop| text.find(stop));
    &text[..ends.min().unwrap_or(text.len())]
}

/// The text as lm-evaluation-harness cuts it: before the first of the first stop string, what is left before the first of the second, and so on. It
/// differs from [`cut_at_earliest`] only where stop strings overlap in the text.
pub fn cut_in_turn<'a>(text: &'a str, stops: &[impl AsRef<str>]) -> &'a str {
    let stops = stops.iter().map(AsRef::as_ref).filter(|stop| !stop.is_empty());
    stops.fold(text, |text, stop| text.split(stop).next().unwrap_or(text))
}
