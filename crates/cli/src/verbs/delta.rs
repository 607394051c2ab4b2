//! `deltaic delta`.

use deltaic_checkpoint::{ModelReference, Result};
use deltaic_merge::delta::{DeltaStudy, Figures, LIMITS, QUANTILES, StudyOptions, study};

use crate::arguments::Delta;
use crate::messages::{Messages, print};
use crate::output_file::OutputFile;
use crate::progress::Bar;
use crate::tables;

pub fn run(arguments: &Delta, messages: &Messages) -> Result<()> {
    let (base, model) = (ModelReference::parse(&arguments.base)?, ModelReference::parse(&arguments.model)?);
    // What would stop the figure from being written is said before the work.
    let plot = arguments.plot.as_deref().map(|path| OutputFile::begin(path, arguments.force)).transpose()?;
    let mut options = StudyOptions { exclude: arguments.exclude.clone(), ..StudyOptions::default() };
    if let Some(threads) = arguments.threads {
        options.threads = usize::from(threads);
    }
    let cancel = crate::signals::cancel_flag()?;
    let bar = Bar::new(messages.is_quiet());
    let found = study(&base, &model, &options, &cancel, &|progress| bar.update(progress));
    bar.finish();
    let found = found?;
    found.warnings.iter().for_each(|warning| messages.warning(warning));
    if found.whole.not_finite > 0 {
        messages.warning(&format!("{} elements are NaN or infinite in either model; no figure counts them", found.whole.not_finite));
    }
    if let Some(mut plot) = plot {
        plot.write(|file| file.write_all(found.to_svg().as_bytes()))?;
        plot.finish()?;
    }
    print(&if arguments.json { format!("{:#}\n", as_json(&found)) } else { as_text(&found, arguments.tensors) });
    Ok(())
}

fn as_text(study: &DeltaStudy, tensors: bool) -> String {
    let mut text = format!("{} - {}\n", study.model, study.base);
    let all = &study.whole;
    let mut line = |name: &str, value: String| text += &format!("  {name:16} {value}\n");
    let compared = format!("{} in {} tensors", tables::parameters(all.elements), study.tensors.len());
    line("regime", study.regime().meaning().to_owned());
    line("compared", compared);
    line("delta", format!("{} .. {}", short(all.min), short(all.max)));
    let quantiles: Vec<String> = QUANTILES.iter().zip(all.quantiles).map(|(q, value)| format!("{q}: {}", short(value))).collect();
    line("quantiles", quantiles.join("  "));
    let within: Vec<String> = LIMITS.iter().zip(all.within_shares()).map(|(limit, share)| format!("{limit}: {}", percent(share))).collect();
    line("|d| within", within.join("  "));
    line("mean |d|", format!("{}, std {}, mean {}", short(all.mean_magnitude), short(all.std), short(all.mean)));
    line("unchanged", percent(all.unchanged_share()));
    line("norm", format!("{} of the base's norm, cosine {}", short(all.relative_norm), cosine(all.cosine)));
    text += &format!("\n{}", table("kind", study.kinds.iter().map(|(kind, figures)| (kind.clone(), figures))));
    if !study.layers.is_empty() {
        text += &format!("\n{}", table("layer", study.layers.iter().map(|(layer, figures)| (layer.to_string(), figures))));
    }
    if tensors {
        text += &format!("\n{}", table("tensor", study.tensors.iter().map(|tensor| (tensor.name.clone(), &tensor.figures))));
    }
    if !study.not_compared.is_empty() {
        let rows = study.not_compared.iter().map(|tensor| vec![tensor.name.clone(), tensor.reason.clone()]);
        text += &format!("\n{}", tables::table(&["not compared", "why"], &[], rows));
    }
    text
}

