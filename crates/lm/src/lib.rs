//! Running language models on candle: encoders, decoders, tokenizers, chat templates, generation, gradients.
