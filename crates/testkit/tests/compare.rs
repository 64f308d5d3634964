//! The comparer finds each kind of difference, and nothing where there is none.

use std::ffi::OsString;
use std::os::unix::net::UnixListener;
use std::path::Path;

use tempfile::TempDir;
use testkit::compare::{
    Difference, Holes, Options, Sharing, What, assert_same, compare, compare_with,
};
use testkit::{Content, Tree};

fn written(tree: Tree) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    tree.write_to(dir.path()).unwrap();
    dir
}

fn found(expected: Tree, actual: Tree, options: &Options) -> Vec<Difference> {
    compare_with(written(expected).path(), written(actual).path(), options)
}

fn only(what: What) -> Vec<Difference> {
    vec![Difference {
        path: "f".into(),
        what,
    }]
}

/// Everything but times, which `now` decides where a tree doesn't.
fn untimed() -> Options {
    Options {
        mtime: false,
        ..Options::default()
    }
}

fn file() -> Tree {
    Tree::new().file(
        "f",
        Content::Random {
            seed: 1,
            len: 3 << 20,
        },
    )
}

fn sparse(extents: Vec<(u64, u64, u64)>) -> Tree {
    Tree::new().file(
        "f",
        Content::Sparse {
            size: 1 << 20,
            extents,
        },
    )
}

#[test]
fn equal_trees_are_the_same() {
    let (one, other) = (written(Tree::random(11, 60)), written(Tree::random(11, 60)));
    assert_same(one.path(), other.path());
    assert_same(one.path(), one.path());
    for dir in [one, other] {
        testkit::tree::unlock(dir.path()).unwrap();
    }
}

#[test]
fn names() {
    let (less, more) = (Tree::new().dir("a"), Tree::new().dir("a").file("f", ""));
    assert_eq!(
        found(more.clone(), less.clone(), &untimed()),
        only(What::Missing)
    );
    assert_eq!(
        found(less.clone(), more.clone(), &untimed()),
        only(What::Unexpected)
    );
    assert_eq!(
        found(
            less,
            more,
            &Options {
                subset: true,
                ..untimed()
            }
        ),
        []
    );
}

#[test]
fn kinds() {
    let different = |expected: Tree, actual: Tree| found(expected, actual, &Options::default());
    let symlink = Tree::new().symlink("f", "/");
    assert_eq!(
        different(Tree::new().dir("f"), symlink.clone()),
        only(What::Kind("directory", "symlink"))
    );
    assert_eq!(
        different(symlink, Tree::new().fifo("f")),
        only(What::Kind("symlink", "fifo"))
    );
    assert_eq!(
        different(Tree::new().fifo("f"), file()),
        only(What::Kind("fifo", "file"))
    );
}

#[test]
fn a_socket_is_no_file() {
    let (expected, actual) = (written(file()), tempfile::tempdir().unwrap());
    let _listener = UnixListener::bind(actual.path().join("f")).unwrap();
    assert_eq!(
        compare(expected.path(), actual.path()),
        only(What::Kind("file", "socket"))
    );
}

#[test]
fn sizes() {
    let longer = Tree::new().file(
        "f",
        Content::Random {
            seed: 1,
            len: (3 << 20) + 1,
        },
    );
    assert_eq!(
        found(file(), longer, &untimed()),
        only(What::Size(3 << 20, (3 << 20) + 1))
    );
}

#[test]
fn one_byte_past_the_first_chunk() {
    let mut bytes = testkit::prng::random_bytes(1, 3 << 20);
    bytes[(2 << 20) + 17] ^= 1;
    let actual = Tree::new().file("f", bytes);
    assert_eq!(
        found(file(), actual, &Options::contents()),
        only(What::Bytes((2 << 20) + 17))
    );
}

#[test]
fn data_where_zeros_were_expected() {
    let (none, some) = (sparse(vec![]), sparse(vec![(65536, 1, 65536)]));
    let options = Options::contents();
    assert_eq!(
        found(none.clone(), some.clone(), &options),
        only(What::Bytes(65536))
    );
    assert_eq!(found(some, none, &options), only(What::Bytes(65536)));
}

#[test]
fn holes() {
    let zeros = Tree::new().file(
        "f",
        Content::Pieces {
            size: 1 << 20,
            pieces: vec![(65536, vec![0; 65536])],
        },
    );
    let hole = sparse(vec![]);
    let asked = |holes| Options { holes, ..untimed() };
    let denser = || only(What::Holes(vec![], vec![(65536, 65536)]));
    assert_eq!(
        found(hole.clone(), zeros.clone(), &asked(Holes::Exact)),
        denser()
    );
    assert_eq!(
        found(hole.clone(), zeros.clone(), &asked(Holes::NoMoreDataThan)),
        denser()
    );
    assert_eq!(
        found(hole.clone(), zeros.clone(), &asked(Holes::Ignore)),
        []
    );
    assert_eq!(
        found(zeros.clone(), hole.clone(), &asked(Holes::Exact)),
        only(What::Holes(vec![(65536, 65536)], vec![]))
    );
    assert_eq!(found(zeros, hole, &asked(Holes::NoMoreDataThan)), []);
}

