//! Pauses between attempts: exponential, with jitter, so that many who failed together do not return together.

use std::time::Duration;

/// The next pause after a failure.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from about `min`, doubling, to about `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), next: min }
    }

    /// How long to wait before the next attempt: between half and all of the present step.
    pub fn pause(&mut self) -> Duration {
        self.pause_of(rand::random_range(0.5..=1.0))
    }

    /// The same, for who has chance of his own: `share` of the present step.
    pub fn pause_of(&mut self, share: f64) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.max);
        step.mul_f64(share.clamp(0.5, 1.0))
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again_after_success() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(min, max);
        for step_ms in [100, 200, 400, 800, 1000, 1000] {
            let step = Duration::from_millis(step_ms);
            let pause = backoff.pause();
            assert!(pause >= step / 2 && pause <= step, "{pause:?} of {step:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= min);
    }
}
