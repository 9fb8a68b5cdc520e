use std::path::Path;

use super::*;
use crate::config::Config;
use crate::record::TierUse;

const MIB: u64 = 1 << 20;

/// A host of 4 GiB, half of which never changes: `/batch` has 1 GiB, of it 600 MiB cold for an hour, 100 MiB for two minutes.
fn day() -> Vec<Sample> {
    let tier = |name: &str, capacity, used| TierUse {
        name: name.to_owned(),
        capacity: capacity * MIB,
        used: used * MIB,
    };
    let mut cold = [700 * MIB; AGES.len()];
    cold[3..7].fill(600 * MIB);
    cold[7] = 0;
    let batch = Held {
        name: "/batch.slice/it's [1]".to_owned(),
        policy: "all".to_owned(),
        dram: 1024 * MIB,
        working_set: 200 * MIB,
        would_free: 700 * MIB,
        touched: 3 * MIB,
        cold,
        ..Held::default()
    };
    let web = Held { name: "/web".to_owned(), dram: 512 * MIB, cold: [0; AGES.len()], ..batch.clone() };
    let web = Held { would_free: 0, touched: 0, working_set: 512 * MIB, ..web };
    let sample = |i: u64| Sample {
        at: 1_800_000_000 + i * 300,
        tiers: vec![tier("dram", 4096, 2048 + i), tier("pmem", 8192, 0)],
        cgroups: vec![batch.clone(), web.clone()],
        would_free: 700 * MIB,
        ..Sample::default()
    };
    (0..288).map(sample).collect()
}

fn report() -> Report {
    Report::of(day(), Some("dram=4,slow=1.5".parse().unwrap())).unwrap()
}

#[test]
fn savings_follow_from_age_and_floor() {
    let report = report();
    let saved = |after, floor| {
        let found = report.savings.iter().find(|saving| saving.after == after && saving.floor == floor);
        found.unwrap().bytes.mean / MIB
    };
    assert_eq!(saved(120, Floor::WorkingSet), 700);
    assert_eq!(saved(3600, Floor::WorkingSet), 600);
    // Half of 1 GiB stays; of what is hot nothing could go anyway.
    assert_eq!(saved(120, Floor::Percent(50)), 512);
    assert_eq!(saved(14_400, Floor::WorkingSet), 0);
    assert_eq!((report.would_free.least, report.dram.mean / MIB), (700 * MIB, 1536));
    assert_eq!((report.tiers[0].used.least / MIB, report.tiers[0].used.most / MIB), (2048, 2335));
}

#[test]
fn what_is_on_slow_memory_counts_and_no_more_than_has_room() {
    let mut samples = day();
    for sample in &mut samples {
        (sample.cgroups[0].slow, sample.cgroups[0].enforced) = (100 * MIB, true);
        sample.tiers[1].used = sample.tiers[1].capacity - 50 * MIB;
    }
    let report = Report::of(samples.clone(), None).unwrap();
    assert_eq!(report.savings[0].bytes.mean, 150 * MIB);
    assert_eq!(report.freed.mean, 100 * MIB);
    assert_eq!((report.freed_touched.mean, report.would_touch.unwrap().mean), (3 * MIB, 0));
    let summary = tables::summary(&report, &TimeZone::UTC).join(" ");
    assert!(summary.contains("They have freed 100 MiB, of which 3 MiB a minute are touched."), "{summary}");
    for sample in &mut samples {
        sample.tiers.truncate(1);
    }
    let report = Report::of(samples, None).unwrap();
    assert!(!report.has_slow_tier());
    assert_eq!(report.savings[0].bytes.mean, 800 * MIB);
}

