//! The wording that error messages share: the nearest known word, lists that stay short, input made printable.

/// Words longer than this are not compared: nobody misspells them by accident, and the distance is quadratic.
const LONGEST_COMPARED: usize = 64;
/// A list of known words in a message ends after this many.
const LONGEST_LIST: usize = 24;
/// Input shown in a message is cut after this many characters.
const LONGEST_SHOWN: usize = 60;

/// The candidate with the smallest edit distance to `word`, capitals ignored; none if all are too far off.
/// The distance allowed grows with the word: one for up to five letters, a third of the length beyond.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().take(LONGEST_COMPARED + 1).collect();
    // Every number of one digit is as near to it as any other.
    let digit = matches!(word.as_slice(), [only] if only.is_numeric());
    if word.is_empty() || digit || word.len() > LONGEST_COMPARED {
        return None;
    }
    let allowed = (word.len() / 3).max(1);
    let mut best = None;
    for candidate in candidates {
        let letters: Vec<char> = candidate.to_lowercase().chars().take(LONGEST_COMPARED + 1).collect();
        if letters.len().abs_diff(word.len()) > allowed {
            continue;
        }
        let distance = edit_distance(&word, &letters);
        if distance <= allowed && best.is_none_or(|(smallest, _)| distance < smallest) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Levenshtein: insertions, deletions and replacements that turn `a` into `b`.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let value = (diagonal + usize::from(x != y)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = value;
            left = value;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(a.len())
}

/// "did you mean 'metric_meta'?" where something is near enough, else "`noun`: a, b, c".
pub(crate) fn suggest<'a>(word: &str, noun: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(word, candidates.clone()) {
        Some(candidate) => format!("did you mean {}?", shown(candidate)),
        None => format!("{noun}: {}", listed(candidates)),
    }
}

/// "a, b, c" – and how many more, where the list is long.
pub(crate) fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut words = words.into_iter();
    let head: Vec<String> = words.by_ref().take(LONGEST_LIST).map(cut).collect();
    match words.count() {
        0 => head.join(", "),
        more => format!("{} and {more} more", head.join(", ")),
    }
}

/// "1 row", "2 rows".
pub(crate) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Input in single quotes, control characters escaped, long input cut.
pub(crate) fn shown(text: &str) -> String {
    format!("'{}'", cut(text))
}

/// Control characters escaped (a TAB as `\t`), and an ellipsis after the first 60 characters.
fn cut(text: &str) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == LONGEST_SHOWN {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edit_distance_counts_insertions_deletions_and_replacements() {
        let distance = |a: &str, b: &str| edit_distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("flaw", "lawn"), 2);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn nearest_ignores_capitals_and_gives_up_on_strangers() {
        assert_eq!(nearest("N_CLAS", ["n_class", "labels"]), Some("n_class"));
        assert_eq!(nearest("zebra", ["n_class", "labels"]), None);
        assert_eq!(nearest("", ["a"]), None);
        assert_eq!(nearest("9", ["0", "1"]), None);
    }

    #[test]
    fn shown_input_is_cut_and_escaped() {
        assert_eq!(shown("a\tb\u{7}"), "'a\\tb\\u{7}'");
        assert_eq!(shown(&"x".repeat(100)), format!("'{}…'", "x".repeat(60)));
        assert!(listed(["a"; 26]).ends_with("a and 2 more"));
    }
}
