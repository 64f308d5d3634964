//! Whether a blob is there: its last byte is asked for, and has to come.
//!
//! HEAD would be the request for it, and what it is answered is often not so. It may be a cache's word: the reference
//! implementation says of blobs that its garbage collection has removed that they are there, for as long as it runs. Others
//! answer it without a length, with a length of 0, with 405, or send it on to a storage whose address is signed for GET alone.
//! Each of them has to give a byte to whoever asks for one. What is absent a complete answer says: a connection that breaks says
//! nothing, though it is also how the reference implementation ends an answer about what it does not have. So such a blob is sent
//! again, and nobody forgets that it was there.

use std::sync::Arc;

use reqwest::Method;
use reqwest::header::{CONTENT_RANGE, RANGE};

use super::answer::{Answer, shown};
use super::http::Request;
use super::{PULL, Remote};
use crate::http::Failure;
use crate::registry::Repository;
use crate::transport::Presence;
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};

impl Remote {
    /// Whether there is a blob that should have `size` bytes.
    pub(super) async fn find_blob(
        self: Arc<Self>,
        repository: Repository,
        sha256: Sha256,
        size: u64,
    ) -> Result<Presence> {
        let mut attempts = self.http.attempts();
        loop {
            match self
                .look(&repository, sha256, size, Presence::Unknown)
                .await
            {
                Ok(found) => return Ok(found),
                Err(failure) => attempts.again(failure).await?,
            }
        }
    }

    /// Whether a blob needs no pushing. One of another length is damage that pushing could not mend. Where the length is kept back
    /// and the last byte comes, it is that long at least, and its name says that it is no longer.
    pub(super) async fn is_there(
        &self,
        repository: &Repository,
        sha256: Sha256,
        size: u64,
    ) -> Result<bool, Failure> {
        match self
            .look(repository, sha256, size, Presence::Size(size))
            .await?
        {
            Presence::Size(found) if found != size => {
                let request = self.look_request(repository, sha256)?;
                let text = format!(
                    "cannot {} ({}): the registry has it with {found} bytes, not {size}",
                    request.doing,
                    shown(&request.url)
                );
                Err(Error::new(ErrorKind::Damaged, text).into())
            }
            found => Ok(matches!(found, Presence::Size(_))),
        }
    }

    /// Where an answer to a request for a byte ends well and without it, twice, it is not there. `without_length` is what a last
    /// byte is worth that comes without a word of how long all is.
    async fn look(
        &self,
        repository: &Repository,
        sha256: Sha256,
        size: u64,
        without_length: Presence,
    ) -> Result<Presence, Failure> {
        let mut request = self.look_request(repository, sha256)?;
        if let Some(last) = size.checked_sub(1) {
            request = request.header(RANGE, &format!("bytes={last}-{last}"));
        }
        let mut none_came = Presence::Absent;
        for _ in 0..2 {
            let mut answer = self.http.open(&request).await?;
            match answer.status().as_u16() {
                404 => return Ok(Presence::Absent),
                200 | 206 if size > 0 => match answer.next().await {
                    Ok(Some(_)) if is_last_without_length(&answer, size) => {
                        return Ok(without_length);
                    }
                    Ok(Some(_)) => return Ok(size_of(&answer)),
                    Ok(None) => {}
                    Err(_) => none_came = Presence::Unknown,
                },
                _ => return Ok(size_of(&answer)),
            }
        }
        Ok(none_came)
    }

    fn look_request(&self, repository: &Repository, sha256: Sha256) -> Result<Request> {
        let doing = format!("look for the blob {repository}@{sha256}");
        let path = format!("blobs/{sha256}");
        self.request(Method::GET, repository, &path, PULL, doing)
    }
}

/// How long it is, by the answer to a request for a part of it.
fn size_of(answer: &Answer) -> Presence {
    let length = match answer.status().as_u16() {
        200 => answer.length(),
        206 | 416 => answer.header(&CONTENT_RANGE).and_then(total),
        _ => None,
    };
    length.map_or(Presence::Unknown, Presence::Size)
}

/// Whether it is the last byte of so many, and nothing says that there are no more.
fn is_last_without_length(answer: &Answer, size: u64) -> bool {
    let range = answer.header(&CONTENT_RANGE).unwrap_or_default();
    answer.status().as_u16() == 206 && total(range).is_none() && first(range) == size.checked_sub(1)
}

/// `bytes 9-9/*` is from 9 on.
fn first(content_range: &str) -> Option<u64> {
    let range = content_range.trim().strip_prefix("bytes")?;
    range.split_once('-')?.0.trim().parse().ok()
}

/// `bytes 9-9/10` and `bytes */10` are of 10 bytes.
fn total(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_of_content_ranges() {
        assert_eq!(total("bytes 9-9/10"), Some(10));
        assert_eq!(total("bytes */10"), Some(10));
        for nothing in ["", "bytes 9-9", "bytes 9-9/*", "bytes 9-9/-1"] {
            assert_eq!(total(nothing), None, "{nothing}");
        }
        assert_eq!(first("bytes 9-9/*"), Some(9));
        for nothing in ["", "bytes */10", "9-9/10", "bytes x-9/10"] {
            assert_eq!(first(nothing), None, "{nothing}");
        }
    }
}
