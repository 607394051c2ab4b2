//! The parts of a page: one file without scripts and without anything that is loaded from elsewhere.

use std::fmt::Write;

use deltaic_merge::delta::escaped_for_xml as escaped;

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;color:#222;background:#fff;margin:0 auto;max-width:75rem;padding:1rem 1.5rem 4rem}\
h1,h2{line-height:1.2}h2{margin-top:2.5rem;border-top:1px solid #ddd;padding-top:1.2rem}\
figure{margin:1.5rem 0;overflow-x:auto}figcaption,caption{color:#444;font-size:.92rem;text-align:left;padding:.4rem 0;max-width:60rem}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;margin:1rem 0}\
th,td{padding:.25rem .7rem;border-bottom:1px solid #e4e4e4;text-align:left;vertical-align:top}\
th{border-bottom:2px solid #888}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}\
.better{background:#e3f2e6}.worse{background:#fbe6e0}.note{color:#444}code{font-size:.85rem}";

/// A page, as it grows.
pub struct Page {
    body: String,
    title: String,
}

/// A cell of a table.
pub enum Entry {
    /// Words.
    Text(String),
    /// A number, as text.
    Number(String),
    /// A number that is better than what it is compared with, shown after correction.
    Better(String),
    /// A number that is worse.
    Worse(String),
}

impl Page {
    /// A page that begins with its title.
    pub fn new(title: &str) -> Self {
        Self { body: format!("<h1>{}</h1>\n", escaped(title)), title: title.to_owned() }
    }

    /// A heading.
    pub fn heading(&mut self, text: &str) {
        let _ = writeln!(self.body, "<h2>{}</h2>", escaped(text));
    }

    /// A paragraph.
    pub fn paragraph(&mut self, text: &str) {
        let _ = writeln!(self.body, "<p>{}</p>", escaped(text));
    }

    /// A list of sentences.
    pub fn list(&mut self, items: &[String]) {
        let items: String = items.iter().map(|item| format!("<li>{}</li>\n", escaped(item))).collect();
        let _ = writeln!(self.body, "<ul>\n{items}</ul>");
    }

    /// A figure with its caption; `svg` is a document of this program's own.
    pub fn figure(&mut self, svg: &str, caption: &str) {
        let _ = writeln!(self.body, "<figure>\n{svg}<figcaption>{}</figcaption>\n</figure>", escaped(caption));
    }

    /// A table with its caption. Columns are of numbers where the first row has a number.
    pub fn table(&mut self, caption: &str, header: &[&str], rows: &[Vec<Entry>]) {
        let Some(first) = rows.first() else { return };
        let is_number = |column: usize| first.get(column).is_some_and(|entry| !matches!(entry, Entry::Text(_)));
        let _ = writeln!(self.body, "<div class=\"wide\"><table>\n<caption>{}</caption>\n<thead><tr>", escaped(caption));
        for (column, name) in header.iter().enumerate() {
            let class = if is_number(column) { " class=\"n\"" } else { "" };
            let _ = write!(self.body, "<th{class}>{}</th>", escaped(name));
        }
        self.body += "</tr></thead>\n<tbody>\n";
        for row in rows {
            self.body += "<tr>";
            for entry in row {
                let (class, text) = match entry {
                    Entry::Text(text) => ("", text),
                    Entry::Number(text) => (" class=\"n\"", text),
                    Entry::Better(text) => (" class=\"n better\"", text),
                    Entry::Worse(text) => (" class=\"n worse\"", text),
                };
                let _ = write!(self.body, "<td{class}>{}</td>", escaped(text));
            }
            self.body += "</tr>\n";
        }
        self.body += "</tbody></table></div>\n";
    }

    /// The whole document.
    pub fn finish(self) -> String {
        let title = escaped(&self.title);
        let head = format!(
            "<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>{title}</title>\n<style>{STYLE}</style>"
        );
        format!("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n{head}\n</head>\n<body>\n{}</body>\n</html>\n", self.body)
    }
}
