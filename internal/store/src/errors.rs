//! From a store's error to what is to be done about it, without showing a secret.
//!
//! Source of the codes: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>.

use object_store::Error;
use replicator_sink::SinkError;

/// The longest text of a store that is passed on.
const TEXT_CHARS_MAX: usize = 500;

/// What is said of errors at one place.
#[derive(Debug)]
pub(crate) struct Explainer {
    place: String,
    /// Texts that must not be seen.
    secrets: Vec<String>,
}

impl Explainer {
    pub(crate) fn new(place: String, secrets: Vec<String>) -> Self {
        Self { place, secrets: secrets.into_iter().filter(|secret| !secret.is_empty()).collect() }
    }

    /// The place as the configuration has it.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// `doing` is what was tried, such as "writing x".
    pub(crate) fn explain(&self, doing: &str, error: &Error) -> SinkError {
        let text = whole_text(error);
        let reason = self.without_secrets(&reason(&text));
        let what = format!("{doing} at {}: {reason}", self.place);
        match remedy(error, &text) {
            Some(remedy) => SinkError::halt(format!("{what}. {remedy}")),
            None if text.contains("169.254.169.254") => SinkError::retry(format!(
                "{what}. No credentials are configured and this machine's metadata service gives none: \
                 set access_key_id and secret_access_key"
            )),
            None => SinkError::retry(what),
        }
    }

    fn without_secrets(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "(hidden)"))
    }
}

/// The error and its causes, each part once.
fn whole_text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

/// The server's own code and message if it gave any, else the text, shortened.
fn reason(text: &str) -> String {
    match (element(text, "Code"), element(text, "Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => text.chars().take(TEXT_CHARS_MAX).collect(),
    }
}

/// The text between `<name>` and `</name>`.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(&format!("<{name}>"))?;
    let (inside, _) = after.split_once(&format!("</{name}>"))?;
    Some(inside)
}

/// What a person has to do, where nothing else helps.
fn remedy(error: &Error, text: &str) -> Option<&'static str> {
    let code = element(text, "Code").unwrap_or_default();
    match code {
        "NoSuchBucket" => return Some("Create the bucket, or correct the sink's url"),
        "InvalidAccessKeyId" | "NotSignedUp" => return Some("Correct the sink's access_key_id"),
        "SignatureDoesNotMatch" => return Some("Correct the sink's secret_access_key"),
        "RequestTimeTooSkewed" => return Some("Set this machine's clock right"),
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
            return Some("Set the sink's region to the bucket's");
        }
        // A session's token is renewed by itself where it came from the environment.
        "ExpiredToken" | "RequestExpired" => return None,
        _ => {}
    }
    if text.contains("redirect without LOCATION") {
        return Some("Set the sink's region to the bucket's");
    }
    let denied = matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. });
    if denied || code == "AccessDenied" || text.contains("403 Forbidden") || text.contains("401 Unauthorized")
    {
        return Some("Allow these credentials to list, get and put objects there");
    }
    if text.contains("Permission denied (os error") {
        return Some("Let the replicator's user write to that folder, or correct the sink's url");
    }
    if text.contains("Read-only file system (os error") || text.contains("Not a directory (os error") {
        return Some("Correct the sink's url to a folder that can be written");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicator_sink::ErrorKind;

    fn error(body: &str) -> Error {
        Error::Generic { store: "S3", source: body.to_owned().into() }
    }

    fn explainer() -> Explainer {
        Explainer::new("s3://b/p".into(), vec!["KEYID".into(), "hush".into(), String::new()])
    }

    #[test]
    fn what_a_person_has_to_mend_stops_with_the_remedy() {
        for (code, remedy) in [
            ("NoSuchBucket", "Create the bucket"),
            ("InvalidAccessKeyId", "access_key_id"),
            ("SignatureDoesNotMatch", "secret_access_key"),
            ("AccessDenied", "Allow these credentials"),
            ("AuthorizationHeaderMalformed", "region"),
            ("RequestTimeTooSkewed", "clock"),
        ] {
            let body = format!("PUT failed: <Error><Code>{code}</Code><Message>no</Message></Error>");
            let explained = explainer().explain("writing x", &error(&body));
            assert_eq!(explained.kind(), ErrorKind::Halt, "{code}");
            let text = explained.to_string();
            assert!(
                text.contains(remedy) && text.contains("writing x at s3://b/p") && text.contains(code),
                "{text}"
            );
        }
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        for text in [
            "503 Slow Down",
            "<Code>ExpiredToken</Code>",
            "operation timed out",
            "No space left on device (os error 28)",
        ] {
            assert_eq!(explainer().explain("writing x", &error(text)).kind(), ErrorKind::Retry, "{text}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let body =
            "<Code>Weird</Code><Message>key KEYID hush</Message><AWSAccessKeyId>KEYID</AWSAccessKeyId>";
        for body in [body, "connect: KEYID:hush@host"] {
            let text = explainer().explain("writing x", &error(body)).to_string();
            assert!(!text.contains("KEYID") && !text.contains("hush"), "{text}");
        }
    }
}
