//! Tasks as data: what a task's YAML file says, checked.

mod files;
mod read;
mod registry;
pub(crate) mod template;
mod wikitext;

use deltaic_checkpoint::Result;
use serde::Deserialize;

use crate::extract::{INVALID, Take};

pub(crate) use read::MAX_NEW_TOKENS;

pub use files::{DataFiles, DefinedFields, Malformed, Shots};
pub use registry::{built_in, find, names};
pub use template::{Expression, Template};

/// A task: where its items are, what a model is asked about each, and how the answers are scored. See `docs/tasks.md` for the language.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its name in results, such as `glue/mrpc`.
    pub task: String,
    /// One line for lists of tasks.
    pub description: String,
    /// The metric that stands for the result; several: their plain mean.
    #[serde(default)]
    pub headline: Headline,
    /// Which of two headlines is the better one: as given, else by the headline's metrics.
    #[serde(skip)]
    pub direction: Direction,
    #[serde(rename = "direction")]
    given_direction: Option<Direction>,
    /// Where the items are.
    pub data: DataFiles,
    /// Solved examples before the question, for tasks that have them.
    pub shots: Option<Shots>,
    /// What kind of task it is: exactly one of the following is there.
    pub classification: Option<Classification>,
    /// Scored continuations.
    pub multiple_choice: Option<MultipleChoice>,
    /// Generated answers.
    pub generation: Option<Generation>,
    /// Scored answers.
    pub answer_nll: Option<AnswerNll>,
    /// Scored documents.
    pub perplexity: Option<Perplexity>,
    /// Answers that a judge compares with a reference's.
    pub pairwise_judge: Option<PairwiseJudge>,
}

/// The metrics whose mean is the headline; none for a task that only writes a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headline(pub Vec<String>);

/// Which of two headlines is the better one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The higher one.
    #[default]
    Higher,
    /// The lower one.
    Lower,
}

/// A sequence classification or regression head, whose outputs are the labels or the score.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classification {
    /// The (first) text.
    pub text: Template,
    /// The second text of a pair.
    pub pair: Option<Template>,
    /// The gold label's text, or the gold score.
    pub label: Template,
    /// For each label, in the order of the head's outputs, the texts that mean it; the first is its name. None: a regression, with one output.
    pub labels: Option<Vec<Vec<String>>>,
    /// Longest sequence in tokens, special ones included.
    #[serde(default = "glue_tokens")]
    pub max_tokens: usize,
    /// Metrics: `accuracy`, `f1`, `matthews`; `pearson`, `spearman` of a regression.
    pub metrics: Vec<ClassificationMetric>,
}

fn glue_tokens() -> usize {
    128
}

/// A metric over all predictions of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the field's names")]
pub enum ClassificationMetric {
    Accuracy,
    F1,
    Matthews,
    Pearson,
    Spearman,
}

impl ClassificationMetric {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::F1 => "f1",
            Self::Matthews => "matthews",
            Self::Pearson => "pearson",
            Self::Spearman => "spearman",
        }
    }
}

/// Continuations of which the likeliest is the answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultipleChoice {
    /// What stands before the shots, such as a description of the task.
    pub preamble: Option<Template>,
    /// The question, before every choice.
    pub context: Option<Template>,
    /// A list: the choices' texts.
    pub choices: Option<Expression>,
    /// A list: one context for each choice, all before the same `continuation` (Winogrande). In place of `context` and `choices`.
    pub contexts: Option<Expression>,
    /// What is scored after each of `contexts`.
    pub continuation: Option<Template>,
    /// The index of the right choice.
    pub gold: Option<Expression>,
    /// A list: which choices are right, 1 or 0, for `mass`.
    pub truths: Option<Expression>,
    /// What stands between context and choice, scored with the choice.
    #[serde(default = "space")]
    pub delimiter: String,
    /// Metrics: `acc`, `acc_norm`, `acc_bytes`, `acc_token`, `mass`.
    pub metrics: Vec<ChoiceMetric>,
}

fn space() -> String {
    " ".to_owned()
}

/// How the log-likelihoods of choices become a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceMetric {
    /// The sum's maximum is the gold choice.
    Acc,
    /// The same of sums over the number of the choice's Unicode characters.
    AccNorm,
    /// The same over the number of its UTF-8 bytes.
    AccBytes,
    /// The same over the number of its tokens.
    AccToken,
    /// The share of the probability that the true choices have.
    Mass,
}

impl ChoiceMetric {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
            Self::AccBytes => "acc_bytes",
            Self::AccToken => "acc_token",
            Self::Mass => "mass",
        }
    }
}

/// A text that the model writes, and what is made of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// The prompt, after the shots.
    pub prompt: Template,
    /// Whether the prompt is a user's message in a conversation (the model's chat template is applied) and not plain text.
    #[serde(default)]
    pub chat: bool,
    /// The system's message of a conversation; `--system` replaces it.
    pub system: Option<String>,
    /// Most tokens to write.
    pub max_new_tokens: usize,
    /// The text ends before the first of these.
    #[serde(default)]
    pub stop: Vec<String>,
    /// The gold answer, which `scores` compare with, and which stands in shots.
    pub answer: Option<Template>,
    /// What stands between prompt and answer in shots.
    #[serde(default = "space")]
    pub delimiter: String,
    /// Scores by extraction and match: a metric's name and how it comes about.
    #[serde(default)]
    pub scores: Vec<Score>,
    /// Scores by execution.
    pub code: Option<Code>,
    /// The form of the file that `--generations` writes.
    pub file: Option<GenerationFile>,
}

