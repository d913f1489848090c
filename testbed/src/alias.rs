//! Where in an object store the object of a key lives.
//!
//! S3 keys are any text; an [`object_store::path::Path`] has no empty, `.` or
//! `..` segments, no slash at its ends and no control characters. A key that is
//! a path byte for byte lives at that path, so that a store looks the way its
//! owner expects. Every other key lives at an *alias*: [`ALIASES`], a slash, and
//! the key's bytes in hexadecimal. A key that itself begins with [`ALIASES`] and
//! a slash is aliased as well, so no two keys share a path.

use object_store::path::Path;

use crate::hex;

/// The reserved first segment of aliases.
const ALIASES: &str = "__aliased_keys__";

/// The path of `key` in a store.
pub(crate) fn path_of(key: &str) -> Path {
    match Path::parse(key) {
        Ok(path) if path.as_ref() == key && !key.is_empty() && aliased(key).is_none() => path,
        _ => Path::from_iter([ALIASES, &hex::encode(key.as_bytes())]),
    }
}

/// The key of the object at `path`: the inverse of [`path_of`].
pub(crate) fn key_of(path: &Path) -> String {
    aliased(path.as_ref())
        .and_then(hex::decode)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        // A path among the aliases that is none was put there by someone else:
        // it has no key, and its own name is the least surprising one.
        .unwrap_or_else(|| path.as_ref().to_owned())
}

/// What follows the reserved segment, if `path` begins with it.
fn aliased(path: &str) -> Option<&str> {
    path.strip_prefix(ALIASES)?.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_path_of_its_own() {
        let keys = [
            "a",
            "a/b",
            "a//b",
            "a/./b",
            "a/../b",
            "dir/",
            "/a",
            "/",
            "//",
            "a\nb",
            "a%2Fb",
            "a b",
            "ü",
            "__aliased_keys__",
            "__aliased_keys__/61",
            "__aliased_keys__/zz",
        ];
        let paths: std::collections::HashSet<_> = keys.iter().map(|key| path_of(key)).collect();
        assert_eq!(paths.len(), keys.len());
        for key in keys {
            assert_eq!(key_of(&path_of(key)), key);
        }
    }

    #[test]
    fn plain_keys_keep_their_names() {
        for key in ["a", "a/b=c/d.parquet", "a%2Fb", "a b", "ü~^"] {
            assert_eq!(path_of(key).as_ref(), key);
        }
    }
}
