//! [`FileType`]: which format an object has, told by its name and else by its first bytes. Pure.

use std::fmt;

use datafusion::common::parsers::CompressionTypeVariant;

/// A format that this crate reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Text with commas between fields.
    Csv,
    /// Text with tabs between fields.
    Tsv,
    /// JSON, newline-delimited or one array.
    Json,
    /// The file format of Apache Arrow IPC.
    Arrow,
    /// Apache Avro.
    Avro,
}

/// A format, and how the whole file is compressed (which only text formats are).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileType {
    pub(crate) format: Format,
    pub(crate) compression: CompressionTypeVariant,
}

const EXTENSIONS: [(&str, Format); 13] = [
    ("parquet", Format::Parquet),
    ("parq", Format::Parquet),
    ("pq", Format::Parquet),
    ("csv", Format::Csv),
    ("tsv", Format::Tsv),
    ("tab", Format::Tsv),
    ("json", Format::Json),
    ("ndjson", Format::Json),
    ("jsonl", Format::Json),
    ("arrow", Format::Arrow),
    ("feather", Format::Arrow),
    ("ipc", Format::Arrow),
    ("avro", Format::Avro),
];

const COMPRESSIONS: [(&str, CompressionTypeVariant, &[u8]); 5] = [
    ("gz", CompressionTypeVariant::GZIP, &[0x1f, 0x8b]),
    ("gzip", CompressionTypeVariant::GZIP, &[0x1f, 0x8b]),
    ("bz2", CompressionTypeVariant::BZIP2, b"BZh"),
    ("xz", CompressionTypeVariant::XZ, &[0xfd, b'7', b'z', b'X', b'Z', 0]),
    ("zst", CompressionTypeVariant::ZSTD, &[0x28, 0xb5, 0x2f, 0xfd]),
];

impl FileType {
    const fn plain(format: Format) -> Self {
        Self { format, compression: CompressionTypeVariant::UNCOMPRESSED }
    }

    /// The type that a file's name claims, and the name without the extensions that say so. Letter case is ignored.
    pub(crate) fn from_name(name: &str) -> Option<(Self, &str)> {
        let (stem, extension) = split_extension(name)?;
        if let Some(format) = format_of(extension) {
            return Some((Self::plain(format), stem));
        }
        let (_, compression, _) = COMPRESSIONS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(extension))?;
        let (stem, extension) = split_extension(stem)?;
        let format = format_of(extension).filter(Format::is_text)?;
        Some((Self { format, compression: *compression }, stem))
    }

    /// The type of a file whose format is declared: its name only tells how it is compressed.
    pub(crate) fn declared(format: Format, name: &str) -> Self {
        let extension = split_extension(name).map_or("", |(_, extension)| extension);
        let known = COMPRESSIONS.iter().find(|(known, ..)| format.is_text() && known.eq_ignore_ascii_case(extension));
        let compression = known.map_or(CompressionTypeVariant::UNCOMPRESSED, |(_, compression, _)| *compression);
        Self { format, compression }
    }

    /// The type that the first bytes of an object show: all but CSV and TSV, which have no marks of their own.
    pub(crate) fn from_magic(head: &[u8]) -> Option<Self> {
        let format = if head.starts_with(b"PAR1") || head.starts_with(b"PARE") {
            Format::Parquet
        } else if head.starts_with(b"ARROW1") {
            Format::Arrow
        } else if head.starts_with(b"Obj\x01") {
            Format::Avro
        } else if matches!(first_byte(head), Some(b'{' | b'[')) {
            Format::Json
        } else {
            return None;
        };
        Some(Self::plain(format))
    }
}

impl Format {
    /// Whether this is a text format, which may be compressed as a whole.
    pub(crate) fn is_text(&self) -> bool {
        matches!(self, Self::Csv | Self::Tsv | Self::Json)
    }

    /// Whether this is text in fields between delimiters.
    pub(crate) fn is_delimited(&self) -> bool {
        matches!(self, Self::Csv | Self::Tsv)
    }
}

/// The compression that the first bytes of an object show.
pub(crate) fn compression_of(head: &[u8]) -> CompressionTypeVariant {
    COMPRESSIONS
        .iter()
        .find(|(_, _, magic)| head.starts_with(magic))
        .map_or(CompressionTypeVariant::UNCOMPRESSED, |(_, compression, _)| *compression)
}

/// The first byte that is neither white space nor part of a byte order mark.
pub(crate) fn first_byte(text: &[u8]) -> Option<u8> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    text.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

fn format_of(extension: &str) -> Option<Format> {
    EXTENSIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(extension)).map(|(_, format)| *format)
}

fn split_extension(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty())
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parquet => "Parquet",
            Self::Csv => "CSV",
            Self::Tsv => "TSV",
            Self::Json => "JSON",
            Self::Arrow => "Arrow IPC",
            Self::Avro => "Avro",
        })
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.compression {
            CompressionTypeVariant::UNCOMPRESSED => write!(f, "{}", self.format),
            compression => write!(f, "{} ({})", self.format, format!("{compression:?}").to_lowercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_types() {
        for (name, expected) in [
            ("a.parquet", Some(("Parquet", "a"))),
            ("part-0.snappy.parquet", Some(("Parquet", "part-0.snappy"))),
            ("A.CSV", Some(("CSV", "A"))),
            ("a.b.tsv", Some(("TSV", "a.b"))),
            ("a.json.gz", Some(("JSON (gzip)", "a"))),
            ("a.csv.zst", Some(("CSV (zstd)", "a"))),
            ("a.jsonl.xz", Some(("JSON (xz)", "a"))),
            ("a.csv.bz2", Some(("CSV (bzip2)", "a"))),
            ("a.parquet.gz", None),
            ("a.gz", None),
            ("README.md", None),
            ("noext", None),
            (".csv", None),
        ] {
            let told = FileType::from_name(name).map(|(file_type, stem)| (file_type.to_string(), stem));
            assert_eq!(told.as_ref().map(|(t, s)| (t.as_str(), *s)), expected, "{name}");
        }
    }

    #[test]
    fn first_bytes_tell_types() {
        for (head, expected) in [
            (&b"PAR1\x15"[..], Some("Parquet")),
            (b"ARROW1\0\0", Some("Arrow IPC")),
            (b"Obj\x01\x04", Some("Avro")),
            (b" \n {\"a\":1}", Some("JSON")),
            (b"\xef\xbb\xbf[1]", Some("JSON")),
            (b"a,b\n1,2\n", None),
            (b"", None),
        ] {
            assert_eq!(FileType::from_magic(head).map(|t| t.to_string()).as_deref(), expected, "{head:?}");
        }
        assert_eq!(compression_of(&[0x1f, 0x8b, 8]), CompressionTypeVariant::GZIP);
        assert_eq!(compression_of(b"a,b"), CompressionTypeVariant::UNCOMPRESSED);
    }
}
