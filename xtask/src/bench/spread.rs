//! A number of several runs.

/// Its mean, and how far the runs differ.
pub(super) struct Spread {
    pub(super) mean: f64,
    pub(super) least: f64,
    pub(super) most: f64,
    pub(super) runs: usize,
}

impl Spread {
    /// `None` of no values.
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.collect();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (!values.is_empty()).then_some(Self { mean, least, most, runs: values.len() })
    }

    /// The mean, and least to most where they differ.
    pub(super) fn text(&self) -> String {
        if self.runs > 1 && number(self.least) != number(self.most) {
            format!("{} ({} to {})", number(self.mean), number(self.least), number(self.most))
        } else {
            number(self.mean)
        }
    }
}

/// Three digits, or all before the point.
pub(super) fn number(value: f64) -> String {
    if value.is_infinite() {
        return "never".to_owned();
    }
    let digits = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else if value.abs() >= 1.0 {
        2
    } else {
        3
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let texts = [0.0, 0.1234, 1.5, 12.345, 1234.5, 100.0, f64::INFINITY].map(number);
        assert_eq!(texts, ["0", "0.123", "1.5", "12.3", "1234", "100", "never"]);
    }

    #[test]
    fn runs_that_differ_say_by_how_much() {
        let text = |values: &[f64]| Spread::of(values.iter().copied()).map(|spread| spread.text());
        assert_eq!(text(&[1.0, 2.0, 3.0]).as_deref(), Some("2 (1 to 3)"));
        assert_eq!(text(&[2.0, 2.0001]).as_deref(), Some("2"));
        assert_eq!(text(&[]), None);
    }
}
