//! What this machine is, as far as it matters to the numbers.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::options::repository;

/// The date and the revision: what a run is known by.
pub(crate) fn moment() -> String {
    let date = said("date", &["-u", "+%F %H:%M"]);
    format!("{date}, {}", revision())
}

/// The machine and the versions of what is compared; `dir` is where the work will be done.
pub(crate) fn look(dir: &Path) -> Result<Vec<(String, String)>> {
    let facts = [
        ("Filesystem", filesystem(dir)?),
        ("Kernel", read("/proc/sys/kernel/osrelease")),
        ("CPU", cpu()),
        ("Cores used", cores()),
        ("Memory", memory()?),
        ("Page cache", dirty_limits()),
        ("Load before the first run", read("/proc/loadavg")),
        ("Revision", revision()),
        ("cp, sync", said("cp", &["--version"])),
    ];
    Ok(facts.map(|(name, value)| (name.to_owned(), value)).into())
}

fn revision() -> String {
    said("git", &["describe", "--always", "--dirty"])
}

/// Type and options of the filesystem that holds `dir`.
fn filesystem(dir: &Path) -> Result<String> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?, fields.next()?))
        })
        .filter(|(point, ..)| dir.starts_with(point))
        .max_by_key(|(point, ..)| point.len());
    let (_, kind, options) = mount.ok_or("the work directory is on no filesystem")?;
    Ok(format!("{kind} ({options})"))
}

fn cpu() -> String {
    let text = read("/proc/cpuinfo");
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(": "));
    name.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned())
}

fn cores() -> String {
    let all = read("/proc/cpuinfo")
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    format!("{} of {all}", crate::process::CORES.len())
}

fn memory() -> Result<String> {
    let total = crate::operation::number(&read("/proc/meminfo"), "MemTotal:")?;
    Ok(format!("{:.1} GiB", total as f64 / 1024.0 / 1024.0))
}

fn dirty_limits() -> String {
    let percent = |name| read(&format!("/proc/sys/vm/{name}"));
    format!(
        "dirty_background_ratio {} %, dirty_ratio {} %",
        percent("dirty_background_ratio"),
        percent("dirty_ratio")
    )
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim_end().to_owned()
}

/// The first line a program says.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(repository())
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let line = text
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned));
    line.unwrap_or_else(|| "unknown".to_owned())
}
