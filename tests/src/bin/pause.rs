//! What holds a pod's namespaces in the tests' image of that name: it waits until it is killed.
#![forbid(unsafe_code)]
fn main() {
    loop {
        std::thread::park();
    }
}
