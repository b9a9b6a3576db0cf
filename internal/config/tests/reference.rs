//! The configuration that `replicator config` prints.

mod support;

use replicator_config::{redact_url, reference};
use support::{THREE_SINKS, load_with};

/// `#key = value`, which is not `# words`.
fn is_commented_key(line: &str) -> bool {
    line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
}

#[test]
fn it_is_a_valid_configuration_with_the_defaults() {
    let printed = load_with(&reference(), &[]).unwrap();
    let lake = "[[sink]]\nname = \"lake\"\ntype = \"lake\"\nurl = \"s3://bucket/prefix\"\n";
    let minimal = load_with(&format!("{THREE_SINKS}\n{lake}"), &[]).unwrap();
    // Debug shows every field of every struct but secrets' content.
    let shown = |config: &replicator_config::Config| format!("{config:#?}");
    assert_eq!(shown(&printed), shown(&minimal));
}

#[test]
fn every_key_that_is_commented_out_can_be_put_in() {
    let reference = reference();
    let lines: Vec<_> = reference.lines().collect();
    let commented: Vec<_> = (0..lines.len()).filter(|&index| is_commented_key(lines[index])).collect();
    assert!(commented.len() > 8, "{commented:?}");
    for index in commented {
        let mut changed = lines.clone();
        changed[index] = &lines[index][1..];
        // Files and variables of the examples are not there; everything else must fit.
        match load_with(&changed.join("\n"), &[]) {
            Ok(_) => {}
            Err(error) => assert!(
                error.contains("cannot use `/run/secrets/")
                    || error.contains("needs the environment variable"),
                "{}: {error}",
                lines[index]
            ),
        }
    }
}

#[test]
fn every_key_is_explained_and_lines_are_of_readable_length() {
    let reference = reference();
    let lines: Vec<_> = reference.lines().collect();
    let mut sinks = 0;
    for (index, line) in lines.iter().enumerate() {
        assert!(line.chars().count() <= 120, "{line}");
        sinks += usize::from(*line == "[[sink]]");
        let is_key = is_commented_key(line)
            || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(['#', ' ']));
        let is_common_again = sinks > 1
            && ["name", "type", "tables", "shards", "batch"].iter().any(|key| line.starts_with(key));
        if is_key && !is_common_again {
            assert!(lines[index - 1].starts_with("# "), "{line} is not explained");
        }
    }
    assert_eq!(sinks, 4);
}

#[test]
fn its_urls_show_as_they_are() {
    for line in reference().lines().filter(|line| line.starts_with("url = ")) {
        let url = line.trim_start_matches("url = ").trim_matches('"');
        assert_eq!(redact_url(url), url);
    }
}
