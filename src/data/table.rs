//! Tables from CSV files (RFC 4180): a header, then rows with the same number of cells.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use csv::{ReaderBuilder, StringRecord, Trim};

use crate::{Error, Result, Tensor};

/// A table with named columns. The method that reads a column decides its type; a cell that does not fit is an
/// [`Error::Cell`] with file, line and column.
///
/// ```
/// use wgrad::data::Table;
/// let table = Table::parse("plants.csv", b"height,width,kind\n1.5,2,oak\n3,0.5,elm\n")?;
/// assert_eq!(table.floats(&["height", "width"])?.to_f64(), [1.5, 2.0, 3.0, 0.5]);
/// assert_eq!(table.classes("kind")?.1, ["elm", "oak"]);
///
/// let error = table.integers("height").unwrap_err().to_string();
/// assert_eq!(error, "plants.csv: line 2, column 1: `height`: expected an integer, found `1.5`");
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    path: PathBuf,
    header: Vec<String>,
    /// Column numbers by name.
    columns: HashMap<String, usize>,
    /// All cells, concatenated row by row, and where each ends.
    text: String,
    ends: Vec<usize>,
    /// The line of the file on which each row begins.
    lines: Vec<u64>,
}

/// Cells that stand for a missing value.
const MISSING: [&str; 5] = ["", "na", "n/a", "nan", "?"];

fn is_missing(cell: &str) -> bool {
    MISSING.iter().any(|word| cell.eq_ignore_ascii_case(word))
}

impl Table {
    /// Reads a UTF-8 CSV file, with or without a byte order mark, whose first line is the header. Lines end
    /// with `\n`, `\r\n` or `\r`; empty lines are skipped.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; otherwise as [`Table::parse`].
    pub fn load(path: impl AsRef<Path>) -> Result<Table> {
        let path = path.as_ref();
        Table::parse(path, &crate::io::read(path)?)
    }

