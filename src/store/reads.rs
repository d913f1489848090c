//! [`Reads`]: every GET of data of a bucket. From memory where the bytes are here, merged or split by cost, shared by all
//! who ask for the same range, and so many at a time.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use datafusion::common::runtime::SpawnedTask;
use futures::future::{BoxFuture, Shared, WeakShared, try_join_all};
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use tokio::sync::{Semaphore, mpsc};

use super::cache::{ByteCache, ObjectVersion, Sized64};

/// An error of the store that several readers share.
pub(crate) type ReadError = Arc<object_store::Error>;

type ReadResult<T> = Result<T, ReadError>;

/// Objects up to this size are read whole by their first read, and then served from memory.
pub(crate) const SMALL: u64 = 1024 * 1024;

/// A gap between two ranges up to this size is read along: a connection moves it in less time than the first byte of
/// another answer takes.
const GAP: u64 = 1024 * 1024;

/// What is longer is read in parts, in parallel. So parts are of 8 to 16 MiB.
const LARGE: u64 = 16 * 1024 * 1024;

/// The lengths of the parts that a stream is read in: no shorter than is worth a request, no longer than memory allows.
const STREAM_PARTS_OF: Range<u64> = 1024 * 1024..8 * 1024 * 1024;

/// How many parts of a stream are in flight or waiting to be taken.
const STREAM_PARTS: usize = 4;

/// Most bytes that one stream holds in memory.
pub(crate) const STREAM_MEMORY: u64 = STREAM_PARTS_OF.end * STREAM_PARTS as u64;

/// The start or the end of an object, kept in memory. A whole object is a start.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    range: Range<u64>,
    bytes: Bytes,
}

impl Sized64 for Piece {
    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Which piece of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    Start,
    End,
}

/// Starts and ends of objects, and small objects as a whole.
pub(crate) type PieceCache = ByteCache<(ObjectVersion, End), Piece>;

/// A GET that is under way. Dropping all of its clones cancels it.
type Flight = Shared<BoxFuture<'static, ReadResult<Bytes>>>;
type WeakFlight = WeakShared<BoxFuture<'static, ReadResult<Bytes>>>;

/// The reads of one bucket.
pub(crate) struct Reads {
    bucket: String,
    s3: Arc<AmazonS3>,
    pieces: Arc<PieceCache>,
    /// One for each request that may be in flight.
    permits: Arc<Semaphore>,
    /// Guards the map only.
    flights: Mutex<Flights>,
}

/// A GET whose bytes are taken as they arrive.
struct Arrival {
    chunks: mpsc::UnboundedReceiver<ReadResult<Bytes>>,
    _task: SpawnedTask<()>,
}

/// The GETs that are under way, and some that were.
#[derive(Default)]
struct Flights {
    by_range: HashMap<(ObjectVersion, Range<u64>), WeakFlight>,
    /// The number at which those that have ended are removed.
    limit: usize,
}

impl Flights {
    fn find(&self, key: &(ObjectVersion, Range<u64>)) -> Option<Flight> {
        let flight = self.by_range.get(key)?.upgrade()?;
        (!matches!(flight.peek(), Some(Err(_)))).then_some(flight)
    }

    fn add(&mut self, key: (ObjectVersion, Range<u64>), flight: &Flight) {
        if self.by_range.len() >= self.limit {
            self.by_range.retain(|_, flight| flight.upgrade().is_some());
            self.limit = 128.max(self.by_range.len() * 2);
        }
        if let Some(weak) = flight.downgrade() {
            self.by_range.insert(key, weak);
        }
    }
}

