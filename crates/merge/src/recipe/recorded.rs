//! The block `deltaic` of a `deltaic.yml`: what deltaic wrote about how an output was made.

use super::node::Node;

/// How an output was made, as its `deltaic.yml` has it; what is missing or unreadable there is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The version of deltaic.
    pub version: String,
    /// The plan's hash.
    pub plan: String,
    /// The seed, where it mattered.
    pub seed: Option<u64>,
    /// Seed and stream of each mask in the output.
    pub masks: Option<Vec<(u64, u64)>>,
    /// Greatest size of a shard in bytes; 0: one shard.
    pub shard_bytes: Option<u64>,
    /// Whether the tokenizer's files were copied.
    pub copy_tokenizer: Option<bool>,
    /// Whether models of different architectures were let pass.
    pub allow_different_architectures: Option<bool>,
    /// The sources, the base first.
    pub sources: Vec<RecordedSource>,
}

/// A source as it was when it was merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordedSource {
    /// How it is named in the resolved recipe.
    pub model: String,
    /// The id of its content.
    pub id: String,
    /// The files of its weights.
    pub files: Vec<RecordedFile>,
}

/// A file of a source's weights.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordedFile {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: Option<u64>,
    /// The hash of samples of its content.
    pub sample: String,
    /// Its name in the Hub's cache.
    pub blob: Option<String>,
}

/// Reads the block; unknown keys are a later version's.
pub(super) fn read(block: &Node) -> Recorded {
    let options = block.get("options");
    let truth = |key: &str| parsed(options.and_then(|options| options.get(key)));
    Recorded {
        version: text(block.get("version")),
        plan: text(block.get("plan")),
        seed: parsed(block.get("seed")),
        masks: block.get("masks").and_then(Node::items).and_then(|masks| masks.iter().map(mask).collect()),
        shard_bytes: parsed(options.and_then(|options| options.get("shard_bytes"))),
        copy_tokenizer: truth("copy_tokenizer"),
        allow_different_architectures: truth("allow_different_architectures"),
        sources: items(block.get("sources")).iter().map(source).collect(),
    }
}

fn source(node: &Node) -> RecordedSource {
    let file = |node: &Node| RecordedFile {
        name: text(node.get("name")),
        bytes: parsed(node.get("bytes")),
        sample: text(node.get("sample")),
        blob: node.get("blob").and_then(Node::text).map(str::to_owned),
    };
    RecordedSource { model: text(node.get("model")), id: text(node.get("id")), files: items(node.get("files")).iter().map(file).collect() }
}

fn mask(node: &Node) -> Option<(u64, u64)> {
    Some((parsed(node.get("seed"))?, parsed(node.get("stream"))?))
}

fn items(node: Option<&Node>) -> &[Node] {
    node.and_then(Node::items).unwrap_or_default()
}

fn text(node: Option<&Node>) -> String {
    node.and_then(Node::text).unwrap_or_default().to_owned()
}

fn parsed<T: std::str::FromStr>(node: Option<&Node>) -> Option<T> {
    node.and_then(Node::text).and_then(|text| text.parse().ok())
}
