//! The record of a day: what a crash, a full disk, another version or a person may have left.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use node_agent::args::ReportForm;
use node_agent::record::{RecordError, parse};
use node_agent::report::{Report, render};
use thermocline_fuzz::PATH;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse(Path::new(PATH), text) {
        Ok(samples) => {
            let Some(report) = Report::of(samples, None) else { return };
            for form in [ReportForm::Table, ReportForm::Markdown, ReportForm::Json, ReportForm::Csv] {
                render(&report, form, &jiff::tz::TimeZone::UTC).expect("a report has every form");
            }
        }
        Err(RecordError::Malformed { line, .. }) => assert!((1..=text.lines().count()).contains(&line)),
        Err(RecordError::Version { .. }) => {}
        Err(error) => panic!("a text is a record or not, and not {error}"),
    }
});
