//! Redis: values of one KiB, asked for by keys of which half are never asked for.

use std::io::Write as _;

use super::store::{Protocol, Store};
use super::{App, Started, program};

const PORT: u16 = 6379;
const VALUES: u32 = 64 << 10;
const BYTES: usize = 1 << 10;

const PROTOCOL: Protocol = Protocol {
    set: |into, key, value| {
        let key = name(key);
        let _ = write!(into, "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), value.len());
        into.extend_from_slice(value);
        into.extend_from_slice(b"\r\n");
    },
    stored: "+OK",
    get: |into, key| {
        let key = name(key);
        let _ = write!(into, "*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
    },
    head: |_, bytes| format!("${bytes}"),
    tail: "\r\n",
};

fn name(key: u32) -> String {
    format!("key:{key:08}")
}

pub(super) const APP: App = App {
    name: "redis",
    about: "64 Ki values of 1 KiB, 192 requests a second over TCP, 16 at a time, a tenth of them SET; keys by a Gaussian curve, half of them never",
    start: |guest, cgroup, seed| {
        let options = ["--port", "6379", "--save", "", "--appendonly", "no", "--dir", "/tmp"];
        let process = program(guest, cgroup, "/usr/bin/redis-server", &options, Some(PORT))?;
        let client = Store::fill(&PROTOCOL, PORT, VALUES, BYTES, seed)?;
        Ok(Started { process, client: Box::new(client), portions: 60 })
    },
};
