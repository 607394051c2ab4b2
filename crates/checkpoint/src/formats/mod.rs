//! File formats of weights, one per file or folder. [`weight_file::WeightFile`] is what the rest of the crate sees.

pub mod index;
pub mod regular_file;
pub mod safetensors;
pub mod torch;
pub mod weight_file;
