//! `~/.pgpass`: <https://www.postgresql.org/docs/current/libpq-pgpass.html>.

use crate::Host;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The password of the first line that matches. A file that others can read is passed over, as libpq does.
pub(crate) fn look_up(path: &Path, host: &Host, database: &str, user: &str) -> Option<String> {
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return None;
    }
    find(&std::fs::read_to_string(path).ok()?, host, database, user)
}

pub(crate) fn find(text: &str, host: &Host, database: &str, user: &str) -> Option<String> {
    let (name, port) = match host {
        Host::Tcp { name, port } => (name.clone(), port),
        Host::Unix { directory, port } => (directory.to_string_lossy().into_owned(), port),
    };
    let wanted = [name.as_str(), &port.to_string(), database, user].map(str::to_owned);
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = fields(line).into_iter();
        let matches = wanted.iter().enumerate().all(|(index, wanted)| {
            fields.next().is_some_and(|field| {
                let local = index == 0 && field == "localhost" && matches!(host, Host::Unix { .. });
                field == "*" || field == *wanted || local
            })
        });
        if matches { fields.next() } else { None }
    })
}

/// The fields between colons; a backslash takes the next character as it is.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let literal = match c {
            ':' => {
                fields.push(String::new());
                continue;
            }
            '\\' => chars.next(),
            c => Some(c),
        };
        fields.last_mut().into_iter().for_each(|field| field.extend(literal));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_matches_gives_the_password() {
        let host = Host::Tcp { name: "db.example".into(), port: 5433 };
        let text = "# comment\n*:5432:*:*:no\ndb.example:*:shop:repl:a\\:b\\\\c\n*:*:*:*:late\n";
        assert_eq!(find(text, &host, "shop", "repl").as_deref(), Some("a:b\\c"));
        assert_eq!(find(text, &host, "other", "repl").as_deref(), Some("late"));
        assert_eq!(find("localhost:*:*:*:x", &host, "shop", "repl"), None);
        let local = Host::Unix { directory: "/tmp".into(), port: 1 };
        assert_eq!(find("localhost:*:*:*:x", &local, "shop", "repl").as_deref(), Some("x"));
    }

    #[test]
    fn a_file_that_others_can_read_is_passed_over() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "*:*:*:*:secret\n").unwrap();
        let host = Host::Tcp { name: "h".into(), port: 1 };
        let with_mode = |mode| {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            look_up(file.path(), &host, "d", "u")
        };
        assert_eq!(with_mode(0o600).as_deref(), Some("secret"));
        assert_eq!(with_mode(0o644), None);
    }
}
