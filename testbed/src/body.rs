//! The body of an answer: counted, paced, and cut off if a fault says so.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::log::Ticket;
use crate::wire::{Closed, Pace};

/// The largest piece that is handed on at once: small enough for a rate to be
/// smooth and for a cut to be where it was asked for.
const PIECE: usize = 64 * 1024;

/// How far behind its schedule a body may fall and still catch up. Timers wake
/// up to a millisecond late; a client that does not read for longer than this
/// does not get a burst for it.
const SLACK: Duration = Duration::from_millis(10);

/// How long the connection stays open behind the last byte before a cut, for
/// that byte to get out.
const FLUSH: Duration = Duration::from_millis(5);

/// A body on its way to the client.
#[derive(Debug)]
pub(crate) struct WireBody {
    inner: s3s::Body,
    /// What the inner body gave and was not handed on yet.
    held: Bytes,
    /// A piece whose time has not come.
    due: Option<Bytes>,
    timer: Option<Pin<Box<Sleep>>>,
    pace: Arc<Pace>,
    schedule: Option<Instant>,
    /// Bytes left before the connection ends.
    cut: Option<u64>,
    cutting: bool,
    ticket: Ticket,
}

impl WireBody {
    pub(crate) fn new(inner: s3s::Body, pace: Arc<Pace>, cut: Option<u64>, ticket: Ticket) -> Self {
        Self { inner, held: Bytes::new(), due: None, timer: None, pace, schedule: None, cut, cutting: false, ticket }
    }

    /// When a piece of `length` bytes may be handed on, if not at once.
    fn reserve(&mut self, length: usize) -> Option<Instant> {
        let rate = self.pace.rate()?;
        let now = Instant::now();
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let begin = self.schedule.map_or(now, |schedule| schedule.max(earliest));
        let end = begin + Duration::from_secs_f64(length as f64 / rate.get() as f64);
        self.schedule = Some(end);
        (end > now).then_some(end)
    }

    /// Takes the next piece off what is held.
    fn cut_piece(&mut self) -> Bytes {
        // A slow rate gets smaller pieces, about twenty in a second.
        let paced = self.pace.rate().map_or(u64::MAX, |rate| rate.get() / 20);
        let most = paced.clamp(1, PIECE as u64).min(self.cut.unwrap_or(u64::MAX));
        // `most` is at most `PIECE`.
        self.held.split_to((most as usize).min(self.held.len()))
    }
}

impl Body for WireBody {
    type Data = Bytes;
    type Error = s3s::StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        loop {
            if let Some(timer) = &mut this.timer {
                ready!(timer.as_mut().poll(context));
                this.timer = None;
            }
            if this.cutting {
                return Poll::Ready(Some(Err(Closed.into())));
            }
            if let Some(piece) = this.due.take() {
                this.ticket.sent(piece.len());
                if let Some(cut) = &mut this.cut {
                    *cut -= piece.len() as u64;
                }
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if this.held.is_empty() {
                match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                    None => return Poll::Ready(None),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => this.held = data,
                        Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                    },
                }
                continue;
            }
            if this.cut == Some(0) {
                this.cutting = true;
                this.timer = Some(Box::pin(tokio::time::sleep(FLUSH)));
                continue;
            }
            let piece = this.cut_piece();
            if let Some(time) = this.reserve(piece.len()) {
                this.timer = Some(Box::pin(tokio::time::sleep_until(time)));
            }
            this.due = Some(piece);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.due.is_none() && !self.cutting && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // A body that will be cut still announces its whole length.
        let mine = (self.held.len() + self.due.as_ref().map_or(0, Bytes::len)) as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + mine);
        }
        hint.set_lower(inner.lower() + mine);
        hint
    }
}