fn table<'a>(what: &str, rows: impl Iterator<Item = (String, &'a Figures)>) -> String {
    let header =
        [what, "elements", "min", ".001", ".01", ".99", ".999", "max", "mean |d|", "<=.002", "<=.005", "same", "norm/base", "cosine"];
    let numbers: Vec<usize> = (1..header.len()).collect();
    let rows = rows.map(|(name, figures)| {
        let [q001, q01, _, q99, q999] = figures.quantiles.map(short);
        let [_, two, five, _] = figures.within_shares().map(percent);
        let (elements, same) = (tables::parameters(figures.elements), percent(figures.unchanged_share()));
        let (min, max, mean) = (short(figures.min), short(figures.max), short(figures.mean_magnitude));
        let (norm, cosine) = (short(figures.relative_norm), cosine(figures.cosine));
        vec![name, elements, min, q001, q01, q99, q999, max, mean, two, five, same, norm, cosine]
    });
    tables::table(&header, &numbers, rows)
}

/// Two significant digits and more where they are short: `0.0123`, `-1.2e-5`, `0`, `-` for what is unknown.
fn short(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "-".to_owned(),
        0.0 => "0".to_owned(),
        0.001..10.0 => format!("{value:.4}"),
        10.0..100_000.0 => format!("{value:.1}"),
        _ => format!("{value:.1e}"),
    }
}

fn percent(share: f64) -> String {
    match share {
        _ if share.is_nan() => "-".to_owned(),
        // Not all is not 100%.
        _ if share < 1.0 && share > 0.999_949 => "<100%".to_owned(),
        _ => format!("{:.2}%", 100.0 * share),
    }
}

fn cosine(value: f64) -> String {
    if value.is_nan() { "-".to_owned() } else { format!("{value:.5}") }
}

fn as_json(study: &DeltaStudy) -> serde_json::Value {
    let kinds: serde_json::Map<_, _> = study.kinds.iter().map(|(kind, figures)| (kind.clone(), figures_as_json(figures))).collect();
    let layers = study.layers.iter().map(|(layer, figures)| {
        let mut value = figures_as_json(figures);
        value["layer"] = (*layer).into();
        value
    });
    let tensors = study.tensors.iter().map(|tensor| {
        let mut value = figures_as_json(&tensor.figures);
        value["name"] = tensor.name.clone().into();
        value["shape"] = tensor.shape.clone().into();
        value["layer"] = tensor.layer.into();
        value["kind"] = tensor.kind.clone().into();
        value
    });
    let not_compared = study.not_compared.iter().map(|tensor| serde_json::json!({"name": tensor.name, "reason": tensor.reason}));
    serde_json::json!({
        "base": study.base.to_string(),
        "model": study.model.to_string(),
        "regime": study.regime().name(),
        "reads": study.reads,
        "whole": figures_as_json(&study.whole),
        "kinds": kinds,
        "layers": layers.collect::<Vec<_>>(),
        "tensors": tensors.collect::<Vec<_>>(),
        "not_compared": not_compared.collect::<Vec<_>>(),
    })
}

/// Figures with all their digits; what is unknown is null.
fn figures_as_json(figures: &Figures) -> serde_json::Value {
    let quantiles: serde_json::Map<_, _> =
        QUANTILES.iter().zip(figures.quantiles).map(|(q, value)| (q.to_string(), value.into())).collect();
    let within: serde_json::Map<_, _> =
        LIMITS.iter().zip(figures.within_shares()).map(|(limit, share)| (limit.to_string(), share.into())).collect();
    serde_json::json!({
        "elements": figures.elements,
        "not_finite": figures.not_finite,
        "unchanged": figures.unchanged,
        "min": figures.min,
        "max": figures.max,
        "mean": figures.mean,
        "mean_magnitude": figures.mean_magnitude,
        "std": figures.std,
        "quantiles": quantiles,
        "within": within,
        "cosine": figures.cosine,
        "relative_norm": figures.relative_norm,
        "norm": figures.norm,
        "base_norm": figures.base_norm,
    })
}
