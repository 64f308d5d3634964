//! Servers for scripts, each until it is killed:
//!
//!     serve s3 BUCKET         says `endpoint URL`, `dir DIRECTORY` (an object is a file there), `key` and `secret`
//!     serve scheduler PORT    says `address HOST:PORT`, then what happens, a line each

use std::io::{self, Write};
use std::thread::{park, sleep};
use std::time::Duration;

use testkit::dragonfly::Scheduler;
use testkit::s3::{ACCESS_KEY, S3, SECRET_KEY};

fn main() -> io::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["s3", bucket] => s3(bucket),
        ["scheduler", port] => scheduler(port.parse().map_err(io::Error::other)?),
        _ => Err(io::Error::other("serve s3 BUCKET | serve scheduler PORT")),
    }
}

fn s3(bucket: &str) -> io::Result<()> {
    let s3 = S3::start(bucket);
    let (endpoint, dir) = (s3.endpoint(), s3.dir());
    say(&format!("endpoint {endpoint}\ndir {}", dir.display()))?;
    say(&format!("key {ACCESS_KEY}\nsecret {SECRET_KEY}"))?;
    loop {
        park();
    }
}

fn scheduler(port: u16) -> io::Result<()> {
    let scheduler = Scheduler::start(port);
    say(&format!("address {}", scheduler.address()))?;
    let mut said = 0;
    loop {
        let events = scheduler.events();
        for event in &events[said..] {
            say(event)?;
        }
        said = events.len();
        sleep(Duration::from_millis(50));
    }
}

fn say(lines: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{lines}")?;
    stdout.flush()
}
