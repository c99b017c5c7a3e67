//! Tables, sequences and text data. Needs no GPU.

use proptest::prelude::*;
use wgrad::data::{Imputer, Scaler, Table, Vocabulary, windows};
use wgrad::{Error, Tensor};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data");

fn parse(text: &str) -> wgrad::Result<Table> {
    Table::parse("t.csv", text.as_bytes())
}

/// Line and column of the error.
fn place<T: std::fmt::Debug>(result: wgrad::Result<T>) -> (u64, usize) {
    match result {
        Err(Error::Cell { line, column, .. }) => (line, column),
        other => panic!("expected a cell error, found {other:?}"),
    }
}

#[test]
fn an_invalid_cell_is_reported_by_line_and_column() {
    for end in ["\n", "\r\n", "\r"] {
        let text = |lines: &[&str]| lines.join(end);
        let table = parse(&text(&["a,b", "1,2", "3,x", "5,6"])).unwrap();
        assert_eq!(place(table.floats(&["b"])), (3, 2), "{end:?}");
        assert_eq!(table.floats(&["a"]).unwrap().to_f64(), [1.0, 3.0, 5.0]);
        // Empty lines are skipped, and quoted cells may contain line breaks.
        let table = parse(&text(&["a,b", "", "\"1", "2\",2", "", "3,x"])).unwrap();
        assert_eq!(place(table.floats(&["a"])), (3, 1), "{end:?}");
        assert_eq!(place(table.floats(&["b"])), (6, 2), "{end:?}");
        assert_eq!(place(parse(&text(&["a,b", "1,2", "3", "4,5"]))), (3, 2), "{end:?}");
        assert_eq!(place(parse(&text(&["a,b", "1,2", "3,4,5,6"]))), (3, 3), "{end:?}");
        assert_eq!(place(parse(&text(&["a,b,a", "1,2,3"]))), (1, 3), "{end:?}");
    }
    assert_eq!(place(Table::parse("t.csv", b"a,b\n1,2\n3,\xff\n")), (3, 2));
}

#[test]
fn columns_are_read_as_numbers_integers_text_and_classes() {
    let table = parse("\u{feff}x, y ,kind\n 1.5 ,2e3,b\nNA,-0.25,\"a, or c\"\n,inf,b\n").unwrap();
    assert_eq!((table.len(), table.names()), (3, vec!["x", "y", "kind"]));
    assert_eq!(table.names_without(&["y"]), ["x", "kind"]);
    assert_eq!(table.text("kind").unwrap(), ["b", "a, or c", "b"]);
    let (numbers, classes) = table.classes("kind").unwrap();
    assert_eq!((numbers, classes), (Tensor::new([3], [1, 0, 1]).unwrap(), vec!["a, or c".into(), "b".into()]));
    assert_eq!(place(table.floats(&["x"])), (3, 1), "NA is not a number");
    let x = table.floats_or_nan(&["x"]).unwrap().to_f64();
    assert!(x[0] == 1.5 && x[1].is_nan() && x[2].is_nan());
    assert_eq!(place(table.floats_or_nan(&["x", "y"])), (4, 2), "infinity is not a finite number");
    assert_eq!(place(table.integers("x")), (2, 1));
    assert!(table.floats(&["z"]).unwrap_err().to_string().contains("no column `z`; there are `x`, `y`, `kind`"));
    assert_eq!(table.floats(&[]).unwrap().shape().to_vec(), [3, 0]);
    let table = parse("n\n1\n-7\n2147483648").unwrap();
    assert_eq!(place(table.integers("n")), (4, 1), "does not fit 32 bits");
}

