//! The fields of the agent's file, for docs/configuration.md: the page is compared here, and written where `UPDATE_EXPECT` is set.

use std::path::Path;

use expect_test::expect_file;

use super::file::{EngineFile, KernelDemotion, PromoterChoice, read};
use super::{DEFAULT_INTERVAL, DEFAULT_LISTEN, DEFAULT_STATE_FILE, MAX_INTERVAL, MIN_INTERVAL};
use api::WireDuration;

const BEGIN: &str = "<!-- By `cargo xtask codegen`: ";
const END: &str = "<!-- end -->\n";

struct Field {
    name: &'static str,
    default: String,
    range: String,
    meaning: &'static str,
}

fn field(name: &'static str, default: &str, range: &str, meaning: &'static str) -> Field {
    Field { name, default: default.to_owned(), range: range.to_owned(), meaning }
}

fn code(value: impl std::fmt::Display) -> String {
    format!("`{value}`")
}

/// The values of an enumeration, as a reader of the file lists them.
fn values(of: &str) -> String {
    let fault = read(&format!("{of}: Unknown\n")).err().map(|fault| fault.message).unwrap_or_default();
    let (_, values) = fault.rsplit_once("write one of ").expect("a list of values");
    values.split(", ").map(code).collect::<Vec<_>>().join(", ")
}

fn file() -> Vec<Field> {
    vec![
        field(
            "listen",
            &code(DEFAULT_LISTEN),
            "address and port, `off`",
            "where metrics and health are served",
        ),
        field(
            "stateFile",
            &code(DEFAULT_STATE_FILE),
            "absolute path",
            "where original values are kept until they are put back; on a file system that a reboot empties",
        ),
        field(
            "engine",
            &code(format_args!("{:?}", EngineFile::default())),
            &values("engine"),
            "what finds and moves pages, for the whole host; `thermocline-agent probe` says what there is. `Auto` never takes \
             `Pages`, which holds up the processes that it looks at ([engines.md](engines.md))",
        ),
        field(
            "promoter",
            &code(format_args!("{:?}", PromoterChoice::default())),
            &values("promoter"),
            "who brings hot memory back beside the engines `lru-gen` and `reclaim`, for the whole host: NUMA balancing, or DAMON \
             where it works ([engines.md](engines.md)). DAMON is new here, and not yet measured enough to be the default",
        ),
        field(
            "observeWithoutSlowTier",
            &code(false),
            "`true`, `false`",
            "whether cgroups are looked at on a host without slow memory: once a minute, by reading alone. Without it such a host \
             costs nothing",
        ),
        field(
            "kernelDemotion",
            &code(format_args!("{:?}", KernelDemotion::default())),
            &values("kernelDemotion"),
            "when the kernel's own demotion is switched on, for the whole host: while the agent demotes, for milliseconds at a time, \
             or as long as the agent runs",
        ),
        field(
            "interval",
            &code(WireDuration(DEFAULT_INTERVAL)),
            &format!("`{}` to `{}`", WireDuration(MIN_INTERVAL), WireDuration(MAX_INTERVAL)),
            "time between two rounds while something is to be done",
        ),
        field(
            "tiers",
            "as the host says",
            "at least two",
            "tiers, fast to slow, in place of the discovered ones",
        ),
        field("policies", "none", "", "which cgroups get which policy"),
    ]
}

fn tiers() -> Vec<Field> {
    vec![
        field(
            "name",
            "required",
            "`dram`, `pmem`, `cxl`, `hbm`, `slow`",
            "its name; its rank is its place in the list, from 0",
        ),
        field("nodes", "required", "numbers of nodes", "its memory nodes"),
    ]
}

fn policies() -> Vec<Field> {
    vec![
        field(
            "name",
            "required",
            "as an object's name in Kubernetes, each once",
            "its name in metrics and logs",
        ),
        field("cgroups", "required", "globs, at least one", "the cgroups it is for"),
        field("exclude", "none", "globs", "exceptions: for these the next policies are tried"),
        field(
            "inputs",
            "none",
            "",
            "what `memoryHigh.mode: Formula` computes with: `request` (an amount, default 0) and `limit` (an amount, required)",
        ),
        field("spec", "all defaults", "", "the policy, below"),
    ]
}

fn table(fields: &[Field]) -> String {
    let row = |field: &Field| {
        let Field { name, default, range, meaning } = field;
        format!("| `{name}` | {default} | {range} | {meaning} |\n").replace("|  |", "| |")
    };
    let rows: String = fields.iter().map(row).collect();
    format!("| field | default | range | meaning |\n|---|---|---|---|\n{rows}")
}

/// The page with what stands behind the mark of this name replaced.
fn with(page: &str, name: &str, fields: &[Field]) -> String {
    let mark = format!("{BEGIN}{name} -->\n");
    let (before, rest) = page.split_once(&mark).unwrap_or_else(|| panic!("the page has no {mark}"));
    let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("nothing ends {name}"));
    format!("{before}{mark}{}{END}{after}", table(fields))
}

#[test]
fn the_reference_of_the_file_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = std::fs::read_to_string(path).unwrap();
    let page = with(&page, "file", &file());
    let page = with(&page, "tiers", &tiers());
    let page = with(&page, "policies", &policies());
    expect_file!["../../../docs/configuration.md"].assert_eq(&page);
}

#[test]
fn the_reference_has_each_field_that_the_file_has_and_no_other() {
    let check = |text: &str, fields: &[Field]| {
        let fault = read(text).err().map(|fault| fault.message).unwrap_or_default();
        let (_, known) = fault.rsplit_once("there are ").unwrap_or_else(|| panic!("{fault}"));
        let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
        assert_eq!(names, known.split(", ").collect::<Vec<_>>());
    };
    check("xxxxxxxxxxxx: 1\n", &file());
    check("tiers:\n- xxxxxxxxxxxx: 1\n", &tiers());
    check("policies:\n- xxxxxxxxxxxx: 1\n", &policies());
}
