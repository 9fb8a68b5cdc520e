//! Memory of known heat; see `thermocline_tests::workload`.
#![forbid(unsafe_code)]
fn main() -> anyhow::Result<()> {
    thermocline_tests::workload::main(std::env::args().skip(1))
}
