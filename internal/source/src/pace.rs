//! When to read next: at once while it is quiet, in bursts under load.
//!
//! The walsender sends every message with a system call of its own. Between two processes of one machine a
//! reader that empties the socket at once makes each of them a packet, whose whole way through the network
//! stack the *sender* pays for, and itself wakes for each. A reader that lets the receive window close makes
//! them pile up in the sender's buffer instead, where they merge into large segments.
//!
//! ```text
//!   quiet:  read ─ read ─ read …                       latency is the socket's
//!   load:   pause ──────── read read read (drained) ── pause ──────── …
//!             │                 └─ large segments, as fast as they can be copied
//!             └─ the window closes, the sender goes on into its own buffer and is not held up
//! ```
//!
//! The numbers were chosen by `examples/drain.rs` (Linux 6.18, two cores, loopback, messages of about 200
//! bytes), by the processor time of both sides, which hardly depends on what else the machine does. For a
//! million changes: reading at once 1.1 to 1.6 s here and 3.2 to 3.7 s at the sender (`pg_recvlogical`: 1.7 to
//! 3 s, and 3.5 to 6.5 s); in bursts 0.15 to 0.35 s, and 2.7 to 2.8 s, of which decoding and the system calls
//! alone are 2.6 s. A fixed pause after every read either falls back into small packets, when it is shorter
//! than the window takes to fill, or limits the rate to one window a pause.

use std::time::Duration;

/// Reading until nothing is there has emptied the sender's buffer, too, when it brings less than this: a single
/// message, or a few. When it brings more, the window may have been full, and opens now for what was held back.
const DRAINED_BYTES: usize = 4 << 10;

/// Below this rate, bytes a second, there is nothing to gain: 20,000 small changes a second cost a reader
/// that wakes for each about a tenth of a processor.
const LOAD_BYTES_PER_SECOND: f64 = 4e6;

/// What a pause is to bring. Well below what a sender's buffer takes (`tcp_wmem`, by default up to 4 MiB),
/// or the sender would stand still.
const PAUSE_BYTES: f64 = 1e6;

/// The longest pause, and so what load can add to the latency, to a peer on this machine or next to it.
/// From 10 ms down more messages go out as packets of their own; from 30 ms up nothing gets better.
const PAUSE_MAX_NEAR: Duration = Duration::from_millis(20);

/// The same to a peer further away. There the network card merges packets, and a long pause would keep the
/// window from growing to what the distance needs.
const PAUSE_MAX_FAR: Duration = Duration::from_millis(2);

/// A rate is taken over at least this long, or this much.
const MEASURE: Duration = Duration::from_millis(2);
const MEASURE_BYTES: usize = 32 << 10;

/// Where the peer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    /// A unix socket: its buffer holds a few hundred messages, and a pause only holds the sender up.
    UnixSocket,
    /// TCP, on this machine or next to it.
    Near,
    /// TCP, further away.
    Far,
}

/// Decides on pauses. Times are since any fixed moment.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    pause_max: Duration,
    pause: Duration,
    since: Duration,
    bytes: usize,
}

impl Pace {
    pub(crate) fn new(peer: Peer) -> Self {
        let pause_max = match peer {
            Peer::UnixSocket => Duration::ZERO,
            Peer::Near => PAUSE_MAX_NEAR,
            Peer::Far => PAUSE_MAX_FAR,
        };
        Self { pause_max, pause: Duration::ZERO, since: Duration::ZERO, bytes: 0 }
    }

    /// After reading what was there, that many bytes, until `now`: how long to wait before the next time.
    pub(crate) fn after_read(&mut self, bytes: usize, now: Duration) -> Duration {
        self.bytes = self.bytes.saturating_add(bytes);
        if bytes >= DRAINED_BYTES {
            return Duration::ZERO;
        }
        let elapsed = now.saturating_sub(self.since);
        if elapsed >= MEASURE || self.bytes >= MEASURE_BYTES {
            let rate = self.bytes as f64 / elapsed.as_secs_f64().max(1e-6);
            self.pause = if rate < LOAD_BYTES_PER_SECOND {
                Duration::ZERO
            } else {
                Duration::from_secs_f64(PAUSE_BYTES / rate).min(self.pause_max)
            };
            self.since = now;
            self.bytes = 0;
        }
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sender of that many bytes a second, in messages of 200 bytes, read as the pace says and never faster
    /// than every 10 µs. Returns the share of time spent pausing and the longest pause.
    fn under(peer: Peer, bytes_per_second: f64) -> (f64, Duration) {
        let mut pace = Pace::new(peer);
        let (mut now, mut unread, mut paused, mut longest) = (0.0, 0.0, 0.0, Duration::ZERO);
        while now < 2.0 {
            let until_message: f64 = 200.0 / bytes_per_second;
            let step = if unread < 200.0 { until_message.max(1e-5) } else { 1e-5 };
            now += step;
            unread += step * bytes_per_second;
            let bytes = f64::min(unread, 128e3) as usize;
            unread -= bytes as f64;
            let pause = pace.after_read(bytes, Duration::from_secs_f64(now));
            now += pause.as_secs_f64();
            unread += pause.as_secs_f64() * bytes_per_second;
            paused += pause.as_secs_f64();
            longest = longest.max(pause);
        }
        (paused / now, longest)
    }

    #[test]
    fn a_quiet_stream_is_read_at_once() {
        for rate in [2e3, 2e5, 3e6] {
            assert_eq!(under(Peer::Near, rate).1, Duration::ZERO, "{rate}");
        }
    }

    #[test]
    fn under_load_it_is_read_in_bursts() {
        let (share, longest) = under(Peer::Near, 50e6);
        assert!(share > 0.8, "{share}");
        assert_eq!(longest, PAUSE_MAX_NEAR);
        assert!(under(Peer::Far, 50e6).1 <= PAUSE_MAX_FAR);
    }

    #[test]
    fn the_faster_it_comes_the_shorter_the_pause() {
        let mut pace = Pace::new(Peer::Near);
        assert_eq!(
            pace.after_read(10_000_000, Duration::from_millis(9)),
            Duration::ZERO,
            "there may be more"
        );
        let pause = pace.after_read(0, Duration::from_millis(10));
        assert_eq!(pause, Duration::from_millis(1));
    }

    #[test]
    fn a_unix_socket_is_always_read_at_once() {
        assert_eq!(under(Peer::UnixSocket, 50e6).1, Duration::ZERO);
    }

    #[test]
    fn when_the_load_ends_the_pauses_end() {
        let mut pace = Pace::new(Peer::Near);
        pace.after_read(1_000_000, Duration::from_millis(10));
        assert!(pace.after_read(200, Duration::from_millis(10)) > Duration::ZERO);
        assert_eq!(pace.after_read(200, Duration::from_millis(40)), Duration::ZERO);
        assert_eq!(pace.after_read(200, Duration::from_millis(41)), Duration::ZERO);
    }
}
