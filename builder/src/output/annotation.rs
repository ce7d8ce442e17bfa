//! Annotations: remarks in manifests, indexes, and the descriptors that lead to them.

use std::collections::{BTreeMap, BTreeSet};

use oci::Platform;

/// Where an annotation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// An image's manifest.
    Manifest,
    /// The index of several platforms.
    Index,
    /// The entry of an image, in an index or an OCI layout.
    ManifestDescriptor,
    /// The entry of the index in an OCI layout.
    IndexDescriptor,
}

/// Which annotation of which image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    place: Place,
    /// Only the image of this platform.
    platform: Option<Platform>,
    name: String,
}

/// The annotations of an image to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    values: BTreeMap<Key, String>,
}

impl Place {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "manifest" => Ok(Self::Manifest),
            "index" => Ok(Self::Index),
            "manifest-descriptor" => Ok(Self::ManifestDescriptor),
            "index-descriptor" => Ok(Self::IndexDescriptor),
            other => Err(format!("unknown annotation type {other:?}")),
        }
    }
}

impl Key {
    /// Reads the name of an attribute, such as `annotation-manifest[linux/amd64].NAME`; `None` for
    /// one that is about something else.
    pub(super) fn of_attribute(text: &str) -> Option<Result<Self, String>> {
        let (place, name) = text.strip_prefix("annotation")?.split_once('.')?;
        let place = match place.strip_prefix('-') {
            Some(place) => place,
            None if place.is_empty() || place.starts_with('[') => place,
            None => return None,
        };
        // A platform may have a dot, as in arm64/v8.2.
        let (place, name) = match (place.contains('['), text.split_once("].")) {
            (true, Some((before, name))) => {
                let place = before.trim_start_matches("annotation").trim_start_matches('-');
                (format!("{place}]"), name)
            }
            _ => (place.to_owned(), name),
        };
        Some(Self::new(&place, name))
    }

    /// `place` is a type, perhaps with a platform in brackets.
    fn new(place: &str, name: &str) -> Result<Self, String> {
        let (kind, platform) = match place.strip_suffix(']').and_then(|text| text.split_once('[')) {
            Some((kind, platform)) => {
                let parsed: Platform = platform
                    .parse()
                    .map_err(|error: oci::Error| format!("annotation of {platform}: {error}"))?;
                (kind, Some(parsed))
            }
            None if place.contains(['[', ']']) => {
                return Err(format!(
                    "invalid annotation type {place:?}, expected type and optional platform in square brackets"
                ));
            }
            None => (place, None),
        };
        if name.is_empty() {
            return Err("an annotation has no name".to_owned());
        }
        Ok(Self { place: Place::parse(kind)?, platform, name: name.to_owned() })
    }
}

impl Annotations {
    /// Adds what one `--annotation` says: `[TYPE[PLATFORM],…:]NAME=VALUE`.
    ///
    /// # Errors
    /// Says what is wrong, in buildx' words.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("invalid annotation {text:?}, expected key=value"))?;
        match key.split_once(':') {
            None => self.set(Key::new("", key)?, value),
            Some((places, name)) => {
                for place in places.split(',') {
                    self.set(Key::new(place, name)?, value);
                }
            }
        }
        Ok(())
    }

    /// Adds those of `others` that are not here.
    pub fn add_missing(&mut self, others: &Self) {
        for (key, value) in &others.values {
            self.values.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }

    pub(super) fn set(&mut self, key: Key, value: &str) {
        self.values.insert(key, value.to_owned());
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Returns those of a place, of the image for a platform; those for the platform alone win.
    #[must_use]
    pub fn of(&self, place: Place, platform: Option<&Platform>) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for wanted in [None, platform] {
            let here = |key: &Key| key.place == place && key.platform.as_ref() == wanted;
            let values = self.values.iter().filter(|(key, _)| here(key));
            found.extend(values.map(|(key, value)| (key.name.clone(), value.clone())));
        }
        found
    }

    /// Refuses what an image for these platforms has no place for.
    ///
    /// # Errors
    /// Names it, in BuildKit's words.
    pub fn check(&self, platforms: &[Platform]) -> Result<(), String> {
        let places: BTreeSet<Place> = self.values.keys().map(|key| key.place).collect();
        if platforms.len() == 1 {
            if places.contains(&Place::Index) {
                return Err("index annotations not supported for single platform export".to_owned());
            }
            if places.contains(&Place::IndexDescriptor) {
                return Err(
                    "index descriptor annotations not supported for single platform export"
                        .to_owned(),
                );
            }
        }
        let asked = self.values.keys().filter_map(|key| key.platform.as_ref());
        match asked.into_iter().find(|platform| !platforms.contains(platform)) {
            Some(other) => Err(format!("there is no image for {other} to annotate")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm() -> Platform {
        Platform::new("linux", "arm64", None)
    }

    #[test]
    fn annotations_go_where_they_are_told_to() {
        let mut annotations = Annotations::default();
        for text in
            ["a=1", "index,manifest:b=2=2", "manifest[linux/arm64]:a=arm", "manifest-descriptor:c="]
        {
            annotations.add(text).unwrap();
        }
        let key = Key::of_attribute("annotation-index-descriptor.org.x").unwrap().unwrap();
        annotations.set(key, "4");
        let key = Key::of_attribute("annotation-manifest[linux/arm64].org.y").unwrap().unwrap();
        annotations.set(key, "5");
        let text = |map: BTreeMap<String, String>| {
            map.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(text(annotations.of(Place::Manifest, None)), ["a=1", "b=2=2"]);
        assert_eq!(
            text(annotations.of(Place::Manifest, Some(&arm()))),
            ["a=arm", "b=2=2", "org.y=5"]
        );
        assert_eq!(text(annotations.of(Place::Index, None)), ["b=2=2"]);
        assert_eq!(text(annotations.of(Place::ManifestDescriptor, Some(&arm()))), ["c="]);
        assert_eq!(text(annotations.of(Place::IndexDescriptor, None)), ["org.x=4"]);
    }

    #[test]
    fn annotations_without_a_place_are_refused() {
        let add = |text: &str| Annotations::default().add(text).unwrap_err();
        assert_eq!(add("a"), "invalid annotation \"a\", expected key=value");
        assert_eq!(add("layer:a=1"), "unknown annotation type \"layer\"");
        assert_eq!(
            add("manifest[linux:a=1"),
            "invalid annotation type \"manifest[linux\", expected type and optional platform in square brackets"
        );
        let mut annotations = Annotations::default();
        annotations.add("index:a=1").unwrap();
        assert_eq!(
            annotations.check(&[arm()]).unwrap_err(),
            "index annotations not supported for single platform export"
        );
        assert!(annotations.check(&[arm(), Platform::new("linux", "amd64", None)]).is_ok());
        let mut annotations = Annotations::default();
        annotations.add("manifest[linux/s390x]:a=1").unwrap();
        assert_eq!(
            annotations.check(&[arm()]).unwrap_err(),
            "there is no image for linux/s390x to annotate"
        );
        assert_eq!(Key::of_attribute("annotations.x"), None);
        assert_eq!(Key::of_attribute("name"), None);
    }
}
