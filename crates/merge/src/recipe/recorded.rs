//! The block `deltaic` of a `deltaic.yml`: what deltaic wrote about how an output was made.

use super::node::Node;

/// How an output was made, as its `deltaic.yml` has it; what is missing or unreadable there is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The version of deltaic.
    pub version: String,
    /// The plan's hash.
    pub plan: String,
    /// Greatest size of a shard in bytes; 0: one shard.
    pub shard_bytes: Option<u64>,
    /// Whether the tokenizer's files were copied.
    pub copy_tokenizer: Option<bool>,
    /// Whether models of different architectures were let pass.
    pub allow_different_architectures: Option<bool>,
    /// For each source, the base first, the id of its content.
    pub sources: Vec<String>,
}

/// Reads the block; unknown keys are a later version's.
pub(super) fn read(block: &Node) -> Recorded {
    let text = |node: Option<&Node>| node.and_then(Node::text).unwrap_or_default().to_owned();
    let option = |key: &str| block.get("options").and_then(|options| options.get(key)).and_then(Node::text);
    let truth = |key: &str| option(key).and_then(|text| text.parse().ok());
    let sources = block.get("sources").and_then(Node::items).unwrap_or_default();
    Recorded {
        version: text(block.get("version")),
        plan: text(block.get("plan")),
        shard_bytes: option("shard_bytes").and_then(|text| text.parse().ok()),
        copy_tokenizer: truth("copy_tokenizer"),
        allow_different_architectures: truth("allow_different_architectures"),
        sources: sources.iter().map(|source| text(source.get("id"))).collect(),
    }
}
