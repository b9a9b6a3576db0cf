use std::fmt::Display;
use std::time::{Duration, Instant};

/// Short against everything waited for here, long against one look.
const PAUSE: Duration = Duration::from_millis(20);

/// Calls `attempt` until it is `Ok`, and gives what that holds.
///
/// `Err` says why not yet; the last one is in the message when `timeout` has passed.
///
/// # Panics
/// When `timeout` has passed.
#[track_caller]
pub fn eventually<T, E, F, A>(timeout: Duration, what: &str, mut attempt: A) -> impl Future<Output = T>
where
    E: Display,
    F: Future<Output = Result<T, E>>,
    A: FnMut() -> F,
{
    let caller = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        loop {
            match attempt().await {
                Ok(value) => return value,
                Err(why) if begun.elapsed() > timeout => give_up(what, begun, &why, caller),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// [`eventually`] for code outside a runtime.
///
/// # Panics
/// When `timeout` has passed.
#[track_caller]
pub fn eventually_blocking<T, E: Display>(
    timeout: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> T {
    let caller = std::panic::Location::caller();
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(why) if begun.elapsed() > timeout => give_up(what, begun, &why, caller),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn give_up(what: &str, begun: Instant, why: &dyn Display, caller: &std::panic::Location<'_>) -> ! {
    panic!("not within {:.1?}: {what}\n  last: {why}\n  waited for at {caller}", begun.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_gives_what_the_first_success_holds() {
        let mut calls = 0;
        let value = eventually(Duration::from_secs(5), "the third call", || {
            calls += 1;
            let answer = if calls == 3 { Ok(calls) } else { Err(format!("call {calls}")) };
            async move { answer }
        })
        .await;
        assert_eq!(value, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "last: still nothing")]
    async fn it_fails_with_the_last_reason() {
        eventually(Duration::from_millis(1), "never", || async { Err::<(), _>("still nothing") }).await;
    }
}
