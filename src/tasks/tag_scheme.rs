//! Schemes of entity tags, and their common form, IOB2, in which entities are scored.
//!
//! | scheme | an entity of two words and one of one word, then the same with the two touching |
//! |---|---|
//! | IOB2 | `B-A I-A O B-A`, `B-A I-A B-A` |
//! | IOB1 | `I-A I-A O I-A`, `I-A I-A B-A` |
//! | BIOES | `B-A E-A O S-A`, `B-A E-A S-A` |

/// How tags mark entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `B-` begins every entity.
    Iob2,
    /// `B-` begins an entity only where it follows one of its own type.
    Iob1,
    /// `B-` begins and `E-` ends an entity of several words, `S-` is an entity of one.
    Bioes,
}

/// Prefix and type of a tag: `B-PER` is B and PER, `O` is O and nothing.
fn split(tag: &str) -> (char, &str) {
    let mut letters = tag.chars();
    let prefix = letters.next().unwrap_or('O');
    (prefix, letters.as_str().strip_prefix('-').unwrap_or(letters.as_str()))
}

/// Whether `tag` is `O`, or one of the prefixes B, I, E, S alone or with a type after a hyphen.
pub(super) fn is_entity_tag(tag: &str) -> bool {
    let (prefix, rest) = tag.split_at(tag.chars().next().map_or(0, char::len_utf8));
    match prefix {
        "O" => rest.is_empty(),
        "B" | "I" | "E" | "S" => rest.is_empty() || (rest.len() > 1 && rest.starts_with('-')),
        _ => false,
    }
}

impl Scheme {
    /// The scheme that true tags are written in: BIOES if any has the prefix E or S; IOB1 if some entity begins with
    /// I- and no B- stands where IOB1 would not need one; else IOB2.
    pub fn of(sentences: &[Vec<&str>]) -> Scheme {
        let (mut inside_begins, mut needless_b) = (false, false);
        for tags in sentences {
            let mut before = "";
            for tag in tags {
                let (prefix, kind) = split(tag);
                let follows = split(before).1 == kind && !matches!(split(before).0, 'O') && !before.is_empty();
                match prefix {
                    'E' | 'S' => return Scheme::Bioes,
                    'I' => inside_begins |= !follows,
                    'B' => needless_b |= !follows,
                    _ => {}
                }
                before = tag;
            }
        }
        if inside_begins && !needless_b { Scheme::Iob1 } else { Scheme::Iob2 }
    }
}

/// The tags of a sentence in IOB2. A BIOES entity ends after `E-` and `S-`: what goes on there without a beginning
/// becomes `O`.
pub fn to_iob2<S: AsRef<str>>(tags: &[S], scheme: Scheme) -> Vec<String> {
    let with = |prefix: char, kind: &str| if kind.is_empty() { prefix.into() } else { format!("{prefix}-{kind}") };
    let mut out = Vec::with_capacity(tags.len());
    let mut before = "";
    for tag in tags {
        let tag = tag.as_ref();
        let (prefix, kind) = split(tag);
        let (prefix_before, kind_before) = split(before);
        let follows = !before.is_empty() && prefix_before != 'O' && kind_before == kind;
        out.push(match (scheme, prefix) {
            (_, 'O') | (Scheme::Iob2, _) => tag.to_string(),
            (Scheme::Iob1, 'I') if !follows => with('B', kind),
            (Scheme::Iob1, _) => tag.to_string(),
            (Scheme::Bioes, 'B' | 'S') => with('B', kind),
            (Scheme::Bioes, _) if follows && !matches!(prefix_before, 'E' | 'S') => with('I', kind),
            (Scheme::Bioes, _) => "O".into(),
        });
        before = tag;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(text: &str) -> Vec<&str> {
        text.split(' ').collect()
    }

    #[test]
    fn the_three_schemes_have_one_common_form() {
        for (scheme, text, expected) in [
            (Scheme::Iob2, "B-A I-A O B-A B-A", "B-A I-A O B-A B-A"),
            (Scheme::Iob1, "I-A I-A O I-A B-A I-B", "B-A I-A O B-A B-A B-B"),
            (Scheme::Bioes, "B-A E-A O S-A S-A B-B I-B E-B", "B-A I-A O B-A B-A B-B I-B I-B"),
            (Scheme::Bioes, "S-A I-A E-A O E-B", "B-A O I-A O O"),
            (Scheme::Bioes, "B E O S", "B I O B"),
        ] {
            let sentence = tags(text);
            assert_eq!(to_iob2(&sentence, scheme).join(" "), expected, "{text}");
        }
    }

    #[test]
    fn the_scheme_shows_in_the_true_tags() {
        assert_eq!(Scheme::of(&[tags("I-A I-A B-A O")]), Scheme::Iob1);
        assert_eq!(Scheme::of(&[tags("B-A I-A O")]), Scheme::Iob2);
        // One slip in a file of IOB2 does not make it IOB1.
        assert_eq!(Scheme::of(&[tags("O B-A I-A"), tags("O I-A")]), Scheme::Iob2);
        assert_eq!(Scheme::of(&[tags("O"), tags("O S-A")]), Scheme::Bioes);
        assert_eq!(Scheme::of(&[]), Scheme::Iob2);
    }

    #[test]
    fn tags_of_entities_are_told_from_others() {
        assert!(["O", "B-A", "I-x-y", "S", "E-1"].into_iter().all(is_entity_tag));
        assert!(!["", "NN", "O-A", "B-", "IN", "é"].into_iter().any(is_entity_tag));
    }
}
