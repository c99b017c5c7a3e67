//! CSV files: parsing gives a table or an error with its location; every column is read as every type.

use wgrad::data::Table;

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let table = match Table::parse("t.csv", bytes) {
        Ok(table) => table,
        Err(error) => return assert!(error.to_string().starts_with("t.csv: "), "{error}"),
    };
    for name in table.names() {
        assert_eq!(table.text(name).expect("the column is there").len(), table.len());
        for numbers in [table.floats(&[name]), table.floats_or_nan(&[name]), table.integers(name)] {
            match numbers {
                Ok(numbers) => assert_eq!(numbers.numel(), table.len()),
                Err(error) => assert!(error.to_string().starts_with("t.csv: line "), "{error}"),
            }
        }
        let (numbers, classes) = table.classes(name).expect("any text is a class");
        assert!(numbers.to_f64().iter().all(|&number| (number as usize) < classes.len()));
    }
}
