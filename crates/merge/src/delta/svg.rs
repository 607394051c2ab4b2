//! stub
use super::DeltaStudy;
pub(super) fn draw(_study: &DeltaStudy, _histogram: &[u64]) -> String {
    String::new()
}
