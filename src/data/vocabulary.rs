//! Vocabularies of characters or words.

use std::collections::BTreeMap;

use crate::{Error, Result, Tensor};

/// The characters or words of a text, numbered: 0 to 2 are [`PAD`](Vocabulary::PAD), [`START`](Vocabulary::START) and
/// [`END`](Vocabulary::END); then each character or word, in code point order.
///
/// ```
/// use wgrad::{Tensor, data::Vocabulary};
/// let vocabulary = Vocabulary::new(["anna", "bob"]);
/// assert_eq!(vocabulary.len(), 3 + 4); // a, b, n, o
/// assert_eq!(vocabulary.encode("nab")?, [5, 3, 4]);
/// assert_eq!(vocabulary.decode(&[1, 5, 3, 4, 2, 0])?, "nab");
///
/// let rows = vocabulary.encode_rows(&["bob", "a"], 5)?; // a model reads rows[.., ..4],
/// assert_eq!(rows, Tensor::new([2, 5], [1, 4, 6, 4, 2, 1, 3, 2, 0, 0])?); // and predicts rows[.., 1..]
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// Sorted.
    tokens: Vec<String>,
    of_words: bool,
}

impl Vocabulary {
    /// Fills rows that are shorter than others; losses ignore it (`ignore_index`).
    pub const PAD: i32 = 0;
    /// Before the first character or word.
    pub const START: i32 = 1;
    /// After the last character or word.
    pub const END: i32 = 2;
    const SPECIALS: usize = 3;

    /// All characters of these texts.
    pub fn new(texts: impl IntoIterator<Item = impl AsRef<str>>) -> Vocabulary {
        let mut vocabulary = Vocabulary { tokens: Vec::new(), of_words: false };
        vocabulary.tokens = vocabulary.count(texts).into_keys().collect();
        vocabulary
    }

    /// The most frequent words of these texts, at most `most` of them. Words are separated by white space. All other
    /// words get the same number, [`Vocabulary::unknown`], the last one.
    ///
    /// ```
    /// use wgrad::data::Vocabulary;
    /// let vocabulary = Vocabulary::words(["the cat and the dog", "the dog"], 2);
    /// assert_eq!(vocabulary.encode("the big dog")?, [4, 5, 3]);
    /// assert_eq!(vocabulary.decode(&[4, 5, 3])?, "the <unk> dog");
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn words(texts: impl IntoIterator<Item = impl AsRef<str>>, most: usize) -> Vocabulary {
        let mut vocabulary = Vocabulary { tokens: Vec::new(), of_words: true };
        let mut counted: Vec<(String, usize)> = vocabulary.count(texts).into_iter().collect();
        counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count)); // equally frequent words stay in order
        vocabulary.tokens = counted.into_iter().take(most).map(|(word, _)| word).collect();
        vocabulary.tokens.sort();
        vocabulary
    }

    /// A vocabulary of exactly these words.
    pub(super) fn of_words(mut words: Vec<String>) -> Vocabulary {
        words.sort();
        words.dedup();
        Vocabulary { tokens: words, of_words: true }
    }

    fn count(&self, texts: impl IntoIterator<Item = impl AsRef<str>>) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for text in texts {
            for token in self.split(text.as_ref()) {
                match counts.get_mut(token) {
                    Some(count) => *count += 1,
                    None => drop(counts.insert(token.to_owned(), 1)),
                }
            }
        }
        counts
    }

    /// The characters or words of a text.
    fn split<'t>(&self, text: &'t str) -> Box<dyn Iterator<Item = &'t str> + 't> {
        match self.of_words {
            true => Box::new(text.split_whitespace()),
            false => Box::new(text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()])),
        }
    }

    /// The characters or words without the special ones, in the order of their numbers.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// Whether it consists of words.
    pub fn is_of_words(&self) -> bool {
        self.of_words
    }

    /// The number of the words that are not in the vocabulary. None for characters: an unknown one is an error.
    pub fn unknown(&self) -> Option<i32> {
        self.of_words.then_some((self.tokens.len() + Self::SPECIALS) as i32)
    }

    /// How many numbers there are, including the special ones.
    pub fn len(&self) -> usize {
        self.tokens.len() + Self::SPECIALS + usize::from(self.of_words)
    }

    /// Always false, because of the special characters.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The numbers of a text's characters or words.
    ///
    /// # Errors
    /// If a character is not in the vocabulary; the error names it and its position.
    pub fn encode(&self, text: &str) -> Result<Vec<i32>> {
        let number =
            |(place, token): (usize, &str)| match self.tokens.binary_search_by(|known| known.as_str().cmp(token)) {
                Ok(at) => Ok((at + Self::SPECIALS) as i32),
                Err(_) => self.unknown().ok_or_else(|| {
                    let c = token.chars().next().unwrap_or_default();
                    let text = start(text);
                    Error::Input(format!("{c:?}, character {} of {text}, is not in the vocabulary", place + 1))
                }),
            };
        self.split(text).enumerate().map(number).collect()
    }

    /// A row for each text: START, its characters or words, END, and PAD up to `length`: `i32[texts, length]`.
    ///
    /// # Errors
    /// As [`Vocabulary::encode`], and when a text does not fit.
    pub fn encode_rows(&self, texts: &[impl AsRef<str>], length: usize) -> Result<Tensor> {
        let mut rows = Vec::with_capacity(texts.len().saturating_mul(length));
        for text in texts {
            let text = text.as_ref();
            let mut row = self.encode_row(text)?;
            if row.len() > length {
                let (unit, count) = (if self.of_words { "words" } else { "characters" }, row.len() - 2);
                let why = format!("{} has {count} {unit}; with START and END it is longer than {length}", start(text));
                return Err(Error::Input(why));
            }
            row.resize(length, Self::PAD);
            rows.extend(row);
        }
        Tensor::new([texts.len(), length], rows)
    }

    /// START, the text's numbers, END.
    pub(super) fn encode_row(&self, text: &str) -> Result<Vec<i32>> {
        Ok([vec![Self::START], self.encode(text)?, vec![Self::END]].concat())
    }

    /// The text of these numbers, up to the first END; START and PAD are skipped. Words are separated by spaces, and
    /// `<unk>` stands for unknown ones.
    ///
    /// # Errors
    /// If a number is not in the vocabulary.
    pub fn decode(&self, numbers: &[i32]) -> Result<String> {
        let mut tokens = Vec::new();
        for &number in numbers.iter().take_while(|&&number| number != Self::END) {
            if number == Self::PAD || number == Self::START {
                continue;
            }
            let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(Self::SPECIALS));
            match at.and_then(|at| self.tokens.get(at)) {
                Some(token) => tokens.push(token.as_str()),
                None if Some(number) == self.unknown() => tokens.push("<unk>"),
                None => {
                    let most = self.len() - 1;
                    return Err(Error::Input(format!("{number} is not in the vocabulary; expected 0 to {most}")));
                }
            }
        }
        Ok(tokens.join(if self.of_words { " " } else { "" }))
    }
}

/// The text in quotes, or the start of a long one.
fn start(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