    /// [`Table::load`] from memory; errors name the file `path`.
    ///
    /// # Errors
    /// [`Error::Cell`] for a row with more or fewer cells than the header, a duplicate column name, text that
    /// is not UTF-8, and a quote that does not close its cell; [`Error::File`] if there is no header.
    pub fn parse(path: impl AsRef<Path>, bytes: &[u8]) -> Result<Table> {
        let path = path.as_ref();
        check_quotes(path, bytes)?;
        let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).trim(Trim::Headers).from_reader(bytes);
        let mut lines = Lines { bytes, at: 0, line: 1 };
        let mut record = StringRecord::new();
        // The line of the next row, if any.
        let mut next = |record: &mut StringRecord| match reader.read_record(record) {
            Ok(true) => Ok(Some(lines.of(record.position()))),
            Ok(false) => Ok(None),
            Err(error) => Err(refused(path, &mut lines, &error)),
        };
        let Some(first) = next(&mut record)? else {
            return Err(Error::file(path, "is empty; expected a line with the column names"));
        };
        let header: Vec<String> = record.iter().map(|name| name.trim().to_owned()).collect();
        let mut columns = HashMap::with_capacity(header.len());
        for (column, name) in header.iter().enumerate() {
            if columns.insert(name.clone(), column).is_some() {
                let message = format!("there already is a column {}; rename one of them", shown(name));
                return Err(Error::Cell { path: path.to_path_buf(), line: first, column: column + 1, message });
            }
        }
        let path = path.to_path_buf();
        let mut table = Table { path, header, columns, text: String::new(), ends: Vec::new(), lines: Vec::new() };
        while let Some(line) = next(&mut record)? {
            if record.len() != table.header.len() {
                let message =
                    format!("expected {} cells, as in the header, found {}", table.header.len(), record.len());
                let column = record.len().min(table.header.len()) + 1;
                return Err(Error::Cell { path: table.path, line, column, message });
            }
            table.lines.push(line);
            for cell in &record {
                table.text.push_str(cell);
                table.ends.push(table.text.len());
            }
        }
        Ok(table)
    }

    /// The number of rows, without the header.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The names of the columns, in order.
    pub fn names(&self) -> Vec<&str> {
        self.header.iter().map(String::as_str).collect()
    }

    /// The names of all other columns: the features, without the target.
    pub fn names_without(&self, others: &[&str]) -> Vec<&str> {
        let others: HashSet<&str> = others.iter().copied().collect();
        self.names().into_iter().filter(|name| !others.contains(name)).collect()
    }

    /// These columns side by side, `f32[rows, columns]`, on the host in double precision.
    ///
    /// # Errors
    /// [`Error::File`] if a column does not exist, [`Error::Cell`] if a cell is not a finite number.
    pub fn floats(&self, names: &[&str]) -> Result<Tensor> {
        self.numbers(names, |cell| {
            let missing = "expected a number, found none; floats_or_nan() lets missing values through";
            if is_missing(cell) { Err(missing.to_owned()) } else { finite(cell) }
        })
    }

    /// [`Table::floats`] with NaN for cells that are empty or contain `NA`, `N/A`, `NaN` or `?`: for an
    /// [`Imputer`](super::Imputer).
    ///
    /// # Errors
    /// As [`Table::floats`].
    pub fn floats_or_nan(&self, names: &[&str]) -> Result<Tensor> {
        self.numbers(names, |cell| if is_missing(cell) { Ok(f64::NAN) } else { finite(cell) })
    }

    /// A column of integers, `i32[rows]`.
    ///
    /// # Errors
    /// [`Error::File`] if the column does not exist, [`Error::Cell`] if a cell is not a 32-bit integer.
    pub fn integers(&self, name: &str) -> Result<Tensor> {
        let numbers = self.column(name, |cell| {
            cell.trim().parse::<i32>().map_err(|_| format!("expected an integer, found {}", shown(cell)))
        })?;
        Tensor::new([self.len()], numbers)
    }

    /// A column as text.
    ///
    /// # Errors
    /// [`Error::File`] if the column does not exist.
    pub fn text(&self, name: &str) -> Result<Vec<&str>> {
        self.column(name, Ok)
    }

    /// A column of names as class numbers, `i32[rows]`, and the classes: the distinct names, sorted.
    ///
    /// # Errors
    /// As [`Table::text`].
    pub fn classes(&self, name: &str) -> Result<(Tensor, Vec<String>)> {
        let column = self.text(name)?;
        let classes: Vec<&str> = column.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let number = |text: &&str| classes.partition_point(|class| class < text) as i32;
        let numbers: Vec<i32> = column.iter().map(number).collect();
        Ok((Tensor::new([self.len()], numbers)?, classes.into_iter().map(str::to_owned).collect()))
    }

    fn numbers(&self, names: &[&str], parse: impl Fn(&str) -> std::result::Result<f64, String>) -> Result<Tensor> {
        let columns = names.iter().map(|name| self.column(name, |cell| parse(cell.trim())));
        let columns: Vec<Vec<f64>> = columns.collect::<Result<_>>()?;
        let rows: Vec<f64> = (0..self.len()).flat_map(|row| columns.iter().map(move |column| column[row])).collect();
        Tensor::new([self.len(), names.len()], rows)
    }

    /// Applies `parse` to each cell of a column.
    fn column<'a, T>(
        &'a self,
        name: &str,
        parse: impl Fn(&'a str) -> std::result::Result<T, String>,
    ) -> Result<Vec<T>> {
        let Some(&column) = self.columns.get(name) else {
            const MAX: usize = 20;
            let known = self.header.iter().take(MAX).map(|name| shown(name)).collect::<Vec<_>>().join(", ");
            let more = self.header.len().saturating_sub(MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return Err(Error::file(&self.path, format!("has no column {}; there are {known}{more}", shown(name))));
        };
        let value = |row: usize| {
            parse(self.cell(row, column)).map_err(|message| Error::Cell {
                path: self.path.clone(),
                line: self.lines[row],
                column: column + 1,
                message: format!("`{name}`: {message}"),
            })
        };
        (0..self.len()).map(value).collect()
    }

    fn cell(&self, row: usize, column: usize) -> &str {
        let at = row * self.header.len() + column;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.text[start..self.ends[at]]
    }
}

