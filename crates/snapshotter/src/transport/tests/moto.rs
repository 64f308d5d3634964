//! The suite against a second S3 server, which other people wrote in another language, and what it knows that the first one
//! does not: encryption and storage classes.

use std::sync::Arc;

use testkit::moto::{Moto, or_skip};

use super::bucket::configuration;
use super::suite::{SENT, Stand, content, content_suite, publish};
use crate::transport::object::{ObjectStorage, Tuning};
use crate::transport::parts::PART;
use crate::transport::{ContentTransport, Existing, open};
use crate::words::object::Object;

impl Stand for Moto {
    fn open(&self) -> Arc<dyn ContentTransport> {
        open(&configuration(&self.endpoint(), self.bucket())).unwrap()
    }

    fn put(&self, object: Object, bytes: &[u8]) {
        Moto::put(self, &object.key(), bytes);
    }

    fn keys(&self) -> Vec<String> {
        Moto::keys(self)
    }

    fn litter(&self) -> usize {
        self.unfinished_uploads()
    }
}

content_suite!(match or_skip(Moto::start("ckpt")) {
    Some(server) => server,
    None => return,
});

#[tokio::test]
async fn what_is_written_is_encrypted_and_of_the_class_that_was_asked_for() {
    let Some(server) = or_skip(Moto::start("ckpt")) else {
        return;
    };
    let mut content_of = configuration(&server.endpoint(), "ckpt");
    content_of.server_side_encryption = Some("aws:kms".to_owned());
    content_of.kms_key_id = Some("alias/checkpoints".to_owned());
    content_of.storage_class = Some("STANDARD_IA".to_owned());
    let transport = ObjectStorage::tuned(&content_of, Tuning::default()).unwrap();
    for len in [100, PART + 1] {
        let (object, bytes) = content(len, len);
        let sent = publish(&transport, object, &bytes, Existing::Keep).await;
        assert_eq!(sent.unwrap(), SENT);
        let head = server.send("HEAD", &format!("/{}", object.key()), b"");
        for (name, value) in [
            ("x-amz-server-side-encryption", "aws:kms"),
            (
                "x-amz-server-side-encryption-aws-kms-key-id",
                "alias/checkpoints",
            ),
            ("x-amz-storage-class", "STANDARD_IA"),
        ] {
            assert_eq!(head.header(name), Some(value), "{head:?}");
        }
    }
}

#[tokio::test]
async fn a_rehearsal_goes_through_and_leaves_nothing() {
    let Some(server) = or_skip(Moto::start("ckpt")) else {
        return;
    };
    assert!(server.open().rehearse().await.unwrap().is_empty());
    assert!(server.keys().is_empty());
    assert_eq!(server.unfinished_uploads(), 0);
}
