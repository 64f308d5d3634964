//! Without the feature `registry` there is no remote. The type stays, with no value, so that the verbs need not be
//! written twice.

use std::sync::Arc;

use crate::activity::Activity;
use crate::catalog::{PublicationRow, Snapshot};
use crate::confirmation::{Answer, Question};
use crate::format::document::paged::AnyDocument;
use crate::limit::Limit;
use crate::store::{Operation, Recipient, Store};
use crate::words::error::Result;
use crate::words::publication::Publication;
use crate::words::reference::Reference;

#[derive(Clone, Debug)]
pub(crate) enum Remote {}

/// What there would be a list of.
pub(crate) struct RemoteSnapshot {
    pub(crate) reference: Reference,
}

#[derive(Debug, Default)]
pub(crate) struct Flights {}

#[expect(dead_code, reason = "nobody can have a remote to read them for")]
pub(crate) struct Context<'a> {
    pub(crate) store: &'a Arc<Store>,
    pub(crate) limit: &'a Limit,
    pub(crate) flights: &'a Flights,
    pub(crate) remote: &'a Remote,
    pub(crate) activity: &'a Activity,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) snapshot: i64,
    pub(crate) fetched_blobs: u64,
    pub(crate) fetched_bytes: u64,
    pub(crate) reused_blobs: u64,
}

#[derive(Default)]
pub(crate) struct Asked;

impl Remote {
    pub(crate) fn of_call(self, _: &Activity) -> Self {
        match self {}
    }

    pub(crate) fn publication(&self, _: &Reference, _: &[u8], _: i64) -> Result<PublicationRow> {
        match *self {}
    }

    pub(crate) fn said<'r>(
        &self,
        _: &Reference,
        _: &'r [PublicationRow],
    ) -> Option<&'r PublicationRow> {
        match *self {}
    }

    pub(crate) fn confirm(
        &self,
        _: &Arc<Store>,
        _: &Question<'_>,
        _: &mut Asked,
        _: &Activity,
    ) -> Result<Answer> {
        match *self {}
    }

    pub(crate) fn require_new(&self, _: &Reference, _: &Activity) -> Result<()> {
        match *self {}
    }

    pub(crate) fn list(&self, _: Option<&str>, _: &Activity) -> Result<Vec<RemoteSnapshot>> {
        match *self {}
    }

    pub(crate) fn description(
        &self,
        _: &Reference,
        _: &Activity,
    ) -> Result<(Vec<u8>, Vec<u8>, AnyDocument)> {
        match *self {}
    }
}

pub(crate) fn publish_new(
    _: &Store,
    _: &Limit,
    remote: &Remote,
    _: (&Operation, i64),
    _: bool,
    _: &Activity,
) -> Result<Publication> {
    match *remote {}
}

pub(crate) fn fetch(
    context: &Context<'_>,
    _: &Operation,
    _: &Reference,
    _: Option<&dyn Recipient>,
) -> Result<Fetched> {
    match *context.remote {}
}

pub(crate) fn repair(context: &Context<'_>, _: i64) -> Result<Fetched> {
    match *context.remote {}
}

pub(crate) fn repair_description(context: &Context<'_>, _: &Snapshot) -> Result<bool> {
    match *context.remote {}
}
