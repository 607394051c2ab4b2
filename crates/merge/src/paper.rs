//! Where a method or sparsifier was published.

/// A paper that describes a method.
#[derive(Debug, Clone, Copy)]
pub struct Paper {
    /// Its title.
    pub title: &'static str,
    /// arXiv number, such as `2311.03099`; empty for older ones.
    pub arxiv: &'static str,
}

impl Paper {
    /// Title with its address on arXiv, where it has one, in Markdown.
    pub fn citation(&self) -> String {
        if self.arxiv.is_empty() { self.title.to_owned() } else { format!("[{}](https://arxiv.org/abs/{})", self.title, self.arxiv) }
    }
}
