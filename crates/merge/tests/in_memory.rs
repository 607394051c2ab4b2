//! A merge in memory is the merge that is written, before the last rounding.

mod checkpoints;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use checkpoints::{LLAMA, Models, SHAPES, family};
use deltaic_checkpoint::{DType, TensorSource, Window};
use deltaic_merge::recipe::{Document, UnknownPolicy, parse};
use deltaic_merge::{MergeOptions, MergedInMemory, PlanOptions};

#[test]
fn a_merge_in_memory_is_what_is_written_with_dtype_float32() {
    let [base, a, b, _] = family(&SHAPES, "BF16");
    let models = Models::new(LLAMA, &[("base", &base), ("a", &a), ("b", &b)]);
    for method in [
        "merge_method: dare_ties\nparameters: {weight: 0.5, density: 0.4}",
        "preset: paper\nmerge_method: ties\nsparsify: {kind: dare, drop_rate: 0.5}",
    ] {
        let recipe = format!("{method}\nbase_model: base\nmodels: [{{model: a}}, {{model: b}}]\nseed: 3\n");
        let written = models.merge(&format!("{recipe}out_dtype: float32\n")).tensors;
        // What the recipe writes does not matter.
        let document = Arc::new(Document::new("recipe", format!("{recipe}out_dtype: bfloat16\n"), models.path()));
        let recipe = parse(document, UnknownPolicy::Strict).unwrap().0;
        let options = MergeOptions { threads: 2, ..MergeOptions::default() };
        let merged = MergedInMemory::merge(recipe, PlanOptions::default(), &options, &AtomicBool::new(false), &|_| {}).unwrap();
        assert_eq!(merged.tensors().keys().collect::<Vec<_>>(), written.keys().collect::<Vec<_>>());
        assert_eq!(merged.config.dtype(), Some(DType::F32));
        assert_eq!(merged.tokenizer, models.path().join("base"));
        let mut window = Window { dtype: DType::F32, bytes: Vec::new() };
        for (name, tensor) in &written {
            let elements = merged.tensors()[name].elements();
            merged.read(name, 0, elements as usize, &mut window).unwrap();
            assert!(window.dtype == DType::F32 && window.bytes == tensor.bytes, "{name}");
            if elements > 5 {
                merged.read(name, 3, 2, &mut window).unwrap();
                assert_eq!(window.bytes, tensor.bytes[12..20], "{name}");
            }
            assert!(merged.read(name, elements, 1, &mut window).unwrap_err().message().contains(name.as_str()));
        }
        assert!(merged.read("nothing", 0, 1, &mut window).is_err());
    }
}

/// Counted by hand from the models' own values, sorted.
#[test]
fn a_merge_by_the_papers_ties_says_what_it_trimmed() {
    let [base, a, b, _] = family(&SHAPES, "BF16");
    let models = Models::new(LLAMA, &[("base", &base), ("a", &a), ("b", &b)]);
    for mask_rate in [0.0, 0.05, 0.8] {
        let recipe = format!(
            "preset: paper\nmerge_method: ties\nparameters: {{mask_rate: {mask_rate}}}\nbase_model: base\nmodels: [{{model: a}}, {{model: b}}]\n"
        );
        let document = Arc::new(Document::new("recipe", recipe, models.path()));
        let recipe = parse(document, UnknownPolicy::Strict).unwrap().0;
        let merged =
            MergedInMemory::merge(recipe, PlanOptions::default(), &MergeOptions::default(), &AtomicBool::new(false), &|_| {}).unwrap();
        assert_eq!(merged.trims.len(), 2);
        for (trim, model) in merged.trims.iter().zip([&a, &b]) {
            let deltas = model.iter().flat_map(|(name, tensor)| tensor.values().into_iter().zip(base[name].values()).map(|(x, w)| x - w));
            let mut magnitudes: Vec<f32> = deltas.map(f32::abs).collect();
            magnitudes.sort_by(f32::total_cmp);
            let rank = (magnitudes.len() as f64 * mask_rate) as usize;
            let threshold = if rank == 0 { 0.0 } else { magnitudes[rank - 1] };
            assert_eq!((trim.threshold, trim.elements), (threshold, magnitudes.len() as u64), "{mask_rate}");
            let count = |is: &dyn Fn(f32) -> bool| magnitudes.iter().filter(|magnitude| is(**magnitude)).count() as u64;
            if rank > 0 {
                assert_eq!(trim.non_zero, Some(count(&|magnitude| magnitude > 0.0)), "{mask_rate}");
                assert_eq!(trim.kept, Some(count(&|magnitude| magnitude > 0.0 && magnitude >= threshold)), "{mask_rate}");
            }
        }
    }
}
