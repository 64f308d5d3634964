//! A scheduler for real daemons: it knows who has what and sends who asks there, or to the object storage. It makes no
//! replicas and forgets everything when it ends; as the real one it takes no second upload of a task whose first one
//! never ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Request, Response, Status, Streaming};

use super::daemon::{day, lock};
use super::grpc::{self, Answer, Health, Place, Server, Service};
use super::messages::{
    AnnounceHost, AnnouncePeer, AnnouncePeerResponse, DeleteHost, Duration, Empty, Host, Parents,
    Peer, PeerEvent, SchedulerStat, Task, Timestamp, UploadEnded, UploadStarted, Whence,
};

const SERVICE: &str = "scheduler.v2.Scheduler";

/// A running scheduler; it ends when dropped.
#[derive(Debug)]
pub struct Scheduler {
    records: Arc<Mutex<Records>>,
    server: Server,
}

impl Scheduler {
    /// Starts one on this port of 127.0.0.1; 0 is any free one.
    ///
    /// # Panics
    /// When the machine gives no port or threads.
    #[must_use]
    pub fn start(port: u16) -> Self {
        let records = Arc::<Mutex<Records>>::default();
        let health = Health(Arc::new(|service| {
            (service.is_empty() || service == SERVICE).then_some(true)
        }));
        let calls = Calls(Arc::clone(&records));
        Self {
            records,
            server: Server::start(Place::Tcp(port), calls, health),
        }
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        self.server.endpoint.trim_start_matches("http://")
    }

    /// What happened so far, a line each, for people and scripts.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        lock(&self.records).events.clone()
    }
}

#[derive(Debug, Default)]
struct Records {
    hosts: HashMap<String, Vec<u8>>,
    tasks: HashMap<String, Known>,
    events: Vec<String>,
}

/// A task, and the hosts and names of whole copies of it.
#[derive(Debug)]
struct Known {
    task: Task,
    peers: Vec<(String, String)>,
}

impl Records {
    fn begin(&mut self, started: UploadStarted) -> Result<(), Status> {
        let id = started.task_id;
        if let Some(known) = self.tasks.get(&id)
            && known.task.state != "Failed"
        {
            let state = &known.task.state;
            let message = format!("persistent task {id} is {state} cannot upload");
            return Err(Status::failed_precondition(message));
        }
        self.say(format!("upload of {id} begins at {}", started.host_id));
        let task = Task {
            id: id.clone(),
            persistent_replica_count: started.persistent_replica_count,
            current_persistent_replica_count: 0,
            current_replica_count: 0,
            content_length: started.content_length,
            piece_count: started.piece_count,
            state: "Uploading".to_owned(),
            ttl: started.ttl.or(Some(day())),
            created_at: Some(now()),
            updated_at: Some(now()),
        };
        let peers = Vec::new();
        self.tasks.insert(id, Known { task, peers });
        Ok(())
    }

    fn end(&mut self, ended: UploadEnded, is_well: bool) -> Result<Task, Status> {
        let UploadEnded {
            host_id, task_id, ..
        } = &ended;
        let how = if is_well { "succeeded" } else { "failed" };
        self.say(format!("upload of {task_id} at {host_id} {how}"));
        let known = self
            .tasks
            .get_mut(task_id)
            .ok_or_else(|| not_found(task_id))?;
        known.task.state = if is_well { "Succeeded" } else { "Failed" }.to_owned();
        known.task.updated_at = Some(now());
        if is_well {
            known.add(host_id, &ended.peer_id);
        }
        Ok(known.task.clone())
    }

    /// Where a download gets its pieces.
    fn whence(&mut self, asks: &AnnouncePeer) -> Whence {
        let known = self.tasks.get(&asks.task_id);
        let peer = |(host_id, peer_id): &(String, String)| {
            let host = self
                .hosts
                .get(host_id)
                .filter(|_| *host_id != asks.host_id)?;
            Some(Peer {
                id: peer_id.clone(),
                persistent: true,
                cost: Some(Duration::default()),
                state: "Succeeded".to_owned(),
                task: known.map(|known| known.task.clone()),
                host: host.clone(),
                created_at: Some(now()),
                updated_at: Some(now()),
            })
        };
        let copies = known
            .map(|known| known.peers.as_slice())
            .unwrap_or_default();
        let candidate_parents: Vec<_> = copies.iter().filter_map(peer).collect();
        let (task, host) = (&asks.task_id, &asks.host_id);
        if candidate_parents.is_empty() {
            self.say(format!("download of {task} at {host} goes to the source"));
            return Whence::Source(Empty {});
        }
        let from: Vec<_> = candidate_parents
            .iter()
            .map(|peer| peer.id.clone())
            .collect();
        self.say(format!(
            "download of {task} at {host} goes to {}",
            from.join(", ")
        ));
        Whence::Parents(Parents { candidate_parents })
    }

