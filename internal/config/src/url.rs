//! URLs with passwords in them.
//!
//! Nothing here understands a URL fully: hiding has to work on those that are wrong, too, and those are what
//! errors are about.

/// The URL without its password: for logs, errors and metrics.
///
/// `scheme://user:password@host/…?password=…` becomes `scheme://user:***@host/…?password=***`. The password is
/// taken to reach to the last `@`, so that one with an unescaped `@` or `/` is hidden whole; in doubt too much
/// is hidden. A text that is no URL is hidden altogether.
pub fn redact_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "(not a URL)".to_owned();
    };
    if scheme.is_empty() || !scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) {
        return "(not a URL)".to_owned();
    }
    let with_password = rest.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host)));
    let rest = match with_password {
        Some((user, host)) => format!("{user}:***@{}", without_parameters(host)),
        None => without_parameters(rest),
    };
    format!("{scheme}://{rest}")
}

/// Whether the URL has a password, before its host or among its parameters.
pub(crate) fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let before_host = authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':'));
    let parameters = rest.split_once('?').map_or("", |(_, parameters)| parameters);
    before_host.is_some_and(|(_, password)| !password.is_empty())
        || parameters
            .split('&')
            .any(|parameter| parameter.strip_prefix("password=").is_some_and(|value| !value.is_empty()))
}

/// `rest` with the values of secret parameters replaced.
fn without_parameters(rest: &str) -> String {
    let Some((before, parameters)) = rest.split_once('?') else {
        return rest.to_owned();
    };
    let parameters = parameters.split('&').map(|parameter| match parameter.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}=***"),
        _ => parameter.to_owned(),
    });
    format!("{before}?{}", parameters.collect::<Vec<_>>().join("&"))
}

/// `password`, `sslpassword`, `secret_access_key`, `X-Amz-Signature`, `access_token`, …
fn is_secret(parameter: &str) -> bool {
    let parameter = parameter.to_ascii_lowercase();
    // An escaped letter may hide the word.
    parameter.contains('%')
        || ["pass", "secret", "token", "signature", "credential"].iter().any(|word| parameter.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_replaced_and_the_rest_stays() {
        for (url, expected) in [
            (
                "postgres://user:pw@host:5432/db?sslmode=disable",
                "postgres://user:***@host:5432/db?sslmode=disable",
            ),
            ("postgres://user@host/db", "postgres://user@host/db"),
            ("postgres://user@/db?host=/run/pg", "postgres://user@/db?host=/run/pg"),
            ("postgres://host:5432/db", "postgres://host:5432/db"),
            ("postgres://:pw@host/db", "postgres://:***@host/db"),
            ("postgres://u:p@h1:1,h2:2/db", "postgres://u:***@h1:1,h2:2/db"),
            ("http://127.0.0.1:8123", "http://127.0.0.1:8123"),
            (
                "postgres://u@h/db?password=a&sslmode=disable&sslPassword=b",
                "postgres://u@h/db?password=***&sslmode=disable&sslPassword=***",
            ),
            ("postgres://h/db?pass%77ord=a", "postgres://h/db?pass%77ord=***"),
            ("file:///a/folder", "file:///a/folder"),
        ] {
            assert_eq!(redact_url(url), expected);
        }
    }

    #[test]
    fn a_password_with_unescaped_signs_is_hidden_whole() {
        for url in [
            "postgres://u:hun@ter2@host/db",
            "postgres://u:hun/ter2@host/db",
            "postgres://u:hun?ter2@host/db",
            "postgres://u:hun#ter2@host/db?password=hunter2",
            "u:hunter2@host/db",
            "host=h password=hunter2",
            "hunter2",
            "postgres://u@h/db?password=hun@ter2",
        ] {
            let shown = redact_url(url);
            assert!(!shown.contains("hun") && !shown.contains("ter2"), "{shown}");
        }
    }

    #[test]
    fn a_password_is_found_where_it_is() {
        for url in ["postgres://u:p@h/db", "postgres://u@h/db?sslmode=disable&password=x"] {
            assert!(has_password(url), "{url}");
        }
        for url in
            ["postgres://u@h:5432/db", "postgres://u:@h/db", "http://h:8123/a@b", "postgres://h/db?password="]
        {
            assert!(!has_password(url), "{url}");
        }
    }
}
