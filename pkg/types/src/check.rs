/// One line of `replicator check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckItem {
    /// What was looked at, in a few words.
    pub what: String,
    /// `Err` says what is wrong and what to do about it.
    pub result: Result<String, String>,
}

impl CheckItem {
    /// A check that passed, with what was found.
    pub fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.into(), result: Ok(found.into()) }
    }

    /// A check that failed, with the remedy.
    pub fn fail(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), result: Err(remedy.into()) }
    }
}