/// An unclosed quote would swallow rows up to the next quote or the end of the file.
#[test]
fn an_unclosed_quote_is_reported_where_it_opens() {
    let says = |text: &str, at: (u64, usize), words: &str| {
        let error = parse(text).map(|table| table.len());
        let message = error.as_ref().err().map(ToString::to_string).unwrap_or_default();
        assert!(message.contains(words), "{text:?}: {error:?}");
        assert_eq!(place(error), at, "{text:?}");
    };
    for end in ["\n", "\r\n", "\r"] {
        let text = |lines: &[&str]| lines.join(end);
        says(&text(&["n,kind", "1,oak", "2,\"elm", "3,fir", "4,ash", ""]), (3, 2), "never closed");
        says(&text(&["n,kind", "\"1", "1\",oak", "2,\"elm"]), (4, 2), "never closed");
        says(&text(&["\"n,kind", "1,oak"]), (1, 1), "never closed");
        // The quote that was meant to open another cell closes it.
        says(&text(&["n,kind", "1,\"elm", "2,\"fir\"", "3,\"ash\""]), (2, 2), "line 3 with text after");
        says(&text(&["n,kind", "1,\"a \"good\" oak\""]), (2, 2), "written twice");
    }
    says("\u{feff}\"n,kind\n1,2", (1, 1), "never closed");
    says("n\n\"\"\"", (2, 1), "never closed");
    says("n\n\"a\" \"b\"", (2, 1), "with text after");
    // Quotes that are closed, or cells that are not quoted.
    let table =
        parse("n,kind\n\"1\" ,\"a \"\"good\"\" oak\"\n2,6\" pot\n3, \"elm\"\n4,\"\"\n5,\"a\nb,\r\n\"\n").unwrap();
    assert_eq!(table.floats(&["n"]).unwrap().to_f64(), [1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(table.text("kind").unwrap(), ["a \"good\" oak", "6\" pot", " \"elm\"", "", "a\nb,\r\n"]);
}

/// Name lookup must not be linear: that took 28 seconds here.
#[test]
fn a_hundred_thousand_columns_are_read_quickly() {
    const COLUMNS: usize = 100_000;
    let names: Vec<String> = (0..COLUMNS).map(|i| format!("column_{i}")).collect();
    let values: Vec<String> = (0..COLUMNS).map(|i| i.to_string()).collect();
    let table = parse(&format!("{}\n{}\n", names.join(","), values.join(","))).unwrap();
    let all = table.floats(&table.names()).unwrap();
    let [first, last] = [table.names()[0], table.names()[COLUMNS - 1]];
    let most = table.names();
    let rest = table.names_without(&most[1..COLUMNS - 1]);
    assert_eq!((all.shape().to_vec(), rest), (vec![1, COLUMNS], vec![first, last]));
    assert!(all.to_f64().into_iter().eq((0..COLUMNS).map(|i| i as f64)));
    let unknown = table.text("column").unwrap_err().to_string();
    assert!(unknown.contains("no column `column`; there are `column_0`, ") && unknown.len() < 1000, "{unknown}");
    assert!(unknown.contains(" and 99980 more"), "{unknown}");
}

#[test]
fn unusual_files_are_handled() {
    // A UTF-16 byte order mark, unnamed columns, a row with an extra empty cell.
    assert_eq!(place(Table::parse("t.csv", b"\xff\xfea\0,\0b\0\n\0")), (1, 1));
    assert_eq!(parse(",a\n1,2\n").unwrap().floats(&["", "a"]).unwrap().to_f64(), [1.0, 2.0]);
    assert_eq!(place(parse("a,,\n1,2,3\n")), (1, 3));
    assert_eq!(place(parse("a, a \n1,2\n")), (1, 2), "names are trimmed");
    assert_eq!(place(parse("a,b\n1,2,\n")), (2, 3));
    assert_eq!(place(parse("a,b\n1,2\n\n\r\n,\n3\n")), (6, 2));
    assert_eq!(parse("a,b\r\n1,2\r3,4\n5,6").unwrap().floats(&["b"]).unwrap().to_f64(), [2.0, 4.0, 6.0]);
}

#[test]
fn files_that_are_not_tables_are_refused() {
    assert!(parse("").unwrap_err().to_string().contains("is empty"));
    assert!(parse("\n\n").unwrap_err().to_string().contains("is empty"));
    assert!(parse("a,b\n").unwrap().is_empty());
    assert!(matches!(Table::load("no/such.csv"), Err(Error::Io { .. })));
    let long = format!("a\n{}\n", "é".repeat(1000));
    assert!(parse(&long).unwrap().floats(&["a"]).unwrap_err().to_string().len() < 200);
}

#[test]
fn the_example_tables_load() {
    for (name, rows, columns) in
        [("diabetes", 442, 11), ("breast_cancer", 569, 31), ("iris", 150, 5), ("sunspots", 309, 2)]
    {
        let table = Table::load(format!("{DATA}/{name}.csv")).unwrap();
        let numbers = table.floats(&table.names()).unwrap();
        assert_eq!(numbers.shape().to_vec(), [rows, columns], "{name}");
    }
}

#[test]
fn windows_are_consecutive_rows_with_the_next_row_as_target() {
    let series = Tensor::new([4, 2], [0.0, 1.0, 10.0, 11.0, 20.0, 21.0, 30.0, 31.0]).unwrap();
    let (x, y) = windows(&series, 2).unwrap();
    assert_eq!(x, Tensor::new([2, 2, 2], [0.0, 1.0, 10.0, 11.0, 10.0, 11.0, 20.0, 21.0]).unwrap());
    assert_eq!(y, Tensor::new([2, 2], [20.0, 21.0, 30.0, 31.0]).unwrap());
    assert!(windows(&series, 0).is_err() && windows(&series, 4).is_err());
    assert!(windows(&Tensor::scalar(1.0), 1).is_err());
}

#[test]
fn characters_and_ids_outside_the_vocabulary_are_refused() {
    let vocabulary = Vocabulary::new(["día", "ño"]);
    let error = vocabulary.encode("dia").unwrap_err().to_string();
    assert!(error.contains("'i', character 2 of \"dia\""), "{error}");
    assert!(vocabulary.encode_rows(&["día"], 4).unwrap_err().to_string().contains("longer than 4"));
    assert!(vocabulary.encode_rows(&["día"], 0).is_err());
    for wrong in [-1, vocabulary.len() as i32, i32::MIN, i32::MAX] {
        assert!(vocabulary.decode(&[wrong]).is_err(), "{wrong}");
    }
    assert_eq!(Vocabulary::new(Vec::<&str>::new()).len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_give_a_table_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(table) = Table::parse("t.csv", &bytes) {
            for name in table.names() {
                let _ = (table.floats(&[name]), table.floats_or_nan(&[name]), table.integers(name));
                prop_assert_eq!(table.text(name).unwrap().len(), table.len());
            }
        }
    }

    #[test]
    fn csv_special_characters_give_a_table_or_an_error(text in "[a1,\"\r\n. ]{0,60}") {
        if let Ok(table) = parse(&text) {
            for name in table.names() {
                if let Err(error) = table.floats(&[name]) {
                    let (line, _) = place::<()>(Err(error));
                    prop_assert!(line >= 2 || !text.contains('\n'), "line {line} of {text:?}");
                }
            }
        }
    }

    #[test]
    fn encoded_text_decodes_to_itself(texts in proptest::collection::vec("\\PC{0,8}", 1..5)) {
        let vocabulary = Vocabulary::new(&texts);
        let rows = vocabulary.encode_rows(&texts, 12).unwrap();
        let wgrad::Data::I32(rows) = rows.data() else { panic!("i32") };
        for (row, text) in rows.chunks(12).zip(&texts) {
            prop_assert_eq!(&vocabulary.decode(row).unwrap(), text);
        }
    }
}

#[test]
fn fitted_preprocessing_is_read_back_exactly_and_checked() {
    use wgrad::data::Fitted;
    let folder = tempfile::tempdir().expect("a folder");
    let x = Tensor::new([4, 2], [0.1, f64::NAN, 1.0 / 3.0, 2e-300, 0.7, 1e17, -5.5, 0.3]).unwrap();
    let imputer = Imputer::median(&x).unwrap();
    let scaler = Scaler::standard(&imputer.apply(&x).unwrap()).unwrap();
    let vocabulary = Vocabulary::new(["naïve \"quoted\" \n日本"]);
    let path = folder.path().join("fitted.json");
    imputer.save(&path).unwrap();
    assert_eq!(Imputer::load(&path).unwrap(), imputer);
    vocabulary.save(&path).unwrap();
    assert_eq!(Vocabulary::load(&path).unwrap(), vocabulary);
    scaler.save(&path).unwrap();
    assert_eq!(Scaler::load(&path).unwrap(), scaler);
    for (error, part) in [
        (Imputer::load(&path).unwrap_err(), "fitted.json: expected JSON of kind `imputer`, found scaler"),
        (Scaler::from_json("{").unwrap_err(), "JSON of kind `scaler`: "),
        (Scaler::from_json("[1]").unwrap_err(), "no \"kind\""),
        (Scaler::from_json(r#"{"kind": "scaler", "shift": [1, "x"]}"#).unwrap_err(), "list of numbers `shift`"),
        (Scaler::from_json(r#"{"kind": "scaler", "shift": [1], "scale": [0]}"#).unwrap_err(), "no scale of 0"),
        (Scaler::from_json(r#"{"kind": "scaler", "shift": [1], "scale": [1, 2]}"#).unwrap_err(), "equally many"),
        (Vocabulary::from_json(r#"{"kind": "vocabulary"}"#).unwrap_err(), "`characters`, found null"),
    ] {
        assert!(error.to_string().contains(part), "no `{part}` in {error}");
    }
}
