//! Restoring over what is there: atomically, no more than asked for, never outside, and nothing is left behind.

use crate::support_a;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use snapshotter::{Config, ErrorKind, File, LinkMode, RestoreReport, Snapshotter, WarningKind};
use support_a::*;
use testkit::compare::{Options, assert_same, assert_same_with};
use testkit::mount::{BindMount, or_skip};
use testkit::tree::set_mtime;
use testkit::{Content, Tree, fsstat};

const MIB: u64 = 1 << 20;

fn some() -> Tree {
    Tree::new()
        .file("a/1", "one")
        .mode("a/1", 0o640)
        .mtime("a/1", 1_000, 1)
        .file(
            "a/b/2",
            Content::Random {
                seed: 2,
                len: 2 * MIB,
            },
        )
        .mtime("a/b/2", 1_001, 2)
        .xattr("a/b/2", "user.x", b"1")
        .hardlink("second", "a/b/2")
        .file("top", "top")
        .mtime("top", 1_002, 3)
        .symlink("link", "a/1")
        .mtime("link", 1_003, 4)
        .mtime("a", 1_004, 5)
        .mode("a", 0o711)
}

/// A store with `some()` as `test:w`, writable, and `test:r`, read-only.
async fn prepared() -> (Place, PathBuf, Snapshotter) {
    let place = Place::new();
    let base = place.write("base", &some());
    let store = place.open().await;
    take(&store, "w", &base).await;
    let request = all_read_only("r", &base).link_mode(LinkMode::Copy);
    store.snapshot(&request).await.unwrap();
    (place, base, store)
}

const BOTH: [&str; 2] = ["w", "r"];

/// A directory restored from the snapshot of this version.
async fn restored(place: &Place, store: &Snapshotter, version: &str) -> PathBuf {
    let output = place.fresh();
    give(store, version, &output).await;
    output
}

fn present(report: &RestoreReport) -> u64 {
    report.placements.present.files
}

#[tokio::test]
async fn a_file_is_replaced_and_its_old_inode_keeps_its_bytes() {
    let (place, base, store) = prepared().await;
    for version in BOTH {
        let tree = Tree::new()
            .file("top", "old")
            .file("a/1", "old, and longer than the new");
        let output = place.write(&format!("output-{version}"), &tree);
        let kept = place.path(&format!("kept-{version}"));
        fs::hard_link(output.join("top"), &kept).unwrap();
        let reader = fs::File::open(output.join("a/1")).unwrap();
        give(&store, version, &output).await;
        assert_same_with(&base, &output, &shared());
        assert_eq!(fs::read(kept).unwrap(), b"old");
        assert_eq!(
            std::io::read_to_string(reader).unwrap(),
            "old, and longer than the new"
        );
        assert_no_litter(&output);
    }
}

#[tokio::test]
async fn what_the_snapshot_does_not_know_is_left_alone() {
    let (place, _, store) = prepared().await;
    let tree = Tree::new()
        .file("mine", "mine")
        .mode("mine", 0o600)
        .file("a/mine", "mine too")
        .file("a/b/c/mine", "deep")
        .symlink("a/my-link", "anywhere")
        .fifo("pipe");
    for version in BOTH {
        let output = place.write(&format!("output-{version}"), &tree);
        let before: Vec<PathBuf> = fsstat::paths(&output).unwrap();
        let inodes: Vec<_> = before
            .iter()
            .map(|path| inode(&output.join(path)))
            .collect();
        give(&store, version, &output).await;
        let after: Vec<_> = before
            .iter()
            .map(|path| inode(&output.join(path)))
            .collect();
        assert_eq!(inodes, after);
        assert_eq!(fs::read(output.join("a/b/c/mine")).unwrap(), b"deep");
        assert_eq!(stat(&output.join("mine")).mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn what_is_there_already_is_not_touched() {
    let (place, base, store) = prepared().await;
    for version in BOTH {
        let output = restored(&place, &store, version).await;
        let seen = |output: &Path| -> Vec<_> {
            let entries = fsstat::entries(output).unwrap();
            let files = entries.into_iter().filter(|(_, stat)| stat.is_file());
            files
                .map(|(path, stat)| (path, stat.ino(), stat.ctime(), stat.ctime_nsec()))
                .collect()
        };
        let before = seen(&output);
        let again = give(&store, version, &output).await;
        assert_eq!((present(&again), again.files), (3, 4));
        assert_eq!(
            again.placements.copy.files + again.placements.hardlink.files,
            0
        );
        assert_eq!(seen(&output), before, "{version}");
        assert_same_with(&base, &output, &shared());
    }
}

#[tokio::test]
async fn a_file_somebody_else_wrote_right_is_not_written_again() {
    let (place, base, store) = prepared().await;
    let output = place.write("output", &some());
    let before = inode(&output.join("a/b/2"));
    let given = give(&store, "w", &output).await;
    assert_eq!(present(&given), 3);
    assert_eq!(inode(&output.join("second")), before);
    assert_same(&base, &output);
}

#[tokio::test]
async fn only_what_differs_is_replaced() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 6] = [
        ("mode", |path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        }),
        ("mtime", |path| set_mtime(path, (1_002, 4)).unwrap()),
        ("bytes, secretly", |path| overwrite_secretly(path, 1, b"0")),
        ("size", |path| {
            let before = mtime(path);
            fs::write(path, "longer").unwrap();
            set_mtime(path, before).unwrap();
        }),
        ("an xattr more", |path| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::lsetxattr(path, "user.more", b"", flags).unwrap();
        }),
        ("gone", |path| fs::remove_file(path).unwrap()),
    ];
    let (place, base, store) = prepared().await;
    for (what, change) in changes {
        let output = restored(&place, &store, "w").await;
        change(&output.join("top"));
        let given = give(&store, "w", &output).await;
        assert_eq!(present(&given), 2, "{what}");
        assert_same(&base, &output);
        assert_no_litter(&output);
    }
}

