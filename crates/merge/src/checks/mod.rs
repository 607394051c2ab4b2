//! Checks that catch a broken merge: each reads headers, side files and samples, never all of the weights.

pub mod folder;
