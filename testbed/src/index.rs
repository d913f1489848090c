//! The ordered index of a bucket's keys, and the pages a listing is answered with.
//!
//! An object store lists in its own order and at its own cost. S3 promises
//! neither: keys come back in the order of their UTF-8 bytes and a page costs
//! the same wherever in the bucket it lies. [`KeyIndex`] keeps that promise: a
//! page of `n` elements takes at most `n + 1` steps, each a seek in a B-tree,
//! whatever the number of keys that a common prefix stands for.

use std::collections::BTreeMap;
use std::ops::Bound;

/// The keys of one bucket, in the order of their UTF-8 bytes.
///
/// `String` orders by bytes, and the order of UTF-8 bytes is the order of code
/// points; both facts carry the successor of a prefix, see [`prefix_end`].
#[derive(Debug)]
pub(crate) struct KeyIndex<V> {
    entries: BTreeMap<String, V>,
}

/// What a page is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageRequest<'a> {
    /// Only keys that begin with this.
    pub(crate) prefix: &'a str,
    /// Roll up keys that share what precedes the first delimiter after the prefix.
    pub(crate) delimiter: Option<&'a str>,
    /// Only elements behind this one.
    pub(crate) start: Option<&'a Position>,
    /// The most elements (keys and common prefixes together) the page holds.
    pub(crate) max_keys: usize,
}

/// A place in a listing: right behind an element of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Position {
    /// Behind this key.
    Key(String),
    /// Behind every key that begins with this common prefix.
    CommonPrefix(String),
}

/// One page of a listing.
#[derive(Debug)]
pub(crate) struct Page<'a, V> {
    /// Keys that were not rolled up, with what is known of them.
    pub(crate) contents: Vec<(&'a str, &'a V)>,
    /// What keys were rolled up into.
    pub(crate) common_prefixes: Vec<&'a str>,
    /// Where the next page begins, when there is one.
    pub(crate) next: Option<Position>,
    /// Index entries looked at: the work that this page was.
    pub(crate) visited: usize,
}

impl<V> Default for KeyIndex<V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new() }
    }
}

impl<V> KeyIndex<V> {
    /// What is known of `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&V> {
        self.entries.get(key)
    }

    /// Adds `key`, or replaces what was known of it.
    pub(crate) fn insert(&mut self, key: String, value: V) {
        self.entries.insert(key, value);
    }

    /// Forgets `key`, and returns what was known of it.
    pub(crate) fn remove(&mut self, key: &str) -> Option<V> {
        self.entries.remove(key)
    }

    /// All keys, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The page that `request` asks for.
    pub(crate) fn page(&self, request: &PageRequest<'_>) -> Page<'_, V> {
        let mut page = Page { contents: Vec::new(), common_prefixes: Vec::new(), next: None, visited: 0 };
        // S3 answers `max-keys=0` with an empty page that is not truncated.
        if request.max_keys == 0 {
            return page;
        }
        let Some(mut lower) = lower_bound(request) else {
            return page;
        };
        let mut last = None;
        'seek: loop {
            let range = (lower.as_ref().map(String::as_str), Bound::Unbounded);
            for (key, value) in self.entries.range::<str, _>(range) {
                page.visited += 1;
                let Some(rest) = key.strip_prefix(request.prefix) else {
                    return page;
                };
                // A key too many: the page is full and there is more.
                if page.contents.len() + page.common_prefixes.len() == request.max_keys {
                    page.next = last;
                    return page;
                }
                let delimiter = request.delimiter.filter(|delimiter| !delimiter.is_empty());
                let rolled_up = delimiter.and_then(|delimiter| {
                    let end = rest.find(delimiter)? + delimiter.len();
                    Some(&key[..request.prefix.len() + end])
                });
                let Some(common_prefix) = rolled_up else {
                    page.contents.push((key, value));
                    last = Some(Position::Key(key.clone()));
                    continue;
                };
                page.common_prefixes.push(common_prefix);
                last = Some(Position::CommonPrefix(common_prefix.to_owned()));
                // Jump over the keys it stands for instead of reading them.
                match prefix_end(common_prefix) {
                    Some(end) => lower = Bound::Included(end),
                    None => return page,
                }
                continue 'seek;
            }
            return page;
        }
    }
}

/// Where the scan for a page begins, or `None` if that is behind every key.
fn lower_bound(request: &PageRequest<'_>) -> Option<Bound<String>> {
    let start = match request.start {
        None => return Some(Bound::Included(request.prefix.to_owned())),
        Some(Position::Key(key)) => Bound::Excluded(key.clone()),
        Some(Position::CommonPrefix(prefix)) => Bound::Included(prefix_end(prefix)?),
    };
    let behind = match &start {
        Bound::Included(key) | Bound::Excluded(key) => key.as_str() >= request.prefix,
        Bound::Unbounded => false,
    };
    if behind { Some(start) } else { Some(Bound::Included(request.prefix.to_owned())) }
}

