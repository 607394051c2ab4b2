//! Rotary position embeddings (Su et al. 2021) and the ways in which they are scaled to longer texts.
//!
//! Frequencies are computed in f32 in the order of transformers' `modeling_rope_utils.py`, so that angles at large positions agree.

use std::f64::consts::PI;

use candle_core::{D, Device, Result, Tensor};
use deltaic_checkpoint::Error;
use serde_json::{Map, Value};

use crate::settings::Keys;
use crate::weights::Mode;

/// Heads of more elements are no model's.
const MAX_DIM: usize = 1 << 14;

/// The rotary embedding of a model: how many of a head's elements turn, how fast, and what `cos` and `sin` are multiplied by.
#[derive(Debug, Clone)]
pub(crate) struct Rope {
    theta: f64,
    dim: usize,
    factor_on_both: f64,
    scaling: Scaling,
}

#[derive(Debug, Clone)]
enum Scaling {
    /// Frequencies that hold for all lengths.
    Fixed(Vec<f32>),
    /// NTK-aware: the base grows with the longest position.
    Dynamic { factor: f64, max_positions: f64 },
    /// LongRoPE: other frequencies beyond the length of pre-training.
    Long { short: Vec<f32>, long: Vec<f32>, original: usize },
}

impl Rope {
    /// Reads `rope_parameters`, or `rope_theta` with `rope_scaling`, for heads of `head_dim` elements.
    ///
    /// # Errors
    /// A type of scaling that is not known, or a value that cannot be: the message names key and value.
    pub fn read(config: Keys<'_>, head_dim: usize, max_positions: usize) -> deltaic_checkpoint::Result<Self> {
        let (name, map) = parameters(config)?;
        let keys = Scaled { config, name, map };
        let theta = match keys.number("rope_theta")? {
            Some(theta) => theta,
            None => config.number("rope_theta")?.unwrap_or(10_000.0),
        };
        if theta <= 1.0 {
            return Err(config.wrong("rope_theta", &Value::from(theta), "a number above 1"));
        }
        let partial = match keys.number("partial_rotary_factor")? {
            Some(partial) => partial,
            None => config.number("partial_rotary_factor")?.unwrap_or(1.0),
        };
        let dim = (head_dim as f64 * partial) as usize;
        if partial <= 0.0 || partial > 1.0 || !(4..=MAX_DIM).contains(&dim) || !dim.is_multiple_of(2) {
            let expected = format!("from 4 to {MAX_DIM} turning elements of a head's {head_dim}, an even number, found {dim}");
            return Err(config.wrong("partial_rotary_factor", &Value::from(partial), &expected));
        }
        let kind = keys.text("rope_type")?.or(keys.text("type")?).unwrap_or_else(|| "default".to_owned());
        let plain = frequencies(theta, dim);
        let (scaling, factor_on_both) = match kind.as_str() {
            "default" => (Scaling::Fixed(plain), 1.0),
            "linear" => {
                let factor = keys.required("factor")?;
                (Scaling::Fixed(plain.iter().map(|f| f / factor as f32).collect()), 1.0)
            }
            "dynamic" => (Scaling::Dynamic { factor: keys.required("factor")?, max_positions: max_positions as f64 }, 1.0),
            "llama3" => (Scaling::Fixed(llama3(&keys, &plain, max_positions)?), 1.0),
            "yarn" => yarn(&keys, theta, dim, max_positions)?,
            "longrope" | "su" => long(&keys, theta, dim, max_positions)?,
            _ => {
                let known = ["default", "linear", "dynamic", "llama3", "yarn", "longrope"];
                return Err(config.unknown(&format!("{}.rope_type", keys.name), &kind, &known));
            }
        };
        Ok(Self { theta, dim, factor_on_both, scaling })
    }

    /// The cosines and sines of `positions`, `[rows, width]` row by row; the largest position decides where the scaling depends on length.
    pub fn tables(&self, positions: &[u32], rows: usize, width: usize, device: &Device) -> Result<RopeTables> {
        let length = positions.iter().max().map_or(0, |&largest| largest as usize + 1);
        let grown;
        let frequencies = match &self.scaling {
            Scaling::Fixed(frequencies) => frequencies,
            Scaling::Long { short, long, original } => {
                if length > *original {
                    long
                } else {
                    short
                }
            }
            Scaling::Dynamic { factor, max_positions } => {
                let longest = (length as f64).max(*max_positions);
                let stretch = factor * longest / max_positions - (factor - 1.0);
                let dim = self.dim as f64;
                grown = self::frequencies(self.theta * stretch.powf(dim / (dim - 2.0)), self.dim);
                &grown
            }
        };
        // Rows at the same positions share one table.
        let shared = positions.chunks(width).all(|row| row == &positions[..width]);
        let (rows, positions) = if shared { (1, &positions[..width]) } else { (rows, positions) };
        let half = self.dim / 2;
        let mut cos = Vec::with_capacity(positions.len() * half);
        let mut sin = Vec::with_capacity(positions.len() * half);
        for &position in positions {
            for &frequency in frequencies {
                let (s, c) = (position as f32 * frequency).sin_cos();
                cos.push(c * self.factor_on_both as f32);
                sin.push(s * self.factor_on_both as f32);
            }
        }
        let shape = (rows, width, half);
        Ok(RopeTables { cos: Tensor::from_vec(cos, shape, device)?, sin: Tensor::from_vec(sin, shape, device)?, half })
    }

