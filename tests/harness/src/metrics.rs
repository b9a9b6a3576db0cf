use std::collections::BTreeMap;

/// A scrape of `/metrics`.
///
/// Format: <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// By series as printed: `name` or `name{label="value",…}`.
    series: BTreeMap<String, f64>,
}

impl Metrics {
    /// Reads the text format.
    ///
    /// # Panics
    /// When a line is not of it.
    pub fn parse(text: &str) -> Self {
        let series = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                // Labels may hold spaces; what follows them holds none but before a timestamp.
                let end = line.rfind('}').map_or_else(|| line.find(' '), |brace| Some(brace + 1));
                let parsed = end.and_then(|end| {
                    let (name, value) = line.split_at(end);
                    Some((name.to_owned(), value.split_whitespace().next()?.parse().ok()?))
                });
                parsed.unwrap_or_else(|| panic!("not a line of /metrics: {line}"))
            })
            .collect();
        Self { series }
    }

    /// The series of that name whose labels hold all of `labels`, summed; none when there is no such series.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let mut values = self
            .series
            .iter()
            .filter(|(series, _)| {
                let (this, labels) = series.split_once('{').unwrap_or((series, ""));
                this == name && wanted.iter().all(|wanted| has_label(labels, wanted))
            })
            .map(|(_, value)| *value)
            .peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// [`Metrics::sum`] that has to be there.
    ///
    /// # Panics
    /// When there is no such series, with the names there are.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.sum(name, labels)
            .unwrap_or_else(|| panic!("no metric {name} {labels:?} among {:?}", self.series.keys()))
    }

    /// All series and their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.series.iter().map(|(series, value)| (series.as_str(), *value))
    }
}

/// Whether `labels` (`a="x",b="y"}`) has exactly `wanted` (`b="y"`).
fn has_label(labels: &str, wanted: &str) -> bool {
    labels.match_indices(wanted).any(|(at, _)| at == 0 || labels.as_bytes().get(at - 1) == Some(&b','))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
# HELP events_total Events.
# TYPE events_total counter
events_total{sink="a",table="public.x y"} 3
events_total{sink="b",table="public.x y"} 4
lag_bytes 1.5e3
age_seconds 2 1700000000000
up{other_sink="a"} NaN
"#;

    #[test]
    fn series_are_summed_over_the_labels_not_asked_for() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.sum("events_total", &[]), Some(7.0));
        assert_eq!(metrics.sum("events_total", &[("sink", "b"), ("table", "public.x y")]), Some(4.0));
        assert_eq!(metrics.sum("events_total", &[("sink", "c")]), None);
        assert_eq!(metrics.get("lag_bytes", &[]), 1500.0);
        assert_eq!(metrics.get("age_seconds", &[]), 2.0);
    }

    #[test]
    fn a_label_is_not_found_by_the_end_of_its_name() {
        assert_eq!(Metrics::parse(TEXT).sum("up", &[("sink", "a")]), None);
    }
}
