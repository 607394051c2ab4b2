//! Checks that catch a broken merge: before its first byte is written, and of the finished folder. Each reads headers, side files and
//! samples, never all of the weights.

mod agreement;
pub mod folder;
pub mod homology;
pub(crate) mod swallowed;

use deltaic_checkpoint::Result;

use crate::plan::Plan;

/// What there is to say of a merge before its first byte is written, in warnings: configurations that disagree, models that look like
/// fine-tunes of another base, deltas that are too large to be dropped, models that add nothing, numbers that are not finite. Reads at most
/// 8 MB of each model.
///
/// # Errors
/// A source cannot be read; the output's config.json says more layers than there are.
pub fn before(plan: &Plan) -> Result<Vec<String>> {
    let mut warnings = agreement::warnings(plan)?;
    warnings.extend(homology::warnings(plan, &homology::relations(plan)?));
    Ok(warnings)
}

/// So many names are listed before the rest is only counted.
const NAMES_LISTED: usize = 3;

/// `a, b, c and 4 more`.
fn listed(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES_LISTED).map(String::as_str).collect();
    match names.len().saturating_sub(NAMES_LISTED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