    /// The number of positions beyond which LongRoPE takes other frequencies, which makes keys in a cache stale.
    pub fn switches_at(&self) -> Option<usize> {
        match self.scaling {
            Scaling::Long { original, .. } => Some(original),
            _ => None,
        }
    }
}

/// Cosines and sines, `[1 or B, T, half]`.
pub(crate) struct RopeTables {
    cos: Tensor,
    sin: Tensor,
    half: usize,
}

impl RopeTables {
    /// Turns the first elements of every head of `x`, `[B, heads, T, D]`: element i with element `half + i`.
    pub fn turn(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let size = x.dim(D::Minus1)?;
        let turning = 2 * self.half;
        let rest = if turning < size { Some(x.narrow(D::Minus1, turning, size - turning)?) } else { None };
        let x = x.narrow(D::Minus1, 0, turning)?.contiguous()?;
        let turned = if mode == Mode::Inference {
            let (cos, sin) =
                if self.cos.dim(0)? == 1 { (self.cos.squeeze(0)?, self.sin.squeeze(0)?) } else { (self.cos.clone(), self.sin.clone()) };
            candle_nn::rotary_emb::rope(&x, &cos, &sin)?
        } else {
            let (cos, sin) = (self.cos.unsqueeze(1)?, self.sin.unsqueeze(1)?);
            let (a, b) = (x.narrow(D::Minus1, 0, self.half)?, x.narrow(D::Minus1, self.half, self.half)?);
            let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
            let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
            Tensor::cat(&[first, second], D::Minus1)?
        };
        match rest {
            Some(rest) => Tensor::cat(&[turned, rest], D::Minus1),
            None => Ok(turned),
        }
    }
}

/// `theta^(-2i / dim)`.
fn frequencies(theta: f64, dim: usize) -> Vec<f32> {
    powers(theta, dim).map(|power| 1.0 / power).collect()
}

fn powers(theta: f64, dim: usize) -> impl Iterator<Item = f32> {
    (0..dim / 2).map(move |i| (theta as f32).powf((2 * i) as f32 / dim as f32))
}