#[tokio::test]
async fn a_view_whose_attributes_somebody_changed_is_replaced() {
    let (place, base, store) = prepared().await;
    let output = restored(&place, &store, "r").await;
    let other = restored(&place, &store, "r").await;
    fs::set_permissions(output.join("top"), fs::Permissions::from_mode(0o600)).unwrap();
    set_mtime(&output.join("a/1"), (5, 5)).unwrap();
    let given = give(&store, "r", &output).await;
    assert_eq!(present(&given), 1);
    assert_same_with(&base, &output, &shared());
    // The other output shared the changed inode, and is put right too.
    give(&store, "r", &other).await;
    assert_same_with(&base, &other, &shared());
}

#[tokio::test]
async fn groups_of_second_names_are_put_right() {
    let (place, base, store) = prepared().await;
    for version in BOTH {
        // Two inodes where one is wanted.
        let output = restored(&place, &store, version).await;
        fs::copy(output.join("second"), output.join("copy")).unwrap();
        fs::rename(output.join("copy"), output.join("second")).unwrap();
        give(&store, version, &output).await;
        assert_same_with(&base, &output, &shared());
        // One inode where two are wanted, or with a name elsewhere.
        let output = restored(&place, &store, version).await;
        fs::remove_file(output.join("top")).unwrap();
        fs::hard_link(output.join("second"), output.join("top")).unwrap();
        let elsewhere = place.path(&format!("elsewhere-{version}"));
        fs::hard_link(output.join("second"), &elsewhere).unwrap();
        give(&store, version, &output).await;
        assert_same_with(&base, &output, &shared());
        if version == "w" {
            assert_ne!(inode(&elsewhere), inode(&output.join("second")));
            assert_eq!(stat(&output.join("second")).nlink(), 2);
        }
        // The first name gone.
        let output = restored(&place, &store, version).await;
        fs::remove_file(output.join("a/b/2")).unwrap();
        give(&store, version, &output).await;
        assert_same_with(&base, &output, &shared());
        assert_no_litter(&output);
    }
}

#[tokio::test]
async fn a_writable_restore_over_a_shared_file_does_not_leave_it_shared() {
    let place = Place::new();
    let base = place.write(
        "base",
        &Tree::new().file("f", Content::Random { seed: 1, len: MIB }),
    );
    age(&base.join("f"));
    let store = place.open().await;
    take_read_only(&store, "r", &base).await;
    take(&store, "w", &base).await;
    let blob = inode(&place.only_blob());
    assert_eq!(inode(&base.join("f")), blob);
    let given = give(&store, "w", &base).await;
    assert_eq!(present(&given), 0);
    assert_ne!(inode(&base.join("f")), blob);
    overwrite(&base.join("f"), 0, b"mine now");
    assert_sound(&store).await;
}

#[tokio::test]
async fn a_read_only_restore_over_a_private_copy_shares_it_again() {
    let place = Place::new();
    let base = place.write(
        "base",
        &Tree::new().file("f", Content::Random { seed: 1, len: MIB }),
    );
    age(&base.join("f"));
    let store = place.open().await;
    take_read_only(&store, "r", &base).await;
    take(&store, "w", &base).await;
    let output = restored(&place, &store, "w").await;
    let given = give(&store, "r", &output).await;
    assert_eq!(given.placements.hardlink.files, 1);
    assert_eq!(inode(&output.join("f")), inode(&base.join("f")));
    assert_eq!(stat(&base.join("f")).nlink(), 3);
}

