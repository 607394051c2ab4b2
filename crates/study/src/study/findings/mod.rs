//! What the results of a study say: spreads, effects with their errors, best points, claims.

mod claims;
mod effect;
mod finished;
mod measured;
mod merges;
mod single;

pub use claims::claims;
pub use effect::{Effect, LEVEL, Spread, Verdict, p_in_words};
pub use finished::{Finished, RESAMPLES};
pub use measured::{Near, near, ranges};
pub use merges::{GridPoint, MergeFinding};
pub use single::{SingleComparison, SinglePoint};

use deltaic_checkpoint::Result;

/// All that is found.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Single models after an operation, at every rate.
    pub points: Vec<SinglePoint>,
    /// DARE against the other operations on the same models at the same rates.
    pub comparisons: Vec<SingleComparison>,
    /// Merges, without DARE and with it.
    pub merges: Vec<MergeFinding>,
}

/// Takes together what is finished.
///
/// # Errors
/// Results that do not fit their items.
pub fn find(finished: &Finished<'_>) -> Result<Findings> {
    let (points, comparisons) = single::find(finished)?;
    Ok(Findings { points, comparisons, merges: merges::find(finished)? })
}