/// Llama 3.1: long waves are slowed down by `factor`, short ones kept, those between interpolated.
fn llama3(keys: &Scaled<'_>, plain: &[f32], max_positions: usize) -> deltaic_checkpoint::Result<Vec<f32>> {
    let factor = keys.required("factor")?;
    let (low, high) = (keys.required("low_freq_factor")?, keys.required("high_freq_factor")?);
    let original = keys.original(max_positions)?;
    if high <= low {
        return Err(keys.config.wrong(&format!("{}.high_freq_factor", keys.name), &Value::from(high), "more than low_freq_factor"));
    }
    Ok(plain
        .iter()
        .map(|&frequency| {
            let wave = 2.0 * PI as f32 / frequency;
            if wave < (original / high) as f32 {
                return frequency;
            }
            if wave > (original / low) as f32 {
                return frequency / factor as f32;
            }
            let smooth = (original as f32 / wave - low as f32) / (high - low) as f32;
            (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
        })
        .collect())
}

/// YaRN (Peng et al. 2023): interpolates slow frequencies, keeps fast ones, and sharpens attention.
fn yarn(keys: &Scaled<'_>, theta: f64, dim: usize, max_positions: usize) -> deltaic_checkpoint::Result<(Scaling, f64)> {
    let original = keys.original(max_positions)?;
    let factor = keys.positive("factor")?.unwrap_or(max_positions as f64 / original);
    let sharpening = |scale: f64, by: f64| if scale <= 1.0 { 1.0 } else { 0.1 * by * scale.ln() + 1.0 };
    let on_both = match (keys.positive("attention_factor")?, keys.number("mscale")?, keys.number("mscale_all_dim")?) {
        (Some(given), _, _) => given,
        (None, Some(one), Some(all)) if one != 0.0 && all != 0.0 => sharpening(factor, one) / sharpening(factor, all),
        _ => sharpening(factor, 1.0),
    };
    let boundary = |rotations: f64| dim as f64 * (original / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let nonzero = |value: Option<f64>, default: f64| value.filter(|&value| value != 0.0).unwrap_or(default);
    let (mut low, mut high) = (boundary(nonzero(keys.positive("beta_fast")?, 32.0)), boundary(nonzero(keys.positive("beta_slow")?, 1.0)));
    if keys.map.get("truncate").and_then(Value::as_bool) != Some(false) {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, mut high) = (low.max(0.0), high.min(dim as f64 - 1.0));
    if low == high {
        high += 0.001;
    }
    let frequencies = powers(theta, dim)
        .enumerate()
        .map(|(i, power)| {
            let kept = 1.0 - ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
            1.0 / (factor as f32 * power) * (1.0 - kept) + 1.0 / power * kept
        })
        .collect();
    Ok((Scaling::Fixed(frequencies), on_both))
}

/// LongRoPE (Ding et al. 2024): a divisor per frequency, one list up to the length of pre-training and one beyond.
fn long(keys: &Scaled<'_>, theta: f64, dim: usize, max_positions: usize) -> deltaic_checkpoint::Result<(Scaling, f64)> {
    let original = keys.original(max_positions)?;
    let factor = keys.positive("factor")?.unwrap_or(max_positions as f64 / original);
    let on_both = match keys.positive("attention_factor")? {
        Some(given) => given,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / original.ln()).sqrt(),
    };
    let divided = |key: &str| -> deltaic_checkpoint::Result<Vec<f32>> {
        let divisors = keys.numbers(key, dim / 2)?;
        Ok(powers(theta, dim).zip(divisors).map(|(power, divisor)| 1.0 / (divisor as f32 * power)).collect())
    };
    Ok((Scaling::Long { short: divided("short_factor")?, long: divided("long_factor")?, original: original as usize }, on_both))
}

/// The object with the scaling's parameters, and the key under which it stands.
fn parameters(config: Keys<'_>) -> deltaic_checkpoint::Result<(&'static str, Map<String, Value>)> {
    for name in ["rope_scaling", "rope_parameters"] {
        match config.0.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::Object(map)) if map.is_empty() => {}
            Some(Value::Object(map)) if map.values().any(Value::is_object) => {
                let expected = "one set of parameters for all layers";
                return Err(config.wrong(name, &Value::Object(map), expected));
            }
            Some(Value::Object(map)) => return Ok((name, map)),
            Some(other) => return Err(config.wrong(name, &other, "an object")),
        }
    }
    Ok(("rope_parameters", Map::new()))
}

/// The parameters of a scaling, read with messages that name them.
struct Scaled<'a> {
    config: Keys<'a>,
    name: &'static str,
    map: Map<String, Value>,
}

impl Scaled<'_> {
    fn wrong(&self, key: &str, value: &Value, expected: &str) -> Error {
        self.config.wrong(&format!("{}.{key}", self.name), value, expected)
    }

    fn number(&self, key: &str) -> deltaic_checkpoint::Result<Option<f64>> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number = value.as_f64().filter(|number| number.is_finite());
                number.map(Some).ok_or_else(|| self.wrong(key, value, "a number"))
            }
        }
    }

    fn positive(&self, key: &str) -> deltaic_checkpoint::Result<Option<f64>> {
        match self.number(key)? {
            Some(number) if number <= 0.0 => Err(self.wrong(key, &Value::from(number), "a number above 0")),
            number => Ok(number),
        }
    }

    fn required(&self, key: &str) -> deltaic_checkpoint::Result<f64> {
        self.positive(key)?.ok_or_else(|| self.wrong(key, &Value::Null, "a number above 0"))
    }

    fn text(&self, key: &str) -> deltaic_checkpoint::Result<Option<String>> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.wrong(key, other, "a string")),
        }
    }

    fn numbers(&self, key: &str, count: usize) -> deltaic_checkpoint::Result<Vec<f64>> {
        let value = self.map.get(key).unwrap_or(&Value::Null);
        let list: Option<Vec<f64>> = value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
        list.filter(|list| list.len() == count && list.iter().all(|&number| number > 0.0))
            .ok_or_else(|| self.wrong(key, value, &format!("a list of {count} numbers above 0")))
    }

    /// The length of pre-training: beside the parameters first, as Phi-3 has it, then among them.
    fn original(&self, max_positions: usize) -> deltaic_checkpoint::Result<f64> {
        const KEY: &str = "original_max_position_embeddings";
        match self.config.optional_size(&[KEY])? {
            Some(original) => Ok(original as f64),
            None => Ok(self.positive(KEY)?.unwrap_or(max_positions as f64)),
        }
    }
}
