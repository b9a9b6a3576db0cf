//! What each sink has noted of what was acknowledged, so that a slot that stands beyond it is not followed in silence.
//!
//! ```text
//!   watermark ─▶ a note in every sink ─▶ acknowledgement         start: the slot stands at or before the note?
//!   (durable in all of them)
//! ```
//!
//! # Invariants
//! - Nothing is acknowledged that not every sink has noted, and a note says nothing but what is durable in every sink.
//! - So a slot never stands beyond a sink's note, unless it was made anew, moved by somebody, or followed without that
//!   sink; or the sink was set back. In each case the sink lacks changes, and never gets them by itself.
//! - A slot is made only where no sink has anything of an earlier one of that name, or all is to be copied anew.

use replicator_copy::{knows_tables, want_again};
use replicator_sink::{ACKNOWLEDGED_NOTE as NOTE, ErrorKind, Sink, SinkError};
use replicator_source::Timelines;
use replicator_types::Lsn;
use slog::{Logger, debug, warn};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};

/// Instead of a position: whatever the slot's is, all tables are copied anew.
const ANEW: &str = "anew";

/// At least this long between two notes of a sink.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// How often the first note is tried: sinks that have it tell the next start that the others were left out.
const FIRST_TRIES_MAX: u32 = 30;

/// A pause after a note that could not be kept.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What a sink has noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Noted {
    /// Nothing yet.
    Nothing,
    /// Everything before it is in every sink, and not more than that was acknowledged. A position of that timeline.
    UpTo(Lsn, u32),
    /// All tables are copied anew.
    Anew,
}

impl Noted {
    fn of(sink: &dyn Sink, notes: &BTreeMap<String, String>) -> Result<Self, String> {
        match notes.get(NOTE).map(String::as_str) {
            None => Ok(Self::Nothing),
            Some(ANEW) => Ok(Self::Anew),
            Some(text) => Self::parse(text).ok_or_else(|| {
                format!(
                    "sink {}: its note {NOTE} can't be read ({text:?}): was it written by a later version? `replicator resync \
                     --all` writes another",
                    sink.name()
                )
            }),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (lsn, timeline) = text.split_once('@')?;
        Some(Self::UpTo(lsn.parse().ok()?, timeline.parse().ok()?))
    }
}

fn failed(sink: &dyn Sink, error: &SinkError) -> String {
    format!("sink {}: {error}", sink.name())
}

/// Whether a slot may be made: of prepared sinks, before it is.
///
/// # Errors
/// For a person: a sink has changes of an earlier slot of that name. Or the sink.
pub(crate) async fn verify_nothing_is_there(
    sink: &dyn Sink,
    slot: &str,
    reach: impl AsyncFnOnce() -> Result<Lsn, SinkError>,
) -> Result<(), String> {
    let notes = sink.notes().await.map_err(|error| failed(sink, &error))?;
    let has = match Noted::of(sink, &notes)? {
        Noted::Anew => return Ok(()),
        Noted::UpTo(lsn, _) => format!("everything before {lsn}"),
        Noted::Nothing if knows_tables(&notes) => "tables".to_owned(),
        Noted::Nothing => match reach().await.map_err(|error| failed(sink, &error))? {
            Lsn::ZERO => return Ok(()),
            reach => format!("changes up to {reach}"),
        },
    };
    Err(format!(
        "slot {slot} is not there, and sink {} has {has} of an earlier slot of that name: what was committed since can't be \
         read any more. Have every table copied anew (`replicator resync --all`), and start again",
        sink.name()
    ))
}

/// A slot as a run finds it.
pub(crate) struct Standing<'a> {
    /// Its name.
    pub(crate) slot: &'a str,
    /// Everything before it is acknowledged.
    pub(crate) confirmed: Lsn,
    /// The source's.
    pub(crate) timelines: &'a Timelines,
    /// Whether tables may be copied without anybody asking for it (`source.snapshot`).
    pub(crate) may_copy: bool,
}

