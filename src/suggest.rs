//! "Did you mean": the known word that a mistyped one most likely meant.

/// The nearest candidate, if one is near enough to be worth naming.
#[must_use]
pub fn near<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(word.len()) / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_named_and_far_ones_are_not() {
        let known = ["timeout", "device", "url"];
        assert_eq!(near("tiemout", &known), Some("timeout"));
        assert_eq!(near("ulr", &known), Some("url"));
        assert_eq!(near("colour", &known), None);
    }
}
