//! How near the hidden states of two models are on the same texts, token by token (the paper's study of embeddings after DARE and DropOnly).

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;
use deltaic_checkpoint::{Error, Result};
use deltaic_eval::{Request, RequestTokenizer};
use deltaic_lm::{Computed, DecoderBatch, EncoderBatch, EncoderInput, Mode, Pass, batches_by_length};
use serde::{Deserialize, Serialize};

use crate::statistics::{DOCUMENT_TOKENS, Network, StatisticsModel};

/// Most tokens of a batch, padding included.
const BATCH_TOKENS: usize = 4096;

/// Two models compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Similarity {
    /// How many tokens were compared; padding is none.
    pub tokens: usize,
    /// By hidden state: the embeddings, then the output of every layer.
    pub states: Vec<StateSimilarity>,
}

/// The cosines of one hidden state.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StateSimilarity {
    /// The mean over tokens.
    pub mean: f64,
    /// The 10%, 20%, …, 90% quantiles over tokens, between neighbours by a straight line.
    pub deciles: [f64; 9],
}

/// The cosine between the two models' hidden states at every attended token of the texts, in f64.
///
/// # Errors
/// The models are of different architectures or sizes, cannot be loaded or run, or the work was cancelled.
pub fn similarity(first: &StatisticsModel, second: &StatisticsModel, texts: &[EncoderInput], cancel: &AtomicBool) -> Result<Similarity> {
    if texts.is_empty() {
        return Err(Error::new("there are no texts on which models could be compared"));
    }
    let networks = [first.load(Mode::Inference)?, second.load(Mode::Inference)?];
    let mut cosines: Vec<Vec<f64>> = Vec::new();
    let lengths: Vec<usize> = texts.iter().map(|text| text.ids.len()).collect();
    for members in batches_by_length(&lengths, BATCH_TOKENS) {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::new("cancelled"));
        }
        let rows: Vec<&EncoderInput> = members.iter().map(|&text| &texts[text]).collect();
        let [first_states, second_states] = [hidden_states(&networks[0], &rows)?, hidden_states(&networks[1], &rows)?];
        let sizes = |states: &[Tensor]| states.iter().map(|state| state.dims().to_vec()).collect::<Vec<_>>();
        if sizes(&first_states) != sizes(&second_states) {
            let (a, b) = (first_states.len(), second_states.len());
            return Err(Error::new(format!("{} has {a} hidden states, {} has {b}, or their sizes differ", first.name, second.name))
                .help("compare models of one architecture and size"));
        }
        cosines.resize(first_states.len(), Vec::new());
        for ((a, b), cosines) in first_states.iter().zip(&second_states).zip(&mut cosines) {
            let (a, b) = (a.to_vec3::<f32>().computed()?, b.to_vec3::<f32>().computed()?);
            for ((a, b), row) in a.iter().zip(&b).zip(&rows) {
                // Padding stands on the right.
                cosines.extend(a.iter().zip(b).take(row.ids.len()).map(|(a, b)| cosine(a, b)));
            }
        }
    }
    let tokens = cosines.first().map_or(0, Vec::len);
    Ok(Similarity { tokens, states: cosines.into_iter().map(StateSimilarity::of).collect() })
}

fn hidden_states(network: &Network, rows: &[&EncoderInput]) -> Result<Vec<Tensor>> {
    let mut pass = Pass::new().keeping_hidden_states();
    match network {
        Network::Encoder(encoder) => {
            encoder.forward(&EncoderBatch::padded(rows, encoder.pad_id()), &mut pass)?;
        }
        Network::Decoder(decoder) => {
            let ids: Vec<&[u32]> = rows.iter().map(|row| row.ids.as_slice()).collect();
            decoder.forward(&DecoderBatch::right_padded(&ids), None, &mut pass)?;
        }
    }
    Ok(pass.hidden_states().to_vec())
}

/// The cosine of two vectors; 1 where both are zero, 0 where one is.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (f64::from(a), f64::from(b));
        aa += a * a;
        bb += b * b;
        ab += a * b;
    }
    match (aa == 0.0, bb == 0.0) {
        (true, true) => 1.0,
        (false, false) => (ab / (aa.sqrt() * bb.sqrt())).clamp(-1.0, 1.0),
        _ => 0.0,
    }
}

impl StateSimilarity {
    fn of(mut cosines: Vec<f64>) -> Self {
        let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
        cosines.sort_by(f64::total_cmp);
        let last = cosines.len().saturating_sub(1);
        let quantile = |tenths: usize| {
            let place = tenths as f64 / 10.0 * last as f64;
            let (below, above) = (place.floor() as usize, place.ceil() as usize);
            cosines.get(below).zip(cosines.get(above)).map_or(f64::NAN, |(a, b)| a + (b - a) * (place - below as f64))
        };
        Self { mean, deciles: std::array::from_fn(|tenth| quantile(tenth + 1)) }
    }
}

/// Texts as tokens of a model; a decoder's are cut at [`DOCUMENT_TOKENS`].
///
/// # Errors
/// The model has no tokenizer, or a text cannot be encoded.
pub fn encoded(model: &StatisticsModel, texts: &[String]) -> Result<Vec<EncoderInput>> {
    let requests = texts.iter().map(|text| match model.is_decoder() {
        true => Request::Rolling { text: text.clone() },
        false => Request::Classify { text: text.clone(), pair: None, max_tokens: usize::MAX },
    });
    encoded_requests(model, &requests.collect::<Vec<_>>())
}

/// What a task asks, as tokens of a model.
///
/// # Errors
/// As [`encoded`], and questions that are answered by writing.
pub(crate) fn encoded_requests(model: &StatisticsModel, requests: &[Request]) -> Result<Vec<EncoderInput>> {
    let (tokens, longest) = (model.tokenizer()?, model.longest()?);
    let inputs: Vec<EncoderInput> = requests.iter().map(|request| input(&tokens, request, longest)).collect::<Result<_>>()?;
    Ok(inputs.into_iter().filter(|input| !input.ids.is_empty()).collect())
}

fn input(tokens: &RequestTokenizer, request: &Request, longest: usize) -> Result<EncoderInput> {
    let of_ids = |ids: Vec<u32>| EncoderInput { ids, type_ids: Vec::new() };
    match request {
        Request::Classify { .. } => tokens.classified(request, longest),
        Request::Rolling { text } => {
            let mut ids = tokens.document(text)?;
            ids.truncate(DOCUMENT_TOKENS.min(longest));
            Ok(of_ids(ids))
        }
        _ => Ok(of_ids(tokens.scored(request, longest)?.pop().map(|scored| scored.tokens).unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.quantile([0.1, 0.4, 0.2, 0.9], [0.1, ..., 0.9])`.
    #[test]
    fn deciles_are_numpys() {
        let found = StateSimilarity::of(vec![0.1, 0.4, 0.2, 0.9]);
        let expected = [0.13, 0.16, 0.19, 0.24, 0.3, 0.36, 0.45, 0.6, 0.75];
        assert!(found.deciles.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
        assert!((found.mean - 0.4).abs() < 1e-12);
    }

    #[test]
    fn cosines_are_those_of_the_angle() {
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
        assert!((cosine(&[1.0, 1.0], &[1.0, 0.0]) - std::f64::consts::FRAC_1_SQRT_2).abs() < 1e-15);
        assert_eq!((cosine(&[0.0], &[0.0]), cosine(&[0.0], &[1.0]), cosine(&[2.0], &[-3.0])), (1.0, 0.0, -1.0));
    }
}
