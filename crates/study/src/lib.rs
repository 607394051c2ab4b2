//! What stands on merging and evaluating together: statistics of models that methods need, studies, searches, reports.

mod html;
mod plot;
pub mod similarity;
pub mod statistics;
pub mod study;
