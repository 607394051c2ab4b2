//! Studies on tiny models: they run, go on where they were stopped, give the same in any place, and write a report that stands alone.

mod small_study;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use deltaic_study::study::{Study, dry_run, report_only};
use serde_json::Value;
use small_study::{ITEMS, Small, study, text};

const SINGLE: &str = "\
replicates: 2
single:
  - {operations: [dare, drop_only, magnitude, of_weights], drop_rates: [0.0, 0.5, 0.9]}
";

const MERGES: &str = "\
replicates: 2
merges:
  sets: [pairs, all]
  drop_rates: [0.5]
  selection: {select: half, items: 12, seed: 3}
  methods:
    - {method: average}
    - {method: task_arithmetic, grid: {lambda: [0.3, 0.6]}}
    - {method: ties, grid: {lambda: [0.5, 1.0], mask_rate: [0.2, 0.8]}}
    - {method: fisher}
    - {method: regmean, grid: {reduce_non_diagonal: [0.8, 1.0]}, drop_rates: []}
statistics: {examples: 8}
";

/// What must be the same whenever and wherever a study is run.
fn measured(results: &HashMap<String, Value>) -> HashMap<&String, [&Value; 4]> {
    results.iter().map(|(key, line)| (key, [&line["headline"], &line["numbers"], &line["contents"], &line["metrics"]])).collect()
}

#[test]
fn a_study_that_was_stopped_goes_on_and_gives_what_one_gives_that_was_not() {
    let (small, elsewhere) = (Small::new(), Small::new());
    let study = study(SINGLE);
    // Two models; as they are, and at two rates three random operations twice and one that is not.
    let cells = 2 * (1 + 2 * (3 * 2 + 1));
    let (stopped, run) = small.run(&study, "out", 5);
    assert!(stopped.unwrap_err().message().contains("cancelled") && run == 5);
    // As if the machine had gone off in the middle of a line.
    let path = small.path().join("out/results.jsonl");
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"key\": \"half a li").unwrap();
    let (report, run) = small.run(&study, "out", usize::MAX);
    assert_eq!((report.unwrap().cells, run), ((cells, cells), cells - 5));
    let (report, run) = small.run(&study, "out", usize::MAX);
    assert!(report.is_ok() && run == 0);
    let (_, run) = elsewhere.run(&study, "another-out", usize::MAX);
    assert_eq!(run, cells);
    let (results, others) = (small.results("out"), elsewhere.results("another-out"));
    assert_eq!(results.len(), cells);
    assert_eq!(measured(&results), measured(&others));
    // No path of this machine is in what is committed.
    let folder = small.path().to_string_lossy().into_owned();
    for name in ["results.jsonl", "items.jsonl", "small.csv", "small.html"] {
        assert!(!fs::read_to_string(small.path().join("out").join(name)).unwrap().contains(&folder), "{name}");
    }
}

#[test]
fn the_seeds_are_the_same_alone_and_merged() {
    let small = Small::new();
    small.run(&study(SINGLE), "out", usize::MAX).0.unwrap();
    small.run(&study(MERGES), "out", usize::MAX).0.unwrap();
    let mut alone = BTreeSet::new();
    let mut merged = BTreeSet::new();
    for line in small.results("out").values() {
        let models = line["contents"]["subject"]["merge"]["models"].as_array().cloned().unwrap_or_default();
        let seeds = models.iter().filter_map(|model| Some((model["model"].as_str()?.to_owned(), model["seed"].as_u64()?)));
        if models.len() == 1 { alone.extend(seeds) } else { merged.extend(seeds) }
    }
    assert_eq!(alone, merged);
    // Replicates 0 and 1 of places 0 and 1.
    assert_eq!(alone.iter().map(|(_, seed)| *seed).collect::<BTreeSet<_>>(), BTreeSet::from([0, 1, 1000, 1001]));
}

