//! What calls answer, and whether there is room in it for warnings. What a verb answers has to be here: so a report cannot
//! leave out what its call gathered.

use crate::activity::Report;
use crate::convert::ConvertReport;
use crate::diagnose::Diagnosis;
use crate::gc::{GcReport, UsageDetails};
use crate::inspect::{
    ChangedFile, RemoveReport, SnapshotDetails, SnapshotSummary, TagReport, Usage,
};
use crate::metrics::Metrics;
use crate::opened::Opened;
use crate::prune::PruneReport;
use crate::read::DirectoryDetails;
use crate::rebuild::RebuildReport;
#[cfg(feature = "registry")]
use crate::remote::{
    CollectReport, CopyReport, PullReport, PushReport, RemoteDetails, RemoteDiagnosis,
    RemoteSnapshot, RemoteSummaries,
};
use crate::restore::{RestorePlan, RestoreReport};
use crate::snapshot::{SnapshotPlan, SnapshotReport};
use crate::store::Holder;
use crate::verify::VerifyReport;
#[cfg(feature = "registry")]
use crate::words::digest::Sha256;
use crate::words::progress::Warning;

macro_rules! have_warnings {
    ($($report:ty),*) => {$(
        impl Report for $report {
            fn carry(&mut self, warnings: Vec<Warning>) {
                self.warnings = warnings;
            }
        }
    )*};
}

/// What is only looked up: nothing that is worth a warning is done on the way.
macro_rules! have_none {
    ($($answer:ty),*) => {$(
        impl Report for $answer {
            fn carry(&mut self, warnings: Vec<Warning>) {
                debug_assert!(warnings.is_empty(), "nobody is told {warnings:?}");
            }
        }
    )*};
}

impl Report for ConvertReport {
    fn carry(&mut self, warnings: Vec<Warning>) {
        self.snapshot.carry(warnings);
    }
}

have_warnings!(
    SnapshotReport,
    SnapshotPlan,
    RestoreReport,
    RestorePlan,
    RemoveReport,
    VerifyReport,
    GcReport,
    PruneReport,
    RebuildReport,
    TagReport,
    DirectoryDetails,
    Opened
);
#[cfg(feature = "registry")]
have_warnings!(
    CollectReport,
    CopyReport,
    PushReport,
    PullReport,
    RemoteSummaries
);

have_none!(
    Vec<ChangedFile>,
    Vec<SnapshotSummary>,
    Vec<Holder>,
    Vec<u8>,
    SnapshotSummary,
    SnapshotDetails,
    Diagnosis,
    Usage,
    UsageDetails,
    Metrics
);
#[cfg(feature = "registry")]
have_none!(
    Vec<RemoteSnapshot>,
    RemoteDetails,
    Option<RemoteDiagnosis>,
    Sha256
);