impl Reads {
    pub(super) fn new(bucket: &str, s3: Arc<AmazonS3>, pieces: Arc<PieceCache>, in_flight: usize) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(in_flight.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { bucket: bucket.to_owned(), s3, pieces, permits, flights: Mutex::default() })
    }

    /// These ranges of the version of an object that was listed, in their order.
    ///
    /// Costs a GET for each run of bytes that is not in memory: runs are merged over small gaps and split where they are
    /// long. A small object is read whole, and kept.
    pub(crate) async fn ranges(self: &Arc<Self>, object: &ObjectMeta, ranges: &[Range<u64>]) -> ReadResult<Vec<Bytes>> {
        if let Some(range) = ranges.iter().find(|range| range.start > range.end || range.end > object.size) {
            return Err(generic(format!(
                "{range:?} is not within the {} bytes of \"{}\"",
                object.size, object.location
            )));
        }
        let mut sources = self.pieces(object);
        let mut wanted = requests(&missing(ranges, &sources));
        self.pieces.count(wanted.is_empty());
        let is_small = object.size <= SMALL && sources.is_empty();
        if is_small && !wanted.is_empty() {
            wanted.clear();
            wanted.push(0..object.size);
        }
        let keep = is_small.then_some(End::Start);
        let flights = wanted.into_iter().map(|range| async move {
            let bytes = self.fly(object, range.clone(), keep).await?;
            Ok::<_, ReadError>(Piece { range, bytes })
        });
        sources.extend(try_join_all(flights).await?);
        sources.sort_unstable_by_key(|source| source.range.start);
        ranges.iter().map(|range| assemble(range, &sources)).collect()
    }

    /// The first `length` bytes of an object or the last ones, fewer where it is shorter; they are kept in memory. Costs a
    /// GET where they are not there yet.
    pub(crate) async fn end(self: &Arc<Self>, object: &ObjectMeta, end: End, length: u64) -> ReadResult<Bytes> {
        let length = length.min(object.size);
        let range = match end {
            End::Start => 0..length,
            End::End => object.size - length..object.size,
        };
        let pieces = self.pieces(object);
        let is_here = missing(std::slice::from_ref(&range), &pieces).is_empty();
        self.pieces.count(is_here);
        if is_here {
            return assemble(&range, &pieces);
        }
        // A whole object is a start, however it was read.
        let end = if range.start == 0 { End::Start } else { end };
        self.fly(object, range, Some(end)).await
    }

    /// Whether so many bytes of objects can be kept in memory.
    pub(crate) fn can_keep(&self, bytes: u64) -> bool {
        bytes <= self.pieces.capacity()
    }

    /// Reads the start or the end of an object that no listing has shown: one GET, which tells its size and fixes its
    /// version. `None` where it does not exist. What was read is kept in memory.
    pub(crate) async fn first(
        &self,
        location: &Path,
        end: End,
        length: u64,
    ) -> object_store::Result<Option<ObjectMeta>> {
        let range = match end {
            End::Start => GetRange::Bounded(0..length),
            End::End => GetRange::Suffix(length),
        };
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        let _permit = self.permits.acquire().await;
        let answer = match self.s3.get_opts(location, options).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            answer => answer?,
        };
        let (object, range) = (answer.meta.clone(), answer.range.clone());
        let bytes = answer.bytes().await?;
        check_length(bytes.len() as u64, &range)?;
        let end = if range.start == 0 { End::Start } else { end };
        self.pieces.insert((ObjectVersion::new(&self.bucket, &object), end), Piece { range, bytes });
        Ok(Some(object))
    }

    /// A range of an object as a stream, whose start is served from memory where it is there. Nothing is requested before
    /// that start has been taken: a few rows may need no more. The rest is read in parts, several in flight.
    pub(crate) fn stream(
        self: &Arc<Self>,
        object: ObjectMeta,
        range: Range<u64>,
    ) -> BoxStream<'static, ReadResult<Bytes>> {
        let pieces = self.pieces(&object);
        let known = pieces.iter().find(|piece| piece.range.contains(&range.start));
        self.pieces.count(known.is_some_and(|piece| piece.range.end >= range.end));
        let head = known.map(|piece| piece.slice(&(range.start..piece.range.end.min(range.end))));
        let rest = head.as_ref().map_or(range.start, |head| range.start + head.len() as u64)..range.end;
        let head = stream::iter(head.map(Ok));
        if rest.is_empty() {
            return head.boxed();
        }
        let reads = Arc::clone(self);
        let rest = stream::once(async move {
            if object.size <= SMALL && pieces.is_empty() {
                // As others read it: whole.
                let bytes = reads.ranges(&object, std::slice::from_ref(&rest)).await?;
                return Ok(stream::iter(bytes.into_iter().map(Ok)).boxed());
            }
            let length = rest.end - rest.start;
            let part = length.div_ceil(STREAM_PARTS as u64).clamp(STREAM_PARTS_OF.start, STREAM_PARTS_OF.end);
            let parts = split(rest, length.div_ceil(part)).collect();
            Ok::<_, ReadError>(reads.arrivals(object, parts).boxed())
        });
        head.chain(rest.try_flatten()).boxed()
    }

    /// The bytes of these parts of an object as they arrive, one part after the other, with several under way.
    fn arrivals(
        self: Arc<Self>,
        object: ObjectMeta,
        parts: VecDeque<Range<u64>>,
    ) -> impl Stream<Item = ReadResult<Bytes>> + Send {
        let state = (self, object, parts, VecDeque::<Arrival>::new());
        stream::unfold(state, |(reads, object, mut parts, mut open)| async move {
            loop {
                while open.len() < STREAM_PARTS
                    && let Some(part) = parts.pop_front()
                {
                    open.push_back(reads.arrive(object.clone(), part));
                }
                match open.front_mut()?.chunks.recv().await {
                    Some(chunk) => {
                        if chunk.is_err() {
                            parts.clear();
                            open.clear();
                        }
                        return Some((chunk, (reads, object, parts, open)));
                    }
                    None => {
                        open.pop_front();
                    }
                }
            }
        })
    }

    /// A GET of a range whose bytes are handed on as they arrive, and which runs whether they are taken or not: a request
    /// must not wait for a reader that is not polled. Dropping it cancels it.
    fn arrive(&self, object: ObjectMeta, range: Range<u64>) -> Arrival {
        let (sender, chunks) = mpsc::unbounded_channel();
        let (s3, permits) = (Arc::clone(&self.s3), Arc::clone(&self.permits));
        let task = SpawnedTask::spawn(async move {
            let _permit = permits.acquire_owned().await;
            let read = async {
                let answer = s3.get_opts(&object.location, pinned(&object, range.clone())).await?;
                let (mut stream, mut length) = (answer.into_stream(), 0);
                while let Some(chunk) = stream.try_next().await? {
                    length += chunk.len() as u64;
                    // Nobody may want it any more.
                    sender.send(Ok(chunk)).ok();
                }
                check_length(length, &range)
            };
            if let Err(error) = read.await {
                sender.send(Err(Arc::new(error))).ok();
            }
        });
        Arrival { chunks, _task: task }
    }

    /// What is in memory of an object.
    fn pieces(&self, object: &ObjectMeta) -> Vec<Piece> {
        let version = ObjectVersion::new(&self.bucket, object);
        let start = self.pieces.peek(&(version.clone(), End::Start));
        if start.as_ref().is_some_and(|start| start.range.end == object.size) {
            return start.into_iter().collect();
        }
        start.into_iter().chain(self.pieces.peek(&(version, End::End))).collect()
    }

    /// A GET of a range, which all who ask for it meanwhile share, and which runs whether they are polled or not. The
    /// bytes are kept in memory as that end of the object.
    fn fly(self: &Arc<Self>, object: &ObjectMeta, range: Range<u64>, keep: Option<End>) -> Flight {
        let version = ObjectVersion::new(&self.bucket, object);
        let key = (version.clone(), range.clone());
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.find(&key) {
            return flight;
        }
        // A flight that has landed since the caller looked has left its bytes.
        let kept = keep.and_then(|end| self.pieces.peek(&(version.clone(), end)));
        if let Some(piece) = kept.filter(|piece| piece.range == range) {
            return futures::future::ready(Ok(piece.bytes)).boxed().shared();
        }
        let (s3, permits, pieces) = (Arc::clone(&self.s3), Arc::clone(&self.permits), Arc::clone(&self.pieces));
        let object = object.clone();
        let task = SpawnedTask::spawn(async move {
            let _permit = permits.acquire_owned().await;
            let answer = s3.get_opts(&object.location, pinned(&object, range.clone())).await?;
            let bytes = answer.bytes().await?;
            check_length(bytes.len() as u64, &range)?;
            if let Some(end) = keep {
                pieces.insert((version, end), Piece { range, bytes: bytes.clone() });
            }
            Ok(bytes)
        });
        let flight = async move { task.await.map_err(|error| generic(error.to_string()))?.map_err(Arc::new) };
        let flight = flight.boxed().shared();
        flights.add(key, &flight);
        flight
    }
}

