//! "Did you mean …?"

/// How many letters may differ.
const FAR: usize = 3;

/// The option closest to `word`, if one is close. A word that is an option needs no
/// suggestion.
pub(crate) fn closest<'a>(
    word: &str,
    options: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let (word, mut best, mut nearest) = (word.to_lowercase(), None, FAR);
    if word.len() > 64 {
        return None;
    }
    for option in options {
        let lower = option.to_lowercase();
        if lower == word {
            return (option != word).then(|| option.to_owned());
        }
        if lower.len().abs_diff(word.len()) >= nearest {
            continue;
        }
        let far = distance(&word, &lower);
        if far < nearest {
            (best, nearest) = (Some(option.to_owned()), far);
        }
    }
    best
}

/// ` (did you mean x?)`, or nothing.
pub(crate) fn hint(suggestion: &Option<String>) -> String {
    match suggestion {
        Some(word) => format!(" (did you mean {word}?)"),
        None => String::new(),
    }
}

/// How many letters must be added, dropped or replaced (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: F16
    #[test]
    fn only_near_words_are_suggested() {
        let options = ["FROM", "COPY", "RUN"];
        assert_eq!(closest("FRMO", options).as_deref(), Some("FROM"));
        assert_eq!(closest("COPPY", options).as_deref(), Some("COPY"));
        assert_eq!(closest("EXPOSE", options), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