#[test]
fn names_of_one_inode() {
    let apart = Tree::new().file("f", "x").file("g", "x").file("h", "x");
    let together = Tree::new().file("f", "x").hardlink("g", "f").file("h", "x");
    let asked = |sharing| Options {
        sharing,
        ..untimed()
    };
    let lost = found(
        together.clone(),
        apart.clone(),
        &asked(Sharing::MayShareMore),
    );
    assert_eq!(
        lost[0].what,
        What::Sharing(vec!["f".into(), "g".into()], vec!["f".into()])
    );
    assert_eq!(
        found(apart.clone(), together.clone(), &asked(Sharing::Exact)).len(),
        2
    );
    assert_eq!(
        found(
            apart.clone(),
            together.clone(),
            &asked(Sharing::MayShareMore)
        ),
        []
    );
    assert_eq!(found(together, apart, &asked(Sharing::Ignore)), []);
}

#[test]
fn partitions_of_equal_sizes() {
    let files = Tree::new().file("a", "x").file("b", "x");
    let straight = files.clone().hardlink("c", "a").hardlink("d", "b");
    let crossed = files.hardlink("c", "b").hardlink("d", "a");
    assert_eq!(found(straight, crossed, &untimed()).len(), 4);
}

#[test]
fn modes() {
    let actual = file().mode("f", 0o4644);
    assert_eq!(
        found(file(), actual.clone(), &untimed()),
        only(What::Mode(0o644, 0o4644))
    );
    assert_eq!(found(file(), actual, &Options::contents()), []);
}

#[test]
fn times_of_files_directories_and_symlinks() {
    for tree in [file(), Tree::new().dir("f"), Tree::new().symlink("f", "x")] {
        let (one, other) = (tree.clone().mtime("f", -1, 5), tree.mtime("f", -1, 6));
        let differences = found(one, other, &Options::default());
        assert_eq!(differences, only(What::Mtime((-1, 5), (-1, 6))));
    }
}

#[test]
fn attributes_of_directories_and_symlinks_can_be_left_out() {
    let tree = |seconds| {
        Tree::new()
            .dir("d")
            .mtime("d", seconds, 0)
            .symlink("f", "x")
            .mtime("f", seconds, 0)
    };
    let options = Options {
        directories: false,
        symlinks: false,
        ..Options::default()
    };
    assert_eq!(found(tree(1), tree(2), &Options::default()).len(), 2);
    assert_eq!(found(tree(1), tree(2), &options), []);
}

#[test]
fn owners() {
    if !rustix::process::geteuid().is_root() {
        testkit::skip!("only root gives files away");
    }
    let actual = || file().owner("f", 1000, 65534);
    assert_eq!(
        found(file(), actual(), &untimed()),
        only(What::Owner((0, 0), (1000, 65534)))
    );
    assert_eq!(
        found(
            file(),
            actual(),
            &Options {
                owner: false,
                ..untimed()
            }
        ),
        []
    );
}

#[test]
fn extended_attributes() {
    let with = |name: &str, value: &[u8]| file().xattr("f", name, value);
    let xattr = |one: Option<&[u8]>, other: Option<&[u8]>| {
        only(What::Xattr(
            OsString::from("user.a"),
            one.map(Into::into),
            other.map(Into::into),
        ))
    };
    assert_eq!(
        found(with("user.a", b"\0"), with("user.a", b""), &untimed()),
        xattr(Some(b"\0"), Some(b""))
    );
    assert_eq!(
        found(with("user.a", b""), file(), &untimed()),
        xattr(Some(b""), None)
    );
    assert_eq!(
        found(file(), with("user.a", b"1"), &untimed()),
        xattr(None, Some(b"1"))
    );
    assert_eq!(
        found(
            file(),
            with("user.a", b"1"),
            &Options {
                xattrs: false,
                ..untimed()
            }
        ),
        []
    );
}

#[test]
fn targets() {
    let link = |target: &str| Tree::new().symlink("f", target);
    assert_eq!(
        found(link("a"), link("./a"), &untimed()),
        only(What::Target("a".into(), "./a".into()))
    );
}

#[test]
fn a_missing_directory_is_a_difference() {
    let differences = compare(Path::new("/nonexistent"), Path::new("/"));
    assert!(
        matches!(&differences[..], [Difference { what: What::Unreadable(why), .. }] if why.contains("/nonexistent"))
    );
}

#[test]
#[should_panic(expected = "  \"f\": mode 0600 was expected, is 0644\n")]
fn the_panic_lists_what_differs() {
    let tree = file().mtime("f", 0, 0);
    let (expected, actual) = (written(tree.clone().mode("f", 0o600)), written(tree));
    assert_same(expected.path(), actual.path());
}

#[test]
fn every_difference_reads_well() {
    let what = What::Xattr("user.a".into(), Some(b"a\0".into()), None);
    assert_eq!(
        Difference {
            path: "f".into(),
            what
        }
        .to_string(),
        r#""f": "user.a" "a\x00" (2 bytes) was expected, is (none)"#
    );
    let many: Vec<(u64, u64)> = (0..10).map(|i| (i, 1)).collect();
    assert!(
        What::Holes(many, vec![])
            .to_string()
            .contains("and 2 more was expected, is at []")
    );
}
