//! The fields of `sentencepiece_model.proto` that decide how a text is tokenised.
#![allow(missing_docs, reason = "prost's derive writes public accessors without documentation")]

use prost::{Enumeration, Message};

/// `ModelProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Model {
    #[prost(message, repeated, tag = "1")]
    pub(crate) pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer_spec: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer_spec: Option<Normalizer>,
}

impl Model {
    /// How it was trained; defaults where the file says nothing.
    pub(crate) fn trainer(&self) -> Trainer {
        self.trainer_spec.clone().unwrap_or_default()
    }

    /// How texts are normalised; defaults where the file says nothing.
    pub(crate) fn normalizer(&self) -> &Normalizer {
        const DEFAULT: &Normalizer = &Normalizer { precompiled_charsmap: None, add_dummy_prefix: None, remove_extra_whitespaces: None };
        self.normalizer_spec.as_ref().unwrap_or(DEFAULT)
    }
}

/// `ModelProto.SentencePiece`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Piece {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(enumeration = "PieceType", optional, tag = "3", default = "Normal")]
    r#type: Option<i32>,
}

impl Piece {
    /// What kind of token it is.
    pub(crate) fn kind(&self) -> PieceType {
        self.r#type()
    }
}

/// `ModelProto.SentencePiece.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(crate) enum PieceType {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// `TrainerSpec`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Trainer {
    #[prost(enumeration = "ModelType", optional, tag = "3", default = "Unigram")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
    #[prost(int32, optional, tag = "40", default = "0")]
    unk_id: Option<i32>,
}

/// `TrainerSpec.ModelType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(crate) enum ModelType {
    Unigram = 1,
    Bpe = 2,
    Word = 3,
    Char = 4,
}

/// `NormalizerSpec`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Normalizer {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3", default = "true")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4", default = "true")]
    remove_extra_whitespaces: Option<bool>,
}
