//! memcached: values of two KiB, asked for as those of Redis.

use std::io::Write as _;

use super::store::{Protocol, Store};
use super::{App, Started, program};

const PORT: u16 = 11211;
const VALUES: u32 = 32 << 10;
const BYTES: usize = 2 << 10;

const PROTOCOL: Protocol = Protocol {
    set: |into, key, value| {
        let _ = write!(into, "set {} 0 0 {}\r\n", name(key), value.len());
        into.extend_from_slice(value);
        into.extend_from_slice(b"\r\n");
    },
    stored: "STORED",
    get: |into, key| {
        let _ = write!(into, "get {}\r\n", name(key));
    },
    head: |key, bytes| format!("VALUE {} 0 {bytes}", name(key)),
    tail: "\r\nEND\r\n",
};

fn name(key: u32) -> String {
    format!("key:{key:08}")
}

pub(super) const APP: App = App {
    name: "memcached",
    about: "32 Ki values of 2 KiB, 192 requests a second over TCP, 16 at a time, a tenth of them set; keys as for redis",
    start: |guest, cgroup, seed| {
        let options = ["-u", "root", "-m", "512", "-t", "2", "-l", "127.0.0.1", "-p", "11211"];
        let process = program(guest, cgroup, "/usr/bin/memcached", &options, Some(PORT))?;
        // Not the keys of Redis.
        let client = Store::fill(&PROTOCOL, PORT, VALUES, BYTES, seed ^ 1)?;
        Ok(Started { process, client: Box::new(client), portions: 60 })
    },
};