/// Whether the sinks, which are prepared, have what the slot has passed over. One that was left out for a while is to have
/// its tables copied anew. Returns the sinks that have yet to [note](note_slot) where the slot stands.
///
/// # Errors
/// For a person: no sink has. Or a sink.
pub(crate) async fn verify_slot(
    sinks: &[Arc<dyn Sink>],
    standing: &Standing<'_>,
    tables_of: impl Fn(usize) -> Vec<(u32, String)>,
    logger: &Logger,
) -> Result<Vec<Arc<dyn Sink>>, String> {
    let Standing { slot, confirmed, timelines, may_copy } = *standing;
    let mut noted = Vec::new();
    for sink in sinks {
        let notes = sink.notes().await.map_err(|error| failed(&**sink, &error))?;
        noted.push((sink, Noted::of(&**sink, &notes)?, knows_tables(&notes)));
    }
    let is_noted_anywhere = noted.iter().any(|(_, noted, _)| matches!(noted, Noted::UpTo(..)));
    // A sink without a note, and with tables, is from before there were notes: it took part in no run of the others since.
    let has_up_to = |(_, noted, has_tables): &(_, Noted, bool)| match noted {
        Noted::UpTo(lsn, timeline) => Some(timelines.in_common(*timeline, *lsn)),
        Noted::Nothing if *has_tables && is_noted_anywhere => Some(Lsn::ZERO),
        Noted::Nothing | Noted::Anew => None,
    };
    let has_up_to: Vec<Option<Lsn>> = noted.iter().map(has_up_to).collect();
    let is_followed = has_up_to.iter().flatten().any(|lsn| confirmed <= *lsn);
    let mut unnoted = Vec::new();
    for (number, (sink, up_to)) in sinks.iter().zip(&has_up_to).enumerate() {
        let behind = match up_to {
            Some(lsn) if confirmed <= *lsn => continue,
            Some(lsn) => Some(*lsn),
            None => None,
        };
        unnoted.push(Arc::clone(sink));
        let Some(lsn) = behind else { continue };
        if !is_followed {
            return Err(format!(
                "slot {slot} stands at {confirmed}, beyond {lsn}, up to where sink {} has everything: it was made anew or moved \
                 by somebody, or the sink was set back; {}",
                sink.name(),
                replicator_source::lost_slot_remedy(slot)
            ));
        }
        if !may_copy {
            return Err(format!(
                "sink {} has everything up to {lsn}, and slot {slot} stands at {confirmed}: the sink was left out of the \
                 configuration for a while, or set back, and with source.snapshot = \"never\" nothing is copied by itself. \
                 `replicator resync --all` has every table copied anew",
                sink.name()
            ));
        }
        warn!(logger, "a sink lacks what the slot has passed, since it was left out of the configuration or set back: its tables \
            are copied anew"; "sink" => sink.name(), "has" => %lsn, "slot" => %confirmed);
        want_again(&**sink, &tables_of(number)).await.map_err(|error| failed(&**sink, &error))?;
    }
    Ok(unnoted)
}

