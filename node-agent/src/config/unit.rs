//! Amounts that are valid and so small that a unit was forgotten, most likely.

use tiering::{Bytes, DramPolicy, MemoryHighPolicy, Policy, Share};

const PAGE: Bytes = Bytes(4096);
const LEAST_RATE: Bytes = Bytes::mib(1);

/// Fields below `spec`, and what a person should know of them.
pub(super) fn forgotten(policy: &Policy) -> Vec<(&'static [&'static str], String)> {
    let DramPolicy { floor, ceiling, .. } = policy.dram;
    let mut found: Vec<(&'static [&'static str], String)> = Vec::new();
    for (path, share) in [(&["dram", "floor"][..], floor), (&["dram", "ceiling"], ceiling)] {
        if let Some(Share::Bytes(bytes)) = share
            && small(bytes, PAGE)
        {
            let number = bytes.0;
            let meant =
                if number <= 100 { format!("{number}% or {number}Mi") } else { format!("{number}Mi") };
            found.push((
                path,
                format!("{} is {bytes}, less than a page: did you mean {meant}?", path.join(".")),
            ));
        }
    }
    for (path, rate) in [
        (&["demote", "maxRate"][..], policy.demote.max_rate),
        (&["promote", "maxRate"], policy.promote.max_rate),
    ] {
        if small(Bytes(rate.0), LEAST_RATE) {
            let words = format!("{} is {rate}, less than {LEAST_RATE}/s", path.join("."));
            // A number that is less than a page is a number without its unit; a greater one may be meant.
            let meant = if rate.0 < PAGE.0 {
                format!("did you mean {}Mi?", rate.0)
            } else {
                "is that meant?".to_owned()
            };
            found.push((path, format!("{words}: {meant}")));
        }
    }
    if let MemoryHighPolicy::Fixed(bytes) = policy.memory_high
        && small(bytes, LEAST_RATE)
    {
        found.push((
            &["memoryHigh", "value"],
            format!("memoryHigh.value is {bytes}, less than 1 MiB: did you mean {}Mi?", bytes.0),
        ));
    }
    found
}

fn small(bytes: Bytes, least: Bytes) -> bool {
    !bytes.is_zero() && bytes < least
}

#[cfg(test)]
mod tests {
    use tiering::ByteRate;

    use super::*;

    fn check(change: impl FnOnce(&mut Policy), says: &[&str]) {
        let mut policy = Policy::default();
        change(&mut policy);
        let found: Vec<String> = forgotten(&policy).into_iter().map(|(_, words)| words).collect();
        assert_eq!(found, says);
    }

    #[test]
    fn an_amount_without_its_unit_is_asked_about_and_any_other_is_not() {
        check(|_| {}, &[]);
        check(
            |policy| policy.dram.floor = Some(Share::Bytes(Bytes(25))),
            &["dram.floor is 25 B, less than a page: did you mean 25% or 25Mi?"],
        );
        check(
            |policy| policy.dram.ceiling = Some(Share::Bytes(Bytes(600))),
            &["dram.ceiling is 600 B, less than a page: did you mean 600Mi?"],
        );
        check(
            |policy| policy.demote.max_rate = ByteRate(200),
            &["demote.maxRate is 200 B/s, less than 1 MiB/s: did you mean 200Mi?"],
        );
        check(
            |policy| policy.promote.max_rate = ByteRate(512 << 10),
            &["promote.maxRate is 512 KiB/s, less than 1 MiB/s: is that meant?"],
        );
        check(
            |policy| policy.memory_high = MemoryHighPolicy::Fixed(Bytes(512)),
            &["memoryHigh.value is 512 B, less than 1 MiB: did you mean 512Mi?"],
        );
        check(
            |policy| {
                policy.dram.floor = Some(Share::Bytes(Bytes::mib(25)));
                policy.demote.max_rate = ByteRate::mib_per_s(1);
            },
            &[],
        );
    }
}