/// The least string that is greater than every string that begins with `prefix`,
/// or `None` if there is no such string.
///
/// That is `prefix` with its last code point replaced by the next one; code
/// points that have no successor are dropped first.
fn prefix_end(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // A range of `char` steps over the surrogates, which are no `char`s.
        if let Some(next) = (last..=char::MAX).nth(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A small generator of pseudo random numbers (SplitMix64): runs are repeatable.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) % bound as u64) as usize
        }

        fn text(&mut self, most: usize) -> String {
            const ALPHABET: [char; 9] = ['a', 'b', '/', '/', '.', ' ', 'ü', '\u{1}', char::MAX];
            let length = self.below(most + 1);
            (0..length).map(|_| ALPHABET[self.below(ALPHABET.len())]).collect()
        }
    }

    fn index<'a>(keys: impl IntoIterator<Item = &'a str>) -> KeyIndex<()> {
        let mut index = KeyIndex::default();
        for key in keys {
            index.insert(key.to_owned(), ());
        }
        index
    }

    /// The elements of a listing, in order: what S3's documentation says, word by word.
    fn naive(
        index: &KeyIndex<()>,
        prefix: &str,
        delimiter: Option<&str>,
        start_after: Option<&str>,
    ) -> BTreeSet<String> {
        index
            .keys()
            .filter(|key| key.starts_with(prefix))
            .filter(|key| start_after.is_none_or(|start| *key > start))
            .map(|key| {
                let rest = &key[prefix.len()..];
                match delimiter.and_then(|d| Some(rest.find(d)? + d.len())) {
                    Some(end) => key[..prefix.len() + end].to_owned(),
                    None => key.to_owned(),
                }
            })
            .collect()
    }

    fn walk(
        index: &KeyIndex<()>,
        prefix: &str,
        delimiter: Option<&str>,
        start_after: Option<&str>,
        max_keys: usize,
    ) -> Vec<String> {
        let mut elements = Vec::new();
        let mut start = start_after.map(|key| Position::Key(key.to_owned()));
        loop {
            let page = index.page(&PageRequest { prefix, delimiter, start: start.as_ref(), max_keys });
            assert!(page.visited <= max_keys + 1, "{} visited", page.visited);
            let mut here: Vec<_> = page.contents.iter().map(|(key, ())| *key).collect();
            here.extend(&page.common_prefixes);
            here.sort_unstable();
            assert!(here.len() <= max_keys);
            elements.extend(here.into_iter().map(str::to_owned));
            match page.next {
                Some(next) => start = Some(next),
                None => return elements,
            }
        }
    }

    #[test]
    fn pages_add_up_to_the_naive_listing() {
        let mut random = Random(7);
        for _ in 0..300 {
            let keys: Vec<String> = (0..random.below(60)).map(|_| random.text(6)).collect();
            let index = index(keys.iter().map(String::as_str));
            for _ in 0..20 {
                let prefix = random.text(2);
                let delimiter = [None, Some("/"), Some("//"), Some("a"), Some("ü")][random.below(5)];
                let start = (random.below(2) == 0).then(|| random.text(4));
                let max_keys = 1 + random.below(7);
                let expected: Vec<_> = naive(&index, &prefix, delimiter, start.as_deref()).into_iter().collect();
                let found = walk(&index, &prefix, delimiter, start.as_deref(), max_keys);
                assert_eq!(found, expected, "prefix {prefix:?} delimiter {delimiter:?} start {start:?} of {keys:?}");
            }
        }
    }

    #[test]
    fn a_full_last_page_is_not_truncated() {
        let index = index(["a", "b", "c/1", "c/2"]);
        let request = PageRequest { prefix: "", delimiter: Some("/"), start: None, max_keys: 3 };
        let page = index.page(&request);
        assert_eq!(page.contents.len(), 2);
        assert_eq!(page.common_prefixes, ["c/"]);
        assert_eq!(page.next, None);
    }

    #[test]
    fn zero_keys_are_an_untruncated_page() {
        let index = index(["a"]);
        let page = index.page(&PageRequest { prefix: "", delimiter: None, start: None, max_keys: 0 });
        assert!(page.contents.is_empty());
        assert_eq!(page.next, None);
    }

    #[test]
    fn work_does_not_grow_with_the_bucket() {
        let mut index = KeyIndex::default();
        for n in 0..200_000 {
            index.insert(format!("year={}/{n:06}", n % 40), ());
        }
        // Every page is asserted on in `walk`: at most one entry more than it holds.
        assert_eq!(walk(&index, "", None, None, 1000).len(), 200_000);
        // 5,000 keys below each common prefix, none of them read.
        assert_eq!(walk(&index, "", Some("/"), None, 7).len(), 40);
        assert_eq!(walk(&index, "year=39/", Some("/"), None, 1000).len(), 5_000);
    }

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(prefix_end("a/").as_deref(), Some("a0"));
        assert_eq!(prefix_end("a\u{10FFFF}").as_deref(), Some("b"));
        assert_eq!(prefix_end("\u{D7FF}").as_deref(), Some("\u{E000}"));
        assert_eq!(prefix_end("\u{10FFFF}"), None);
        assert_eq!(prefix_end(""), None);
    }
}
