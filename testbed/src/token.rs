//! Continuation tokens: opaque to clients, checked when they come back.

use md5::{Digest, Md5};

use crate::hex;
use crate::index::Position;

/// How many bytes of digest a token carries.
const CHECK_LENGTH: usize = 8;

/// The token for the page of `bucket` that begins at `position`.
///
/// The position is written into the token, so the server keeps no state for a
/// listing; a digest over it and the bucket makes tokens of another bucket, or
/// invented ones, recognizable.
pub(crate) fn encode(bucket: &str, position: &Position) -> String {
    let (kind, text) = match position {
        Position::Key(key) => (b'k', key),
        Position::CommonPrefix(prefix) => (b'p', prefix),
    };
    let mut bytes = vec![kind];
    bytes.extend_from_slice(text.as_bytes());
    let check = check(bucket, &bytes);
    bytes.extend_from_slice(&check);
    hex::encode(&bytes)
}

/// The position that `token` stands for, or `None` if it is no token of `bucket`.
pub(crate) fn decode(bucket: &str, token: &str) -> Option<Position> {
    let bytes = hex::decode(token)?;
    let (bytes, found) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_LENGTH)?)?;
    if check(bucket, bytes) != found {
        return None;
    }
    let (kind, text) = bytes.split_first()?;
    let text = String::from_utf8(text.to_vec()).ok()?;
    match kind {
        b'k' => Some(Position::Key(text)),
        b'p' => Some(Position::CommonPrefix(text)),
        _ => None,
    }
}

fn check(bucket: &str, bytes: &[u8]) -> [u8; CHECK_LENGTH] {
    let digest = Md5::new()
        .chain_update(bucket)
        // No bucket name contains a slash, so the two parts cannot run together.
        .chain_update(b"/")
        .chain_update(bytes)
        .finalize();
    let mut check = [0; CHECK_LENGTH];
    check.copy_from_slice(&digest[..CHECK_LENGTH]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        for position in
            [Position::Key("a/b ü".to_owned()), Position::CommonPrefix("a//".to_owned()), Position::Key(String::new())]
        {
            let token = encode("shop", &position);
            assert_eq!(decode("shop", &token), Some(position));
            assert_eq!(decode("lake", &token), None);
        }
    }

    #[test]
    fn invented_tokens_are_refused() {
        for token in ["", "x", "abc", "6b61", "6b6100000000000000"] {
            assert_eq!(decode("shop", token), None, "{token}");
        }
    }
}
