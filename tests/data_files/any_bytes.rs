//! Whatever the bytes, an answer or a refusal.

use super::*;

/// Pieces of YAML, so that random texts get past the first line of the parser.
fn yaml_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "toy:",
        "\n",
        "  ",
        " ",
        "- ",
        "data_format: PremiseOnly",
        "task_type: Regression",
        "n_class: 1",
        "n_class:",
        "metric_meta: [ACC]",
        "enable_san: false",
        "data:",
        "{",
        "}",
        "[",
        "]",
        ",",
        "'",
        "\"",
        "|",
        ">",
        "&a",
        "*a",
        "!!x",
        "---",
        "...",
        "? ",
        ": ",
        "#",
        "%YAML 1.2",
        "\t",
        "\u{feff}",
        "é",
        "\r",
        "\\x",
        "<<: ",
        "~",
        "1e400",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// Pieces of delimited files.
fn rows_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        &b"\t"[..],
        b",",
        b"\n",
        b"\r\n",
        b"\r",
        b"\"",
        b"\"\"",
        b"0",
        b"1",
        b"label",
        b"premise",
        b"x",
        b"\xc3\xa9",
        b"\xff",
        b"\0",
        b"\xef\xbb\xbf",
        b" ",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_task_file_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = TaskFile::parse_bytes("tasks.yml", &bytes);
    }

    #[test]
    fn no_text_makes_the_task_file_reader_panic(text in yaml_like()) {
        let _ = TaskFile::parse("tasks.yml", &text);
    }

    /// A valid file with one thing changed gets further than random text does.
    #[test]
    fn no_damage_to_a_task_file_makes_its_reader_panic(place in 0usize..2000, cut in 0usize..40, piece in yaml_like()) {
        let text = std::fs::read_to_string(fixture("glue_task_def.yml")).unwrap();
        let (start, end) = (place.min(text.len()), (place + cut).min(text.len()));
        let damaged = [&text[..start], &piece, &text[end..]].concat();
        let _ = TaskFile::parse("tasks.yml", &damaged);
    }

    #[test]
    fn no_bytes_make_a_row_reader_panic(bytes in prop_oneof![rows_like(), prop::collection::vec(any::<u8>(), 0..300)]) {
        for task in [task("", ""), pair(), csv(""), csv("  columns: {label: 0, premise: 1}")] {
            let _ = rows_with(&task, &bytes, Labels::Required);
            let _ = rows_with(&task, &bytes, Labels::Optional);
        }
    }

    /// Whatever the fields hold, quoting them after RFC 4180 brings them back.
    #[test]
    fn quoted_fields_come_back_as_they_were(texts in prop::collection::vec("[a-z\",\r\n\t ]{0,12}[a-z]", 1..8)) {
        let task = csv("");
        let mut file = "label,premise\n".to_string();
        for text in &texts {
            file += &format!("1,\"{}\"\r\n", text.replace('"', "\"\""));
        }
        let read = rows(&task, &file);
        prop_assert_eq!(read.iter().map(|row| texts_of(row).0).collect::<Vec<_>>(), texts.iter().collect::<Vec<_>>());
    }
}