#[test]
fn the_policy_is_the_most_cautious_that_keeps_nine_tenths_and_is_one() {
    let report = report();
    let proposal = report.proposal.unwrap();
    // An hour keeps 600 of 700 MiB, which is too little.
    assert_eq!((proposal.after, proposal.floor, proposal.bytes / MIB), (120, Floor::Percent(25), 700));
    let config = Config::parse(&proposal.yaml, Path::new("pasted.yaml")).unwrap();
    let entry = config.policy_for("/batch.slice/it's [1]").expect(&proposal.yaml);
    assert_eq!(entry.policy.demote.after.as_secs(), 120);
    assert!(config.policy_for("/web").is_none());

    let mut samples = day();
    for sample in &mut samples {
        sample.cluster = true;
        sample.cgroups[0].name = "jobs/batch/main".to_owned();
    }
    let yaml = Report::of(samples, None).unwrap().proposal.unwrap().yaml;
    let spec = yaml.split("spec:\n").nth(1).unwrap();
    serde_saphyr::from_str::<api::PolicySpec>(spec).unwrap();
    assert!(yaml.contains("kubectl annotate pod -n jobs batch thermocline.io/policy=from-report"), "{yaml}");

    let mut idle = day();
    idle.iter_mut().flat_map(|sample| &mut sample.cgroups).for_each(|held| held.cold = [0; AGES.len()]);
    assert_eq!(Report::of(idle, None).unwrap().proposal, None);
}

#[test]
fn each_form_has_the_same_numbers() {
    let report = report();
    let zone = TimeZone::UTC;
    for form in [ReportForm::Table, ReportForm::Markdown, ReportForm::Html] {
        let text = render(&report, form, &zone).unwrap();
        for words in [
            "would free 700 MiB of 1.5 GiB (45 %), would touch 3 MiB a minute",
            "288 samples from 2027-01-15 08:00 UTC",
            "700 MiB = 1.71",
            "name: from-report",
            // Over which time each number is.
            "The policies in force, on average over 24h, of anonymous memory in DRAM: would free",
            "of the whole host, on average over 24h",
            "no floor (touched within 1m)",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
    let json: serde_json::Value =
        serde_json::from_str(&render(&report, ReportForm::Json, &zone).unwrap()).unwrap();
    assert_eq!(json["would_free"]["mean"], 700 * MIB);
    assert_eq!(json["samples"].as_array().unwrap().len(), 288);
    let csv = render(&report, ReportForm::Csv, &zone).unwrap();
    assert_eq!(csv.lines().count(), 1 + 2 * 288);
    assert!(
        csv.lines()
            .nth(1)
            .unwrap()
            .starts_with("2027-01-15T08:00:00Z,/batch.slice/it's [1],all,false,1073741824,0,")
    );
}

#[test]
fn the_page_loads_nothing_and_obeys_no_name() {
    let mut samples = day();
    samples[0].cgroups[0].name = "/<script>alert(1)</script>\u{1b}[2J".to_owned();
    samples[0].cgroups[0].policy = "<b>".to_owned();
    let page = html::page(&Report::of(samples, None).unwrap(), &TimeZone::UTC).unwrap();
    assert_eq!(page.matches("<svg").count(), 2);
    assert!(!page.contains("<script") && !page.contains("<b>") && !page.contains('\u{1b}'));
    for reference in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(reference), "{reference}");
    }
    // The name of a namespace is no address that anything is loaded from.
    assert_eq!(page.matches("http").count(), page.matches("http://www.w3.org/2000/svg").count());
}

#[test]
fn a_price_is_what_a_gib_costs() {
    let price: Price = "slow=1,dram=3.5".parse().unwrap();
    assert_eq!(price, Price { dram: 3.5, slow: 1.0 });
    assert!((price.saved(2 << 30) - 5.0).abs() < 1e-9);
    for wrong in [
        "3",
        "dram=3",
        "dram=x,slow=1",
        "dram=-1,slow=0",
        "dram=nan,slow=1",
        "dram=1,slow=1,slow=2",
        "dram=1,slow=2",
    ] {
        assert!(wrong.parse::<Price>().is_err(), "{wrong}");
    }
}

#[test]
fn a_time_without_samples_is_one_without_an_agent() {
    let mut samples = day();
    samples.drain(10..34);
    assert_eq!(Report::of(samples, None).unwrap().not_running, 25 * 300);
    assert!(Report::of(Vec::new(), None).is_none());
    let one = Report::of(day()[..1].to_vec(), None).unwrap();
    assert!(html::page(&one, &TimeZone::UTC).is_ok());
}
