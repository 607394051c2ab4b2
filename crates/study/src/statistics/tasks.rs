//! Examples from a task's items.

use std::path::Path;

use deltaic_checkpoint::{Error, Result};
use deltaic_eval::task::{self, Classification, Kind, Task};
use deltaic_eval::{Data, Item, Request, RequestTokenizer, Setting, requests};
use deltaic_lm::Scored;

use super::examples::{Example, Examples, Wanted};
use super::model::StatisticsModel;

/// The longest piece of a plain text that is one example, in tokens: a gradient's memory grows with the square of the length.
pub const DOCUMENT_TOKENS: usize = 512;

/// The forms in which a split's file may be.
const ENDINGS: [&str; 8] = [".tsv", ".csv", ".jsonl", ".json", ".parquet", "-*.parquet", ".txt", ".ndjson"];

/// Reads a task's items from `data`, a folder or a file, and makes tokens of them for a model. `split` is a file's stem, such as `train`.
pub(crate) fn read(name: &str, data: &Path, split: Option<&str>, wanted: Wanted, model: &StatisticsModel) -> Result<Examples> {
    let mut task = task::find(name)?;
    if let Some(split) = split {
        if data.is_file() {
            return Err(Error::new(format!("{}: one file has no split `{split}`", data.display())).help("give the folder, or no split"));
        }
        task.data.files = ENDINGS.iter().map(|ending| format!("{split}{ending}")).collect();
    }
    let items = Data::read(&task, data)?.items;
    let (tokens, longest) = (model.tokenizer()?, model.longest()?);
    let place = format!("{}: {}", data.display(), task.task);
    match task.kind()? {
        Kind::Classification(spec) if !model.is_decoder() => {
            wanted.take(&place, items.len(), |item| classified(&task, spec, &items[item], &tokens, longest).map(Some))
        }
        Kind::AnswerNll(_) if model.is_decoder() => {
            wanted.take(&place, items.len(), |item| answered(&task, &items[item], &tokens, longest))
        }
        Kind::Perplexity(spec) if model.is_decoder() => {
            let longest = DOCUMENT_TOKENS.min(longest);
            let mut pieces = Vec::new();
            for item in &items {
                let text = spec.text.render(&item.fields).map_err(|error| error.within(Path::new(&item.place)))?;
                pieces.extend(tokens.document(&text)?.chunks(longest).filter(|piece| piece.len() > 1).map(<[u32]>::to_vec));
            }
            wanted.take(&place, pieces.len(), |piece| Ok(Some(Example::new(pieces[piece].clone(), Vec::new(), None, 1))))
        }
        _ => Err(unfit(&task, model)),
    }
}

fn unfit(task: &Task, model: &StatisticsModel) -> Error {
    let (kind, fitting) = match model.is_decoder() {
        true => ("a decoder", "`answer_nll` and `perplexity`, or tasks of one's own of these kinds"),
        false => ("an encoder", "those with a classification or regression head, such as `glue/mrpc`"),
    };
    Error::new(format!("{}: {}: no statistics of {kind} are made on this kind of task", model.name, task.task))
        .help(format!("tasks that fit are {fitting}; `--inputs FILE` takes token ids"))
}

/// The one request about an item of a kind that has one.
fn request(task: &Task, item: &Item, eos_token: Option<String>) -> Result<Request> {
    let setting = Setting { eos_token, ..Setting::default() };
    let request = requests(task.kind()?, &setting, item)?.pop();
    request.ok_or_else(|| Error::new(format!("{}: the item asks nothing", item.place)))
}

fn classified(task: &Task, spec: &Classification, item: &Item, tokens: &RequestTokenizer, longest: usize) -> Result<Example> {
    let input = tokens.classified(&request(task, item, None)?, longest)?;
    // Only a regression's score enters its gradient; of a classification the expectation over all labels is taken.
    let label = match spec.labels {
        Some(_) => None,
        None => Some(score(spec, item).map_err(|error| error.within(Path::new(&item.place)))?),
    };
    Ok(Example::new(input.ids, input.type_ids, label, 0))
}

fn score(spec: &Classification, item: &Item) -> Result<f32> {
    let text = spec.label.render(&item.fields)?;
    let score = text.trim().parse::<f32>().ok().filter(|score| score.is_finite());
    score.ok_or_else(|| Error::new(format!("expected a number as the score, found `{}`", deltaic_checkpoint::shorten(&text))))
}

fn answered(task: &Task, item: &Item, tokens: &RequestTokenizer, longest: usize) -> Result<Option<Example>> {
    let scored = tokens.scored(&request(task, item, tokens.eos_token())?, longest)?.pop();
    Ok(scored.map(|Scored { tokens, scored_from }| Example::new(tokens, Vec::new(), None, scored_from)))
}
