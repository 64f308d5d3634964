//! A daemon's downloads. The output is linked to the cache's file before there is anything in it; then piece after piece
//! comes, in no order, and each is told, some twice.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::cluster::Object;
use super::daemon::{Asked, Daemon, Noted, deadline, is_same, lock};
use super::gate::Gate;
use super::messages::{
    DownloadRequest, DownloadResponse, Duration, LOCAL, PEER, Piece, PieceFinished, Progress,
    SOURCE, Started, Timestamp,
};
use super::text::{self, Asks, Storage};

/// What becomes of a download. `after` counts pieces: with 0 it is right behind the first message, when the output has
/// its size and is all zeros.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Download {
    /// It goes well.
    #[default]
    Well,
    /// It ends with this error before anything is done.
    Refuse(Code, String),
    /// It ends with this error after so many pieces; the output stays.
    Break {
        /// Pieces told before.
        after: u32,
        /// The error's code.
        code: Code,
        /// Its text.
        text: String,
    },
    /// It ends after so many pieces as if that were all.
    End {
        /// Pieces told before.
        after: u32,
    },
    /// It stops after so many pieces, and goes on when the gate is open. Nothing is sent meanwhile.
    Hold {
        /// Pieces told before.
        after: u32,
        /// What it waits for.
        gate: Gate,
    },
    /// It delivers other bytes of the same size and says that all is well. The cache keeps them: whoever asks again gets
    /// the same.
    Damage,
}

/// A task's file in a daemon's cache.
#[derive(Debug)]
pub(super) struct Cached {
    pub(super) path: PathBuf,
    pub(super) length: u64,
    pieces: u32,
    done: Mutex<BTreeSet<u32>>,
}

impl Cached {
    pub(super) fn create(path: PathBuf, length: u64, piece_length: u64) -> io::Result<Self> {
        // Whoever linked what was there keeps it.
        let _ = std::fs::remove_file(&path);
        File::create_new(&path)?.set_len(length)?;
        Ok(Self {
            path,
            length,
            pieces: count(length, piece_length),
            done: Mutex::default(),
        })
    }

    pub(super) fn whole(path: PathBuf, length: u64, piece_length: u64) -> Self {
        let pieces = count(length, piece_length);
        Self {
            path,
            length,
            pieces,
            done: Mutex::new((0..pieces).collect()),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        lock(&self.done).len() == self.pieces as usize
    }
}

fn count(length: u64, piece_length: u64) -> u32 {
    u32::try_from(length.div_ceil(piece_length)).expect("so many pieces are not for tests")
}

type Message = Result<DownloadResponse, Status>;

/// Answers `DownloadPersistentTask`.
pub(super) async fn answer(
    daemon: Arc<Daemon>,
    request: Request<DownloadRequest>,
) -> Result<Response<ReceiverStream<Message>>, Status> {
    let deadline = deadline(&request);
    let request = request.into_inner();
    let noted = daemon.note(Asked::Download(request.clone()), deadline);
    let plan = daemon.on_download(&request);
    let running = match start(&daemon, &request, &plan) {
        Ok(running) => running,
        Err(status) => {
            noted.end(Err(&status));
            return Err(status);
        }
    };
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(run(daemon, request, plan, running, sender, noted));
    Ok(Response::new(ReceiverStream::new(receiver)))
}

struct Running {
    object: Object,
    cached: Arc<Cached>,
    output: Option<PathBuf>,
}

// Everything that happens before the first message.
fn start(
    daemon: &Arc<Daemon>,
    request: &DownloadRequest,
    plan: &Download,
) -> Result<Running, Status> {
    if let Download::Refuse(code, message) = plan {
        return Err(Status::new(*code, message.clone()));
    }
    let cluster = &daemon.cluster;
    let object = cluster.find(
        &request.url,
        request.object_storage.as_ref(),
        Asks::Download,
    )?;
    let Ok(metadata) = std::fs::metadata(&object.path) else {
        return Err(text::storage(Storage::NoKey, Asks::Download, &object.key));
    };
    cluster.ask_scheduler()?;
    if matches!(plan, Download::Damage) {
        daemon.forget(&object.task_id);
    }
    let cached = daemon.cache(&object.task_id, metadata.len());
    let cached = cached.map_err(text::internal)?;
    let output = request.output_path.as_deref().map(|path| daemon.see(path));
    let output = output.transpose().map_err(text::internal)?;
    if let Some(output) = &output
        && let Err(error) = daemon.link(&cached.path, output)
        && request.force_hard_link
    {
        return Err(text::internal(error));
    }
    Ok(Running {
        object,
        cached,
        output,
    })
}

async fn run(
    daemon: Arc<Daemon>,
    request: DownloadRequest,
    plan: Download,
    running: Running,
    sender: Sender<Message>,
    noted: Noted,
) {
    let mut stream = Stream {
        daemon: &daemon,
        request: &request,
        plan: &plan,
        running: &running,
        sender: &sender,
    };
    match stream.run().await {
        Ok(()) => noted.end(Ok(())),
        Err(Stop::Failed(status)) => {
            noted.end(Err(&status));
            let _ = sender.send(Err(*status)).await;
        }
        // The note says of itself that it was cancelled.
        Err(Stop::Cancelled) => {}
    }
}

enum Stop {
    Failed(Box<Status>),
    Cancelled,
}

fn failed(why: impl std::fmt::Display) -> Stop {
    Stop::Failed(Box::new(text::internal(why)))
}

struct Stream<'a> {
    daemon: &'a Daemon,
    request: &'a DownloadRequest,
    plan: &'a Download,
    running: &'a Running,
    sender: &'a Sender<Message>,
}