#[test]
fn a_grids_best_point_is_chosen_on_one_half_and_reported_on_the_other() {
    let small = Small::new();
    let study = study(MERGES);
    let planned = dry_run(&study, &small.places(), &small.path().join("out"), &AtomicBool::new(false)).unwrap();
    // The pair is all models: one set. Three grids are open.
    assert!(planned.later > 0 && !planned.measured && planned.seconds > 0.0);
    let (report, run) = small.run(&study, "out", usize::MAX);
    assert_eq!(report.unwrap().cells, (run, run));
    assert_eq!(planned.cells.len() + planned.later, run);
    let table = read_csv(&small.path().join("out/small.csv"));
    let score =
        |rows: &[&HashMap<String, String>]| rows.iter().map(|row| row["relative"].parse::<f64>().unwrap()).sum::<f64>() / rows.len() as f64;
    for method in ["task_arithmetic", "ties"] {
        let of = |part: &str, rate: &str| -> Vec<&HashMap<String, String>> {
            table.iter().filter(|row| row["method"] == method && row["part"] == part && row["drop_rate"] == rate).collect()
        };
        let points: BTreeSet<&String> = of("selection", "0").iter().map(|row| &row["parameters"]).collect();
        let at = |point: &str| -> f64 {
            let rows: Vec<_> = of("selection", "0").into_iter().filter(|row| row["parameters"] == point).collect();
            assert_eq!(rows.len(), 2);
            score(&rows)
        };
        let best = points.iter().max_by(|a, b| at(a).total_cmp(&at(b))).unwrap();
        // Reported is the best point alone, without DARE and with it.
        for (rate, cells) in [("0", 2), ("0.5", 4)] {
            let reported = of("report", rate);
            assert!(reported.len() == cells && reported.iter().all(|row| row["parameters"] == **best), "{method} {rate}");
        }
    }
    let items: Vec<Value> =
        fs::read_to_string(small.path().join("out/items.jsonl")).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers =
        |items: &Value| items["numbers"].as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect::<BTreeSet<_>>();
    let of_film: Vec<BTreeSet<u64>> = items.iter().filter(|items| items["task"] == "glue/sst2").map(numbers).collect();
    assert_eq!(of_film.iter().map(BTreeSet::len).collect::<BTreeSet<_>>(), BTreeSet::from([12, ITEMS / 2]));
    assert!(of_film[0].is_disjoint(&of_film[1]));
    // What TIES trimmed is told by the cells.
    let results = small.results("out");
    let trims =
        results.values().filter(|line| line["contents"]["subject"]["merge"]["merge_method"] == "ties").map(|line| &line["notes"]["trims"]);
    assert!(trims.clone().count() > 0 && trims.clone().all(|trims| trims.as_array().is_some_and(|trims| trims.len() == 2)));
    // Statistics lie beside the results, out of the way of version control.
    assert!(small.path().join("out/statistics/.gitignore").exists());
}

fn read_csv(path: &Path) -> Vec<HashMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    reader.deserialize().map(Result::unwrap).collect()
}

