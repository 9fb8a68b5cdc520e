//! The agent's configuration.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use node_agent::check::report;
use node_agent::config::{Config, Place};
use thermocline_fuzz::PATH;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let path = Path::new(PATH);
    match Config::parse(&text, path) {
        Ok(config) => {
            let cgroups = ["/system.slice/a.service".to_owned(), "/".to_owned()];
            assert!(report(&config, path, Some(&cgroups), &[]).starts_with(&format!("{PATH} is valid")));
            for cgroup in cgroups {
                assert!(config.policy_for(&cgroup).is_none_or(|entry| entry.matches(&cgroup)));
            }
            for warning in &config.warnings {
                warning.place.into_iter().for_each(|place| in_text(place, &text));
            }
            // A configuration that is written twice over is read the same.
            let again = Config::parse(&text, path).expect("valid a moment ago");
            assert_eq!(again.policies.len(), config.policies.len());
        }
        Err(error) => {
            assert!(error.to_string().starts_with(PATH) && !error.faults.is_empty());
            for fault in &error.faults {
                assert!(!fault.message.is_empty());
                fault.place.into_iter().for_each(|place| in_text(place, &text));
            }
        }
    }
});

/// A place is where an editor would find it; one past the end is where something is missing.
fn in_text(place: Place, text: &str) {
    // As YAML counts lines, which is what the reader of an error does, too, but for a carriage return alone.
    let lines: Vec<_> = text.replace("\r\n", "\n").split(['\n', '\r']).map(str::to_owned).collect();
    assert!(place.line >= 1 && place.line <= lines.len() + 1, "line {} of {}", place.line, lines.len());
    let length = lines.get(place.line - 1).map_or(0, |line| line.chars().count());
    assert!(place.column >= 1 && place.column <= length + 1, "column {} of {length}", place.column);
}
