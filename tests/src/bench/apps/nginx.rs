//! nginx, mostly idle: two workers ready for more connections than ever come.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result};

use super::keys::put_value;
use super::load::{Answered, Client};
use super::{App, Started, program};

const PORT: u16 = 8080;
const PAGE: usize = 16 << 10;
const PAGE_PATH: &str = "/run/www/page";
const CONFIG_PATH: &str = "/run/nginx.conf";
const CONFIG: &str =
    "daemon off; user root root; worker_processes 2; pid /run/nginx.pid; error_log stderr error;
events { worker_connections 65536; }
http { access_log off; server { listen 127.0.0.1:8080; root /run/www; } }
";

pub(super) const APP: App = App {
    name: "nginx",
    about: "two workers for 65536 connections each; 20 requests of a page of 16 KiB in 5 s, a connection each",
    start: |guest, cgroup, _| {
        let mut page = Vec::new();
        put_value(0, PAGE, &mut page);
        std::fs::create_dir_all("/run/www")?;
        std::fs::write(PAGE_PATH, &page)?;
        std::fs::write(CONFIG_PATH, CONFIG)?;
        for dir in ["/var/log/nginx", "/var/lib/nginx"] {
            std::fs::create_dir_all(dir)?;
        }
        let process = program(guest, cgroup, "/usr/sbin/nginx", &["-c", CONFIG_PATH], Some(PORT))?;
        Ok(Started { process, client: Box::new(Browser { page }), portions: 20 })
    },
};

struct Browser {
    page: Vec<u8>,
}

impl Browser {
    fn is_page(&self) -> Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", PORT)).context("nginx")?;
        stream.write_all(b"GET /page HTTP/1.0\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer.ends_with(&self.page) && answer.starts_with(b"HTTP/1.1 200 "))
    }
}

impl Client for Browser {
    fn portion(&mut self) -> Result<Answered> {
        Ok(Answered { requests: 1, wrong: u64::from(!self.is_page()?) })
    }

    fn verify(&mut self) -> Result<u64> {
        Ok(u64::from(!self.is_page()?))
    }
}