impl Piece {
    /// The bytes of a range that lies in it.
    fn slice(&self, range: &Range<u64>) -> Bytes {
        let offset = |position: u64| usize::try_from(position - self.range.start).unwrap_or(usize::MAX);
        self.bytes.slice(offset(range.start)..offset(range.end))
    }
}

/// A read of a range of the version that was listed.
fn pinned(object: &ObjectMeta, range: Range<u64>) -> GetOptions {
    GetOptions { range: Some(GetRange::Bounded(range)), if_match: object.e_tag.clone(), ..GetOptions::default() }
}

/// Checks that an answer has as many bytes as were asked for.
fn check_length(length: u64, range: &Range<u64>) -> object_store::Result<()> {
    let expected = range.end - range.start;
    if length == expected {
        return Ok(());
    }
    let source = format!("the answer has {length} bytes instead of {expected}").into();
    Err(object_store::Error::Generic { store: "S3", source })
}

fn generic(reason: String) -> ReadError {
    Arc::new(object_store::Error::Generic { store: "S3", source: reason.into() })
}

/// What of these ranges is in none of the pieces.
fn missing(ranges: &[Range<u64>], pieces: &[Piece]) -> Vec<Range<u64>> {
    let mut missing: Vec<Range<u64>> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
    for piece in pieces.iter().map(|piece| &piece.range) {
        missing = missing
            .into_iter()
            .flat_map(|range| [range.start..range.end.min(piece.start), range.start.max(piece.end)..range.end])
            .filter(|range| !range.is_empty())
            .collect();
    }
    missing
}

