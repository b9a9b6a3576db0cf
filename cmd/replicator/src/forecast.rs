//! When a slot that falls behind is lost, at the pace of the last minutes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What the pace is taken over.
const WINDOW: Duration = Duration::from_secs(120);

/// WAL that the server kept for the slot, now and then.
#[derive(Debug, Default)]
pub(crate) struct Forecast(VecDeque<(Instant, u64)>);

impl Forecast {
    /// Notes what is kept at that moment. Seconds until `left` more bytes are written, at the pace since the window's
    /// begin; infinite where there is no limit, or where no more is kept than before.
    pub(crate) fn seconds(&mut self, now: Instant, kept_bytes: u64, left_bytes: Option<u64>) -> f64 {
        while self.0.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.0.pop_front();
        }
        self.0.push_back((now, kept_bytes));
        let (Some((at, before)), Some(left)) = (self.0.front(), left_bytes) else { return f64::INFINITY };
        let grown = kept_bytes.saturating_sub(*before) as f64;
        if left == 0 {
            return 0.0;
        }
        let pace = grown / now.duration_since(*at).as_secs_f64();
        if pace > 0.0 { left as f64 / pace } else { f64::INFINITY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_is_left_behind_reaches_its_limit_at_the_pace_of_the_last_minutes() {
        let (begun, mut forecast) = (Instant::now(), Forecast::default());
        let mut at =
            |seconds: u64, kept, left| forecast.seconds(begun + Duration::from_secs(seconds), kept, left);
        assert_eq!(at(0, 1000, Some(9000)), f64::INFINITY, "no pace yet");
        assert_eq!(at(60, 7000, Some(3000)), 30.0);
        assert_eq!(at(60, 7000, None), f64::INFINITY, "no limit");
        assert_eq!(at(120, 1000, Some(9000)), f64::INFINITY, "it has caught up");
        // What was before the window does not count: from 60 s on it was 2,000 in 120 s.
        assert!((at(180, 9000, Some(1000)) - 60.0).abs() < 0.001);
        assert_eq!(at(400, 9000, Some(0)), 0.0, "whether it grows or not");
    }
}
