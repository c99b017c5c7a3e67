//! Text files as data sets.

use std::path::Path;

use super::Vocabulary;
use crate::{Error, Result, Tensor, files};

/// Reads a text file.
///
/// # Errors
/// Errors of the system; [`Error::File`] if it is not UTF-8, with the line.
pub fn read_text(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    String::from_utf8(files::read(path)?).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
        Error::file(path, format!("line {line} is not UTF-8; convert the file, or read it with std::fs::read"))
    })
}

/// Windows of a text, for models that predict the next character or word. Row `i` is the window that starts at number
/// `i * stride` of the text: `x`, `i32[length]`, and `y`, the same one step later.
///
/// A [`Dataset`](crate::train::Dataset): the text is stored once, and windows are cut when they are needed.
///
/// ```
/// use wgrad::Tensor;
/// use wgrad::data::{TextWindows, Vocabulary};
/// use wgrad::train::Dataset;
/// let text = "abcabcab";
/// let data = TextWindows::new(&Vocabulary::new([text]).encode(text)?, 3)?;
/// assert_eq!(data.len(), 2);
/// let batch = data.batch(&[1], 0)?; // a, b, c are 3, 4, 5
/// assert_eq!(batch["x"], Tensor::new([1, 3], [3, 4, 5])?);
/// assert_eq!(batch["y"], Tensor::new([1, 3], [4, 5, 3])?);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextWindows {
    numbers: Vec<i32>,
    length: usize,
    stride: usize,
}

impl TextWindows {
    /// Windows of `length` numbers of an encoded text ([`Vocabulary::encode`]), side by side.
    ///
    /// # Errors
    /// If `length` is 0, or the text is too short for a window and the number after it.
    pub fn new(numbers: &[i32], length: usize) -> Result<TextWindows> {
        if length == 0 || length >= numbers.len() {
            let count = numbers.len();
            let why = format!("windows of {length} characters or words and the next one do not fit a text of {count}");
            return Err(Error::Input(why));
        }
        Ok(TextWindows { numbers: numbers.to_vec(), length, stride: length })
    }

    /// The distance between the starts of windows; by default their length. At 1, there is a window at each number.
    ///
    /// # Errors
    /// If it is 0.
    pub fn stride(self, stride: usize) -> Result<TextWindows> {
        match stride {
            0 => Err(Error::Input("the stride of text windows must be at least 1".into())),
            _ => Ok(TextWindows { stride, ..self }),
        }
    }

    /// The number of windows.
    pub fn len(&self) -> usize {
        (self.numbers.len() - 1 - self.length) / self.stride + 1
    }

    /// Always false: there is at least one.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The windows with these numbers, and the same one step later: two tensors `i32[rows, length]`.
    ///
    /// # Errors
    /// If there is no such window.
    pub fn windows(&self, rows: &[usize]) -> Result<(Tensor, Tensor)> {
        if let Some(row) = rows.iter().find(|&&row| row >= self.len()) {
            return Err(Error::Input(format!("there is no window {row}; the text has {}", self.len())));
        }
        let cut = |later: usize| {
            let windows = rows.iter().flat_map(|row| &self.numbers[row * self.stride + later..][..self.length]);
            Tensor::new([rows.len(), self.length], windows.copied().collect::<Vec<i32>>())
        };
        Ok((cut(0)?, cut(1)?))
    }
}

/// The lines of a text file, with labels or without.
///
/// ```
/// use wgrad::Tensor;
/// use wgrad::data::{TextLines, Vocabulary};
/// let lines = TextLines::parse_labelled("good\tfine weather\nbad\train and rain\n")?;
/// assert_eq!(lines.classes, ["bad", "good"]);
/// let vocabulary = Vocabulary::words(&lines.texts, 1000); // and, fine, rain, weather
/// let (x, y) = lines.encode(&vocabulary, 5)?; // a data set
/// assert_eq!(x, Tensor::new([2, 5], [1, 4, 6, 2, 0, 1, 5, 3, 5, 2])?);
/// assert_eq!(y, Tensor::new([2], [1, 0])?);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TextLines {
    /// The texts.
    pub texts: Vec<String>,
    /// The number of each text's class; none if the lines have no labels.
    pub labels: Vec<i32>,
    /// The names of the classes, sorted.
    pub classes: Vec<String>,
}

