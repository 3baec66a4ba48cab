//! Media types and file extensions: one small table, read both ways.

use std::path::Path;

use concord_model::{MediaType, ParseError};

/// What a body is when nothing says it.
const UNKNOWN: &str = "application/octet-stream";
const UNKNOWN_EXTENSION: &str = "bin";

/// Extension and media type (IANA's registry); of several extensions of one type the first is what a received body gets.
const KNOWN: &[(&str, &str)] = &[
    ("cap", "application/cap+xml"),
    ("xml", "application/xml"),
    ("xml", "text/xml"),
    ("stix", "application/stix+json"),
    ("json", "application/json"),
    ("geojson", "application/geo+json"),
    ("jsonl", "application/jsonl"),
    ("csv", "text/csv"),
    ("tsv", "text/tab-separated-values"),
    ("txt", "text/plain"),
    ("md", "text/markdown"),
    ("html", "text/html"),
    ("htm", "text/html"),
    ("ics", "text/calendar"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("pdf", "application/pdf"),
    ("rtf", "application/rtf"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("xls", "application/vnd.ms-excel"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("svg", "image/svg+xml"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("kml", "application/vnd.google-earth.kml+xml"),
    ("kmz", "application/vnd.google-earth.kmz"),
    ("gpx", "application/gpx+xml"),
    ("eml", "message/rfc822"),
    ("zip", "application/zip"),
    ("gz", "application/gzip"),
    ("p7m", "application/pkcs7-mime"),
];

/// The media type of a file, by its extension alone.
pub(crate) fn of_file(path: &Path) -> Result<MediaType, ParseError> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    let known = KNOWN.iter().find(|(known, _)| extension.as_deref() == Some(known));
    MediaType::parse(known.map_or(UNKNOWN, |(_, media_type)| media_type))
}

/// The extension for a body of this type. Only words of the table: a peer's header never chooses a file's name.
pub(crate) fn extension(media_type: &MediaType) -> &'static str {
    let known = KNOWN.iter().find(|(_, known)| *known == media_type.as_str());
    known.map_or(UNKNOWN_EXTENSION, |(extension, _)| extension)
}

/// Whether a person may want to read it as text.
pub(crate) fn is_text(media_type: &MediaType) -> bool {
    let text = media_type.as_str();
    text.starts_with("text/") || text.ends_with("json") || text.ends_with("xml") || text.ends_with("yaml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_decides_and_only_the_extension() {
        let check = |file: &str, expected: &str| {
            assert_eq!(of_file(Path::new(file)).unwrap().as_str(), expected, "{file}");
        };
        check("quake.cap", "application/cap+xml");
        check("quake.XML", "application/xml");
        check("a/b.c/seizures.csv", "text/csv");
        check("bundle.json", "application/json");
        check("map.geojson", "application/geo+json");
        check("noextension", "application/octet-stream");
        check(".csv", "application/octet-stream");
        check("x.неизвестно", "application/octet-stream");
    }

    #[test]
    fn every_type_of_the_table_is_one_and_has_an_extension_of_its_own() {
        for (_, media_type) in KNOWN {
            let parsed = MediaType::parse(media_type).unwrap();
            let back = of_file(Path::new(&format!("x.{}", extension(&parsed)))).unwrap();
            assert!(back == parsed || parsed.as_str() == "text/xml", "{media_type} came back as {back}");
        }
        assert_eq!(extension(&MediaType::parse("application/x-unheard-of").unwrap()), "bin");
    }
}
