//! Reads attributes such that none is overlooked: an attribute that was not read makes a case unknown.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

/// Why a case is not run.
#[derive(Debug, PartialEq)]
pub enum Refusal {
    /// wgrad does not support it (yet).
    Unknown(String),
    /// The case is inconsistent.
    Malformed(String),
}

/// Attributes, or an optimiser's hyper-parameters.
pub struct Attrs<'a> {
    map: &'a Map<String, Json>,
    read: RefCell<BTreeSet<&'static str>>,
}

type Read<T> = Result<T, Refusal>;

impl<'a> Attrs<'a> {
    pub fn new(map: &'a Map<String, Json>) -> Self {
        Attrs { map, read: RefCell::default() }
    }

    /// The attribute, converted; `default` if it is absent and optional.
    fn get<T>(
        &self,
        key: &'static str,
        kind: &str,
        default: Option<T>,
        convert: impl Fn(&Json) -> Option<T>,
    ) -> Read<T> {
        self.read.borrow_mut().insert(key);
        match (self.map.get(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(Refusal::Malformed(format!("the attribute `{key}` is missing"))),
            (Some(json), _) => {
                convert(json).ok_or_else(|| Refusal::Malformed(format!("`{key}` is {json}, not {kind}")))
            }
        }
    }

    pub fn float(&self, key: &'static str) -> Read<f64> {
        self.get(key, "a number", None, Json::as_f64)
    }

    pub fn int(&self, key: &'static str) -> Read<isize> {
        self.get(key, "an integer", None, to_isize)
    }

    pub fn count(&self, key: &'static str, default: Option<usize>) -> Read<usize> {
        self.get(key, "a count", default, to_usize)
    }

    pub fn flag(&self, key: &'static str) -> Read<bool> {
        self.get(key, "true or false", None, Json::as_bool)
    }

    pub fn text(&self, key: &'static str) -> Read<String> {
        self.get(key, "a text", None, |json| json.as_str().map(str::to_owned))
    }

    pub fn ints(&self, key: &'static str) -> Read<Vec<isize>> {
        self.get(key, "a list of integers", None, |json| json.as_array()?.iter().map(to_isize).collect())
    }

    pub fn counts(&self, key: &'static str) -> Read<Vec<usize>> {
        self.get(key, "a list of counts", None, |json| json.as_array()?.iter().map(to_usize).collect())
    }

    /// A list of one count.
    pub fn single(&self, key: &'static str) -> Read<usize> {
        self.get(key, "a list of one count", None, |json| match &json.as_array()?[..] {
            [count] => to_usize(count),
            _ => None,
        })
    }

    /// Two counts: height and width.
    pub fn pair(&self, key: &'static str, default: Option<[usize; 2]>) -> Read<[usize; 2]> {
        self.get(key, "two counts", default, |json| match &json.as_array()?[..] {
            [height, width] => Some([to_usize(height)?, to_usize(width)?]),
            _ => None,
        })
    }

    /// Two numbers.
    pub fn floats(&self, key: &'static str) -> Read<[f64; 2]> {
        self.get(key, "two numbers", None, |json| match &json.as_array()?[..] {
            [a, b] => Some([a.as_f64()?, b.as_f64()?]),
            _ => None,
        })
    }

    /// The attribute is absent or has the one value that is supported.
    pub fn only(&self, key: &'static str, supported: impl Into<Json>) -> Read<()> {
        let supported = supported.into();
        let value = self.get(key, "", Some(supported.clone()), |json| Some(json.clone()))?;
        let same = value == supported || value.as_f64().is_some_and(|x| Some(x) == supported.as_f64());
        if same { Ok(()) } else { Err(Refusal::Unknown(format!("`{key}` = {value}"))) }
    }

    /// An error if an attribute was not read.
    pub fn all_read(&self) -> Read<()> {
        let read = self.read.borrow();
        match self.map.keys().find(|key| !read.contains(key.as_str())) {
            Some(key) => Err(Refusal::Unknown(format!("attribute `{key}`"))),
            None => Ok(()),
        }
    }
}

fn to_isize(json: &Json) -> Option<isize> {
    json.as_i64().and_then(|n| n.try_into().ok())
}

fn to_usize(json: &Json) -> Option<usize> {
    // Sizes beyond 32 bits do not exist in wgrad, and would overflow in products.
    json.as_u64().and_then(|n| u32::try_from(n).ok()).map(|n| n as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_is_overlooked() {
        let json = json!({"dim": -1, "keepdim": true, "beta": 1.0});
        let attrs = Attrs::new(json.as_object().expect("an object"));
        assert_eq!(attrs.int("dim"), Ok(-1));
        assert_eq!(attrs.only("beta", 1), Ok(()));
        assert_eq!(attrs.only("absent", false), Ok(()));
        assert_eq!(attrs.all_read(), Err(Refusal::Unknown("attribute `keepdim`".into())));
        assert_eq!(attrs.only("keepdim", false), Err(Refusal::Unknown("`keepdim` = true".into())));
        assert_eq!(attrs.all_read(), Ok(()));
        assert!(matches!(attrs.counts("dim"), Err(Refusal::Malformed(_))));
        assert!(matches!(attrs.int("gone"), Err(Refusal::Malformed(_))));
    }
}
