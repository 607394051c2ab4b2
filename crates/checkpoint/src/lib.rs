//! A model folder as named, typed, lazily read tensors.
//!
//! [`TensorSource`] is the common language of deltaic's crates. A [`Checkpoint`] is an opened model folder, an
//! [`AdaptedModel`] a checkpoint with a PEFT LoRA adapter on it. [`align`] gives the tensors of several sources common
//! names, [`ShardLayout`] says where each tensor of an output goes. Opening reads headers only; weights are read by
//! windows, by `pread`, into the caller's buffer.
//!
//! Everything here is read from files that may be damaged or hostile: lengths are checked before memory is taken, no name
//! in a file leads out of its folder, and nothing is executed.

mod adapter;
mod adapter_config;
mod adapter_names;
mod agreement;
mod architecture;
mod config;
mod dtype;
mod error;
mod folder;
mod formats;
mod hub;
mod identity;
mod model;
mod names;
mod opened;
mod reference;
mod resized;
mod shapes;
mod side_files;
mod tensor;
mod vocabulary;
mod writer;

pub use adapter::AdaptedModel;
pub use adapter_config::AdapterConfig;
pub use agreement::Disagreement;
pub use architecture::{Architecture, Position};
pub use config::Config;
pub use dtype::{DType, shorten};
pub use error::{Context, Error, Result};
pub use folder::{WeightFiles, find_weights};
pub use formats::index::ShardIndex;
pub use formats::regular_file::{open_regular, read_bytes, read_text};
pub use formats::safetensors::{Header, SafetensorsFile, StoredTensor, parse_header};
pub use formats::torch::{TorchFile, TorchTensor, parse_torch_file, parse_torch_pickle};
pub use formats::weight_file::WeightFile;
pub use hub::{Found, Located, hub_cache, is_hub_name, locate, locate_in};
pub use identity::{FileIdentity, joined_id};
pub use model::Checkpoint;
pub use names::{AlignedTensor, Alignment, SourceNames, align};
pub use opened::OpenedModel;
pub use reference::ModelReference;
pub use resized::{ResizedSource, RowFill};
pub use shapes::ExpectedShape;
pub use side_files::SideFiles;
pub use tensor::{TensorInfo, TensorSource, Window};
pub use vocabulary::{parse_tokenizer, read_vocabulary};
pub use writer::{Shard, ShardLayout, TensorPlace, parse_size};
