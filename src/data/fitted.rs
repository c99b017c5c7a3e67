//! Preprocessing as JSON, so that a prediction uses what the training fitted.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::{Imputer, Scaler, Vocabulary};
use crate::io::write_atomically;
use crate::{Error, Result, files};

/// Preprocessing that was fitted to training data, and is stored beside the weights: in a JSON file, or as text in the
/// metadata of a checkpoint ([`Trainer::metadata`](crate::train::Trainer::metadata)). Numbers are read back exactly.
///
/// ```
/// use wgrad::Tensor;
/// use wgrad::data::{Fitted, Scaler};
/// let scaler = Scaler::standard(&Tensor::new([3], [0.1, 0.2, 0.4])?)?;
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("scaler.json");
/// scaler.save(&path)?;
/// assert_eq!(Scaler::load(&path)?, scaler);
/// assert_eq!(Scaler::from_json(r#"{"kind": "scaler", "shift": [1.0], "scale": [2.0]}"#)?, Scaler::new([1.0], [2.0])?);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub trait Fitted: Sized {
    /// The JSON.
    fn to_json(&self) -> String;

    /// Reads [`Fitted::to_json`].
    ///
    /// # Errors
    /// If the text is no JSON, of another kind, or holds values that make no sense.
    fn from_json(text: &str) -> Result<Self>;

    /// Writes the JSON to a file, atomically.
    ///
    /// # Errors
    /// As [`write_atomically`].
    fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomically(path, (self.to_json() + "\n").as_bytes())
    }

    /// Reads a file of [`Fitted::save`].
    ///
    /// # Errors
    /// As [`Fitted::from_json`]; errors of the system.
    fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = files::read(path)?;
        let text = str::from_utf8(&bytes).map_err(|_| Error::file(path, "is not UTF-8"))?;
        Self::from_json(text).map_err(|error| Error::file(path, error.to_string()))
    }
}

/// The object, if it is of this kind.
fn parse(text: &str, kind: &str) -> Result<Json> {
    let json: Json =
        serde_json::from_str(text).map_err(|error| Error::Input(format!("expected JSON of kind `{kind}`: {error}")))?;
    match json["kind"].as_str() {
        Some(found) if found == kind => Ok(json),
        found => Err(Error::Input(format!("expected JSON of kind `{kind}`, found {}", found.unwrap_or("no \"kind\"")))),
    }
}

fn numbers(json: &Json, name: &str) -> Result<Vec<f64>> {
    let list = json[name].as_array().and_then(|list| list.iter().map(Json::as_f64).collect());
    list.ok_or_else(|| Error::Input(format!("expected a list of numbers `{name}`, found {}", json[name])))
}

impl Fitted for Scaler {
    fn to_json(&self) -> String {
        json!({"kind": "scaler", "shift": self.shift(), "scale": self.scale()}).to_string()
    }

    fn from_json(text: &str) -> Result<Scaler> {
        let json = parse(text, "scaler")?;
        Scaler::new(numbers(&json, "shift")?, numbers(&json, "scale")?)
    }
}

impl Fitted for Imputer {
    fn to_json(&self) -> String {
        json!({"kind": "imputer", "values": self.values()}).to_string()
    }

    fn from_json(text: &str) -> Result<Imputer> {
        Imputer::new(numbers(&parse(text, "imputer")?, "values")?)
    }
}

impl Fitted for Vocabulary {
    fn to_json(&self) -> String {
        match self.is_of_words() {
            true => json!({"kind": "vocabulary", "words": self.tokens()}).to_string(),
            false => json!({"kind": "vocabulary", "characters": self.tokens().concat()}).to_string(),
        }
    }

    fn from_json(text: &str) -> Result<Vocabulary> {
        let json = parse(text, "vocabulary")?;
        if let Some(words) = json["words"].as_array() {
            let words = words.iter().map(|word| Some(word.as_str()?.to_owned())).collect::<Option<_>>();
            let wrong = || Error::Input(format!("expected a list of texts `words`, found {}", json["words"]));
            return words.map(Vocabulary::of_words).ok_or_else(wrong);
        }
        let characters = json["characters"]
            .as_str()
            .ok_or_else(|| Error::Input(format!("expected the text `characters`, found {}", json["characters"])))?;
        Ok(Vocabulary::new([characters]))
    }
}