/// Has these sinks note where the slot stands, before anything of it comes to them.
pub(crate) async fn note_slot(
    sinks: &[Arc<dyn Sink>],
    confirmed: Lsn,
    timelines: &Timelines,
) -> Result<(), String> {
    for sink in sinks {
        let mut tries = 0;
        while let Err(error) = put(&**sink, confirmed, timelines.current()).await {
            tries += 1;
            if error.kind() != ErrorKind::Retry || tries == FIRST_TRIES_MAX {
                return Err(failed(&**sink, &error));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
    Ok(())
}

/// Has a prepared sink take whatever slot there is, with these tables and all others that it knows of copied anew.
pub(crate) async fn begin_anew(sink: &dyn Sink, tables: &[(u32, String)]) -> Result<(), SinkError> {
    want_again(sink, tables).await?;
    sink.put_note(NOTE, Some(ANEW)).await
}

async fn put(sink: &dyn Sink, lsn: Lsn, timeline: u32) -> Result<(), SinkError> {
    sink.put_note(NOTE, Some(&format!("{lsn}@{timeline}"))).await
}

/// What may be acknowledged: it follows the watermark as the sinks note it.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    noted: watch::Receiver<Lsn>,
    is_last: watch::Sender<bool>,
    hurry: Hurry,
    timeline: Timeline,
    /// What a sink said that will not take the note: the run can't go on.
    failed: mpsc::UnboundedReceiver<String>,
}

/// Ends the pauses between notes, once: somebody waits for the acknowledgement.
pub(crate) type Hurry = Arc<Notify>;

/// The source's timeline at the moment.
pub(crate) type Timeline = Arc<AtomicU32>;

/// How far each sink is, and what that comes to.
struct Shared {
    each: Mutex<Vec<Lsn>>,
    all: watch::Sender<Lsn>,
}

impl Shared {
    fn set(&self, sink: usize, lsn: Lsn) {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_sink) = each.get_mut(sink) {
            *of_sink = lsn;
        }
        let all = each.iter().min().copied().unwrap_or(lsn);
        self.all.send_if_modified(|noted| {
            let moved = all > *noted;
            *noted = all.max(*noted);
            moved
        });
    }
}

impl Acknowledged {
    /// Begins to note the watermark in each sink, at most once in its interval.
    pub(crate) fn start(
        sinks: Vec<(Arc<dyn Sink>, Duration)>,
        watermark: &watch::Sender<Lsn>,
        timeline: u32,
        logger: &Logger,
    ) -> Self {
        let from = *watermark.borrow();
        let (all, noted) = watch::channel(from);
        let (is_last, finishing) = watch::channel(false);
        let (failing, failed) = mpsc::unbounded_channel();
        let (hurry, timeline) = (Hurry::default(), Arc::new(AtomicU32::new(timeline)));
        let shared = Arc::new(Shared { each: Mutex::new(vec![from; sinks.len()]), all });
        for (number, (sink, interval)) in sinks.into_iter().enumerate() {
            let noting = Noting {
                number,
                sink,
                interval: interval.max(INTERVAL_MIN),
                noted: from,
                hurry: Arc::clone(&hurry),
                timeline: Arc::clone(&timeline),
                failing: failing.clone(),
                shared: Arc::clone(&shared),
                logger: logger.clone(),
            };
            tokio::spawn(noting.run(watermark.subscribe(), finishing.clone()));
        }
        Self { noted, is_last, hurry, timeline, failed }
    }

    /// As a watermark.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Lsn> {
        self.noted.clone()
    }

    pub(crate) fn hurry(&self) -> Hurry {
        Arc::clone(&self.hurry)
    }

    pub(crate) fn timeline(&self) -> Timeline {
        Arc::clone(&self.timeline)
    }

    /// Waits until a sink will not take the note.
    pub(crate) async fn failed(&mut self) -> String {
        match self.failed.recv().await {
            Some(text) => text,
            None => std::future::pending().await,
        }
    }

    /// Waits until everything before `lsn` is noted, with no more pauses.
    ///
    /// # Errors
    /// A sink will not take the note.
    pub(crate) async fn reach(&mut self, lsn: Lsn) -> Result<(), String> {
        let _ = self.is_last.send(true);
        tokio::select! {
            _ = self.noted.wait_for(|noted| *noted >= lsn) => Ok(()),
            Some(text) = self.failed.recv() => Err(text),
        }
    }
}

/// One sink's.
struct Noting {
    number: usize,
    sink: Arc<dyn Sink>,
    interval: Duration,
    noted: Lsn,
    hurry: Hurry,
    timeline: Timeline,
    failing: mpsc::UnboundedSender<String>,
    shared: Arc<Shared>,
    logger: Logger,
}

