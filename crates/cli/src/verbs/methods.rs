//! `deltaic methods`: everything comes from the registries.

use deltaic_checkpoint::{Error, Result};
use deltaic_merge::methods::{self, Base, Default, Definition, Kind, Parameter, Preset, Scope};
use deltaic_merge::sparsifiers;

use crate::messages::print;
use crate::{arguments, tables};

pub fn run(arguments: &arguments::Methods) -> Result<()> {
    let text = match (&arguments.name, arguments.json) {
        (None, false) => overview(),
        (None, true) => format!("{:#}\n", serde_json::Value::from_iter(methods::all().map(as_json))),
        (Some(name), json) => one(name, json)?,
    };
    print(&text);
    Ok(())
}

fn paper(paper: Option<methods::Paper>) -> String {
    paper.map_or(String::new(), |paper| if paper.arxiv.is_empty() { paper.title.to_owned() } else { format!("arXiv {}", paper.arxiv) })
}

fn preset(definition: &Definition) -> &'static str {
    match definition.preset {
        None => "any",
        Some(Preset::Mergekit) => "mergekit",
        Some(Preset::Paper) => "paper",
    }
}

fn models(definition: &Definition) -> String {
    let (least, most) = definition.models;
    let count = match most {
        Some(most) if most == least => least.to_string(),
        Some(most) => format!("{least} to {most}"),
        None => format!("{least} or more"),
    };
    match definition.base {
        Base::Required => format!("{count} + base"),
        Base::OneOfTheInputs => format!("{count}, one the base"),
        Base::Input | Base::Reference => count,
    }
}

fn overview() -> String {
    let rows = methods::all().map(|definition| {
        let names: Vec<&str> =
            definition.parameters.iter().filter(|parameter| !parameter.no_effect).map(|parameter| parameter.name).collect();
        vec![
            definition.name.to_owned(),
            preset(definition).to_owned(),
            models(definition),
            names.join(" "),
            paper(definition.paper),
            definition.summary.to_owned(),
        ]
    });
    let mut text = tables::table(&["method", "preset", "models", "parameters", "paper", "what it does"], &[], rows);
    text += "\n";
    let rows =
        sparsifiers::all().map(|definition| vec![definition.name.to_owned(), paper(definition.paper), definition.summary.to_owned()]);
    text += &tables::table(&["sparsifier", "paper", "what it does"], &[], rows);
    text += "\n`deltaic methods NAME` shows formula, parameters and a recipe. A sparsifier stands before any method: `sparsify: {kind: dare, drop_rate: 0.9}`.\n";
    text
}

fn one(name: &str, json: bool) -> Result<String> {
    let found: Vec<&Definition> = methods::all().filter(|definition| definition.name == name).collect();
    if json && !found.is_empty() {
        return Ok(format!("{:#}\n", serde_json::Value::from_iter(found.into_iter().map(as_json))));
    }
    if !found.is_empty() {
        return Ok(found.into_iter().map(whole).collect::<Vec<_>>().join("\n"));
    }
    if let Some(definition) = sparsifiers::find(name) {
        let example = "merge_method: average\nbase_model: ./base\nmodels:\n  - model: ./fine-tune-a\n  - model: ./fine-tune-b\n";
        let random = if definition.random { "seed: 42\n" } else { "" };
        return Ok(format!(
            "{} (sparsifier): {}\n{}\n\n{}\n\nsparsify:\n  kind: {}\n  drop_rate   share dropped, 0 to 1 (or density: share kept)\n  rescale     inverse (default), l1, none\n  of          delta (default), weights\n  seed        the mask's own seed\n\n{example}sparsify: {{kind: {}, drop_rate: 0.9}}\n{random}",
            definition.name,
            definition.summary,
            paper(definition.paper),
            definition.formula,
            definition.name,
            definition.name
        ));
    }
    if methods::NOT_YET.contains(&name) || sparsifiers::NOT_YET.contains(&name) {
        return Err(Error::not_yet(format!("`{name}`")).help("`deltaic methods` lists what is there"));
    }
    Err(Error::new(format!("`{name}`: no such method or sparsifier")).help("`deltaic methods` lists all"))
}

fn whole(definition: &Definition) -> String {
    let mut text = format!("{} ({}): {}\n", definition.name, preset_said(definition), definition.summary);
    let paper = definition.paper.map_or(String::new(), |paper| format!("{} {}", paper.title, self::paper(Some(paper))));
    text += &format!("{}\n\n{}\n\nmodels: {}\n", paper.trim(), definition.formula, models(definition));
    text += &tables::table(
        &["parameter", "type", "where", "default", "what it is"],
        &[],
        definition.parameters.iter().map(|parameter| {
            vec![
                parameter.name.to_owned(),
                kind(parameter).to_owned(),
                scope(parameter).to_owned(),
                default(parameter),
                parameter.summary.to_owned(),
            ]
        }),
    );
    text + "\n" + definition.example
}

fn preset_said(definition: &Definition) -> &'static str {
    match definition.preset {
        None => "any preset",
        Some(Preset::Mergekit) => "the default preset",
        Some(Preset::Paper) => "preset: paper",
    }
}

fn kind(parameter: &Parameter) -> &'static str {
    match parameter.kind {
        Kind::Number => "number",
        Kind::Rate => "0 to 1",
        Kind::Bool => "true, false",
    }
}

fn scope(parameter: &Parameter) -> &'static str {
    match parameter.scope {
        Scope::Shared => "merge",
        Scope::PerModel => "model",
        Scope::PerInput => "model, base too",
    }
}

fn default(parameter: &Parameter) -> String {
    match parameter.default {
        Default::Required => "required".to_owned(),
        Default::Absent => String::new(),
        Default::Number(number) => number.to_string(),
        Default::Bool(truth) => truth.to_string(),
    }
}

fn as_json(definition: &Definition) -> serde_json::Value {
    let parameters = definition.parameters.iter().map(|parameter| {
        serde_json::json!({
            "name": parameter.name,
            "type": kind(parameter),
            "scope": scope(parameter),
            "default": default(parameter),
            "effect": !parameter.no_effect,
            "summary": parameter.summary,
        })
    });
    serde_json::json!({
        "name": definition.name,
        "preset": preset(definition),
        "summary": definition.summary,
        "formula": definition.formula,
        "paper": definition.paper.map(|paper| paper.title),
        "arxiv": definition.paper.map(|paper| paper.arxiv),
        "models": models(definition),
        "parameters": parameters.collect::<Vec<_>>(),
        "example": definition.example,
    })
}