#[tokio::test]
async fn no_clobber_refuses_before_it_writes_anything() {
    let (place, _, store) = prepared().await;
    for version in BOTH {
        // Files, second names, symlinks and even what is the same already.
        for there in ["a/b/2", "second", "top", "link"] {
            let output = place.write(
                &format!("{version}-{}", there.replace('/', "-")),
                &Tree::new().file(there, "mine"),
            );
            let before = fsstat::paths(&output).unwrap();
            let request = to(version, &output).no_clobber(true);
            let error = store.restore(&request).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
            assert_eq!(error.path(), Some(output.join(there).as_path()));
            assert!(error.to_string().contains(there), "{error}");
            assert_eq!(fsstat::paths(&output).unwrap(), before);
            assert_eq!(fs::read(output.join(there)).unwrap(), b"mine");
        }
        let output = restored(&place, &store, version).await;
        let request = to(version, &output).no_clobber(true);
        let error = store.restore(&request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    }
}

#[tokio::test]
async fn no_clobber_accepts_directories_and_leaves_theirs_as_they_are() {
    let (place, base, store) = prepared().await;
    for version in BOTH {
        let tree = Tree::new().file("a/b/mine", "mine").mode("a", 0o700);
        let output = place.write(&format!("output-{version}"), &tree);
        let request = to(version, &output).no_clobber(true);
        store.restore(&request).await.unwrap();
        let options = Options {
            directories: false,
            subset: true,
            ..shared()
        };
        assert_same_with(&base, &output, &options);
        assert_eq!(stat(&output.join("a")).mode() & 0o777, 0o700);
        let output = place.fresh();
        store
            .restore(&to(version, &output).no_clobber(true))
            .await
            .unwrap();
        assert_same_with(&base, &output, &shared());
    }
}

/// What a restore of some paths made.
async fn part(version: &str, paths: &[&str]) -> Vec<PathBuf> {
    let (place, base, store) = prepared().await;
    let output = place.fresh();
    let request = to(version, &output).paths(paths);
    store.restore(&request).await.unwrap();
    let subset = Options {
        sharing: testkit::compare::Sharing::Ignore,
        mtime: false,
        subset: true,
        ..Options::default()
    };
    assert_same_with(&output, &base, &subset);
    files_below(&output)
}

#[tokio::test]
async fn a_part_can_be_asked_for() {
    for version in BOTH {
        assert_eq!(part(version, &["top"]).await, [Path::new("top")]);
        assert_eq!(part(version, &["a/1", "a/1"]).await, [Path::new("a/1")]);
        assert_eq!(part(version, &["link"]).await, [Path::new("link")]);
        let below: [&Path; 2] = ["a/1", "a/b/2"].map(Path::new);
        assert_eq!(part(version, &["a"]).await, below);
        assert_eq!(part(version, &["./a/", "a/1"]).await, below);
        assert_eq!(part(version, &["a/b"]).await, [Path::new("a/b/2")]);
    }
}

#[tokio::test]
async fn patterns_choose_what_is_restored() {
    let (place, _, store) = prepared().await;
    for version in BOTH {
        let chosen = async |include: &[&str], exclude: &[&str]| {
            let output = place.fresh();
            let mut request = to(version, &output);
            request.include = include.iter().map(|&text| text.to_owned()).collect();
            request.exclude = exclude.iter().map(|&text| text.to_owned()).collect();
            let plan = store.plan_restore(&request).await.unwrap();
            let report = store.restore(&request).await.unwrap();
            assert_eq!(
                (plan.files, &plan.warnings),
                (report.files, &report.warnings)
            );
            let said = report.warnings.into_iter().map(|warning| warning.message);
            let found = files_below(&output)
                .into_iter()
                .map(|path| path.display().to_string());
            (found.collect::<Vec<_>>(), said.collect::<Vec<_>>())
        };
        let nothing = Vec::<String>::new();
        let (found, said) = chosen(&["2", "/top"], &[]).await;
        assert_eq!(
            (found, said),
            (vec!["a/b/2".into(), "top".into()], nothing.clone())
        );
        let (found, said) = chosen(&["a/"], &["1"]).await;
        assert_eq!((found, said), (vec!["a/b/2".into()], nothing.clone()));
        // The first name of an inode is left out, so the second one is a whole file.
        let (found, _) = chosen(&[], &["/a", "link"]).await;
        assert_eq!(found, ["second", "top"]);
        let (_, said) = chosen(&["top", "b"], &["/x"]).await;
        assert_eq!(said, [r#"exclude: "/x" matches nothing"#]);
    }
}

/// A restore over an older tree left what that had and the snapshot has not, so that two nodes never had the same.
#[tokio::test]
async fn what_the_snapshot_does_not_have_is_deleted_where_that_is_asked_for() {
    let (place, base, store) = prepared().await;
    let outside = place.write(
        "outside",
        &Tree::new().file("kept", "k").file("d/kept", "k"),
    );
    for version in BOTH {
        let output = restored(&place, &store, version).await;
        fs::create_dir_all(output.join("more/deep/er")).unwrap();
        fs::write(output.join("more/deep/file"), "x").unwrap();
        fs::write(output.join("a/b/file"), "x").unwrap();
        symlink(&outside, output.join("more/out")).unwrap();
        symlink(&outside, output.join("a/out")).unwrap();
        let request = to(version, &output).delete(true);
        let clobbers = store
            .restore(&request.clone().no_clobber(true))
            .await
            .unwrap_err();
        assert_eq!(clobbers.kind(), ErrorKind::InvalidInput);
        let wanted = "a/b/file a/out more more/deep more/deep/er more/deep/file more/out";
        let plan = store.plan_restore(&request).await.unwrap();
        let extra: Vec<_> = plan
            .extra
            .iter()
            .map(|path| path.to_str().unwrap())
            .collect();
        assert_eq!(extra.join(" "), wanted);
        // Of a part, only that part.
        let part = store.restore(&request.clone().path("a/b")).await.unwrap();
        assert_eq!(part.deleted, 1);
        let kept = store
            .restore(&request.clone().exclude("more").exclude("out"))
            .await
            .unwrap();
        assert_eq!((kept.deleted, kept.warnings), (0, Vec::new()));
        assert_eq!(store.restore(&request).await.unwrap().deleted, 6);
        // Directories have their times back.
        assert_same_with(&base, &output, &shared());
    }
    assert_eq!(files_below(&outside), ["d/kept", "kept"].map(PathBuf::from));
}

#[tokio::test]
async fn nothing_is_deleted_through_a_mount_or_in_the_store() {
    let place = Place::new();
    let base = place.write("base", &Tree::new().file("a", "a"));
    let outside = place.write("outside", &Tree::new().file("kept", "k"));
    // The store is below the output.
    let output = place.root().parent().unwrap().to_owned();
    let store = place.open().await;
    take(&store, "v1", &base).await;
    fs::create_dir_all(output.join("more/mounted")).unwrap();
    fs::write(output.join("more/file"), "x").unwrap();
    // On the same filesystem, which a look at devices would not tell.
    let Some(_bound) = or_skip(BindMount::new(&outside, &output.join("more/mounted"))) else {
        return;
    };
    let request = to("v1", &output).delete(true).include("/a").include("more");
    let request = request.include(place.root().file_name().unwrap().to_str().unwrap());
    let report = store.restore(&request).await.unwrap();
    assert_eq!(report.deleted, 1);
    let kinds = report.warnings.iter().map(|warning| warning.kind);
    // The store is not even looked at, so the pattern for it matches nothing.
    let kinds: Vec<_> = kinds
        .filter(|kind| *kind != WarningKind::Unmatched)
        .collect();
    assert_eq!(kinds, [WarningKind::Mounted]);
    assert!(outside.join("kept").exists() && !output.join("more/file").exists());
    assert_sound(&store).await;
}

/// The socket of a machine that ran went, and another store below the output with the only copies in it.
#[tokio::test]
async fn what_no_snapshot_can_have_and_other_stores_are_not_deleted() {
    let (place, base, store) = prepared().await;
    let output = restored(&place, &store, "w").await;
    let nested = output.join("a/nested");
    let other = Snapshotter::open(Config::new(&nested)).await.unwrap();
    take(&other, "v1", &base).await;
    let _socket = UnixListener::bind(output.join("a/socket")).unwrap();
    fs::write(output.join("a/more"), "x").unwrap();
    let request = to("w", &output).delete(true);
    let extra = store.plan_restore(&request).await.unwrap().extra;
    assert_eq!(extra, [Path::new("a/more")]);
    let report = store.restore(&request).await.unwrap();
    assert_eq!(report.deleted, 1);
    let mut kinds: Vec<_> = report.warnings.iter().map(|one| one.kind).collect();
    kinds.sort_by_key(|kind| kind.as_str());
    assert_eq!(kinds, [WarningKind::Kept, WarningKind::Skipped]);
    assert!(output.join("a/socket").exists());
    assert_sound(&other).await;
    give(&other, "v1", &place.fresh()).await;
}

/// A pattern of nothing, as a variable is that nobody set, was as good as none given: all that was extra went.
#[tokio::test]
async fn a_pattern_of_nothing_is_refused() {
    let (place, _, store) = prepared().await;
    let output = restored(&place, &store, "w").await;
    fs::write(output.join("more"), "x").unwrap();
    for nothing in ["", " ", "/"] {
        let request = to("w", &output).delete(true);
        for request in [request.clone().include(nothing), request.exclude(nothing)] {
            let error = store.restore(&request).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }
    assert!(output.join("more").exists());
}

#[tokio::test]
async fn a_second_name_alone_is_a_whole_file() {
    for version in BOTH {
        assert_eq!(part(version, &["second"]).await, [Path::new("second")]);
        let both: [&Path; 2] = ["a/b/2", "second"].map(Path::new);
        assert_eq!(part(version, &["second", "a/b"]).await, both);
    }
}

#[tokio::test]
async fn a_part_leaves_the_rest_of_the_output_alone() {
    let (place, _, store) = prepared().await;
    let output = place.write(
        "output",
        &Tree::new()
            .file("a/1", "mine")
            .file("top", "mine")
            .mode("a", 0o755),
    );
    store.restore(&to("w", &output).path("a/b")).await.unwrap();
    assert_eq!(fs::read(output.join("a/1")).unwrap(), b"mine");
    assert_eq!(fs::read(output.join("top")).unwrap(), b"mine");
    // On the way, but not asked for.
    assert_eq!(stat(&output.join("a")).mode() & 0o777, 0o755);
}

#[tokio::test]
async fn a_part_that_is_not_there_is_not_found() {
    let (place, _, store) = prepared().await;
    for path in ["missing", "a/missing", "top/below", "to", "link/1"] {
        let output = place.fresh();
        let request = to("w", &output).path("top").path(path);
        let error = store.restore(&request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains(path), "{error}");
        assert_eq!(error.path(), Some(Path::new(path)));
        assert!(!output.join("top").exists());
    }
    for path in ["", "../top", "/top", "a/../top", "a\0b"] {
        let output = place.fresh();
        let error = store
            .restore(&to("w", &output).path(path))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(!output.exists());
    }
}

#[tokio::test]
async fn a_file_where_a_directory_must_be_is_an_error_that_names_it() {
    let (place, _, store) = prepared().await;
    for version in BOTH {
        let output = place.write(&format!("output-{version}"), &Tree::new().file("a", "mine"));
        let error = give_fails(&store, version, &output).await;
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert_eq!(error.path(), Some(output.join("a").as_path()));
        assert_eq!(fs::read(output.join("a")).unwrap(), b"mine");
        assert_no_litter(&output);
    }
}

#[tokio::test]
async fn a_directory_where_a_file_must_be_is_an_error_that_names_it() {
    let (place, _, store) = prepared().await;
    for version in BOTH {
        for path in ["top", "second", "link"] {
            for full in [false, true] {
                let mut tree = Tree::new().dir(path);
                if full {
                    tree = tree.file(Path::new(path).join("mine"), "mine");
                }
                let output = place.write(&format!("{version}-{path}-{full}"), &tree);
                let error = give_fails(&store, version, &output).await;
                assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
                assert_eq!(error.path(), Some(output.join(path).as_path()));
                assert!(stat(&output.join(path)).is_dir());
                assert_eq!(output.join(path).join("mine").exists(), full);
                assert_no_litter(&output);
            }
        }
    }
}

#[tokio::test]
async fn anything_that_is_no_directory_gives_way_to_a_file() {
    let (place, base, store) = prepared().await;
    for version in BOTH {
        let tree = Tree::new()
            .symlink("top", "mine")
            .file("mine", "mine")
            .fifo("second")
            .symlink("a/1", "/nowhere")
            .file("link", "a file");
        let output = place.write(&format!("output-{version}"), &tree);
        give(&store, version, &output).await;
        assert_eq!(fs::read(output.join("mine")).unwrap(), b"mine");
        fs::remove_file(output.join("mine")).unwrap();
        assert_same_with(&base, &output, &shared());
        assert_no_litter(&output);
    }
}

#[tokio::test]
async fn a_symlink_on_the_way_is_not_followed() {
    let (place, _, store) = prepared().await;
    for version in BOTH {
        for there in ["a", "a/b"] {
            let outside = place.write(
                &format!("outside-{version}-{}", there.len()),
                &Tree::new().dir("b"),
            );
            let output = place.fresh();
            fs::create_dir_all(output.join(there).parent().unwrap()).unwrap();
            symlink(&outside, output.join(there)).unwrap();
            for request in [
                to(version, &output),
                to(version, &output).no_clobber(true),
                to(version, &output).path("a/b/2"),
            ] {
                let error = store.restore(&request).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
                assert_eq!(error.path(), Some(output.join(there).as_path()));
                assert_eq!(fsstat::paths(&outside).unwrap(), [Path::new("b")]);
            }
            assert!(stat(&output.join(there)).is_symlink());
        }
        // Also not one that stays inside.
        let output = place.fresh();
        fs::create_dir_all(output.join("elsewhere/b")).unwrap();
        symlink("elsewhere", output.join("a")).unwrap();
        give_fails(&store, version, &output).await;
        assert!(files_below(&output.join("elsewhere")).is_empty());
    }
}

#[tokio::test]
async fn a_directory_swapped_for_a_symlink_meanwhile_is_not_followed() {
    let (place, _, store) = prepared().await;
    for version in BOTH {
        let outside = place.write(&format!("outside-{version}"), &Tree::new().dir("b"));
        let output = place.fresh();
        let swapped = std::sync::Once::new();
        let observer = {
            let (output, outside) = (output.clone(), outside.clone());
            OnProgress::new(move |_| {
                swapped.call_once(|| {
                    let _ = fs::rename(output.join("a"), output.join("was-a"));
                    symlink(&outside, output.join("a")).unwrap();
                });
            })
        };
        let result = store
            .observed_by(observer)
            .restore(&to(version, &output))
            .await;
        assert_eq!(fsstat::paths(&outside).unwrap(), [Path::new("b")]);
        assert_no_litter(&output);
        // The directory's own attributes could not be set, at the least.
        assert!(result.is_err(), "{version}: {result:?}");
    }
}

#[tokio::test]
async fn the_output_directory_itself_may_be_a_symlink() {
    let (place, base, store) = prepared().await;
    for version in BOTH {
        let real = place.fresh();
        fs::create_dir(&real).unwrap();
        let way = place.path(&format!("way-{version}"));
        symlink(&real, &way).unwrap();
        give(&store, version, &way.join("deep/er")).await;
        assert_same_with(&base, &real.join("deep/er"), &shared());
        give(&store, version, &way).await;
        assert!(stat(&way).is_symlink());
    }
}

#[tokio::test]
async fn an_output_that_is_no_directory_is_refused() {
    let (place, _, store) = prepared().await;
    fs::write(place.path("file"), "mine").unwrap();
    for output in [place.path("file"), PathBuf::new()] {
        let error = give_fails(&store, "w", &output).await;
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(
            error.to_string().contains("output_dir")
                || error.hint().unwrap().contains("output_dir")
        );
    }
    assert_eq!(fs::read(place.path("file")).unwrap(), b"mine");
}

#[tokio::test]
async fn attributes_never_leak_between_files_of_equal_bytes() {
    let place = Place::new();
    let bytes = || Content::Random {
        seed: 1,
        len: 100_000,
    };
    let mut tree = Tree::new()
        .file("a", bytes())
        .mode("a", 0o600)
        .mtime("a", 1, 1)
        .file("b", bytes())
        .mode("b", 0o755)
        .mtime("b", 1, 1)
        .file("c", bytes())
        .mode("c", 0o600)
        .mtime("c", 2, 1)
        .file("d", bytes())
        .mode("d", 0o600)
        .mtime("d", 1, 1)
        .xattr("d", "user.x", b"1")
        .file("e", bytes())
        .mode("e", 0o600)
        .mtime("e", 1, 1)
        .xattr("e", "user.x", b"2")
        .file("f", bytes())
        .mode("f", 0o600)
        .mtime("f", 1, 1);
    if is_root() {
        tree = tree
            .file("g", bytes())
            .mode("g", 0o600)
            .mtime("g", 1, 1)
            .owner("g", 1234, 5678);
    }
    let base = place.write("base", &tree);
    let store = place.open().await;
    for mode in [LinkMode::Auto, LinkMode::Copy] {
        let version = format!("{mode:?}");
        let request = all_read_only(&version, &base).link_mode(mode);
        store.snapshot(&request).await.unwrap();
        for _ in 0..2 {
            let output = restored(&place, &store, &version).await;
            assert_same_with(&base, &output, &shared());
            assert_eq!(inode(&output.join("a")), inode(&output.join("f")));
        }
        store
            .remove(&reference(&format!("test:{version}")))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn attributes_never_leak_between_snapshots_of_equal_bytes() {
    let place = Place::new();
    let tree = |mode, seconds| {
        Tree::new()
            .file("f", "same bytes")
            .mode("f", mode)
            .mtime("f", seconds, 0)
    };
    let trees = [tree(0o600, 1), tree(0o644, 1), tree(0o600, 2)];
    let store = place.open().await;
    let mut bases = Vec::new();
    for (number, tree) in trees.iter().enumerate() {
        let base = place.write(&format!("base-{number}"), tree);
        take_read_only(&store, &number.to_string(), &base).await;
        bases.push(base);
    }
    assert_eq!(store.usage().await.unwrap().blobs, 1);
    for _ in 0..2 {
        for (number, base) in bases.iter().enumerate() {
            let output = restored(&place, &store, &number.to_string()).await;
            assert_same(base, &output);
        }
    }
}

/// Whoever owns a restored file may change its attributes: the inode is shared, the next restore is not spoilt.
#[tokio::test]
async fn changed_attributes_of_one_output_do_not_reach_the_next() {
    let (place, base, store) = prepared().await;
    let blob_itself = place.write("own", &Tree::new().file("f", "own"));
    age(&blob_itself.join("f"));
    take_read_only(&store, "own", &blob_itself).await;
    for (version, base, path) in [
        ("r", &base, "top"),
        (
            "own",
            &place.write("copy", &Tree::new().file("f", "own")),
            "f",
        ),
    ] {
        if version == "own" {
            age(&base.join("f"));
        }
        let changes: [fn(&Path); 3] = [
            |path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap(),
            |path| set_mtime(path, (77, 7)).unwrap(),
            |path| {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::lsetxattr(path, "user.leak", b"x", flags).unwrap();
            },
        ];
        for change in changes {
            let output = restored(&place, &store, version).await;
            change(&output.join(path));
            let output = restored(&place, &store, version).await;
            assert_same_with(base, &output, &shared());
        }
    }
    assert_sound(&store).await;
}

#[tokio::test]
async fn directories_get_their_attributes_last() {
    let place = Place::new();
    let tree = Tree::new()
        .file("d/sub/file", "x")
        .mode("d/sub", 0o555)
        .mtime("d/sub", 1, 1)
        .mode("d", 0o500)
        .mtime("d", 2, 2)
        .xattr("d", "user.dir", b"1")
        .dir("d/empty")
        .mtime("d/empty", 3, 3);
    // The mode forbids what the attribute needs, so the tree is written without it where that is so.
    let base = place.write("base", &tree);
    let store = place.open().await;
    take(&store, "w", &base).await;
    let request = all_read_only("r", &base).link_mode(LinkMode::Copy);
    store.snapshot(&request).await.unwrap();
    for version in BOTH {
        let output = restored(&place, &store, version).await;
        assert_same_with(&base, &output, &shared());
        // Nothing has to be written, so nothing is forbidden.
        let given = give(&store, version, &output).await;
        assert_eq!((present(&given), given.warnings.len()), (1, 0), "{given:?}");
        assert_same_with(&base, &output, &shared());
    }
}

#[tokio::test]
async fn a_directory_that_is_there_gets_the_snapshots_attributes() {
    let (place, base, store) = prepared().await;
    let output = place.write(
        "output",
        &Tree::new().dir("a/b").mode("a", 0o777).mtime("a", 9, 9),
    );
    give(&store, "w", &output).await;
    assert_same(&base, &output);
}

#[tokio::test]
async fn an_unreadable_file_in_the_way_is_replaced() {
    let (place, base, store) = prepared().await;
    for version in BOTH {
        // Of the right size: it would have to be read to be compared.
        let output = place.write(
            &format!("output-{version}"),
            &Tree::new().file("top", "pot").mode("top", 0o000),
        );
        give(&store, version, &output).await;
        assert_same_with(&base, &output, &shared());
    }
}

#[tokio::test]
async fn restoring_over_the_source_is_harmless() {
    let place = Place::new();
    let base = place.write("base", &some());
    let copy = place.write("copy", &some());
    // Their times are those of the writing.
    for path in ["a/b", "."] {
        age(&base.join(path));
        age(&copy.join(path));
    }
    let store = place.open().await;
    take(&store, "w", &base).await;
    take_read_only(&store, "r", &base).await;
    for version in ["w", "r", "w"] {
        give(&store, version, &base).await;
        assert_same_with(&copy, &base, &shared());
    }
    assert_sound(&store).await;
}

#[tokio::test]
async fn one_snapshot_over_another_gives_the_second_where_both_have_a_file() {
    let place = Place::new();
    let one = place.write(
        "one",
        &Tree::new()
            .file("both", "one")
            .file("only-one", "1")
            .hardlink("also", "both"),
    );
    let two = place.write(
        "two",
        &Tree::new()
            .file("both", "two")
            .file("also", "apart")
            .file("new/file", "2"),
    );
    let store = place.open().await;
    for read_only in [false, true] {
        for (version, base) in [("1", &one), ("2", &two)] {
            let version = format!("{version}-{read_only}");
            let request = all(&version, base).file(File::new(".").read_only(read_only));
            store.snapshot(&request).await.unwrap();
        }
        let output = restored(&place, &store, &format!("1-{read_only}")).await;
        give(&store, &format!("2-{read_only}"), &output).await;
        assert_eq!(fs::read(output.join("only-one")).unwrap(), b"1");
        fs::remove_file(output.join("only-one")).unwrap();
        let options = Options {
            directories: false,
            ..shared()
        };
        assert_same_with(&two, &output, &options);
        let again = restored(&place, &store, &format!("1-{read_only}")).await;
        assert_same_with(&one, &again, &shared());
    }
    assert_sound(&store).await;
}

#[tokio::test]
async fn two_restores_into_one_directory_at_once_give_one_tree() {
    let place = Place::new();
    let tree = (0..40_u64).fold(some(), |tree, number| {
        let content = Content::Random {
            seed: number,
            len: 3000,
        };
        tree.file(format!("many/{number}"), content)
            .hardlink(format!("others/{number}"), format!("many/{number}"))
    });
    let base = place.write("base", &tree);
    let (one, other) = (place.open().await, place.open().await);
    take(&one, "w", &base).await;
    let request = all_read_only("r", &base).link_mode(LinkMode::Copy);
    one.snapshot(&request).await.unwrap();
    for version in BOTH {
        let output = place.fresh();
        let request = to(version, &output);
        let both = tokio::join!(one.restore(&request), other.restore(&request));
        assert_no_litter(&output);
        both.0.unwrap();
        both.1.unwrap();
        let options = Options {
            mtime: false,
            ..shared()
        };
        assert_same_with(&base, &output, &options);
        give(&one, version, &output).await;
        assert_same_with(&base, &output, &shared());
    }
}

/// A store with one content under 30 directories, whose blob's own inode has other attributes.
async fn many_alike() -> (Place, PathBuf, Snapshotter) {
    let place = Place::new();
    let tree = (0..30).fold(Tree::new(), |tree, number| {
        let path = format!("d{number}/f");
        let content = Content::Random {
            seed: 1,
            len: 300_000,
        };
        tree.file(&path, content).mtime(path, 1000, 1)
    });
    let base = place.write("base", &tree);
    let store = place.open().await;
    take(&store, "w", &base).await;
    take_read_only(&store, "r", &base).await;
    (place, base, store)
}

#[tokio::test]
async fn views_wanted_at_once_are_one_inode() {
    let (place, base, store) = many_alike().await;
    let output = restored(&place, &store, "r").await;
    assert_same_with(&base, &output, &shared());
    let mut inodes: Vec<_> = files_below(&output)
        .iter()
        .map(|path| inode(&output.join(path)))
        .collect();
    inodes.sort_unstable();
    inodes.dedup();
    assert_eq!(inodes.len(), 1);
    let again = give(&store, "r", &output).await;
    assert_eq!(present(&again), 30);
}

#[tokio::test]
async fn restores_at_once_share_their_views() {
    for _ in 0..5 {
        let (place, base, one) = many_alike().await;
        let other = place.open().await;
        let outputs: Vec<PathBuf> = (0..8).map(|_| place.fresh()).collect();
        let mut calls = tokio::task::JoinSet::new();
        for (number, output) in outputs.iter().enumerate() {
            let store = if number % 2 == 0 { &one } else { &other }.clone();
            let request = to("r", output);
            calls.spawn(async move { store.restore(&request).await.map(|_| ()) });
        }
        while let Some(result) = calls.join_next().await {
            result.unwrap().unwrap();
        }
        let first = inode(&outputs[0].join("d0/f"));
        for output in &outputs {
            assert_same_with(&base, output, &shared());
            for path in files_below(output) {
                assert_eq!(inode(&output.join(path)), first);
            }
        }
    }
}
