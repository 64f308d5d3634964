//! Tags and repositories: lists that come in pages. A page's `Link` names the next one, of which only the query is used: the
//! list is the same one at the same registry, whatever a proxy made of its address. A link that says that there is more and
//! cannot be followed is an error: a part never passes for the whole. Nor is one followed for ever: [`Walk`] ends a list that comes back to a page, or that goes on with more
//! names, bytes, empty pages or time than a list can need. A call that is given up is given up between and within pages.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::LINK;
use reqwest::{Method, Url};
use serde::Deserialize;
use tokio::time::Instant;

use super::answer::Answer;
use super::http::Request;
use super::{PULL, Remote};
use crate::registry::name::below;
use crate::registry::{MAX_NAMES, Repository, Tag};
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};

const PAGE: &str = "n=1000";
const MAX_PAGE_BYTES: u64 = 8 << 20;
const MAX_LIST_BYTES: usize = 256 << 20;
const MAX_LIST_TIME: Duration = Duration::from_secs(60 * 60);
/// After the first hundred pages, a page has so many names on average. Registries give a hundred or a thousand.
const FEW_PAGES: usize = 100;
const FEW_NAMES: usize = 10;
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
    pub(super) async fn list_tags(self: Arc<Self>, repository: Repository) -> Result<Vec<Tag>> {
        let doing = format!("list the versions of {repository}");
        let mut request = self.request(Method::GET, &repository, "tags/list", PULL, doing)?;
        request.url.set_query(Some(PAGE));
        let (mut tags, mut is_first) = (BTreeSet::new(), true);
        self.pages(request, |answer| {
            match answer.status().as_u16() {
                200 => is_first = false,
                404 if is_first => return Ok(0),
                _ => return Err(answer.refused()),
            }
            let page: TagPage = parse(answer)?;
            let names = page.tags.unwrap_or_default();
            let count = names.len();
            tags.extend(names.into_iter().flat_map(Tag::new));
            Ok(count)
        })
        .await?;
        Ok(tags.into_iter().collect())
    }

    pub(super) async fn list_repositories(self: Arc<Self>) -> Result<Vec<String>> {
        let doing = "list the repositories".to_owned();
        let scope = "registry:catalog:*".to_owned();
        let mut request = Request::new(Method::GET, self.url("v2/_catalog")?, scope, doing);
        request.url.set_query(Some(PAGE));
        let mut names = BTreeSet::new();
        let listed = self.pages(request, |answer| {
            if answer.status() != 200 {
                return Err(unlisted(answer.refused()));
            }
            let page: CatalogPage = parse(answer)?;
            let repositories = page.repositories.unwrap_or_default();
            let ours = repositories
                .iter()
                .filter_map(|name| below(name, &self.namespace));
            names.extend(ours.map(str::to_owned));
            Ok(repositories.len())
        });
        match listed.await {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(unlisted(error));
            }
            listed => listed?,
        }
        Ok(names.into_iter().collect())
    }

    async fn pages(
        &self,
        mut request: Request,
        mut each: impl FnMut(&Answer) -> Result<usize> + Send,
    ) -> Result<()> {
        let mut walk = Walk::new();
        loop {
            walk.enter(&request.url)
                .map_err(|why| without_end(&request, &why))?;
            let answer = self.http.exchange(&request, MAX_PAGE_BYTES).await?;
            walk.count(each(&answer)?, answer.body().len());
            match next(&request.url, &answer)? {
                Some(url) => request.url = url,
                None => return Ok(()),
            }
        }
    }
}

/// How far a list came.
struct Walk {
    began: Instant,
    /// The pages' addresses, shortened: they are the registry's, and may be long.
    seen: HashSet<Sha256>,
    names: usize,
    bytes: usize,
}

impl Walk {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            seen: HashSet::new(),
            names: 0,
            bytes: 0,
        }
    }

    /// Goes to the next page, or says why not.
    fn enter(&mut self, url: &Url) -> std::result::Result<(), String> {
        let pages = self.seen.len();
        if !self.seen.insert(Sha256::of(url.as_str().as_bytes())) {
            return Err(format!("after {pages} pages it comes back to one of them"));
        }
        if self.names > MAX_NAMES || self.bytes > MAX_LIST_BYTES {
            return Err(format!("it has more than {MAX_NAMES} names or 256 MiB"));
        }
        if pages > FEW_PAGES + self.names / FEW_NAMES {
            return Err(format!("{pages} pages have only {} names", self.names));
        }
        if self.began.elapsed() > MAX_LIST_TIME {
            return Err(format!("it did not end within {MAX_LIST_TIME:?}"));
        }
        Ok(())
    }

    fn count(&mut self, names: usize, bytes: usize) {
        self.names += names;
        self.bytes += bytes;
    }
}

fn without_end(request: &Request, why: &str) -> Error {
    let text = format!("cannot {}: the list goes on and on: {why}", request.doing);
    Error::new(ErrorKind::Unsupported, text)
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
    for value in answer.headers().get_all(LINK) {
        let target = value.to_str().ok().map(next_target);
        match target {
            Some(Ok(None)) => {}
            Some(Ok(Some(target))) => {
                if let Some(url) = page(this, target) {
                    return Ok(Some(url));
                }
                return Err(unfollowed(answer));
            }
            Some(Err(Unreadable)) | None => return Err(unfollowed(answer)),
        }
    }
    Ok(None)
}

