//! The page: what was asked, what the numbers say of the paper's claims, figures, tables, how to read them.

use super::{page_measures, page_tables as tables};
use crate::html::{Entry, Page};
use crate::study::findings::{Findings, Finished, LEVEL, claims};
use crate::study::schema::{SelectOn, Selection, Study};

/// Writes the page. `figures` are names and SVG documents; `cells` are how many have been run, and how many there are.
pub fn write(finished: &Finished<'_>, found: &Findings, figures: &[(String, String)], cells: (usize, usize)) -> String {
    let study = finished.open.study;
    let mut page = Page::new(&format!("Study: {}", study.study));
    page.paragraph(&study.description);
    if cells.0 < cells.1 {
        page.paragraph(&format!("Not finished: {} of {} cells have been run. What follows is made of those.", cells.0, cells.1));
    }
    claimed(&mut page, finished, found);
    if !figures.is_empty() {
        page.heading("Figures");
        figures.iter().for_each(|(name, svg)| page.figure(svg, caption(name)));
    }
    if !found.points.is_empty() {
        page.heading("Single models");
        tables::points(&mut page, finished, &found.points);
        tables::comparisons(&mut page, finished, &found.comparisons);
    }
    if !found.merges.is_empty() {
        page.heading("Merges");
        if let Some(selection) = study.merges.as_ref().and_then(|merges| merges.selection) {
            page.paragraph(&choice(selection));
        }
        tables::merges(&mut page, finished, &found.merges);
        tables::dare(&mut page, finished, &found.merges);
        tables::trims(&mut page, finished, &found.merges);
        tables::grids(&mut page, finished, &found.merges);
    }
    page_measures::tables(&mut page, finished);
    if finished.open.list(&finished.kept.cells).cells.iter().any(|(_, key)| finished.kept.cells.contains_key(key)) {
        page.heading("Every subject on every task");
        tables::subjects(&mut page, finished);
        page.heading("Times");
        tables::times(&mut page, finished);
    }
    page.heading("What was run, and how to read it");
    tables::inputs(&mut page, finished);
    page.list(&remarks(study, finished));
    page.finish()
}

fn claimed(page: &mut Page, finished: &Finished<'_>, found: &Findings) {
    let claims = claims(finished, found);
    if claims.is_empty() {
        return;
    }
    page.heading("The paper's claims, at this size");
    let rows: Vec<Vec<Entry>> = claims
        .iter()
        .map(|claim| [claim.claim.clone(), claim.verdict(), claim.criterion.clone(), claim.numbers.clone()].map(Entry::Text).into())
        .collect();
    let caption = "Each claim, what the numbers of this study say of it, when it is said to hold (fixed in the program, not by the numbers), and the numbers. \
                   \u{b1} is one standard error over items; p is after correction.";
    page.table(caption, &["claim", "here", "said to hold where", "numbers"], &rows);
}

fn caption(figure: &str) -> &'static str {
    match figure {
        "rates" => {
            "Score against drop rate. The line is the mean over masks, the band its 95% interval over items (masks as they are), the bars one \
             standard deviation over masks to each side. Every line begins at the fine-tune as it is (rate 0). Rates are shown as even steps."
        }
        "merges" => {
            "Scores of merges: the mean over tasks of the headline by the fine-tune's own on the same items, so that 1 is as good as the fine-tunes. \
             Black without DARE, blue with DARE before the method at the same parameters, fainter the more is dropped. Whiskers are one standard \
             error over items."
        }
        "similarity" => {
            "Cosine between the last hidden state of a fine-tune and of itself after an operation, against drop rate: the mean over tokens, and the band between \
             the first and the last decile (replicate 0)."
        }
        _ => {
            "Deltas of one model: on top a histogram of all of them on a symmetric logarithmic axis, below their ranges by layer and by kind of tensor."
        }
    }
}

fn choice(selection: Selection) -> String {
    match selection.select {
        SelectOn::Half => {
            let most = selection.items.map_or(String::new(), |items| format!(" (at most {items} items of a task)"));
            format!(
                "The best point of each grid was chosen without DARE on one half of the items{most}, permuted by seed {}; all that is reported here \
                 is of the other half. DARE is then put before the method at that same point: there is no choice among rates in what is tested.",
                selection.seed
            )
        }
        SelectOn::Test => {
            "The best point of each grid was chosen on the items that are reported, as the paper does: scores without DARE are too \
                           good by that choice."
                .to_owned()
        }
    }
}

fn remarks(study: &Study, finished: &Finished<'_>) -> Vec<String> {
    vec![
        "There is one fine-tune for each task. Nothing here says how results spread over the seeds of training.".to_owned(),
        format!(
            "Errors over items: {} resamples of the items with replacement, the same for both arms of a difference and for all masks; the headline is \
             computed again in each. p-values are two-sided and invert the percentile interval; their least value is {:.0e}. Masks are not resampled: how \
             much they matter is the spread over masks, which stands beside.",
            finished.resamples,
            2.0 / (finished.resamples as f64 + 1.0)
        ),
        format!(
            "Correction: Holm's, over all tests of one kind together (over models and rates; over sets, methods and rates). Coloured is what is \
             significant at {:.0}% after it.",
            100.0 * LEVEL
        ),
        "Masks: a model's seed is 1000 x replicate + its place in the list of models, so that a model that was evaluated alone is the one that is \
         merged. DARE, DropOnly and dropping weights share their masks."
            .to_owned(),
        format!("Tensors that were neither dropped nor merged: {}.", if study.exclude.is_empty() { "none".to_owned() } else { study.exclude.join(", ") }),
    ]
}