    fn finish(&mut self, announced: &AnnouncePeer) {
        let AnnouncePeer {
            task_id, host_id, ..
        } = announced;
        self.say(format!("download of {task_id} at {host_id} has everything"));
        if let Some(known) = self.tasks.get_mut(task_id) {
            known.add(host_id, &announced.peer_id);
        }
    }

    fn say(&mut self, event: String) {
        self.events.push(event);
    }
}

impl Known {
    fn add(&mut self, host_id: &str, peer_id: &str) {
        self.peers.retain(|(host, _)| host != host_id);
        self.peers.push((host_id.to_owned(), peer_id.to_owned()));
        self.task.current_replica_count = self.peers.len() as u64;
        self.task.current_persistent_replica_count = self.peers.len() as u64;
    }
}

#[derive(Clone)]
struct Calls(Arc<Mutex<Records>>);

impl Service for Calls {
    const NAME: &'static str = SERVICE;

    fn call(self, method: &str, request: http::Request<Body>) -> Answer {
        let records = self.0;
        match method {
            "AnnounceHost" => unary(request, move |announced: AnnounceHost| {
                let host = Host::decode(announced.host.as_slice());
                let host = host.map_err(|error| Status::invalid_argument(error.to_string()))?;
                lock(&records).hosts.insert(host.id, announced.host);
                Ok(Empty {})
            }),
            "DeleteHost" => unary(request, move |deleted: DeleteHost| {
                lock(&records).hosts.remove(&deleted.host_id);
                Ok(Empty {})
            }),
            "UploadPersistentTaskStarted" => unary(request, move |started: UploadStarted| {
                lock(&records).begin(started).map(|()| Empty {})
            }),
            "UploadPersistentTaskFinished" => unary(request, move |ended: UploadEnded| {
                lock(&records).end(ended, true)
            }),
            "UploadPersistentTaskFailed" => unary(request, move |ended: UploadEnded| {
                lock(&records).end(ended, false).map(|_| Empty {})
            }),
            "StatPersistentTask" => unary(request, move |asked: SchedulerStat| {
                let records = lock(&records);
                let known = records.tasks.get(&asked.task_id);
                let known = known.ok_or_else(|| not_found(&asked.task_id))?;
                Ok(known.task.clone())
            }),
            "AnnouncePersistentPeer" => Box::pin(async move {
                let service = tower::service_fn(move |request| {
                    std::future::ready(announce(Arc::clone(&records), request))
                });
                grpc::grpc().streaming(service, request).await
            }),
            _ => Box::pin(grpc::unimplemented()),
        }
    }
}

fn unary<M, A>(
    request: http::Request<Body>,
    mut answer: impl FnMut(M) -> Result<A, Status> + Send + 'static,
) -> Answer
where
    M: Message + Default + 'static,
    A: Message + Default + 'static,
{
    Box::pin(grpc::unary(request, move |request: Request<M>| {
        std::future::ready(answer(request.into_inner()).map(Response::new))
    }))
}

type Answers = ReceiverStream<Result<AnnouncePeerResponse, Status>>;

fn announce(
    records: Arc<Mutex<Records>>,
    request: Request<Streaming<AnnouncePeer>>,
) -> Result<Response<Answers>, Status> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(follow(records, request.into_inner(), sender));
    Ok(Response::new(ReceiverStream::new(receiver)))
}

// The answer ends when the download does: the daemon waits for that.
async fn follow(
    records: Arc<Mutex<Records>>,
    mut messages: Streaming<AnnouncePeer>,
    answers: Sender<Result<AnnouncePeerResponse, Status>>,
) {
    while let Ok(Some(message)) = messages.message().await {
        match message.request {
            Some(PeerEvent::Register(_) | PeerEvent::Reschedule(_)) => {
                let response = Some(lock(&records).whence(&message));
                if answers
                    .send(Ok(AnnouncePeerResponse { response }))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Some(PeerEvent::Finished(_) | PeerEvent::BackToSourceFinished(_)) => {
                return lock(&records).finish(&message);
            }
            Some(PeerEvent::Failed(_) | PeerEvent::BackToSourceFailed(_)) => return,
            None => {}
        }
    }
}

fn not_found(task_id: &str) -> Status {
    Status::not_found(format!("persistent task {task_id} not found"))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: 0,
    }
}