/// A score of a generated text against the gold answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// The metric's name in results.
    pub metric: String,
    /// A protocol that extracts and compares in its own way.
    pub protocol: Option<Protocol>,
    /// The answer is a match of this pattern: its first group that is not empty, else the match.
    pub regex: Option<String>,
    /// Which match.
    #[serde(default)]
    pub take: Take,
    /// What stands for the answer where nothing matches.
    #[serde(default = "invalid")]
    pub missing: String,
    /// Patterns deleted from both sides, in this order, before they are compared.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// Whether letters are compared without their case.
    #[serde(default)]
    pub ignore_case: bool,
}

fn invalid() -> String {
    INVALID.to_owned()
}

/// A protocol of its own for extraction and match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// GSM8K as the DARE paper's authors score it.
    Gsm8k,
    /// MATH as the DARE paper's authors score it.
    Math,
    /// MATH with a non-integer side of a slash left as it is, as Hendrycks et al. have it.
    MathHendrycks,
}

/// How a generated text becomes a program that is run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// What is done with the text before it is called `completion`.
    #[serde(default)]
    pub post_process: PostProcess,
    /// The program: passed where it ends without an exception. `completion` is the model's.
    pub program: Template,
}

/// What is done with a generated text before it is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PostProcess {
    /// Nothing.
    #[default]
    None,
    /// The steps of the DARE paper's authors for HumanEval.
    Humaneval,
    /// The steps of the DARE paper's authors for MBPP.
    Mbpp,
}

/// The file of generated texts that other tools read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GenerationFile {
    /// JSON lines of `task_id`, `completion`, `all_code`.
    Humaneval,
    /// One JSON array of arrays with one program each, in the order of the items.
    Mbpp,
    /// One JSON array of `instruction`, `output`, `generator`, `dataset`.
    AlpacaEval,
}

/// The mean negative log-likelihood of answers, in nats per token.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerNll {
    /// The user's message, or with `chat: false` the text before the answer.
    pub prompt: Template,
    /// Whether the prompt is a user's message in a conversation.
    #[serde(default = "yes")]
    pub chat: bool,
    /// The system's message; `--system` replaces it, and without both the model's chat template has its own.
    pub system: Option<String>,
    /// What is scored; `eos_token` is the model's end of a turn.
    pub answer: Template,
    /// Prompt and answer are tokenised apart and cut at the end to this many tokens.
    #[serde(default = "answer_tokens")]
    pub max_tokens: usize,
}

fn yes() -> bool {
    true
}

fn answer_tokens() -> usize {
    512
}

/// The perplexity of documents, each predicted in windows of the model's length.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Perplexity {
    /// What the model predicts.
    pub text: Template,
    /// The text whose words and bytes are counted; without it, `text`.
    pub counted: Option<Template>,
}

/// Answers that a judge compares with a reference's, in both orders.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairwiseJudge {
    /// The prompt of the model that is judged.
    pub prompt: Template,
    /// Whether it is a user's message in a conversation.
    #[serde(default = "yes")]
    pub chat: bool,
    /// The system's message of the model that is judged.
    pub system: Option<String>,
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// The text by which an item finds its answer in the reference file, made of the fields of either.
    pub key: Template,
    /// The reference's answer, made of the fields of the reference file.
    pub reference: Template,
    /// The user's message to the judge, over the item's fields and `answer_a`, `answer_b`.
    pub judge: Template,
    /// The system's message to the judge.
    pub judge_system: Option<String>,
    /// Most tokens of a verdict.
    pub judge_tokens: usize,
    /// The last match is the verdict: its first group is `A`, `B`, or anything else for a draw.
    pub verdict: String,
}

/// The kind of a task with what it says.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "described where they are declared")]
pub enum Kind<'a> {
    Classification(&'a Classification),
    MultipleChoice(&'a MultipleChoice),
    Generation(&'a Generation),
    AnswerNll(&'a AnswerNll),
    Perplexity(&'a Perplexity),
    PairwiseJudge(&'a PairwiseJudge),
}

impl Task {
    /// The kind of the task. Reading has checked that there is one.
    ///
    /// # Errors
    /// A task that was not read from a file and has no kind.
    pub fn kind(&self) -> Result<Kind<'_>> {
        let kinds = [
            self.classification.as_ref().map(Kind::Classification),
            self.multiple_choice.as_ref().map(Kind::MultipleChoice),
            self.generation.as_ref().map(Kind::Generation),
            self.answer_nll.as_ref().map(Kind::AnswerNll),
            self.perplexity.as_ref().map(Kind::Perplexity),
            self.pairwise_judge.as_ref().map(Kind::PairwiseJudge),
        ];
        let mut given = kinds.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(kind), None) => Ok(kind),
            (first, _) => Err(read::number_of_kinds(&self.task, first.is_some())),
        }
    }
}
