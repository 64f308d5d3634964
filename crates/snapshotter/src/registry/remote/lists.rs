//! Tags and repositories: lists that come in pages. A page's `Link` names the next one; it is followed only to the same
//! list of the same registry, and not for ever.

use std::collections::BTreeSet;

use reqwest::header::LINK;
use reqwest::{Method, Url};
use serde::Deserialize;

use super::answer::Answer;
use super::http::{Request, same_origin};
use super::{PULL, Remote};
use crate::registry::name::below;
use crate::registry::{Repository, Tag};
use crate::words::error::{Error, ErrorKind, Result};

const PAGE: &str = "n=1000";
const MAX_PAGE_BYTES: u64 = 8 << 20;
const MAX_PAGES: usize = 10_000;
const MAX_LIST_BYTES: usize = 256 << 20;
const CATALOG_HINT: &str =
    "most hosted registries do not list their repositories: name the snapshot instead";

#[derive(Deserialize)]
struct TagPage {
    /// Null where the last tag was deleted.
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct CatalogPage {
    repositories: Option<Vec<String>>,
}

impl Remote {
    /// A tag that is none by the grammar could not be asked for, and is left out.
    pub(super) async fn list_tags(&self, repository: &Repository) -> Result<Vec<Tag>> {
        let doing = format!("list the versions of {repository}");
        let mut request = self.request(Method::GET, repository, "tags/list", PULL, doing)?;
        request.url.set_query(Some(PAGE));
        let mut tags = BTreeSet::new();
        self.pages(request, |answer| {
            match answer.status().as_u16() {
                200 => {}
                404 => return Ok(()),
                _ => return Err(answer.refused()),
            }
            let page: TagPage = parse(answer)?;
            tags.extend(page.tags.into_iter().flatten().flat_map(Tag::new));
            Ok(())
        })
        .await?;
        Ok(tags.into_iter().collect())
    }

    pub(super) async fn list_repositories(&self) -> Result<Vec<String>> {
        let doing = "list the repositories".to_owned();
        let scope = "registry:catalog:*".to_owned();
        let mut request = Request::new(Method::GET, self.url("v2/_catalog")?, scope, doing);
        request.url.set_query(Some(PAGE));
        let mut names = BTreeSet::new();
        let listed = self.pages(request, |answer| {
            if answer.status() != 200 {
                return Err(answer.refused());
            }
            let page: CatalogPage = parse(answer)?;
            let repositories = page.repositories.into_iter().flatten();
            names.extend(
                repositories.filter_map(|name| below(&name, &self.namespace).map(str::to_owned)),
            );
            Ok(())
        });
        listed.await.map_err(unlisted)?;
        Ok(names.into_iter().collect())
    }

    async fn pages(
        &self,
        mut request: Request,
        mut each: impl FnMut(&Answer) -> Result<()> + Send,
    ) -> Result<()> {
        let mut read = 0;
        for _ in 0..MAX_PAGES {
            let answer = self.http.exchange(&request, MAX_PAGE_BYTES).await?;
            read += answer.body().len();
            if read > MAX_LIST_BYTES {
                break;
            }
            each(&answer)?;
            match next(&request.url, &answer)? {
                Some(url) => request.url = url,
                None => return Ok(()),
            }
        }
        let text = format!(
            "cannot {}: the list has more than {MAX_PAGES} pages or 256 MiB",
            request.doing
        );
        Err(Error::new(ErrorKind::Unsupported, text))
    }
}

/// Who may not list, cannot: it is no question of the snapshot's credentials.
fn unlisted(error: Error) -> Error {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::NotFound | ErrorKind::Unsupported => {
            let text = "this registry does not list its repositories";
            Error::new(ErrorKind::Unsupported, text)
                .with_hint(CATALOG_HINT)
                .with_source(error)
        }
        _ => error,
    }
}

fn parse<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T> {
    serde_json::from_slice(answer.body()).map_err(|error| {
        answer
            .error(ErrorKind::Damaged, "the answer is not a list")
            .with_source(error)
    })
}

fn next(this: &Url, answer: &Answer) -> Result<Option<Url>> {
    let links = answer.headers().get_all(LINK).iter();
    let target = links
        .filter_map(|value| value.to_str().ok())
        .find_map(next_target);
    let Some(target) = target else {
        return Ok(None);
    };
    let url = this.join(target).ok();
    let ours = url.filter(|url| same_origin(url, this) && url.path() == this.path() && url != this);
    match ours {
        Some(url) => Ok(Some(url)),
        None => {
            let text = "the list goes on where it cannot: at another place than it began, or at the same page";
            Err(answer.error(ErrorKind::Unsupported, text))
        }
    }
}

/// The target of the `rel="next"` in a `Link` (RFC 8288): `<target>; rel="next", <other>; …`.
fn next_target(header: &str) -> Option<&str> {
    let mut rest = header;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>')?;
        let (parameters, following) = match after.find('<') {
            Some(at) => after.split_at(at),
            None => (after, ""),
        };
        if parameters.split([';', ',']).any(is_next) {
            return Some(target);
        }
        rest = following;
    }
    None
}

fn is_next(parameter: &str) -> bool {
    let Some((key, value)) = parameter.split_once('=') else {
        return false;
    };
    let value = value.trim().trim_matches('"');
    key.trim().eq_ignore_ascii_case("rel")
        && value.split(' ').any(|rel| rel.eq_ignore_ascii_case("next"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        for (header, target) in [
            (
                r#"</v2/_catalog?last=b&n=2>; rel="next""#,
                Some("/v2/_catalog?last=b&n=2"),
            ),
            (r#"<a>; rel=prev, <b>; title="x"; rel=next"#, Some("b")),
            (r#"<a>; rel="first next""#, Some("a")),
            (r#"<a>; rel="prev""#, None),
            ("<a", None),
            ("", None),
        ] {
            assert_eq!(next_target(header), target, "{header}");
        }
    }
}