impl Stream<'_> {
    async fn run(&mut self) -> Result<(), Stop> {
        let cached = &self.running.cached;
        let started = Started {
            content_length: cached.length,
        };
        self.tell(Progress::Started(started)).await?;
        let mut told = 0;
        for number in order(cached.pieces) {
            if self.stops(told).await? {
                return Ok(());
            }
            let piece = self.piece(number).map_err(failed)?;
            let finished = Progress::Finished(PieceFinished { piece: Some(piece) });
            if told % 3 == 0 {
                self.tell(finished.clone()).await?;
            }
            self.tell(finished).await?;
            told += 1;
        }
        if self.stops(told).await? {
            return Ok(());
        }
        let daemon = self.daemon;
        let task_id = &self.running.object.task_id;
        daemon.cluster.hold(task_id, &daemon.id, &cached.path);
        self.copy_out()
    }

    /// Whether it ends here, or waits here, or breaks.
    async fn stops(&self, told: u32) -> Result<bool, Stop> {
        match self.plan {
            Download::Break { after, code, text } if *after == told => {
                Err(Stop::Failed(Box::new(Status::new(*code, text.clone()))))
            }
            Download::End { after } => Ok(*after == told),
            Download::Hold { after, gate } if *after == told => tokio::select! {
                () = gate.pass() => Ok(false),
                () = self.sender.closed() => Err(Stop::Cancelled),
            },
            _ => Ok(false),
        }
    }

    async fn tell(&self, progress: Progress) -> Result<(), Stop> {
        let message = DownloadResponse {
            host_id: self.daemon.id.clone(),
            task_id: self.running.object.task_id.clone(),
            peer_id: format!("{}-peer", self.daemon.id),
            response: Some(progress),
        };
        let sent = self.sender.send(Ok(message)).await;
        sent.map_err(|_| Stop::Cancelled)
    }

    fn piece(&self, number: u32) -> io::Result<Piece> {
        let cached = &self.running.cached;
        let offset = u64::from(number) * self.daemon.piece_length;
        let length = self.daemon.piece_length.min(cached.length - offset);
        // Held over all of it: two downloads at once write a piece once.
        let mut done = lock(&cached.done);
        let (traffic_type, parent_id) = if done.contains(&number) {
            (LOCAL, None)
        } else {
            let from = self.fetch(number, offset, length)?;
            done.insert(number);
            from
        };
        drop(done);
        let wanted = self.request.need_piece_content;
        let content = wanted
            .then(|| read(&cached.path, offset, length))
            .transpose()?;
        Ok(Piece {
            number,
            parent_id,
            offset,
            length,
            digest: String::new(),
            content,
            traffic_type: Some(traffic_type),
            cost: Some(Duration::default()),
            created_at: Some(Timestamp::default()),
        })
    }

    // From a daemon that has it, else from the bucket.
    fn fetch(&self, number: u32, offset: u64, length: u64) -> io::Result<(i32, Option<String>)> {
        let (daemon, object) = (self.daemon, &self.running.object);
        let parent = daemon.cluster.parent(&object.task_id, &daemon.id);
        let (mut bytes, from) = match parent {
            Some((id, file)) => (read(&file, offset, length)?, (PEER, Some(id))),
            None => {
                daemon.cluster.count_downloaded(length);
                (read(&object.path, offset, length)?, (SOURCE, None))
            }
        };
        if number == 0 && matches!(self.plan, Download::Damage) {
            bytes[0] ^= 1;
        }
        let file = File::options()
            .write(true)
            .open(&self.running.cached.path)?;
        file.write_all_at(&bytes, offset)?;
        Ok(from)
    }

    // Where the link was not possible and did not have to be.
    fn copy_out(&self) -> Result<(), Stop> {
        let Some(output) = &self.running.output else {
            return Ok(());
        };
        let cached = &self.running.cached.path;
        if is_same(cached, output) {
            return Ok(());
        }
        if output.exists() && !self.request.overwrite {
            let shown = output.display();
            let status = Status::internal(format!("output path {shown} is already exists"));
            return Err(failed(status));
        }
        std::fs::copy(cached, output).map(drop).map_err(failed)
    }
}

/// The odd pieces forwards, then the even ones backwards.
fn order(pieces: u32) -> impl Iterator<Item = u32> {
    let odd = (0..pieces).filter(|number| number % 2 == 1);
    odd.chain((0..pieces).rev().filter(|number| number % 2 == 0))
}

fn read(path: &Path, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    File::open(path)?.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}