impl TextLines {
    /// Reads a file in which each line is a text. Empty lines are left out.
    ///
    /// # Errors
    /// As [`read_text`].
    pub fn load(path: impl AsRef<Path>) -> Result<TextLines> {
        let text = read_text(path)?;
        let texts = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        Ok(TextLines { texts, ..TextLines::default() })
    }

    /// Reads a file in which each line is a label, a tab, and a text. Empty lines are left out.
    ///
    /// # Errors
    /// As [`read_text`] and [`TextLines::parse_labelled`].
    pub fn load_labelled(path: impl AsRef<Path>) -> Result<TextLines> {
        let path = path.as_ref();
        TextLines::parse_labelled(&read_text(path)?).map_err(|error| Error::file(path, error.to_string()))
    }

    /// [`TextLines::load_labelled`] of a text.
    ///
    /// # Errors
    /// If a line has no tab, or nothing before it.
    pub fn parse_labelled(text: &str) -> Result<TextLines> {
        let mut rows = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            match line.split_once('\t').map(|(label, text)| (label.trim(), text)) {
                Some((label, text)) if !label.is_empty() => rows.push((label, text)),
                _ => {
                    let why = format!("line {} has no label; expected a label, a tab, and the text", number + 1);
                    return Err(Error::Input(why));
                }
            }
        }
        let mut classes: Vec<&str> = rows.iter().map(|(label, _)| *label).collect();
        classes.sort_unstable();
        classes.dedup();
        let labels = rows.iter().map(|(label, _)| classes.partition_point(|class| class < label) as i32).collect();
        let texts = rows.iter().map(|(_, text)| (*text).to_owned()).collect();
        Ok(TextLines { texts, labels, classes: classes.into_iter().map(str::to_owned).collect() })
    }

    /// Each text as a row of `length` numbers, as [`Vocabulary::encode_rows`] but cut if it is longer, and the label of
    /// each: `i32[texts, length]` and `i32[texts]`.
    ///
    /// # Errors
    /// If the lines have no labels; as [`Vocabulary::encode`].
    pub fn encode(&self, vocabulary: &Vocabulary, length: usize) -> Result<(Tensor, Tensor)> {
        if self.labels.len() != self.texts.len() {
            let (labels, texts) = (self.labels.len(), self.texts.len());
            let why = format!("there are {labels} labels for {texts} texts; TextLines::load_labelled reads labels");
            return Err(Error::Input(why));
        }
        Ok((self.rows(vocabulary, length)?, Tensor::new([self.labels.len()], self.labels.clone())?))
    }

    /// For models that predict the next character or word: each text as a row of `length` numbers, which begins with
    /// START, and the same one step later, which ends with END and PAD. Both are `i32[texts, length]`. Longer texts are
    /// cut, and have no END.
    ///
    /// ```
    /// use wgrad::Tensor;
    /// use wgrad::data::{TextLines, Vocabulary};
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("names.txt");
    /// std::fs::write(&path, "bob\na\n").expect("written");
    /// let lines = TextLines::load(&path)?;
    /// let (x, y) = lines.encode_shifted(&Vocabulary::new(&lines.texts), 4)?; // a, b, o are 3, 4, 5
    /// assert_eq!(x, Tensor::new([2, 4], [1, 4, 5, 4, 1, 3, 2, 0])?);
    /// assert_eq!(y, Tensor::new([2, 4], [4, 5, 4, 2, 3, 2, 0, 0])?);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Vocabulary::encode`].
    pub fn encode_shifted(&self, vocabulary: &Vocabulary, length: usize) -> Result<(Tensor, Tensor)> {
        let rows = self.rows(vocabulary, length.saturating_add(1))?;
        Ok((rows.slice(1, 0..length)?, rows.slice(1, 1..length + 1)?))
    }

    /// The rows of [`Vocabulary::encode_rows`], cut if they are longer.
    fn rows(&self, vocabulary: &Vocabulary, length: usize) -> Result<Tensor> {
        let mut rows = Vec::with_capacity(self.texts.len().saturating_mul(length));
        for text in &self.texts {
            let mut row = vocabulary.encode_row(text)?;
            row.resize(length, Vocabulary::PAD);
            rows.extend(row);
        }
        Tensor::new([self.texts.len(), length], rows)
    }
}
