//! Whether configurations agree with each other, and with the tensors. Reads no weights.

use std::collections::BTreeSet;

use deltaic_checkpoint::{Error, Result};

use crate::plan::{Plan, Source};

/// A warning for every key that has to agree and does not, and where shapes do not fit the head counts.
///
/// # Errors
/// The output would lack layers that its config.json says it has.
pub(super) fn warnings(plan: &Plan) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let (first, others) = plan.sources.split_first().expect("a plan has sources");
    let of_output = plan.sources.iter().find(|source| source.config.path() == plan.config.path()).unwrap_or(first);
    for other in others {
        for found in other.config.disagreements(&first.config) {
            let [of_other, of_first] = &found.values;
            warnings.push(format!(
                "{}: {} is {of_other}, that of {} is {of_first}: {}. The output gets the config.json of {}",
                other.reference, found.key, first.reference, found.meaning, of_output.reference
            ));
        }
    }
    warnings.extend(plan.sources.iter().filter_map(heads));
    warnings.extend(layers(plan)?);
    Ok(warnings)
}

/// Whether the rows of queries and keys stand to each other as the head counts say.
fn heads(source: &Source) -> Option<String> {
    if source.architecture.is_generic() {
        return None;
    }
    let heads = source.config.get_u64("num_attention_heads")?;
    let of_keys = source.config.get_u64("num_key_value_heads").unwrap_or(heads);
    let tensors = source.tensors.tensors();
    let (name, queries) = tensors.iter().find(|(name, _)| name.ends_with("self_attn.q_proj.weight"))?;
    let keys = tensors.get(&name.replace("q_proj", "k_proj"))?;
    let (queries, keys) = (*queries.shape.first()?, *keys.shape.first()?);
    if u128::from(queries) * u128::from(of_keys) == u128::from(keys) * u128::from(heads) {
        return None;
    }
    Some(format!(
        "{}: config.json says {heads} attention heads and {of_keys} of keys and values, but {name} has {queries} rows and its k_proj {keys}: the model will not load as it is",
        source.reference
    ))
}

/// Whether the output has the layers that its configuration says. Architectures that are not known may share layers.
fn layers(plan: &Plan) -> Result<Option<String>> {
    let source = &plan.sources[plan.side_files_from];
    let architecture = &source.architecture;
    let found: BTreeSet<usize> = plan.tensors.iter().filter_map(|tensor| architecture.layer_of(&tensor.name)).collect();
    let (Some(said), Some(last)) = (architecture.layer_count(&plan.config), found.last()) else { return Ok(None) };
    if architecture.is_generic() || !architecture.has_one_stack() {
        return Ok(None);
    }
    if (found.len() as u64) < said {
        // Of the numbers 0 ..= len one is not there.
        let missing = (0..=found.len()).find(|layer| !found.contains(layer)).unwrap_or(0);
        return Err(Error::new(format!(
            "{}: config.json says {said} layers, the tensors have {}; layer {missing} is the first that is missing",
            source.reference,
            found.len()
        ))
        .help("the model folder is not complete, or its config.json is another model's: get it again"));
    }
    Ok((*last as u64 >= said).then(|| {
        format!(
            "{}: config.json says {said} layers, the tensors have layer {last}, too: what loads the output will leave it out",
            source.reference
        )
    }))
}
