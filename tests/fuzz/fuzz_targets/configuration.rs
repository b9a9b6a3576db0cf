//! A configuration file.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Secrets in files are read, and any path may stand there.
    if text.contains("_file") || text.contains("_folder") {
        return;
    }
    if let Err(error) = replicator_config::load_str(text) {
        assert!(!error.to_string().is_empty());
    }
});
