//! `deltaic plan`.

use deltaic_checkpoint::{Found, Result};
use deltaic_merge::Plan;
use deltaic_merge::plan::{Source, Spelling};

use crate::messages::{Messages, print};
use crate::{arguments, tables};

pub fn run(arguments: &arguments::Plan, messages: &Messages) -> Result<()> {
    let plan = crate::reading::read_plan(&arguments.recipe, &arguments.reading, messages)?;
    print(&shown(&plan, arguments.json));
    Ok(())
}

/// The plan as text or JSON.
pub fn shown(plan: &Plan, json: bool) -> String {
    if json { format!("{:#}\n", as_json(plan)) } else { as_text(plan) }
}

fn found(source: &Source) -> String {
    let one = |located: &deltaic_checkpoint::Located| match &located.found {
        Found::Path(how) => format!("{} ({how})", located.path.display()),
        Found::Hub { commit, .. } => format!("the Hub's cache, commit {commit}"),
    };
    let adapter = source.adapter.as_ref().map(|adapter| format!(" + {}", one(adapter)));
    one(&source.model) + adapter.as_deref().unwrap_or_default()
}

fn as_text(plan: &Plan) -> String {
    let (copied, merged) = plan.counts();
    let summary = plan.summary();
    let mut text = plan.resolved_recipe(Spelling::AsNamed);
    text += "\n# sources\n";
    for source in &plan.sources {
        text += &format!("{}: {}\n", source.reference, found(source));
    }
    text += "\n# tensors\n";
    text += &tables::table(
        &["name", "dtype", "shape", "what", "reads", "shard"],
        &[4],
        plan.tensors.iter().map(|tensor| {
            let shard = plan.layout.place(&tensor.name).map_or(0, |place| place.shard);
            vec![
                tensor.name.clone(),
                tensor.dtype.torch_name().to_owned(),
                tables::shape(&tensor.shape),
                if tensor.is_copy() { "copy" } else { "merge" }.to_owned(),
                tensor.most_reads().to_string(),
                plan.layout.shards()[shard].file_name.clone(),
            ]
        }),
    );
    text += &format!(
        "\n# work\n{} tensors: {merged} merged, {copied} copied\n{} parameters\nreads at most {} ({} at the most of any tensor), writes {} in {} shards\nmemory for windows: at most {} with {} threads\nspace needed: {}\n",
        plan.tensors.len(),
        tables::parameters(plan.elements()),
        tables::bytes(summary.bytes_read),
        match summary.reads {
            1 => "one read".to_owned(),
            reads => format!("{reads} reads"),
        },
        tables::bytes(plan.layout.total_size()),
        plan.layout.shards().len(),
        tables::bytes(summary.window_memory),
        summary.threads,
        tables::bytes(plan.layout.file_bytes()),
    );
    text
}

fn as_json(plan: &Plan) -> serde_json::Value {
    let summary = plan.summary();
    let tensors: Vec<_> = plan
        .tensors
        .iter()
        .map(|tensor| {
            let place = plan.layout.place(&tensor.name);
            serde_json::json!({
                "name": tensor.name,
                "dtype": tensor.dtype.torch_name(),
                "shape": tensor.shape,
                "copy": tensor.is_copy(),
                "reads": tensor.most_reads(),
                "shard": place.map(|place| plan.layout.shards()[place.shard].file_name.clone()),
                "offset": place.map(|place| place.offset),
            })
        })
        .collect();
    let sources: Vec<_> =
        plan.sources.iter().map(|source| serde_json::json!({"model": source.reference.to_string(), "found": found(source)})).collect();
    serde_json::json!({
        "recipe": plan.resolved_recipe(Spelling::AsNamed),
        "seed": plan.draws_from_the_recipes_seed().then_some(plan.seed),
        "sources": sources,
        "parameters": plan.elements(),
        "bytes_read": summary.bytes_read,
        "reads": summary.reads,
        "bytes_written": plan.layout.total_size(),
        "space": plan.layout.file_bytes(),
        "window_memory": summary.window_memory,
        "tensors": tensors,
    })
}
