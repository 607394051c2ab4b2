//! File formats, one per file.

pub mod index;
pub mod safetensors;
