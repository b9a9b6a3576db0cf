//! The benchmark runs through, with all loads and readers, as small as it can be.

use std::process::Command;

/// Runs the given parts; what arrived is compared by the benchmark itself. Gives the figures.
fn smoke(parts: &str) -> serde_json::Value {
    let file = replicator_harness::scratch_dir("bench-smoke").join("figures.json");
    let output = Command::new(env!("CARGO_BIN_EXE_replicator-bench"))
        .args(["--smoke", "--only", parts, "--json"])
        .arg(&file)
        .env("REPLICATOR_BIN", replicator_harness::replicator_binary())
        .output()
        .expect("run the benchmark");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&std::fs::read(&file).expect("read the figures")).expect("figures are JSON")
}

#[test]
fn every_load_is_drained_by_every_reader_and_arrives() {
    let figures = smoke("W1,W2,W3,W4,W5");
    for load in ["W1", "W2", "W3", "W4", "W5"] {
        let readers = figures[load]["readers"].as_array().unwrap();
        assert_eq!(readers.len(), 10, "{load}");
        assert!(readers.iter().all(|reader| reader["per_second"].as_f64().unwrap() > 0.0), "{load}");
        let of_replicator = readers.iter().filter(|reader| !reader["cpu_us_each"].is_null()).count();
        assert_eq!(of_replicator, 6, "{load}");
    }
}

#[test]
fn rows_are_copied_in_each_way_and_latency_and_memory_are_told() {
    let figures = smoke("copy,latency,memory");
    assert_eq!(figures["copy"]["readers"].as_array().unwrap().len(), 4);
    let latencies = figures["latency"].as_array().unwrap();
    assert_eq!(latencies.len(), 8);
    assert!(latencies.iter().all(|figure| figure["p99_ms"].as_f64().unwrap() > 0.0));
    assert!(figures["memory"][0]["peak_rss_bytes"].as_u64().unwrap() > 0);
}
