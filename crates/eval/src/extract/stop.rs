//! Where stop strings end a generated text.

/// Where whichever stop string comes first begins: what a server does with `stop` is to end the text there. Empty stop strings are passed over.
pub fn first_stop(text: &str, stops: &[impl AsRef<str>]) -> Option<usize> {
    stops.iter().map(AsRef::as_ref).filter(|stop| !stop.is_empty()).filter_map(|stop| text.find(stop)).min()
}
