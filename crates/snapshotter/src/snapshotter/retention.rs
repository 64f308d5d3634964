//! What a handle does with names: which versions of one stay, and one more name for a snapshot.

use super::Snapshotter;
use crate::config::Durability;
use crate::inspect::{self, TagReport};
use crate::metrics::Operation;
use crate::prune::{self, PruneReport, PruneRequest};
use crate::words::error::Result;
use crate::words::reference::Reference;

impl Snapshotter {
    /// Removes the versions of each name that its rule does not keep, by restic's rules of `forget`: see
    /// [`Retention`](crate::Retention). One version of a name stays, and what is pinned, and unless a rule says otherwise what is
    /// nowhere else: the configured registry is asked about each, and what it does not confirm stays. A snapshot that others
    /// were made from may go: they need it no more.
    ///
    /// A call that fails or is cancelled has removed what it has removed, the oldest first.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("vm"))?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// # for version in ["v1", "v2", "v3"] {
    /// #     snapshotter.snapshot(&snapshotter::SnapshotRequest::new("vm", version, dir.path().join("vm"))).await?;
    /// # }
    /// use snapshotter::{PruneRequest, PruneRule, Retention};
    ///
    /// let mut keep = Retention::default();
    /// keep.last = 2;
    /// let rule = PruneRule::new(["vm"], keep).include_unpublished(true);
    /// let report = snapshotter.prune(&PruneRequest::new([rule])).await?;
    /// assert_eq!(report.removed[0].reference, "vm:v1".parse()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` for a rule that keeps nothing, or a malformed pattern; the catalog's.
    #[tracing::instrument(skip_all)]
    pub async fn prune(&self, request: &PruneRequest) -> Result<PruneReport> {
        let request = request.clone();
        self.counted(Operation::Prune, move |inner, store, activity| {
            let remote = inner.configured(activity);
            prune::run(store, remote.as_ref(), &request, activity)
        })
        .await
    }

    /// The same in the configured registry, by the time that each manifest says; what says none stays. Here nothing changes, but
    /// that what is here may be an only copy then. Contents stay there.
    ///
    /// # Errors
    /// As [`prune`](Self::prune); `NotFound` for a name without versions there; `Unsupported` where the registry does not
    /// delete, or lists no names and a pattern needs them; those of reaching it.
    #[cfg(feature = "registry")]
    #[tracing::instrument(skip_all)]
    pub async fn prune_remote(&self, request: &PruneRequest) -> Result<PruneReport> {
        let request = request.clone();
        self.counted(Operation::Prune, move |inner, store, activity| {
            let remote = super::remotes::require(inner.configured(activity))?;
            let limit = &inner.restores.transfers;
            prune::run_remote(store, &remote, limit, &request, activity)
        })
        .await
    }

    /// Gives a snapshot one more name, without moving a byte of its files: with `force` in place of another snapshot that has it,
    /// which goes as if it were removed. The new name is here alone; `push` publishes it, and sends what is not there.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("vm"))?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// # snapshotter.snapshot(&snapshotter::SnapshotRequest::new("vm", "v1", dir.path().join("vm"))).await?;
    /// let tagged = snapshotter.tag(&"vm:v1".parse()?, &"golden/vm:stable".parse()?, false).await?;
    /// assert_eq!(tagged.replaced, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound` for the snapshot; `AlreadyExists` where the name is another snapshot's; `InvalidInput` for a name without a
    /// version; the catalog's and the filesystem's.
    #[tracing::instrument(skip_all, fields(reference = %reference, name = %name))]
    pub async fn tag(
        &self,
        reference: &Reference,
        name: &Reference,
        force: bool,
    ) -> Result<TagReport> {
        let (reference, name) = (reference.clone(), name.clone());
        self.counted(Operation::Tag, move |inner, store, activity| {
            let how = (force, inner.config.durability == Durability::Full);
            inspect::tag(store, &reference, &name, how, activity)
        })
        .await
    }

    /// The same in the configured registry, of a snapshot that is there. Its contents stay where they are; where the registry has
    /// them and the new name has a repository of its own, that mounts them, or gets them sent where it cannot.
    ///
    /// # Errors
    /// As [`tag`](Self::tag) and [`copy`](Self::copy).
    #[cfg(feature = "registry")]
    #[tracing::instrument(skip_all, fields(reference = %reference, name = %name))]
    pub async fn tag_remote(
        &self,
        reference: &Reference,
        name: &Reference,
        force: bool,
    ) -> Result<crate::CopyReport> {
        let request = crate::CopyRequest::new(reference.clone()).force(force);
        let name = name.clone();
        self.counted(Operation::Tag, move |inner, store, activity| {
            let remote = super::remotes::require(inner.configured(activity))?;
            let limit = &inner.snapshots.transfers;
            crate::remote::tag(store, &remote, limit, &request, &name, activity)
                .map_err(|error| error.with_reference(&request.reference))
        })
        .await
    }
}
