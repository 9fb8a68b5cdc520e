//! The first process of a test guest; see `thermocline_tests::guest`.
#![forbid(unsafe_code)]
fn main() {
    thermocline_tests::guest::main();
}