/// The ranges to request for what is wanted: in order, over small gaps together, long ones in parts.
fn requests(wanted: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable_by_key(|range| range.start);
    let near = |a: &Range<u64>, b: &Range<u64>| b.start <= a.end.saturating_add(GAP);
    wanted.chunk_by(near).flat_map(parts).collect()
}

/// A run of ranges as one request, or where it is long in parts of 8 to 16 MiB. They end where a range does if they can: a
/// range that lies in one part is not copied.
fn parts(run: &[Range<u64>]) -> Vec<Range<u64>> {
    const SHORTEST: u64 = LARGE / 2;
    let (Some(first), Some(end)) = (run.first(), run.iter().map(|range| range.end).max()) else { return Vec::new() };
    let (mut start, mut parts) = (first.start, Vec::new());
    while end - start > LARGE {
        let is_cut = |cut: &u64| (start + SHORTEST..=start + LARGE).contains(cut) && end - cut >= SHORTEST;
        let ends = run.iter().map(|range| range.end).filter(is_cut);
        let is_outside = |cut: &u64| run.iter().all(|range| range.end <= *cut || range.start >= *cut);
        let cut = ends.filter(is_outside).max();
        let cut = cut.unwrap_or_else(|| start + (end - start).div_ceil((end - start).div_ceil(LARGE)));
        parts.push(start..cut);
        start = cut;
    }
    parts.push(start..end);
    parts
}

/// A range in so many parts of about one length.
fn split(range: Range<u64>, parts: u64) -> impl Iterator<Item = Range<u64>> + Send {
    let length = (range.end - range.start).div_ceil(parts.max(1));
    (0..parts).map(move |part| {
        let start = (range.start + part * length).min(range.end);
        start..(start + length).min(range.end)
    })
}