impl Noting {
    async fn run(mut self, mut watermark: watch::Receiver<Lsn>, mut finishing: watch::Receiver<bool>) {
        let mut is_failing = false;
        loop {
            let Ok(lsn) = watermark.wait_for(|lsn| *lsn > self.noted).await.map(|lsn| *lsn) else { return };
            match put(&*self.sink, lsn, self.timeline.load(Ordering::Relaxed)).await {
                Ok(()) => {
                    self.noted = lsn;
                    is_failing = false;
                    self.shared.set(self.number, lsn);
                    tokio::select! {
                        () = tokio::time::sleep(self.interval) => {}
                        () = self.hurry.notified() => {}
                        _ = finishing.wait_for(|last| *last) => {}
                    }
                }
                Err(error) if error.kind() == ErrorKind::Retry => {
                    // Once: while a sink is away, its lanes say so too.
                    if is_failing {
                        debug!(self.logger, "the note of what is acknowledged could not be kept"; "sink" => self.sink.name(), "error" => %error);
                    } else {
                        warn!(self.logger, "the note of what is acknowledged could not be kept, so nothing is acknowledged until it can";
                            "sink" => self.sink.name(), "error" => %error);
                    }
                    is_failing = true;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => {
                    let _ = self.failing.send(failed(&*self.sink, &error));
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicator_sink::Blackhole;

    fn sinks(noted: &[Option<&str>]) -> Vec<Arc<dyn Sink>> {
        let sink = |(number, noted): (usize, &Option<&str>)| {
            let sink: Arc<dyn Sink> = Arc::new(Blackhole::new(format!("s{number}"), 1));
            (sink, noted.map(str::to_owned))
        };
        let sinks = noted.iter().enumerate().map(sink);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let noted = sinks.map(|(sink, noted)| {
            runtime.block_on(sink.put_note(NOTE, noted.as_deref())).expect("a note");
            sink
        });
        noted.collect()
    }

    fn verified(sinks: &[Arc<dyn Sink>], confirmed: u64) -> Result<Vec<Option<String>>, String> {
        verified_with(sinks, confirmed, true)
    }

    fn verified_with(
        sinks: &[Arc<dyn Sink>],
        confirmed: u64,
        may_copy: bool,
    ) -> Result<Vec<Option<String>>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let logger = Logger::root(slog::Discard, slog::o!());
            let tables = |_| vec![(7, "public.t".to_owned())];
            let timelines = Timelines::default();
            let standing = Standing { slot: "s", confirmed: Lsn(confirmed), timelines: &timelines, may_copy };
            let unnoted = verify_slot(sinks, &standing, tables, &logger).await?;
            note_slot(&unnoted, Lsn(confirmed), &timelines).await?;
            let mut wanted = Vec::new();
            for sink in sinks {
                let notes = sink.notes().await.expect("notes");
                assert_eq!(Noted::of(&**sink, &notes).map(|noted| noted != Noted::Anew), Ok(true));
                wanted.push(notes.get("copy/7").cloned());
            }
            Ok(wanted)
        })
    }

    #[test]
    fn a_slot_at_or_before_what_was_noted_is_followed_and_one_beyond_it_is_not() {
        for confirmed in [0x10, 0x1F, 0x20] {
            assert_eq!(verified(&sinks(&[Some("0/20@0"), None]), confirmed), Ok(vec![None, None]));
        }
        let refused = verified(&sinks(&[None, Some("0/20@0")]), 0x21).expect_err("a gap");
        assert!(refused.contains("0/21, beyond 0/20") && refused.contains("sink s1"), "{refused}");
        assert!(refused.contains("replicator resync --all"), "{refused}");
    }

    #[test]
    fn a_sink_that_was_left_out_for_a_while_is_filled_again_and_the_others_are_not() {
        let wanted = verified(&sinks(&[Some("0/40@0"), Some("0/20@0"), None]), 0x30).expect("one has all");
        assert_eq!(wanted.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
        let never = verified_with(&sinks(&[Some("0/40@0"), Some("0/20@0")]), 0x30, false);
        assert!(never.is_err_and(|text| text.contains("sink s1") && text.contains("resync --all")));
    }

    #[test]
    fn a_sink_with_tables_and_no_note_beside_one_that_has_it_was_left_out_too() {
        let with_table = |noted| {
            let sinks = sinks(noted);
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let done = r#"{"state":"done","table":"public.t","from":"0/10+3"}"#;
            runtime.block_on(sinks[0].put_note("copy/7", Some(done))).expect("a note");
            sinks
        };
        let wanted = verified(&with_table(&[None, Some("0/40@0")]), 0x30).expect("one has all");
        assert!(wanted[0].as_ref().is_some_and(|note| note.contains("wanted")), "{wanted:?}");
        // All of them are from before there were notes.
        let wanted = verified(&with_table(&[None, None]), 0x30).expect("nobody knows");
        assert!(wanted[0].as_ref().is_some_and(|note| note.contains("done")), "{wanted:?}");
    }

    #[test]
    fn what_was_noted_behind_the_end_of_an_earlier_timeline_says_nothing_of_this_one() {
        // The source's timeline is 0 here, and it came from no other.
        assert!(verified(&sinks(&[Some("0/40@7")]), 0x30).is_err());
    }

    #[test]
    fn whatever_the_slot_the_sinks_begin_anew_where_that_was_asked_for() {
        assert_eq!(verified(&sinks(&[Some(ANEW), Some(ANEW)]), 0x50), Ok(vec![None, None]));
        let half = verified(&sinks(&[Some(ANEW), Some("0/20@0")]), 0x50).expect_err("the other has a gap");
        assert!(half.contains("sink s1"), "{half}");
    }

    #[test]
    fn a_note_that_cannot_be_read_is_an_error_with_the_remedy() {
        let error = verified(&sinks(&[Some("later")]), 1).expect_err("no position");
        assert!(error.contains("s0") && error.contains("resync --all"), "{error}");
    }

    #[tokio::test]
    async fn a_slot_is_made_only_where_no_sink_has_anything() {
        let sink = Blackhole::new("s", 1);
        let verify = async |reach: u64| verify_nothing_is_there(&sink, "gone", async || Ok(Lsn(reach))).await;
        assert_eq!(verify(0).await, Ok(()));
        assert!(verify(5).await.is_err_and(|text| text.contains("changes up to 0/5")));
        want_again(&sink, &[(1, "public.t".to_owned())]).await.expect("a note");
        assert_eq!(verify(0).await, Ok(()), "a table that is to be copied is not one that is there");
        put(&sink, Lsn(3), 1).await.expect("a note");
        let refused = verify(0).await.expect_err("there was a slot");
        assert!(refused.contains("before 0/3") && refused.contains("resync --all"), "{refused}");
        begin_anew(&sink, &[]).await.expect("notes");
        assert_eq!(verify(5).await, Ok(()));
    }

    #[tokio::test]
    async fn what_is_acknowledged_is_what_every_sink_has_noted() {
        let (one, two) = (Arc::new(Blackhole::new("one", 1)), Arc::new(Blackhole::new("two", 1)));
        let sinks: Vec<(Arc<dyn Sink>, Duration)> =
            vec![(one.clone(), Duration::ZERO), (two.clone(), Duration::from_secs(3600))];
        let watermark = watch::Sender::new(Lsn(10));
        let logger = Logger::root(slog::Discard, slog::o!());
        let mut acknowledged = Acknowledged::start(sinks, &watermark, 3, &logger);
        let mut noted = acknowledged.subscribe();
        assert_eq!(*noted.borrow(), Lsn(10));
        // At once after a while of nothing, and then as slowly as the slowest.
        watermark.send_replace(Lsn(20));
        noted.changed().await.expect("a note");
        assert_eq!(*noted.borrow_and_update(), Lsn(20));
        watermark.send_replace(Lsn(30));
        while one.notes().await.expect("notes")[NOTE] != "0/1E@3" {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(*noted.borrow(), Lsn(20));
        assert_eq!(two.notes().await.expect("notes")[NOTE], "0/14@3");
        // Unless somebody waits for it, or it is the last.
        acknowledged.hurry().notify_waiters();
        noted.changed().await.expect("a note");
        assert_eq!(*noted.borrow_and_update(), Lsn(30));
        watermark.send_replace(Lsn(40));
        acknowledged.reach(Lsn(40)).await.expect("both take it");
        assert_eq!(*noted.borrow(), Lsn(40));
        assert_eq!(two.notes().await.expect("notes")[NOTE], "0/28@3");
    }
}
