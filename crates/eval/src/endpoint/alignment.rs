//! Which tokens of an echoed text are the continuation's.
//!
//! Servers give each token's text and, most of them, its offset. Neither can be trusted alone: vLLM counts a BOS's text among the
//! characters; tokens that are parts of a character are shown as U+FFFD, `bytes:\xe2`, or nothing; sentencepiece's tokens may have lost
//! their space. So both are compared with the text that was sent, and where they do not fit nothing is guessed.

/// Most special tokens in front of a text.
const MAX_PREFIX: usize = 4;

/// The first token of the continuation in `full`, which begins with `prompt`: the one that begins where the prompt, without the white
/// space at its end, ends. `None` where the tokens cannot be laid on the text, or one reaches over the border.
///
/// `tokens` are those of the echoed text alone, with special tokens in front; `offsets` count characters.
pub(super) fn continuation(tokens: &[String], offsets: Option<&[usize]>, prompt: &str, full: &str) -> Option<usize> {
    let border = prompt.trim_end().chars().count();
    let (prefix, starts) = by_text(tokens, full).or_else(|| by_offset(tokens, offsets?, full))?;
    starts.iter().position(|&start| start == border).map(|at| prefix + at)
}

/// How many tokens stand before the text, and where the others begin, if these are the text when they are joined.
fn by_text(tokens: &[String], full: &str) -> Option<(usize, Vec<usize>)> {
    let prefix = (0..=MAX_PREFIX.min(tokens.len())).find(|&prefix| is_joined(&tokens[prefix..], full))?;
    let mut end = 0;
    let starts = tokens[prefix..].iter().map(|token| {
        let start = end;
        end += token.chars().count();
        start
    });
    Some((prefix, starts.collect()))
}

fn is_joined(tokens: &[String], full: &str) -> bool {
    tokens.iter().try_fold(full, |rest, token| rest.strip_prefix(token.as_str())) == Some("")
}

/// The same by the server's offsets, where every token that shows its text stands in the text at its offset, and the last one does and
/// ends it.
fn by_offset(tokens: &[String], offsets: &[usize], full: &str) -> Option<(usize, Vec<usize>)> {
    // The byte at which each character begins, and the end.
    let bytes: Vec<usize> = full.char_indices().map(|(at, _)| at).chain([full.len()]).collect();
    // What is the text's own beginning is no special token in front of it.
    let is_special = |token: &&String| shows_its_text(token) && !full.starts_with(token.as_str());
    let most = tokens.iter().take(MAX_PREFIX.min(tokens.len().saturating_sub(1))).take_while(is_special).count();
    (0..=most).find_map(|prefix| {
        let starts: Vec<usize> = offsets[prefix..].iter().map(|&offset| offset.checked_sub(offsets[prefix])).collect::<Option<_>>()?;
        let fits = |(token, &start): (&String, &usize)| {
            bytes.get(start).is_some_and(|&byte| !shows_its_text(token) || full[byte..].starts_with(token.as_str()))
        };
        let ends = tokens
            .last()
            .zip(starts.last())
            .is_some_and(|(token, &start)| shows_its_text(token) && bytes.get(start).is_some_and(|&byte| &full[byte..] == token));
        let ordered = starts.is_sorted();
        (ends && ordered && tokens[prefix..].iter().zip(&starts).all(fits)).then_some((prefix, starts))
    })
}

/// Whether a token is given as the characters it stands for.
fn shows_its_text(token: &str) -> bool {
    !token.is_empty() && !token.contains('\u{fffd}') && !token.starts_with("bytes:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(list: &[&str]) -> Vec<String> {
        list.iter().map(|&token| token.to_owned()).collect()
    }

    #[test]
    fn tokens_that_join_to_the_text_need_no_offsets() {
        assert_eq!(continuation(&tokens(&["The", " cat", " sat"]), None, "The cat", "The cat sat"), Some(2));
        assert_eq!(continuation(&tokens(&["<s>", "The", " cat", " sat"]), None, "The cat", "The cat sat"), Some(3));
        assert_eq!(continuation(&tokens(&["<s>", "The", " cat"]), None, "", "The cat"), Some(1));
    }

    #[test]
    fn white_space_at_the_prompts_end_belongs_to_the_continuation() {
        assert_eq!(continuation(&tokens(&["The", " cat", " sat"]), None, "The cat ", "The cat sat"), Some(2));
    }

    #[test]
    fn a_token_over_the_border_is_not_guessed_at() {
        assert_eq!(continuation(&tokens(&["The", " cats"]), None, "The cat", "The cats"), None);
    }

    #[test]
    fn offsets_count_characters_and_serve_where_tokens_are_parts_of_one() {
        // The crab is 4 bytes in two tokens; OpenAI shows such tokens as escapes.
        let list = tokens(&["é", "bytes:\\xf0\\x9f", "bytes:\\xa6\\x80", " is", " red"]);
        assert_eq!(continuation(&list, Some(&[0, 1, 1, 2, 5]), "é🦀 is", "é🦀 is red"), Some(4));
        // Offsets that run ahead, as where each part is counted as a character, fit nothing.
        assert_eq!(continuation(&list, Some(&[0, 1, 2, 3, 6]), "é🦀 is", "é🦀 is red"), None);
    }

    #[test]
    fn offsets_that_count_a_bos_are_moved() {
        let list = tokens(&["<s>", "a", "\u{fffd}", "\u{fffd}", " b"]);
        assert_eq!(continuation(&list, Some(&[0, 3, 4, 4, 5]), "aé", "aé b"), Some(4));
    }

    #[test]
    fn tokens_that_lost_their_spaces_fit_nothing() {
        let list = tokens(&["<s>", "The", "cat", "sat"]);
        assert_eq!(continuation(&list, Some(&[0, 3, 6, 9]), "The cat", "The cat sat"), None);
    }

    #[test]
    fn hostile_offsets_do_no_harm() {
        let list = tokens(&["a", "b"]);
        assert_eq!(continuation(&list, Some(&[usize::MAX, 0]), "a", "ax"), None);
        assert_eq!(continuation(&list, Some(&[0, usize::MAX]), "a", "ax"), None);
        assert_eq!(continuation(&[], Some(&[]), "a", "ax"), None);
        assert_eq!(continuation(&[], None, "", ""), None);
    }
}
