//! Metrics in Prometheus's text format, version 0.0.4. Names and labels are a promise.

use std::fmt::{self, Display, Write};
use std::time::{Duration, SystemTime};

use super::{Histogram, Metrics, Operation, OperationMetrics};
use crate::Usage;

impl Metrics {
    /// The counters, and what the store holds, as Prometheus reads it. Every name begins with `snapshotter_`.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// let text = snapshotter.metrics().to_prometheus(&snapshotter.usage().await?);
    /// assert!(text.contains("snapshotter_operations_total{operation=\"snapshot\",outcome=\"ok\"} 0\n"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    #[must_use]
    pub fn to_prometheus(&self, usage: &Usage) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut text, usage);
        text
    }

    fn write(&self, out: &mut String, usage: &Usage) -> fmt::Result {
        self.write_operations(out)?;
        for (name, help, value) in self.counters() {
            single(out, name, "counter", help, value)?;
        }
        let failed = u64::from(self.gc_fails());
        let help = "Whether the last collection failed.";
        single(out, "gc_failing", "gauge", help, failed)?;
        for (name, help, value) in gauges(usage) {
            single(out, name, "gauge", help, value)?;
        }
        self.write_times(out, usage)
    }

    fn gc_fails(&self) -> bool {
        let gc = self.operations.get(Operation::Gc as usize);
        self.gc_last_error.is_some() || gc.is_some_and(|gc| gc.last_failed > gc.last_succeeded)
    }

    /// What has never been has no time.
    fn write_times(&self, out: &mut String, usage: &Usage) -> fmt::Result {
        let help = "When a call last succeeded, in seconds since 1970.";
        head(out, "last_success_timestamp_seconds", "gauge", help)?;
        for of in &self.operations {
            if let Some(seconds) = of.last_succeeded.and_then(seconds) {
                let name = of.operation.as_str();
                writeln!(
                    out,
                    "snapshotter_last_success_timestamp_seconds{{operation=\"{name}\"}} {seconds}"
                )?;
            }
        }
        let help = "When a registry was last seen to have a snapshot, in seconds since 1970.";
        let seen = usage.last_seen_at.and_then(seconds);
        seen.map_or(Ok(()), |seconds| {
            let name = "registry_last_seen_timestamp_seconds";
            single(out, name, "gauge", help, seconds)
        })
    }

    fn counters(&self) -> [(&'static str, &'static str, u64); 12] {
        [
            (
                "captured_bytes_total",
                "Bytes of data in the files of snapshots that were taken.",
                self.captured_bytes,
            ),
            (
                "stored_bytes_total",
                "Bytes of data the store did not have before.",
                self.stored_bytes,
            ),
            (
                "restored_bytes_total",
                "Bytes of data in the files that were restored.",
                self.restored_bytes,
            ),
            (
                "fetched_bytes_total",
                "Bytes that were fetched, packed.",
                self.fetched_bytes,
            ),
            (
                "sent_bytes_total",
                "Bytes that were sent, packed.",
                self.sent_bytes,
            ),
            (
                "blob_hits_total",
                "Blobs that a snapshot or a pull needed and that were here.",
                self.blob_hits,
            ),
            (
                "blob_misses_total",
                "Blobs that were needed and not here.",
                self.blob_misses,
            ),
            (
                "evicted_snapshots_total",
                "Snapshots that garbage collection released.",
                self.evicted_snapshots,
            ),
            (
                "evicted_blobs_total",
                "Blobs that went with them.",
                self.evicted_blobs,
            ),
            (
                "evicted_bytes_total",
                "Bytes of data in these.",
                self.evicted_bytes,
            ),
            (
                "freed_bytes_total",
                "Bytes the filesystem got back for them.",
                self.freed_bytes,
            ),
            (
                "gc_shortfalls_total",
                "Collections that ended with less than was wanted.",
                self.gc_shortfalls,
            ),
        ]
    }

    fn write_operations(&self, out: &mut String) -> fmt::Result {
        head(out, "operations_total", "counter", "Calls, by outcome.")?;
        for of in &self.operations {
            let name = of.operation.as_str();
            let failed: u64 = of.failures.iter().map(|(_, count)| count).sum();
            for (outcome, count) in [("ok", of.succeeded), ("error", failed)] {
                writeln!(
                    out,
                    "snapshotter_operations_total{{operation=\"{name}\",outcome=\"{outcome}\"}} {count}"
                )?;
            }
        }
        head(
            out,
            "failures_total",
            "counter",
            "Calls that failed, by the error's kind.",
        )?;
        for of in &self.operations {
            let name = of.operation.as_str();
            for (kind, count) in &of.failures {
                writeln!(
                    out,
                    "snapshotter_failures_total{{operation=\"{name}\",kind=\"{kind}\"}} {count}"
                )?;
            }
        }
        head(
            out,
            "operation_seconds",
            "histogram",
            "How long calls took.",
        )?;
        self.operations.iter().try_for_each(|of| histogram(out, of))
    }
}

fn histogram(out: &mut String, of: &OperationMetrics) -> fmt::Result {
    let name = of.operation.as_str();
    let bounds = Histogram::BOUNDS.iter().map(Duration::as_secs_f64);
    let bounds = bounds.map(|bound| bound.to_string()).chain(["+Inf".into()]);
    let mut below = 0;
    for (bound, count) in bounds.zip(of.latency.counts) {
        below += count;
        writeln!(
            out,
            "snapshotter_operation_seconds_bucket{{operation=\"{name}\",le=\"{bound}\"}} {below}"
        )?;
    }
    let sum = of.latency.sum.as_secs_f64();
    writeln!(
        out,
        "snapshotter_operation_seconds_sum{{operation=\"{name}\"}} {sum}"
    )?;
    writeln!(
        out,
        "snapshotter_operation_seconds_count{{operation=\"{name}\"}} {below}"
    )
}

fn seconds(time: SystemTime) -> Option<f64> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.ok().map(|since| since.as_secs_f64())
}

fn gauges(usage: &Usage) -> [(&'static str, &'static str, u64); 12] {
    [
        ("snapshots", "Snapshots in the store.", usage.snapshots),
        (
            "unpublished_snapshots",
            "Those that are nowhere else, as far as is known.",
            usage.unpublished,
        ),
        ("pinned_snapshots", "Those that are pinned.", usage.pinned),
        (
            "damaged_objects",
            "Blobs and packs that are known to be damaged or missing.",
            usage.damaged,
        ),
        (
            "logical_bytes",
            "Sizes of all files of all snapshots.",
            usage.logical_bytes,
        ),
        ("blobs", "Blobs in the store.", usage.blobs),
        ("packs", "Packs in the store.", usage.packs),
        (
            "cache_entries",
            "Files to restore from.",
            usage.cache_entries,
        ),
        (
            "cache_bytes",
            "Bytes that the filesystem keeps for those.",
            usage.cache_bytes,
        ),
        (
            "store_bytes",
            "Bytes of data in the store.",
            usage.stored_bytes,
        ),
        (
            "filesystem_bytes",
            "Size of the filesystem the store is on.",
            usage.filesystem_bytes,
        ),
        (
            "filesystem_available_bytes",
            "What can still be written there.",
            usage.available_bytes,
        ),
    ]
}

fn single(
    out: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    value: impl Display,
) -> fmt::Result {
    head(out, name, kind, help)?;
    writeln!(out, "snapshotter_{name} {value}")
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP snapshotter_{name} {help}")?;
    writeln!(out, "# TYPE snapshotter_{name} {kind}")
}
