//! A client of stores of keys and values: Redis and memcached by their own protocols, over TCP, sixteen requests at a time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result, ensure};

use super::keys::{Keys, put_value};
use super::load::{Answered, Client};

/// Requests that are sent together.
const PIPELINED: usize = 16;
/// While everything is stored or looked at.
const PIPELINED_ALL: u32 = 128;
/// One request in so many stores.
const STORES: u32 = 10;

/// Words of a protocol.
pub(super) struct Protocol {
    /// Writes a request that stores a value.
    pub(super) set: fn(into: &mut Vec<u8>, key: u32, value: &[u8]),
    /// The answer to that, without its end.
    pub(super) stored: &'static str,
    /// Writes a request for a value.
    pub(super) get: fn(into: &mut Vec<u8>, key: u32),
    /// The line before a value.
    pub(super) head: fn(key: u32, bytes: usize) -> String,
    /// What follows a value.
    pub(super) tail: &'static str,
}

/// A connection, and what was stored through it.
pub(super) struct Store {
    protocol: &'static Protocol,
    stream: BufReader<TcpStream>,
    keys: Keys,
    count: u32,
    bytes: usize,
    out: Vec<u8>,
    value: Vec<u8>,
    answer: Vec<u8>,
}

impl Store {
    /// Stores so many values of so many bytes.
    pub(super) fn fill(
        protocol: &'static Protocol,
        port: u16,
        count: u32,
        bytes: usize,
        seed: u64,
    ) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).with_context(|| format!("port {port}"))?;
        stream.set_nodelay(true)?;
        let mut store = Self {
            protocol,
            stream: BufReader::with_capacity(64 << 10, stream),
            keys: Keys::new(count, seed),
            count,
            bytes,
            out: Vec::new(),
            value: Vec::new(),
            answer: Vec::new(),
        };
        let wrong = store.all(true)?;
        ensure!(wrong == 0, "{wrong} values could not be stored");
        Ok(store)
    }

    /// Stores or compares all values; returns how many went wrong.
    fn all(&mut self, stores: bool) -> Result<u64> {
        let mut wrong = 0;
        let mut key = 0;
        while key < self.count {
            let portion: Vec<(u32, bool)> =
                (key..self.count.min(key + PIPELINED_ALL)).map(|key| (key, stores)).collect();
            wrong += self.ask(&portion)?;
            key += PIPELINED_ALL;
        }
        Ok(wrong)
    }

    /// Sends requests, each for a key, to store (`true`) or to get, and compares the answers; returns how many are wrong.
    fn ask(&mut self, requests: &[(u32, bool)]) -> Result<u64> {
        self.out.clear();
        for &(key, stores) in requests {
            if stores {
                self.value.clear();
                put_value(key, self.bytes, &mut self.value);
                (self.protocol.set)(&mut self.out, key, &self.value);
            } else {
                (self.protocol.get)(&mut self.out, key);
            }
        }
        self.stream.get_mut().write_all(&self.out)?;
        let mut wrong = 0;
        for &(key, stores) in requests {
            let right = if stores { self.line()? == self.protocol.stored } else { self.is_value_of(key)? };
            wrong += u64::from(!right);
        }
        Ok(wrong)
    }

    fn is_value_of(&mut self, key: u32) -> Result<bool> {
        // Whatever else it is has no value behind it.
        if self.line()? != (self.protocol.head)(key, self.bytes) {
            return Ok(false);
        }
        self.answer.resize(self.bytes + self.protocol.tail.len(), 0);
        self.stream.read_exact(&mut self.answer)?;
        self.value.clear();
        put_value(key, self.bytes, &mut self.value);
        self.value.extend_from_slice(self.protocol.tail.as_bytes());
        Ok(self.answer == self.value)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "the connection was closed");
        Ok(line.trim_end().to_owned())
    }
}

impl Client for Store {
    fn portion(&mut self) -> Result<Answered> {
        let requests: Vec<(u32, bool)> =
            (0..PIPELINED).map(|_| (self.keys.next(), self.keys.one_in(STORES))).collect();
        let wrong = self.ask(&requests)?;
        Ok(Answered { requests: requests.len() as u64, wrong })
    }

    fn shift(&mut self) {
        self.keys.shift();
    }

    fn verify(&mut self) -> Result<u64> {
        self.all(false)
    }
}