fn unfollowed(answer: &Answer) -> Error {
    let text = "the list goes on, and its link to the next page cannot be followed";
    answer.error(ErrorKind::Unsupported, text)
}

/// The page of this list that a link's query names.
fn page(this: &Url, target: &str) -> Option<Url> {
    let linked = this.join(target).ok()?;
    let is_ours =
        matches!(linked.scheme(), "http" | "https") && linked.path().ends_with(this.path());
    let query = linked
        .query()
        .filter(|query| is_ours && !query.is_empty())?;
    let mut url = this.clone();
    url.set_query(Some(query));
    Some(url)
}

/// A `Link` that is none.
#[derive(Debug, PartialEq, Eq)]
struct Unreadable;

/// The target of the `rel="next"` in a `Link` (RFC 8288): `<target>; rel="next", <other>; …`. Some leave out the brackets, or
/// what it is.
fn next_target(header: &str) -> std::result::Result<Option<&str>, Unreadable> {
    let mut rest = header.trim();
    if rest.is_empty() {
        return Ok(None);
    }
    if !rest.contains('<') {
        let (target, parameters) = rest.split_once(';').unwrap_or((rest, ""));
        return Ok(leads_on(parameters).then(|| target.trim()));
    }
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>').ok_or(Unreadable)?;
        let (parameters, following) = match after.find('<') {
            Some(at) => after.split_at(at),
            None => (after, ""),
        };
        if leads_on(parameters) {
            return Ok(Some(target));
        }
        rest = following;
    }
    Ok(None)
}

/// Whether a link with these parameters is to the next page: a list has no other links, unless they say so.
fn leads_on(parameters: &str) -> bool {
    let mut parameters = parameters.split([';', ',']);
    let is_rel = |parameter: &str| {
        let key = parameter.split('=').next().unwrap_or_default();
        key.trim().eq_ignore_ascii_case("rel")
    };
    let says = parameters.clone().any(is_rel);
    !says || parameters.any(is_next)
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

    fn page(number: usize) -> Url {
        let url = format!("http://r/v2/_catalog?last={number}");
        url.parse().unwrap()
    }

    #[test]
    fn a_next_page_is_always_of_the_same_list() {
        for (target, expected) in [
            ("/v2/_catalog?last=b", Some("http://r/v2/_catalog?last=b")),
            ("?last=b", Some("http://r/v2/_catalog?last=b")),
            (
                "https://other:1/x/v2/_catalog?last=b",
                Some("http://r/v2/_catalog?last=b"),
            ),
            ("/elsewhere?last=b", None),
            ("/v2/_catalog", None),
            ("file:///v2/_catalog?last=b", None),
            ("http://[", None),
        ] {
            let found = super::page(&page(0), target).map(String::from);
            assert_eq!(found.as_deref(), expected, "{target}");
        }
    }

    /// Enters so many pages of so many names and bytes, and says where it ended.
    fn walked(
        walk: &mut Walk,
        pages: usize,
        names: usize,
        bytes: usize,
    ) -> Result<(), (usize, String)> {
        for number in 0..pages {
            walk.enter(&page(number)).map_err(|why| (number, why))?;
            walk.count(names, bytes);
        }
        Ok(())
    }

    #[test]
    fn a_list_of_a_million_names_is_read_and_a_longer_one_is_not() {
        assert_eq!(walked(&mut Walk::new(), 1000, 1000, 100_000), Ok(()));
        assert_eq!(walked(&mut Walk::new(), 10_000, 100, 10_000), Ok(()));
        let (pages, why) = walked(&mut Walk::new(), 2000, 1000, 100_000).unwrap_err();
        assert_eq!(pages, 1001);
        assert_eq!(why, "it has more than 1000000 names or 256 MiB");
        let (pages, _) = walked(&mut Walk::new(), 2000, 10, 8 << 20).unwrap_err();
        assert_eq!(pages, 33);
    }

    #[test]
    fn nearly_empty_pages_end() {
        let (pages, why) = walked(&mut Walk::new(), 2000, 0, 10).unwrap_err();
        assert_eq!((pages, &*why), (101, "101 pages have only 0 names"));
        let (pages, _) = walked(&mut Walk::new(), 2000, 1, 10).unwrap_err();
        assert!(pages < 120, "{pages}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_ends_within_an_hour() {
        let mut walk = Walk::new();
        assert_eq!(walked(&mut walk, 10, 1000, 10), Ok(()));
        tokio::time::advance(MAX_LIST_TIME + Duration::from_secs(1)).await;
        let why = walk.enter(&page(10)).unwrap_err();
        assert_eq!(why, "it did not end within 3600s");
    }

    #[test]
    fn links() {
        for (header, target) in [
            (
                r#"</v2/_catalog?last=b&n=2>; rel="next""#,
                Ok(Some("/v2/_catalog?last=b&n=2")),
            ),
            (r#"<a>; rel=prev, <b>; title="x"; rel=next"#, Ok(Some("b"))),
            (r#"<a>; rel="first next""#, Ok(Some("a"))),
            (r#"<a>; rel="prev""#, Ok(None)),
            (
                r#"/v2/_catalog?last=b; rel="next""#,
                Ok(Some("/v2/_catalog?last=b")),
            ),
            (r#"a; rel="prev""#, Ok(None)),
            ("<a>", Ok(Some("a"))),
            ("a", Ok(Some("a"))),
            ("<a", Err(Unreadable)),
            ("", Ok(None)),
        ] {
            assert_eq!(next_target(header), target, "{header}");
        }
    }
}
