//! Character vocabularies.

use std::collections::BTreeSet;

use crate::{Error, Result, Tensor};

/// The characters of a text, numbered: 0 to 2 are [`PAD`](Vocabulary::PAD), [`START`](Vocabulary::START) and
/// [`END`](Vocabulary::END); then each character, in code point order.
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
pub struct Vocabulary(Vec<char>);

impl Vocabulary {
    /// Fills rows that are shorter than others; losses ignore it (`ignore_index`).
    pub const PAD: i32 = 0;
    /// Before the first character.
    pub const START: i32 = 1;
    /// After the last character.
    pub const END: i32 = 2;
    const SPECIALS: usize = 3;

    /// All characters of these texts.
    pub fn new(texts: impl IntoIterator<Item = impl AsRef<str>>) -> Vocabulary {
        let mut characters = BTreeSet::new();
        for text in texts {
            characters.extend(text.as_ref().chars());
        }
        Vocabulary(characters.into_iter().collect())
    }

    /// The characters without the special ones, in the order of their numbers.
    pub fn characters(&self) -> String {
        self.0.iter().collect()
    }

    /// The number of characters, including the three special ones.
    pub fn len(&self) -> usize {
        self.0.len() + Self::SPECIALS
    }

    /// Always false, because of the special characters.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The numbers of a text's characters.
    ///
    /// # Errors
    /// If a character is not in the vocabulary; the error names it and its position.
    pub fn encode(&self, text: &str) -> Result<Vec<i32>> {
        let number = |(place, c): (usize, char)| match self.0.binary_search(&c) {
            Ok(at) => Ok((at + Self::SPECIALS) as i32),
            Err(_) => {
                Err(Error::Input(format!("{c:?}, character {} of {text:?}, is not in the vocabulary", place + 1)))
            }
        };
        text.chars().enumerate().map(number).collect()
    }

    /// A row for each text: START, its characters, END, and PAD up to `length`: `i32[texts, length]`.
    ///
    /// # Errors
    /// As [`Vocabulary::encode`], and when a text does not fit.
    pub fn encode_rows(&self, texts: &[impl AsRef<str>], length: usize) -> Result<Tensor> {
        let mut rows = Vec::with_capacity(texts.len().saturating_mul(length));
        for text in texts {
            let text = text.as_ref();
            let numbers = self.encode(text)?;
            let Some(rest) = length.checked_sub(numbers.len() + 2) else {
                let why =
                    format!("{text:?} has {} characters; with START and END it is longer than {length}", numbers.len());
                return Err(Error::Input(why));
            };
            rows.push(Self::START);
            rows.extend(numbers);
            rows.push(Self::END);
            rows.extend(std::iter::repeat_n(Self::PAD, rest));
        }
        Tensor::new([texts.len(), length], rows)
    }

    /// The text of these numbers, up to the first END; START and PAD are skipped.
    ///
    /// # Errors
    /// If a number is not in the vocabulary.
    pub fn decode(&self, numbers: &[i32]) -> Result<String> {
        let mut text = String::new();
        for &number in numbers.iter().take_while(|&&number| number != Self::END) {
            if number == Self::PAD || number == Self::START {
                continue;
            }
            let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(Self::SPECIALS));
            let Some(character) = at.and_then(|at| self.0.get(at)) else {
                return Err(Error::Input(format!(
                    "{number} is not in the vocabulary; expected 0 to {}",
                    self.len() - 1
                )));
            };
            text.push(*character);
        }
        Ok(text)
    }
}
