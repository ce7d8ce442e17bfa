//! JSON that loses nothing: known fields become types, the others stay text.
//!
//! A parsed number, string or object cannot always be written back as it was:
//! `1.10`, `1e400`, `"\/"` and a 30-digit integer all change or fail. So what a
//! type does not know is never parsed, only delimited ([`Json`]), and written
//! back as the same bytes, in its old order, behind the known fields.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::error::{Error, Result};

/// How deep objects and lists may nest in a document.
///
/// Real manifests and configs stay below 10. The limit keeps a few kilobytes of
/// `[[[[…` from exhausting the stack of whoever reads the document next.
pub const MAX_NESTING: usize = 64;

/// One JSON value, kept as the text its author wrote.
///
/// Two values are equal if their text is: `1.0` is not `1`.
#[derive(Clone)]
pub struct Json(Box<RawValue>);

impl Json {
    /// Takes over a text that is one JSON value, whitespace around it left out.
    ///
    /// # Errors
    ///
    /// Refuses text that is not JSON.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).map(Self).map_err(|error| json_error("JSON value", &error))
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    ///
    /// Refuses what JSON cannot express, such as a map with keys that are no strings.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        serde_json::value::to_raw_value(value)
            .map(Self)
            .map_err(|error| json_error("JSON value", &error))
    }

    /// Reads the value as a type.
    ///
    /// # Errors
    ///
    /// Refuses what does not have the shape of `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(self.as_str()).map_err(|error| json_error("JSON value", &error))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

impl PartialOrd for Json {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Json {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Json {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self)
    }
}

/// The fields of an object that its type does not know, in the author's order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extra(Vec<(String, Json)>);

impl Extra {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Sets a field: in its place if it exists, else behind the others.
    ///
    /// The name must not be one the surrounding type knows.
    pub fn insert(&mut self, name: &str, value: Json) {
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Removes a field and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<Json> {
        let position = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.remove(position).1)
    }

    /// Returns names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Writes the fields into an object that is being written.
    pub(crate) fn serialize_into<M: SerializeMap>(
        &self,
        map: &mut M,
    ) -> std::result::Result<(), M::Error> {
        self.0.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))
    }
}

/// An object cut into its fields, none of them parsed yet.
pub(crate) struct Fields<'a> {
    what: &'static str,
    entries: Vec<(String, &'a RawValue)>,
}

impl<'a> Fields<'a> {
    /// Cuts `text`, which must be one object that names no field twice.
    ///
    /// Readers disagree about which of two fields of one name counts, so a
    /// document with both could be two different images under one digest.
    pub(crate) fn parse(what: &'static str, text: &'a str) -> Result<Self> {
        let mut parser = serde_json::Deserializer::from_str(text);
        let entries =
            parser.deserialize_map(EntriesVisitor).map_err(|error| json_error(what, &error))?;
        parser.end().map_err(|error| json_error(what, &error))?;
        Ok(Self { what, entries })
    }

    /// Cuts a whole document, after checking its size and depth.
    pub(crate) fn parse_document(
        what: &'static str,
        bytes: &'a [u8],
        limit: usize,
    ) -> Result<Self> {
        if bytes.len() > limit {
            return Err(Error::TooLarge { what, size: bytes.len(), limit });
        }
        if nesting(bytes) > MAX_NESTING {
            return Err(Error::TooDeep { what, limit: MAX_NESTING });
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Error::Json { what, reason: error.to_string() })?;
        Self::parse(what, text)
    }