#[test]
fn the_report_stands_alone_and_says_what_it_is_made_of() {
    let small = Small::new();
    let study = study(&format!("{SINGLE}{}", MERGES.replace("replicates: 2\n", "")));
    // Half of the cells: a report of what is there.
    small.run(&study, "out", 40).0.unwrap_err();
    let report = report_only(&study, &small.places(), &small.path().join("out"), &AtomicBool::new(false)).unwrap();
    assert!(report.cells.0 == 40 && report.cells.1 > 40);
    assert!(fs::read_to_string(small.path().join("out/small.html")).unwrap().contains("Not finished: 40 of"));
    small.run(&study, "out", usize::MAX).0.unwrap();
    let page = fs::read_to_string(small.path().join("out/small.html")).unwrap();
    for outside in ["<script", "<link", "<img", "src=", "href=", "url(", "@import", "<iframe"] {
        assert!(!page.contains(outside), "{outside}");
    }
    // The one address is the name of SVG's own language.
    assert_eq!(page.matches("http").count(), page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
    for said in
        ["one fine-tune for each task", "20000 resamples", "Holm", "had more tries", "1000 x replicate", "DARE helps in", "at this size"]
    {
        assert!(page.contains(said), "{said}");
    }
    assert_eq!(page.matches("<svg").count(), 2);
    for table in page.split("<table>").skip(1) {
        let (header, rows) = table.split_once("</thead>").unwrap();
        let rows = rows.split("</table>").next().unwrap();
        let columns = header.matches("<th>").count() + header.matches("<th class").count();
        assert!(rows.split("<tr>").skip(1).all(|row| row.matches("<td").count() == columns), "{header}");
    }
}

#[test]
fn what_is_wrong_in_a_study_is_said_with_its_place() {
    for (rest, expected) in [
        ("replicate: 2\n", "did you mean `replicates`?"),
        ("replicates: 0\n", "replicates: 0"),
        ("single:\n  - {drop_rates: [0.5]}\n", "without `operations`"),
        ("single:\n  - {operations: [dare], drop_rates: [1.5]}\n", "1.5: a rate lies within 0 and 1"),
        ("single:\n  - {operations: [dear], drop_rates: [0.5]}\n", "did you mean `dare`?"),
        ("single:\n  - {models: [flim], drop_rates: [0.0]}\n", "`flim` is none of the study's"),
        ("merges: {sets: [pairs], methods: [{method: ties, grid: {lambda: []}}]}\n", "`lambda` has no values"),
        (
            "merges: {sets: [pairs], methods: [{method: ties, parameters: {lambda: 1.0}, grid: {lambda: [1.0]}}]}\n",
            "both in parameters and in grid",
        ),
        ("merges: {sets: [[film, film]], methods: [{method: average}]}\n", "`film` stands twice"),
        ("merges: {sets: [pairs], methods: [{method: average}], selection: {items: 0}}\n", "a choice needs items"),
        ("statistics: {examples: 0}\n", "examples: 0"),
    ] {
        let error = Study::parse("study.yml", &text(rest)).map(|_| ()).unwrap_err();
        assert!(error.to_string().starts_with("study.yml") && error.to_string().contains(expected), "{rest}: {error}");
    }
}

/// Before anything is run.
#[test]
fn what_a_study_needs_and_is_not_there_is_said_at_once() {
    let small = Small::new();
    let wrong = |study: &Study| small.run(study, "out", usize::MAX).0.map(|_| ()).unwrap_err().to_string();
    let method = study("merges: {sets: [pairs], methods: [{method: average}, {method: ties, grid: {lamda: [0.5, 1.0]}}]}\n");
    let error = wrong(&method);
    assert!(error.contains("lamda") && error.contains("lambda"), "{error}");
    let model = Study::parse("study.yml", &text(SINGLE).replace("model: pair", "model: pear")).unwrap();
    assert!(wrong(&model).contains("pear"), "{}", wrong(&model));
    let data = Study::parse("study.yml", &text(SINGLE).replace("task: glue/stsb}", "task: glue/stsb, data: nowhere}")).unwrap();
    assert!(wrong(&data).contains("nowhere"), "{}", wrong(&data));
    assert!(!small.path().join("out/results.jsonl").exists() || small.results("out").is_empty());
}

/// The effect of DARE on an accuracy, from the items' own numbers: a paired difference of means has the standard error sd / sqrt(n), of which the
/// resamples' falls short by sqrt((n - 1) / n).
#[test]
fn an_effect_is_the_paired_difference_over_items_with_its_standard_error() {
    let small = Small::new();
    small
        .run(&study("replicates: 3\nsingle:\n  - {models: [film], operations: [dare], drop_rates: [0.0, 0.9]}\n"), "out", usize::MAX)
        .0
        .unwrap();
    let items: Value =
        serde_json::from_str(fs::read_to_string(small.path().join("out/items.jsonl")).unwrap().lines().next().unwrap()).unwrap();
    let numbers = |values: &Value| values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect::<Vec<_>>();
    let gold = numbers(&items["gold"]);
    let right = |line: &Value| -> Vec<f64> {
        numbers(&line["numbers"]["prediction"]).iter().zip(&gold).map(|(said, gold)| f64::from(said == gold)).collect()
    };
    let results = small.results("out");
    let (own, dare): (Vec<&Value>, Vec<&Value>) = results.values().partition(|line| line["contents"]["subject"]["merge"].is_null());
    let (own, dare) = (right(own[0]), dare.into_iter().map(right).collect::<Vec<_>>());
    assert_eq!(dare.len(), 3);
    let n = own.len() as f64;
    let differences: Vec<f64> = (0..own.len()).map(|item| dare.iter().map(|run| run[item]).sum::<f64>() / 3.0 - own[item]).collect();
    let mean = differences.iter().sum::<f64>() / n;
    let deviation = (differences.iter().map(|d| (d - mean) * (d - mean)).sum::<f64>() / n).sqrt();
    let page = fs::read_to_string(small.path().join("out/small.html")).unwrap();
    // The row of DARE in the table of scores: its eleventh column is the difference from the fine-tune, with its standard error.
    let row = page.split("<tr>").find(|row| row.starts_with("<td>film</td><td>film</td><td>DARE</td>")).unwrap();
    let cell = row.split("<td").nth(11).unwrap().split('>').nth(1).unwrap().trim_end_matches("</td");
    let (found, error) = cell.split_once(" \u{b1} ").unwrap();
    assert!((found.parse::<f64>().unwrap() - mean).abs() < 6e-5, "{cell} {mean}");
    let (error, expected) = (error.parse::<f64>().unwrap(), deviation / n.sqrt());
    assert!((error / expected - 1.0).abs() < 0.03, "{error} {expected}");
}
