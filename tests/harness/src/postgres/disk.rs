//! A disk that is full when a test says so: a library between the server and the C library refuses its writes.

use super::give_away;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/postgres/nospace.c");

#[derive(Debug)]
pub(super) struct Disk {
    library: PathBuf,
    /// The disk is full while this file is there.
    flag: PathBuf,
}

impl Disk {
    /// Builds the library in the server's folder.
    pub(super) fn new(folder: &Path) -> Self {
        let library = folder.join("nospace.so");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .args([SOURCE, "-ldl"])
            .output();
        let built = built.unwrap_or_else(|error| panic!("cc, which every build needs: {error}"));
        assert!(built.status.success(), "{SOURCE}: {}", String::from_utf8_lossy(&built.stderr));
        give_away(&library);
        Self { library, flag: folder.join("full") }
    }

    pub(super) fn put_under(&self, server: &mut Command) {
        server.env("LD_PRELOAD", &self.library).env("NOSPACE_FLAG", &self.flag);
    }

    pub(super) fn fill(&self) {
        fs::write(&self.flag, "").expect("make the flag");
        give_away(&self.flag);
    }

    pub(super) fn free(&self) {
        // It may not be full.
        let _ = fs::remove_file(&self.flag);
    }
}
