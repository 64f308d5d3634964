//! Files of pages that get an inode of their own: those of a group are filled in one pass over the packs.

use std::fs::File;

use super::base::Filled;
use super::directories::unless_mounted;
use super::job::Job;
use super::materialize::{Placing, blame};
use super::pages::{Packs, Run, Writing};
use super::written::{LARGE, why_copied};
use crate::activity::Activity;
use crate::fs::Dir;
use crate::fs::place::Cloning;
use crate::fs::temporary::Temporary;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::placement::{LinkMode, Placement};

/// What is to be written into a file that was begun.
struct Begun {
    filled: Filled,
    runs: Vec<Run>,
    placement: Placement,
    /// Whether its bytes are told of as they are written.
    is_told: bool,
}

impl Placing<'_> {
    /// Makes files and gives them their names.
    pub(super) fn place_pages(&self, parent: &Dir, jobs: &[(&Job<'_>, u64)]) -> Result<()> {
        if jobs.is_empty() {
            return Ok(());
        }
        let made = self.make_of_pages(parent, jobs)?;
        for ((job, _), (mut temporary, placement)) in jobs.iter().zip(made) {
            self.context.activity.check()?;
            let named = self
                .publish(parent, job, &mut temporary)
                .map_err(|error| error.with_path(parent.path_of(job.name())));
            match unless_mounted(self.context, &job.planned.path, named)? {
                Some(()) => self.count(job, placement),
                None => self.leave(job),
            }
        }
        Ok(())
    }

    /// Makes complete files without final names: each from a near one that is cached, or by decoding all of its pages, of
    /// which the number is the first.
    pub(super) fn make_of_pages<'d>(
        &self,
        parent: &'d Dir,
        jobs: &[(&Job<'_>, u64)],
    ) -> Result<Vec<(Temporary<&'d Dir>, Placement)>> {
        let packs = self.packs()?;
        let path = |job: &Job<'_>| parent.path_of(job.name());
        let mut begun = Vec::with_capacity(jobs.len());
        for (job, first) in jobs {
            let temporary = Temporary::create(parent, 0o600).at("create", path(job))?;
            let started = self.begin(parent, job, *first, temporary.file());
            let started = started.map_err(|error| error.with_path(path(job)))?;
            begun.push((temporary, started));
        }
        let unobserved = self.context.activity.unobserved();
        let files = jobs.iter().zip(&mut begun);
        let files: Vec<Writing<'_>> = files
            .map(|((job, _), (temporary, begun))| Writing {
                file: temporary.file(),
                path: path(job),
                size: job.planned.size,
                runs: std::mem::take(&mut begun.runs),
                activity: match begun.is_told {
                    true => self.context.activity,
                    false => &unobserved,
                },
            })
            .collect();
        packs.write(&files, &|number, error| {
            blame(error, jobs[number].0.planned).with_path(path(jobs[number].0))
        })?;
        drop(files);
        let finished = jobs.iter().zip(begun);
        Ok(finished
            .map(|((job, _), (temporary, begun))| {
                self.finish(job, temporary.file(), &begun);
                (temporary, begun.placement)
            })
            .collect())
    }

    /// Makes an empty file a near one, or as long as it is to be.
    fn begin(&self, parent: &Dir, job: &Job<'_>, first: u64, file: &File) -> Result<Begun> {
        let context = self.context;
        let (path, activity) = (parent.path_of(job.name()), context.activity);
        let started = context
            .bases
            .map(|bases| bases.start(job, first, (file, &path), self.cloning(job), activity));
        if let Some(started) = started.transpose()?.flatten() {
            if started.placement == Placement::Copy {
                let _ = activity.advance(job.data_size);
            }
            return Ok(Begun {
                filled: started.filled,
                runs: started.write,
                placement: started.placement,
                is_told: false,
            });
        }
        if context.link_mode == LinkMode::Reflink {
            self.warn(job, why_copied(&job.source));
        }
        if job.data_size >= LARGE {
            context.store.require_space(parent, job.data_size)?;
        }
        let packs = self.packs()?;
        Ok(Begun {
            runs: packs.expect((file, &path), first, job.planned.size)?,
            filled: packs.filled(first, job.planned.size),
            placement: Placement::Copy,
            is_told: true,
        })
    }

    fn finish(&self, job: &Job<'_>, file: &File, begun: &Begun) {
        let context = self.context;
        if let Some(bases) = context.bases.filter(|_| !job.planned.read_only) {
            let cloning = self.cloning(job);
            bases.keep(job, file, begun.filled, cloning, context.activity);
        }
        self.dress(job, file);
    }

    /// How a file is cloned, if it may be.
    fn cloning(&self, job: &Job<'_>) -> Option<&Cloning> {
        let context = self.context;
        let is_near = job.device == context.store.root.device;
        let cloning = Some(&context.cloning).filter(|_| is_near);
        cloning.filter(|all| all.is_worth_it(job.device, job.data_size, context.link_mode))
    }

    /// Makes an empty file what its pages say, out of packs alone.
    pub(super) fn decode(
        &self,
        parent: &Dir,
        job: &Job<'_>,
        first: u64,
        file: &File,
        activity: &Activity,
    ) -> Result<()> {
        if job.data_size >= LARGE {
            self.context.store.require_space(parent, job.data_size)?;
        }
        let path = parent.path_of(job.name());
        self.packs()?
            .fill((file, &path), first, job.planned.size, activity)
    }

    fn packs(&self) -> Result<&Packs<'_>> {
        let packs = self.context.packs;
        packs.ok_or_else(|| Error::new(ErrorKind::Internal, "pages without packs"))
    }
}
