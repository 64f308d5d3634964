//! gRPC services without generated code: who answers a method, health, and a server on a runtime of its own, so that a
//! test's runtime can be paused, dropped or blocked without it.

use std::convert::Infallible;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use prost::Message;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::service::Routes;
use tonic::transport::{Identity, Server as Transport, ServerTlsConfig};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::messages::{HealthRequest, HealthResponse};
use crate::registry::make_certificates;

/// What the daemons allow, where tonic's own limit is 4 MiB.
const LARGEST: usize = 512 << 20;

/// The answer to a call, when it is there.
pub(super) type Answer = Pin<Box<dyn Future<Output = http::Response<Body>> + Send>>;

/// One gRPC service.
pub(super) trait Service: Clone + Send + Sync + 'static {
    /// With its package.
    const NAME: &'static str;

    /// Answers one call.
    fn call(self, method: &str, request: http::Request<Body>) -> Answer;
}

#[derive(Clone)]
struct Named<S>(S);

impl<S: Service> NamedService for Named<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service> tower::Service<http::Request<Body>> for Named<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let method = path.rsplit('/').next().unwrap_or_default();
        let answer = self.0.clone().call(method, request);
        Box::pin(async move { Ok(answer.await) })
    }
}

/// Answers a call that has one message and one answer.
pub(super) async fn unary<M, A, F>(
    request: http::Request<Body>,
    answer: impl FnMut(Request<M>) -> F,
) -> http::Response<Body>
where
    M: Message + Default + 'static,
    A: Message + Default + 'static,
    F: Future<Output = Result<Response<A>, Status>>,
{
    grpc().unary(tower::service_fn(answer), request).await
}

/// Answers a call that has one message and many answers.
pub(super) async fn server_streaming<M, A, S, F>(
    request: http::Request<Body>,
    answer: impl FnMut(Request<M>) -> F,
) -> http::Response<Body>
where
    M: Message + Default + 'static,
    A: Message + Default + 'static,
    S: tokio_stream::Stream<Item = Result<A, Status>> + Send + 'static,
    F: Future<Output = Result<Response<S>, Status>>,
{
    let service = tower::service_fn(answer);
    grpc().server_streaming(service, request).await
}

pub(super) fn grpc<M, A>() -> Grpc<ProstCodec<A, M>>
where
    M: Message + Default + 'static,
    A: Message + Default + 'static,
{
    Grpc::new(ProstCodec::default())
        .max_decoding_message_size(LARGEST)
        .max_encoding_message_size(LARGEST)
}

/// A method that nobody answers.
pub(super) async fn unimplemented() -> http::Response<Body> {
    Status::unimplemented("").into_http()
}

/// `grpc.health.v1.Health`, of whatever says whether a service serves; `None` is one that it does not know.
#[derive(Clone)]
pub(super) struct Health(pub(super) Arc<Serves>);

type Serves = dyn Fn(&str) -> Option<bool> + Send + Sync;

impl Service for Health {
    const NAME: &'static str = "grpc.health.v1.Health";

    fn call(self, method: &str, request: http::Request<Body>) -> Answer {
        if method != "Check" {
            return Box::pin(unimplemented());
        }
        Box::pin(unary(request, move |request: Request<HealthRequest>| {
            let serves = (self.0)(&request.into_inner().service);
            std::future::ready(match serves {
                Some(serves) => Ok(Response::new(HealthResponse {
                    status: if serves { 1 } else { 2 },
                })),
                None => Err(Status::not_found("service not registered")),
            })
        }))
    }
}

/// Where a server listens.
pub(super) enum Place<'a> {
    Unix(&'a Path),
    Tcp(u16),
    /// With the certificate and key in this directory.
    Tls(PathBuf),
}

/// A running server. Dropped, it ends at once, in the middle of whatever it does.
#[derive(Debug)]
pub(super) struct Server {
    runtime: Option<Runtime>,
    pub(super) endpoint: String,
}

impl Server {
    /// Starts one with two services.
    pub(super) fn start(place: Place<'_>, one: impl Service, other: impl Service) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let routes = Routes::new(Named(one)).add_service(Named(other));
        let mut server = Transport::builder();
        let endpoint = match place {
            Place::Unix(socket) => {
                let listener = std::os::unix::net::UnixListener::bind(socket).expect("a socket");
                listener.set_nonblocking(true).expect("a socket");
                runtime.spawn(async move {
                    let listener = UnixListener::from_std(listener).expect("a socket");
                    let incoming = UnixListenerStream::new(listener);
                    let _ = server
                        .add_routes(routes)
                        .serve_with_incoming(incoming)
                        .await;
                });
                format!("unix://{}", socket.display())
            }
            Place::Tcp(port) => {
                let (listener, address) = listen(port);
                runtime.spawn(serve_tcp(listener, server, routes));
                format!("http://{address}")
            }
            Place::Tls(dir) => {
                let (listener, address) = listen(0);
                runtime.spawn(serve_tcp(listener, with_tls(server, &dir), routes));
                format!("https://{address}")
            }
        };
        Self {
            runtime: Some(runtime),
            endpoint,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

// Bound here and not on the runtime: who starts a server may be within another one, where nobody may wait.
fn listen(port: u16) -> (std::net::TcpListener, std::net::SocketAddr) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

async fn serve_tcp(listener: std::net::TcpListener, mut server: Transport, routes: Routes) {
    let listener = TcpListener::from_std(listener).expect("a socket");
    let incoming = TcpListenerStream::new(listener);
    let _ = server
        .add_routes(routes)
        .serve_with_incoming(incoming)
        .await;
}

fn with_tls(server: Transport, dir: &Path) -> Transport {
    make_certificates(dir).expect("certificates");
    let read = |name| std::fs::read(dir.join(name)).expect("a certificate");
    let identity = Identity::from_pem(read("server.pem"), read("key.pem"));
    server
        .tls_config(ServerTlsConfig::new().identity(identity))
        .expect("certificates that fit")
}
