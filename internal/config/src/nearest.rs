/// The candidate most like `word`; the first of several. By edit distance in relation to length, swapped
/// neighbours counting as one edit.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |candidate: &str| strsim::normalized_damerau_levenshtein(word, candidate);
    candidates.into_iter().fold(None, |best: Option<&str>, candidate| match best {
        Some(best) if likeness(best) >= likeness(candidate) => Some(best),
        _ => Some(candidate),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_word_that_was_meant() {
        let keys = ["slot", "publication", "status_interval_ms", "url", "password", "password_file"];
        for (word, meant) in [
            ("sloot", "slot"),
            ("solt", "slot"),
            ("passwrod", "password"),
            ("status_interval", "status_interval_ms"),
        ] {
            assert_eq!(nearest(word, keys), Some(meant));
        }
        assert_eq!(nearest("x", []), None);
    }
}
