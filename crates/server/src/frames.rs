//! Counts the frames of a connection as they come in, before HTTP/2 reads them: whoever sends frames that carry nothing, faster than
//! any honest peer has a reason to, is let go of.
//!
//! The HTTP/2 library bounds resets, endless headers and empty data by itself, and what it keeps in memory. It answers every PING
//! and SETTINGS, and reads PRIORITY, WINDOW_UPDATE and frames that it does not know, for as long as they come: that costs the sender
//! less than this side. What is counted here is a bucket: each frame takes one out, but for DATA with something in it; time puts
//! some in, and so do bytes that go out, since a peer that is given much has windows to open.

use std::time::{Duration, Instant};

/// Frames without content that a connection may bring at once, beyond those that time and what went out allow. With one more the
/// connection is closed: a library's frames come in proportion to its calls, and its calls have limits of their own.
pub const EMPTY_FRAMES_AT_ONCE_MAX: u32 = 40_000;
/// Frames without content that a connection may bring in a second, for as long as it stands.
pub const EMPTY_FRAMES_PER_SECOND_MAX: u32 = 20_000;
/// DATA of at least so many bytes counts as content.
pub const CONTENT_OF_FRAME_MIN_BYTES: usize = 256;
/// For so many bytes that went out a connection may bring one frame more.
const BYTES_OUT_PER_FRAME: u64 = 1024;

const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;

/// A peer brought more frames without content than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyFrames;

/// One connection's frames.
#[derive(Debug)]
pub(crate) struct Frames {
    reading: Reading,
    left: u32,
    filled_at: Instant,
    /// Bytes that went out and have not made a frame yet.
    out: u64,
}

#[derive(Debug)]
enum Reading {
    /// So many bytes of the preface have come. Whether they are the right ones the library says.
    Preface(usize),
    /// So many bytes of a frame's head have come.
    Head([u8; HEAD_BYTES], usize),
    /// So many bytes of its payload are still to come.
    Payload(usize),
}

impl Frames {
    pub(crate) fn new(now: Instant) -> Self {
        Self { reading: Reading::Preface(0), left: EMPTY_FRAMES_AT_ONCE_MAX, filled_at: now, out: 0 }
    }

    /// Whether the peer has begun to speak HTTP/2.
    pub(crate) fn begun(&self) -> bool {
        !matches!(self.reading, Reading::Preface(_))
    }

    /// These bytes came in.
    pub(crate) fn came(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), TooManyFrames> {
        while let Some(first) = bytes.first() {
            match &mut self.reading {
                Reading::Preface(have) => {
                    let taken = bytes.len().min(PREFACE_BYTES - *have);
                    *have += taken;
                    bytes = &bytes[taken..];
                    if *have == PREFACE_BYTES {
                        self.reading = Reading::Head([0; HEAD_BYTES], 0);
                    }
                }
                Reading::Head(head, have) => {
                    head[*have] = *first;
                    *have += 1;
                    bytes = &bytes[1..];
                    if *have == HEAD_BYTES {
                        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                        let is_content = head[3] == DATA && length >= CONTENT_OF_FRAME_MIN_BYTES;
                        self.reading = next(length);
                        if !is_content {
                            self.take_one(now)?;
                        }
                    }
                }
                Reading::Payload(left) => {
                    let taken = bytes.len().min(*left);
                    bytes = &bytes[taken..];
                    self.reading = next(*left - taken);
                }
            }
        }
        Ok(())
    }

    /// So many bytes went out.
    pub(crate) fn went(&mut self, bytes: usize) {
        self.out += bytes as u64;
        self.fill(self.out / BYTES_OUT_PER_FRAME);
        self.out %= BYTES_OUT_PER_FRAME;
    }

    fn take_one(&mut self, now: Instant) -> Result<(), TooManyFrames> {
        if self.left == 0 {
            let passed = now.saturating_duration_since(self.filled_at).min(Duration::from_secs(60));
            let frames = passed.as_micros() as u64 * u64::from(EMPTY_FRAMES_PER_SECOND_MAX) / 1_000_000;
            if frames == 0 {
                return Err(TooManyFrames);
            }
            self.fill(frames);
            self.filled_at = now;
        }
        self.left -= 1;
        Ok(())
    }

    fn fill(&mut self, frames: u64) {
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(frames).min(EMPTY_FRAMES_AT_ONCE_MAX);
    }
}

fn next(left: usize) -> Reading {
    if left == 0 { Reading::Head([0; HEAD_BYTES], 0) } else { Reading::Payload(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: [u8; 9] = [0, 0, 0, 6, 0, 0, 0, 0, 0];

    fn begun(now: Instant) -> Frames {
        let mut frames = Frames::new(now);
        frames.came(&[b'x'; PREFACE_BYTES], now).unwrap();
        frames
    }

    fn data(length: usize) -> Vec<u8> {
        let size = (length as u32).to_be_bytes();
        let mut bytes = vec![size[1], size[2], size[3], DATA, 0, 0, 0, 0, 1];
        bytes.resize(HEAD_BYTES + length, 6);
        bytes
    }

    fn pings_until_refused(frames: &mut Frames, now: Instant) -> u32 {
        (0..).find(|_| frames.came(&PING, now).is_err()).unwrap()
    }

    #[test]
    fn frames_without_content_are_counted_however_they_are_cut_and_content_is_not() {
        let now = Instant::now();
        let stream = [data(CONTENT_OF_FRAME_MIN_BYTES), PING.to_vec(), data(CONTENT_OF_FRAME_MIN_BYTES - 1), data(0)];
        let stream = stream.concat();
        for cut in 1..stream.len() {
            let mut frames = begun(now);
            stream.chunks(cut).for_each(|piece| frames.came(piece, now).unwrap());
            assert_eq!(frames.left, EMPTY_FRAMES_AT_ONCE_MAX - 3, "{cut}");
            assert!(matches!(frames.reading, Reading::Head(_, 0)));
        }
    }

    #[test]
    fn a_flood_is_ended_and_time_or_what_goes_out_allows_more() {
        let now = Instant::now();
        let mut frames = begun(now);
        assert_eq!(pings_until_refused(&mut frames, now), EMPTY_FRAMES_AT_ONCE_MAX);
        let later = now + Duration::from_millis(100);
        assert_eq!(pings_until_refused(&mut frames, later), EMPTY_FRAMES_PER_SECOND_MAX / 10);
        frames.went(1023);
        assert_eq!(pings_until_refused(&mut frames, later), 0);
        frames.went(1025);
        assert_eq!(pings_until_refused(&mut frames, later), 2);
        // However long it was quiet.
        let much_later = now + Duration::from_secs(1000);
        assert_eq!(pings_until_refused(&mut frames, much_later), EMPTY_FRAMES_AT_ONCE_MAX);
    }

    #[test]
    fn a_peer_has_begun_with_the_last_byte_of_its_preface() {
        let now = Instant::now();
        let mut frames = Frames::new(now);
        for _ in 0..PREFACE_BYTES {
            assert!(!frames.begun());
            frames.came(b"x", now).unwrap();
        }
        assert!(frames.begun());
    }
}
