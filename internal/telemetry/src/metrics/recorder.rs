use super::names::*;
use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::time::Duration;

/// From a local insert (1 ms) to a sink that was away for minutes.
const LATENCY_BUCKETS_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Around the default `rows_max` of 10,000, finer below: a small batch is the sign of an idle stream.
const BATCH_SIZE_BUCKETS: &[f64] = &[1.0, 10.0, 100.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 2.5e4, 5e4, 1e5];

/// Around the default `bytes_max` of 8 MiB.
const BATCH_BYTES_BUCKETS: &[f64] = &[
    1024.0,
    16384.0,
    65536.0,
    262144.0,
    1048576.0,
    4194304.0,
    8388608.0,
    16777216.0,
    67108864.0,
    268435456.0,
];

/// Samples wait in the recorder until it is rendered or told to tidy up; without a scraper that would be
/// for ever.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Makes the process' recorder and describes every metric. Once a process, before any handle is made.
///
/// # Errors
/// When there is a recorder already, or no thread for its upkeep.
pub fn install() -> Result<PrometheusHandle, String> {
    let recorder = builder()?.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)
        .map_err(|_| "metrics: a recorder is already installed in this process".to_owned())?;
    describe_all();
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let upkeep = handle.clone();
    std::thread::Builder::new()
        .name("metrics".into())
        .spawn(move || {
            loop {
                std::thread::sleep(UPKEEP_INTERVAL);
                upkeep.run_upkeep();
            }
        })
        .map_err(|error| format!("metrics: cannot start the upkeep thread: {error}"))?;
    Ok(handle)
}

/// Tells the current recorder each metric's unit and description.
pub fn describe_all() {
    for metric in METRICS {
        match metric.kind {
            MetricKind::Counter => describe_counter!(metric.name, metric.unit, metric.help),
            MetricKind::Gauge => describe_gauge!(metric.name, metric.unit, metric.help),
            MetricKind::Histogram => describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}

fn builder() -> Result<PrometheusBuilder, String> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS.iter().filter(|metric| metric.kind == MetricKind::Histogram) {
        let buckets = match metric.name {
            BATCH_SIZE => BATCH_SIZE_BUCKETS,
            BATCH_BYTES => BATCH_BYTES_BUCKETS,
            _ => LATENCY_BUCKETS_SECONDS,
        };
        builder = builder
            .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
            .map_err(|error| format!("metrics: buckets of {}: {error}", metric.name))?;
    }
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use super::super::{CopyMetrics, Failure, PipelineMetrics, SinkMetrics, SourceMetrics};
    use super::*;

    fn rendered(count: impl FnOnce()) -> String {
        let recorder = builder().unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            describe_all();
            count();
        });
        recorder.handle().render()
    }

    #[test]
    fn the_handles_show_every_pipeline_metric_at_once_under_its_name_and_labels() {
        let text = rendered(|| {
            SourceMetrics::new();
            PipelineMetrics::new();
            let sink = SinkMetrics::new("analytics");
            sink.batch_size.record(1.0);
            sink.batch_bytes.record(1.0);
            sink.latency_seconds.record(1.0);
            sink.commit_to_durable_seconds.record(1.0);
            let copy = CopyMetrics::new();
            let (rows, bytes) = copy.of_table("public.orders");
            rows.increment(1);
            bytes.increment(1);
            copy.failures("public.orders").increment(1);
        });
        for metric in METRICS
            .iter()
            .filter(|metric| metric.name.starts_with("replicator_") && metric.name != BUILD_INFO)
        {
            let name = metric.name;
            assert!(
                text.contains(&format!("# HELP {name} {}", metric.help)),
                "{name} is not described:\n{text}"
            );
            let sample = text.lines().find(|line| {
                let rest = line.strip_prefix(name);
                rest.is_some_and(|rest| ["{", " ", "_bucket{"].iter().any(|next| rest.starts_with(next)))
            });
            let sample = sample.unwrap_or_else(|| panic!("{name} has no sample"));
            for label in metric.labels {
                assert!(sample.contains(&format!("{label}=\"")), "{sample} lacks {label}");
            }
        }
    }

    #[test]
    fn counts_arrive_under_their_own_sink_and_kind() {
        let text = rendered(|| {
            let (one, two) = (SinkMetrics::new("one"), SinkMetrics::new("two"));
            one.events.increment(7);
            two.failures(Failure::Halt).increment(2);
            PipelineMetrics::new().deletes.increment(3);
        });
        let has = |line: &str| assert!(text.lines().any(|found| found == line), "no {line} in:\n{text}");
        has("replicator_sink_events_total{sink=\"one\"} 7");
        has("replicator_sink_events_total{sink=\"two\"} 0");
        has("replicator_sink_errors_total{sink=\"two\",kind=\"halt\"} 2");
        has("replicator_sink_errors_total{sink=\"two\",kind=\"retry\"} 0");
        has("replicator_events_processed_total{op=\"delete\"} 3");
    }

    #[test]
    fn distributions_are_buckets_rather_than_quantiles() {
        let text = rendered(|| {
            let sink = SinkMetrics::new("one");
            sink.latency_seconds.record(0.2);
            sink.batch_size.record(10_000.0);
            sink.batch_bytes.record(100.0);
        });
        let has = |line: &str| assert!(text.lines().any(|found| found == line), "no {line} in:\n{text}");
        has("replicator_sink_latency_seconds_bucket{sink=\"one\",le=\"0.1\"} 0");
        has("replicator_sink_latency_seconds_bucket{sink=\"one\",le=\"0.25\"} 1");
        has("replicator_batch_size_bucket{sink=\"one\",le=\"10000\"} 1");
        has("replicator_batch_bytes_bucket{sink=\"one\",le=\"1024\"} 1");
        assert!(!text.contains("quantile"));
    }

    #[test]
    fn an_lsn_of_petabytes_is_exact() {
        let lsn: u64 = (1 << 52) + 1;
        let text = rendered(|| SourceMetrics::new().received_lsn.set(lsn as f64));
        assert!(text.contains(&format!("replicator_received_lsn {lsn}")), "{text}");
    }

    #[test]
    fn names_are_unique_and_say_their_unit() {
        for (index, metric) in METRICS.iter().enumerate() {
            assert!(
                METRICS[..index].iter().all(|other| other.name != metric.name),
                "{} is there twice",
                metric.name
            );
            if metric.kind == MetricKind::Counter {
                assert!(metric.name.ends_with("_total"), "{}", metric.name);
            }
            if metric.kind != MetricKind::Counter && metric.unit == metrics::Unit::Seconds {
                assert!(metric.name.contains("_seconds"), "{}", metric.name);
            }
        }
    }

    #[test]
    fn a_second_recorder_is_an_error() {
        let handle = install().unwrap();
        assert!(handle.render().contains("replicator_build_info{version="));
        assert!(install().is_err());
        crate::refresh_process();
        assert!(handle.render().contains("process_resident_memory_bytes"));
    }
}