    /// Whether the object has a field of this name that is not null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, value)| key == name && value.get() != "null")
    }

    /// Whether a reader that ignores case, as Go's do, would see such a field.
    pub(crate) fn has_ignoring_case(&self, name: &str) -> bool {
        self.entries
            .iter()
            .any(|(key, value)| key.eq_ignore_ascii_case(name) && value.get() != "null")
    }

    /// Reads an optional field and leaves it in place.
    pub(crate) fn peek<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        match self.entries.iter().find(|(key, _)| key == name) {
            Some((_, value)) => self.decode(name, value),
            None => Ok(None),
        }
    }

    /// Takes an optional field out; null counts as absent, as Go's programs write it.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>> {
        let Some(position) = self.entries.iter().position(|(key, _)| key == name) else {
            return Ok(None);
        };
        let (_, value) = self.entries.remove(position);
        self.decode(name, value)
    }

    fn decode<T: DeserializeOwned>(&self, name: &str, value: &RawValue) -> Result<Option<T>> {
        if value.get() == "null" {
            return Ok(None);
        }
        serde_json::from_str(value.get()).map(Some).map_err(|error| Error::Json {
            what: self.what,
            reason: format!("field `{name}`: {}", without_position(&error)),
        })
    }

    /// Takes a field out that may be missing or null, which both mean empty.
    pub(crate) fn take_or_default<T: DeserializeOwned + Default>(
        &mut self,
        name: &str,
    ) -> Result<T> {
        self.take(name).map(Option::unwrap_or_default)
    }

    /// Takes a field out that must be there.
    pub(crate) fn require<T: DeserializeOwned>(&mut self, name: &str) -> Result<T> {
        self.take(name)?.ok_or_else(|| Error::Json {
            what: self.what,
            reason: format!("field `{name}` is missing"),
        })
    }

    /// Returns what nobody took.
    pub(crate) fn rest(self) -> Extra {
        Extra(self.entries.into_iter().map(|(name, raw)| (name, Json(raw.to_owned()))).collect())
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(
        self,
        mut map: M,
    ) -> std::result::Result<Self::Value, M::Error> {
        let mut entries: Vec<(String, &'de RawValue)> = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        let mut names = BTreeSet::new();
        if let Some((twice, _)) = entries.iter().find(|(name, _)| !names.insert(name.as_str())) {
            return Err(M::Error::custom(format_args!("field `{twice}` appears twice")));
        }
        Ok(entries)
    }
}

/// A type that is read from the fields of an object.
pub(crate) trait FromFields: Sized {
    /// What an object of this type is called in messages.
    const WHAT: &'static str;

    /// Takes the known fields, and keeps the rest.
    fn from_fields(fields: Fields<'_>) -> Result<Self>;
}

/// Implements `Deserialize` through [`FromFields`].
pub(crate) fn deserialize_object<'de, T: FromFields, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Fields::parse(T::WHAT, raw.get()).and_then(T::from_fields).map_err(D::Error::custom)
}

/// Returns the deepest nesting of objects and lists in `bytes`, strings aside.
fn nesting(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn json_error(what: &'static str, error: &serde_json::Error) -> Error {
    Error::Json { what, reason: error.to_string() }
}

/// Leaves out "at line 1 column 7", which counts from the field and would mislead.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(position) => text[..position].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_counts_brackets_outside_strings() {
        for (text, depth) in [
            ("1", 0),
            ("[]", 1),
            ("[[],[]]", 2),
            (r#""[[[""#, 0),
            (r#"{"a":"\"[[","b":[{}]}"#, 3),
            ("]]]][", 1),
        ] {
            assert_eq!(nesting(text.as_bytes()), depth, "{text}");
        }
    }

    #[test]
    fn a_field_named_twice_is_refused() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"b":2,"\u0061":3}"#] {
            let error = Fields::parse("test", text).err().unwrap().to_string();
            assert!(error.contains("field `a` appears twice"), "{error}");
        }
    }

    #[test]
    fn raw_text_is_kept() {
        for text in [
            "1.10",
            "1e400",
            "123456789012345678901234567890",
            r#""\/\ud83d\ude00""#,
            "{ \"a\" : [ ] }",
        ] {
            assert_eq!(Json::parse(text).unwrap().as_str(), text);
            assert_eq!(serde_json::to_string(&Json::parse(text).unwrap()).unwrap(), text);
        }
        assert!(Json::parse("{").is_err());
        assert!(Json::parse("1 2").is_err());
    }
}
