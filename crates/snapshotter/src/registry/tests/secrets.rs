//! Secrets are shown to servers alone: not in errors, not in Debug, not in what is logged at any level.

use std::fmt::Write as _;
use std::sync::Mutex;

use testkit::child::{self, Child, State};
use testkit::weather::Reply;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::*;

const PASSWORD: &str = "hunter2-password";
const TOKEN: &str = "hunter2-token";
const PROXY: &str = "hunter2-proxy";

/// Writes down everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        writeln!(self.0.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// In a process of its own: what is logged at all is decided once for all threads.
#[tokio::test]
async fn secrets_are_in_no_error_no_debug_and_no_log() {
    const ALONE: &str = "SECRETS_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "secrets_are_in_no_error_no_debug_and_no_log";
        let mut command = child::this_test(module_path!(), name);
        let end = Child::spawn(command.env(ALONE, "1")).unwrap().wait();
        assert_eq!(end.unwrap(), State::Exited(0));
        return;
    }
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let tokens = Weather::new(|_, _| Reply::ok(format!(r#"{{"token":"{TOKEN}"}}"#)));
    let realm = tokens.url();
    let weather = Weather::new(move |asked, _| {
        let challenge = format!("Bearer realm=\"{realm}/?q={TOKEN}\"");
        match asked.header("authorization") {
            None => Reply::status(401).with("WWW-Authenticate", challenge),
            Some(_) => Reply::status(500),
        }
    });
    let config = Registry::new(weather.url(), "ns").credentials("u", PASSWORD);
    let registry = opened(&config);
    let mut said = format!("{config:?}");
    let error = registry.manifest(&repository(), &v1()).await.unwrap_err();
    said += &everything_said(&error);
    let proxied = config
        .clone()
        .proxy(format!("http://u:{PROXY}@127.0.0.1:1/"));
    said += &format!("{proxied:?}");
    let unreachable = opened(&proxied);
    let error = unreachable
        .manifest(&repository(), &v1())
        .await
        .unwrap_err();
    said += &everything_said(&error);
    said += &format!("{registry:?}{unreachable:?}");
    assert_eq!(tokens.asked().len(), 1);
    assert!(
        weather.asked()[1]
            .header("authorization")
            .unwrap()
            .contains(TOKEN)
    );
    let logged = log.0.lock().unwrap().clone();
    for line in ["retry 1 of 4 in ", "/v2/ns/vm/one/manifests/v1: 500 after "] {
        assert!(logged.contains(line), "{line}: {logged}");
    }
    for text in [said, logged] {
        for secret in [PASSWORD, TOKEN, PROXY] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
}