/// The bytes of a range out of sources that cover it, in the order of their starts. Copied only where it takes several.
fn assemble(range: &Range<u64>, sources: &[Piece]) -> ReadResult<Bytes> {
    if range.is_empty() {
        return Ok(Bytes::new());
    }
    let contains = |piece: &&Piece| piece.range.start <= range.start && range.end <= piece.range.end;
    if let Some(source) = sources.iter().find(contains) {
        return Ok(source.slice(range));
    }
    let mut bytes = BytesMut::with_capacity(usize::try_from(range.end - range.start).unwrap_or_default());
    let mut position = range.start;
    for source in sources {
        if source.range.contains(&position) {
            let end = source.range.end.min(range.end);
            bytes.extend_from_slice(&source.slice(&(position..end)));
            position = end;
        }
    }
    if position < range.end {
        return Err(generic(format!("bytes {position} to {} were not read", range.end)));
    }
    Ok(bytes.freeze())
}

impl fmt::Debug for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reads").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges, some of one")]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn piece(range: Range<u64>) -> Piece {
        let bytes: Vec<u8> = range.clone().map(|position| position as u8).collect();
        Piece { range, bytes: bytes.into() }
    }

    #[test]
    fn what_is_missing_is_what_no_piece_has() {
        for (ranges, pieces, expected) in [
            (vec![0..10], vec![], vec![0..10]),
            (vec![0..10], vec![0..10], vec![]),
            (vec![0..10], vec![0..4], vec![4..10]),
            (vec![0..10], vec![6..20], vec![0..6]),
            (vec![0..10], vec![2..4, 6..8], vec![0..2, 4..6, 8..10]),
            (vec![0..3, 5..5, 7..9], vec![2..8], vec![0..2, 8..9]),
            (vec![3..4], vec![10..20], vec![3..4]),
        ] {
            let pieces: Vec<Piece> = pieces.into_iter().map(piece).collect();
            assert_eq!(missing(&ranges, &pieces), expected, "{ranges:?} without {pieces:?}");
        }
    }

    #[test]
    fn ranges_are_merged_and_split_by_cost() {
        for (wanted, expected) in [
            (vec![], vec![]),
            (vec![5..6], vec![5..6]),
            (vec![10..20, 0..10], vec![0..20]),
            (vec![0..100, 10..20], vec![0..100]),
            (vec![0..1, MIB + 1..MIB + 2], vec![0..MIB + 2]),
            (vec![0..1, MIB + 2..MIB + 3], vec![0..1, MIB + 2..MIB + 3]),
            (vec![0..16 * MIB], vec![0..16 * MIB]),
            (vec![0..17 * MIB], vec![0..17 * MIB / 2, 17 * MIB / 2..17 * MIB]),
            (vec![0..8 * MIB, 8 * MIB..34 * MIB], vec![0..8 * MIB, 8 * MIB..21 * MIB, 21 * MIB..34 * MIB]),
            (
                vec![0..11 * MIB, 11 * MIB..22 * MIB, 22 * MIB..33 * MIB],
                vec![0..11 * MIB, 11 * MIB..22 * MIB, 22 * MIB..33 * MIB],
            ),
            (vec![0..4 * MIB, 4 * MIB..15 * MIB, 15 * MIB..18 * MIB], vec![0..9 * MIB, 9 * MIB..18 * MIB]),
        ] {
            assert_eq!(requests(&wanted), expected, "{wanted:?}");
        }
        for length in (LARGE + 1..200 * MIB).step_by(999_983) {
            let parts = requests(&[7..7 + length]);
            assert!(
                parts.iter().all(|part| (LARGE / 2..=LARGE).contains(&(part.end - part.start))),
                "{length}: {parts:?}"
            );
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert_eq!((parts[0].start, parts[parts.len() - 1].end), (7, 7 + length));
        }
    }

    #[test]
    fn bytes_are_assembled_from_several_sources() {
        let sources = [piece(0..10), piece(8..20), piece(20..30), piece(40..50)];
        for range in [0..10, 3..5, 5..5, 5..15, 0..30, 19..21, 42..44] {
            assert_eq!(assemble(&range, &sources).unwrap(), piece(range.clone()).bytes, "{range:?}");
        }
        for range in [25..45, 30..31, 45..51] {
            assert!(assemble(&range, &sources).is_err(), "{range:?} is not covered");
        }
    }
}
