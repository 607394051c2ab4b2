//! What the output's dtype swallows: in 16 bits a small delta is rounded away, and the merge gives back the base.

use std::collections::BTreeMap;

use crate::engine::Counts;
use crate::plan::Plan;

/// A share of swallowed deltas from which on the user should know.
const WORTH_A_WARNING: f64 = 0.1;
/// Kinds of tensors that a message names.
const KINDS_LISTED: usize = 4;

/// A warning where much of what the merge moved away from the base is rounded back to it, with the shares by kind of tensor. `counts` are
/// those of the plan's tensors. Merges that never look at a base are not judged.
pub(crate) fn warning(plan: &Plan, counts: &[Counts]) -> Option<String> {
    let mut all = Counts::default();
    let mut kinds: BTreeMap<String, Counts> = BTreeMap::new();
    for (tensor, counts) in plan.tensors.iter().zip(counts) {
        all += *counts;
        *kinds.entry(plan.architecture.kind_of(&tensor.name)).or_default() += *counts;
    }
    let share = |counts: &Counts| counts.swallowed as f64 / counts.moved.max(1) as f64;
    if share(&all) < WORTH_A_WARNING {
        return None;
    }
    let mut kinds: Vec<(String, f64)> =
        kinds.iter().filter(|(_, counts)| counts.moved > 0).map(|(kind, counts)| (kind.clone(), share(counts))).collect();
    kinds.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let listed: Vec<String> = kinds.iter().take(KINDS_LISTED).map(|(kind, share)| format!("{kind} {:.0}%", 100.0 * share)).collect();
    let more = kinds.len().saturating_sub(KINDS_LISTED);
    let more = if more > 0 { format!(" and {more} more kinds") } else { String::new() };
    let dtype = plan.tensors.iter().find(|tensor| !tensor.is_copy()).map_or("the output's dtype", |tensor| tensor.dtype.torch_name());
    Some(format!(
        "{dtype} swallowed {:.0}% of the deltas: so many elements that the merge moved are rounded back to the base ({}{more})\n  \
         = `out_dtype: float32` keeps them all",
        100.0 * share(&all),
        listed.join(", ")
    ))
}