fn finite(cell: &str) -> std::result::Result<f64, String> {
    let number = cell.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| format!("expected a finite number, found {}", shown(cell)))
}

/// A cell for a message, truncated if it is long.
fn shown(cell: &str) -> String {
    const MAX: usize = 40;
    let cut: String = cell.chars().take(MAX).collect();
    if cut.len() < cell.len() { format!("`{cut}`...") } else { format!("`{cut}`") }
}

/// Rejects a quoted cell that is not closed: the parser would take everything up to the next quote, or to the
/// end of the file, as one cell. As in the parser, a cell is quoted if it begins with a quote, and two quotes
/// inside it stand for one.
fn check_quotes(path: &Path, bytes: &[u8]) -> Result<()> {
    #[derive(Clone, Copy, PartialEq)]
    enum At {
        Start,
        Plain,
        Quoted,
        /// After a quote in a quoted cell: its end, unless another quote follows.
        Closed,
        /// In the blanks after that end.
        Blank,
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes); // a byte order mark
    let (mut at, mut line, mut column, mut opened) = (At::Start, 1, 1, (1, 1));
    let refused = |(line, column): (u64, usize), message: &str| {
        Err(Error::Cell { path: path.to_path_buf(), line, column, message: message.to_owned() })
    };
    for (position, &byte) in bytes.iter().enumerate() {
        let ends_line = byte == b'\n' || (byte == b'\r' && bytes.get(position + 1) != Some(&b'\n'));
        line += u64::from(ends_line);
        at = match (at, byte) {
            (At::Quoted, b'"') => At::Closed,
            (At::Quoted, _) | (At::Closed, b'"') => At::Quoted,
            (_, b'\r' | b'\n') => {
                column = 1;
                At::Start
            }
            (_, b',') => {
                column += 1;
                At::Start
            }
            (At::Start, b'"') => {
                opened = (line, column);
                At::Quoted
            }
            (At::Start | At::Plain, _) => At::Plain,
            (At::Closed | At::Blank, b' ' | b'\t') => At::Blank,
            (At::Closed | At::Blank, _) => {
                let why = format!(
                    "the quoted cell that begins here ends on line {line} with text after its closing quote; \
                     a quote inside a quoted cell is written twice"
                );
                return refused(opened, &why);
            }
        };
    }
    match at {
        At::Quoted => {
            refused(opened, "the quote that opens here is never closed; a quote inside a quoted cell is written twice")
        }
        _ => Ok(()),
    }
}

/// Counts lines, which end like the parser's rows: with `\n`, `\r\n` or `\r`. (The parser counts only `\n`, and
/// reports where the previous row ended, before any empty lines.)
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line on which the first row after this position begins.
    fn of(&mut self, position: Option<&csv::Position>) -> u64 {
        let start = position.and_then(|p| usize::try_from(p.byte()).ok()).unwrap_or(0);
        while let Some(&byte) = self.bytes.get(self.at)
            && (self.at < start || matches!(byte, b'\r' | b'\n'))
        {
            self.at += 1;
            let ends = byte == b'\n' || (byte == b'\r' && self.bytes.get(self.at) != Some(&b'\n'));
            self.line += u64::from(ends);
        }
        self.line
    }
}

/// Converts a parser error. Only invalid UTF-8 is expected, because the input is in memory.
fn refused(path: &Path, lines: &mut Lines<'_>, error: &csv::Error) -> Error {
    match error.kind() {
        csv::ErrorKind::Utf8 { err, pos } => Error::Cell {
            path: path.to_path_buf(),
            line: lines.of(pos.as_ref()),
            column: err.field() + 1,
            message: "is not UTF-8; save the file in this encoding".into(),
        },
        _ => Error::file(path, error.to_string()),
    }
}
