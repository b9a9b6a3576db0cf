//! Connection URLs, password files, certificates.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replicator_pgconn::{ConnectOptions, fuzzing};

fuzz_target!(|bytes: &[u8]| {
    fuzzing::certificate(bytes);
    let text = String::from_utf8_lossy(bytes);
    let (url, passfile) = text.split_once('\n').unwrap_or((&text, &text));
    match ConnectOptions::parse(url, Some("hush-hush")) {
        Ok(options) => {
            for host in options.hosts() {
                let _ = fuzzing::passfile(passfile, host);
            }
        }
        Err(error) => {
            let error = error.to_string();
            assert!(!error.is_empty() && !error.contains("hush-hush"), "{error}");
        }
    }
});
