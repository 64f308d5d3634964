//! Golden documents, refusals one by one, hostile input, and random documents there and back.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::words::digest::{Checksum, Digest, Sha256};
use crate::words::entry::{Attributes, Mtime};
use crate::words::relpath::RelPath;

const METADATA: &str =
    r#"{"mode":420,"uid":0,"gid":0,"size":3,"mtime":"2023-11-14T22:13:20Z","typeflag":0}"#;

fn path(bytes: impl AsRef<[u8]>) -> RelPath {
    RelPath::from_bytes(bytes.as_ref()).unwrap()
}

fn file(name: impl AsRef<[u8]>) -> FileEntry {
    FileEntry {
        path: path(name),
        content: Content::V1 {
            digest: Digest::from_u64(0xabc),
            checksum: None,
        },
        read_only: false,
        size: 3,
        attributes: Attributes {
            mode: 0o644,
            mtime: Mtime {
                seconds: 1_700_000_000,
                nanoseconds: 0,
            },
            ..Attributes::default()
        },
        hardlink_of: None,
    }
}

fn link(name: &str, target: &str) -> FileEntry {
    FileEntry {
        hardlink_of: Some(path(target)),
        ..file(name)
    }
}

fn directory(name: &str) -> DirectoryEntry {
    DirectoryEntry {
        path: path(name),
        attributes: Attributes::default(),
    }
}

fn whiteout(name: &str) -> WhiteoutEntry {
    WhiteoutEntry {
        path: path(name),
        attributes: Attributes::default(),
    }
}

fn symlink(name: &str, target: &[u8]) -> SymlinkEntry {
    SymlinkEntry {
        path: path(name),
        target: target.to_vec(),
        attributes: Attributes::default(),
    }
}

fn files(files: Vec<FileEntry>) -> Document {
    Document {
        files,
        ..Document::default()
    }
}

fn encoded(document: &Document) -> String {
    String::from_utf8(document.encode().unwrap()).unwrap()
}

/// Its bytes, whatever is wrong with it.
fn unchecked(document: &Document) -> Vec<u8> {
    let mut bytes = Vec::new();
    super::write::write(document, &mut bytes).unwrap();
    bytes
}

fn parse(text: &str) -> Result<Document, DocumentError> {
    Document::parse(text.as_bytes())
}

/// A file with `more` keys in it.
pub(super) fn json_file(name: &str, more: &str) -> String {
    format!(
        r#"{{"digest":"xxh3:abc","readOnly":false,"relativePath":"{name}","metadata":{METADATA}{more}}}"#
    )
}

fn json_files(entries: &[String]) -> String {
    format!(r#"{{"files":[{}]}}"#, entries.join(","))
}

fn golden() -> PathBuf {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/golden/registry"
    ))
    .to_owned()
}

#[test]
fn golden_documents_keep_their_bytes() {
    for name in [
        "golden-dup",
        "golden-empty",
        "golden-multi",
        "nested__golden-one",
    ] {
        let bytes = std::fs::read(golden().join(format!("{name}.config.json"))).unwrap();
        let document = Document::parse(&bytes).unwrap();
        assert_eq!(document.encode().unwrap(), bytes, "{name}");
    }
}

#[test]
fn golden_zone_becomes_utc() {
    let text = std::fs::read_to_string(golden().join("golden-tz.config.json")).unwrap();
    let utc = text
        .replace(
            "2023-11-15T03:43:22.123456789+05:30",
            "2023-11-14T22:13:22.123456789Z",
        )
        .replace("2023-11-15T03:43:20+05:30", "2023-11-14T22:13:20Z");
    assert_ne!(utc, text);
    assert_eq!(encoded(&parse(&text).unwrap()), utc);
}

#[test]
fn golden_index_agrees() {
    let index = std::fs::read(golden().join("../index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let bytes = std::fs::read(golden().join("golden-multi.config.json")).unwrap();
    let document = Document::parse(&bytes).unwrap();
    let inputs = index["inputs"].as_array().unwrap();
    assert_eq!(document.files.len(), inputs.len());
    for entry in &document.files {
        let name = std::str::from_utf8(entry.path.as_bytes()).unwrap();
        let input = inputs.iter().find(|input| input["name"] == name).unwrap();
        assert_eq!(entry.content.digest().to_string(), input["digest"]);
        assert_eq!(entry.content.checksum(), None);
        assert_eq!(Some(entry.size), input["logical_size"].as_u64());
        assert_eq!(
            Some(u64::from(entry.attributes.mode)),
            input["mode"].as_u64()
        );
        assert_eq!(
            i128::from(entry.attributes.mtime.seconds) * 1_000_000_000
                + i128::from(entry.attributes.mtime.nanoseconds),
            i128::from(input["mtime_ns"].as_i64().unwrap())
        );
    }
}

#[test]
fn every_key_in_its_place() {
    let xattrs = [
        ("user.b".to_owned(), b"\xff".to_vec()),
        ("user.a".to_owned(), Vec::new()),
    ]
    .into();
    let attributes = Attributes {
        uid: 1,
        gid: 2,
        xattrs,
        ..file("x").attributes
    };
    let checksum = Some(Checksum::of(b""));
    let content = Content::V1 {
        digest: Digest::from_u64(0),
        checksum,
    };
    let first = FileEntry {
        content,
        read_only: true,
        attributes: attributes.clone(),
        ..file(b"a\xff")
    };
    let second = FileEntry {
        path: path("b"),
        hardlink_of: Some(path(b"a\xff")),
        ..first.clone()
    };
    let document = Document {
        files: vec![first, second],
        directories: vec![DirectoryEntry {
            path: path("d"),
            attributes: attributes.clone(),
        }],
        symlinks: vec![SymlinkEntry {
            path: path("s"),
            target: b"\xfe<".to_vec(),
            attributes: attributes.clone(),
        }],
        whiteouts: vec![WhiteoutEntry {
            path: path("w"),
            attributes,
        }],
    };
    let common = |size: u8, typeflag: u8| {
        format!(
            r#""metadata":{{"mode":420,"uid":1,"gid":2,"size":{size},"mtime":"2023-11-14T22:13:20Z","typeflag":{typeflag}}}"#
        )
    };
    let xattrs = r#""xattrs":{"user.a":"","user.b":"/w=="}"#;
    let start = r#"{"digest":"xxh3:0","readOnly":true,"relativePath":"#;
    let sum = format!(r#""checksum":"{}""#, Checksum::of(b""));
    let expected = [
        format!(
            r#"{{"files":[{start}"a{}",{},{sum},{xattrs},"relativePathBytes":"Yf8="}},"#,
            '\u{fffd}',
            common(3, 0)
        ),
        format!(
            r#"{start}"b",{},{sum},"hardlinkOf":"a{}","hardlinkOfBytes":"Yf8=",{xattrs}}}],"#,
            common(3, 0),
            '\u{fffd}'
        ),
        format!(
            r#""directories":[{{"relativePath":"d",{},{xattrs}}}],"#,
            common(0, 5)
        ),
        format!(
            r#""symlinks":[{{"relativePath":"s","target":"{}\u003c",{},"targetBytes":"/jw=",{xattrs}}}],"#,
            '\u{fffd}',
            common(2, 2)
        ),
        format!(
            r#""whiteouts":[{{"relativePath":"w",{},{xattrs}}}]}}"#,
            common(0, 3)
        ),
    ];
    let text = encoded(&document);
    assert_eq!(text, expected.concat());
    assert_eq!(parse(&text).unwrap(), document);
}

#[test]
fn lists_may_be_missing_or_null() {
    for text in [
        "{}",
        r#"{"files":null}"#,
        r#"{"files":[],"directories":null,"symlinks":null,"whiteouts":null}"#,
        " {\"files\" : [ ] }\n",
    ] {
        assert_eq!(parse(text).unwrap(), Document::default(), "{text}");
    }
    assert_eq!(encoded(&Document::default()), r#"{"files":[]}"#);
}

#[test]
fn reads_any_order_and_unknown_and_missing_keys() {
    let text = r#"{"x":[{"y":[null,1e999]}],"files":[{"future":{"a":[1]},"metadata":{"mtime":"2023-11-14T22:13:20Z","z":0,"size":3,"mode":33188},"relativePath":"a","digest":"xxh3:abc"}]}"#;
    assert_eq!(parse(text).unwrap(), files(vec![file("a")]));
    let nulls = json_file(
        "a",
        r#","checksum":null,"hardlinkOf":null,"hardlinkOfBytes":null,"xattrs":null,"relativePathBytes":null"#,
    );
    let nulls = nulls
        .replace("\"readOnly\":false", "\"readOnly\":null")
        .replace("\"uid\":0", "\"uid\":null");
    assert_eq!(
        parse(&json_files(&[nulls])).unwrap(),
        files(vec![file("a")])
    );
}

#[test]
fn refuses_malformed_text() {
    let good = json_files(&[json_file("a", "")]);
    assert!(parse(&good).is_ok());
    let cases = [
        ("", "x"),
        (r#"{"files":["#, r#"{"files":[],"files":["#),
        (r#""readOnly":false"#, r#""readOnly":0"#),
        (r#""readOnly":false"#, r#""readOnly":false,"readOnly":true"#),
        (r#""digest":"xxh3:abc","#, ""),
        (r#""xxh3:abc""#, "null"),
        ("xxh3:abc", "xxh3:0abc"),
        ("xxh3:abc", "xxh3:ABC"),
        ("xxh3:abc", "xxh3:../../x"),
        ("xxh3:abc", "sha256:abc"),
        (r#""relativePath":"a","#, ""),
        (r#":"a","#, r#":"","#),
        (r#":"a","#, r#":"../a","#),
        (r#":"a","#, r#":"a/../../b","#),
        (r#":"a","#, r#":"/","#),
        (r#":"a","#, r#":".","#),
        (r#":"a","#, r#":"a\u0000b","#),
        (r#":"a","#, r#":"\ud800","#),
        (r#""mode":420,"#, ""),
        (r#""mode":420"#, r#""mode":-1"#),
        (r#""mode":420"#, r#""mode":4294967296"#),
        (r#""uid":0"#, r#""uid":-1"#),
        (r#""size":3,"#, ""),
        (r#""size":3"#, r#""size":9223372036854775808"#),
        (r#""size":3"#, r#""size":-1"#),
        (r#""size":3"#, r#""size":3.0"#),
        ("2023-11-14T22:13:20Z", "2023-11-14"),
        ("2023-11-14T22:13:20Z", "10000-01-01T00:00:00Z"),
        (r#""typeflag":0"#, r#""typeflag":5"#),
        (r#""typeflag":0"#, r#""typeflag":2"#),
        (METADATA, "null"),
        (METADATA, r#"[420,0,0,3,"2023-11-14T22:13:20Z",0]"#),
        (METADATA, r#"{}"#),
    ];
    for (from, to) in cases {
        let bad = if from.is_empty() {
            format!("{good}{to}")
        } else {
            good.replace(from, to)
        };
        assert_ne!(bad, good, "{from}");
        assert!(parse(&bad).is_err(), "{bad}");
    }
    for bad in [
        "",
        "null",
        "[]",
        "5",
        "\"\"",
        "{",
        "\u{feff}{}",
        r#"{"files":{}}"#,
        r#"{"files":[null]}"#,
        r#"{"files":[[]]}"#,
        r#"{"files":5}"#,
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    assert!(
        Document::parse(b"{\"files\":[],\"x\":\"\xff\"}").is_ok(),
        "an unknown key's value is skipped, not decoded"
    );
    assert!(Document::parse(b"{\"files\":[{\"digest\":\"\xff\"}]}").is_err());
}

#[test]
fn refuses_malformed_extras() {
    let digits = "0".repeat(64);
    for good in [
        format!(r#","checksum":"blake3:{digits}""#),
        r#","relativePathBytes":"YQ==""#.to_owned(),
        r#","xattrs":{"user.a":"AA=="}"#.to_owned(),
        r#","xattrs":{}"#.to_owned(),
    ] {
        assert!(
            parse(&json_files(&[json_file("a", &good)])).is_ok(),
            "{good}"
        );
    }
    let (long_name, long_value) = ("n".repeat(256), "A".repeat(87_384));
    for bad in [
        format!(r#","checksum":"blake3:{}""#, &digits[1..]),
        format!(r#","checksum":"sha256:{digits}""#),
        r#","checksum":"""#.to_owned(),
        r#","relativePathBytes":"Yg==""#.to_owned(),
        r#","relativePathBytes":"""#.to_owned(),
        r#","relativePathBytes":"YQ""#.to_owned(),
        r#","relativePathBytes":"YR==""#.to_owned(),
        r#","relativePathBytes":"!""#.to_owned(),
        r#","hardlinkOfBytes":"YQ==""#.to_owned(),
        r#","hardlinkOf":"b","hardlinkOfBytes":"YQ==""#.to_owned(),
        r#","hardlinkOf":"../b""#.to_owned(),
        r#","xattrs":{"user.a":"?"}"#.to_owned(),
        r#","xattrs":{"user.a":5}"#.to_owned(),
        r#","xattrs":{"user.a":"","user.a":""}"#.to_owned(),
        r#","xattrs":{"":""}"#.to_owned(),
        r#","xattrs":{"a\u0000":""}"#.to_owned(),
        r#","xattrs":[]"#.to_owned(),
        format!(r#","xattrs":{{"{long_name}":""}}"#),
        format!(r#","xattrs":{{"a":"{long_value}"}}"#),
    ] {
        let text = json_files(&[json_file("a", &bad)]);
        assert!(parse(&text).is_err(), "{}", &text[..text.len().min(400)]);
    }
}

#[test]
fn a_lossy_name_needs_its_own_bytes() {
    let lossy = |bytes: &str| {
        json_files(&[json_file(
            "a\u{fffd}",
            &format!(r#","relativePathBytes":"{bytes}""#),
        )])
    };
    assert_eq!(parse(&lossy("Yf8=")).unwrap().files[0].path, path(b"a\xff"));
    assert!(matches!(
        parse(&lossy("YS4uLw==")),
        Err(DocumentError::Bytes { .. })
    ));
    // Bytes that climb out would show in the text as well, and are refused as a path.
    let climbing = json_files(&[json_file(
        "../\u{fffd}",
        r#","relativePathBytes":"Li4v/w==""#,
    )]);
    assert!(matches!(parse(&climbing), Err(DocumentError::Path(_))));
}

/// Two files were one to the Go library, which knows names by their text alone: one was restored over the other.
#[test]
fn files_with_names_that_are_not_utf_8_have_texts_of_their_own() {
    let texts = |names: &[&[u8]]| {
        let mut document = files(names.iter().map(file).collect());
        document.sort();
        let bytes = document.encode().unwrap();
        assert_eq!(Document::parse(&bytes).unwrap(), document);
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let files = value["files"].as_array().unwrap();
        let text = |file: &serde_json::Value| file["relativePath"].as_str().unwrap().to_owned();
        files.iter().map(text).collect::<Vec<_>>()
    };
    // As ever where nothing is the matter.
    assert_eq!(
        texts(&[b"a", b"b\xff", b"c\xfe"]),
        ["a", "b\u{fffd}", "c\u{fffd}"]
    );
    assert_eq!(
        texts(&[b"b\xfe", b"b\xff", b"c\xe0\xa0"]),
        ["b\u{fffd}fe", "b\u{fffd}ff", "c\u{fffd}e0a0"]
    );
    let own = "b\u{fffd}".as_bytes();
    assert_eq!(texts(&[own, b"b\xff"]), ["b\u{fffd}", "b\u{fffd}ff"]);
    // A file is no directory.
    assert_eq!(
        texts(&[b"b\xfe/x", b"b\xfe-", b"b\xff"]),
        ["b\u{fffd}fe-", "b\u{fffd}fe/x", "b\u{fffd}ff"]
    );
    let names: [&[u8]; 3] = [b"b\xfe", b"b\xff", "b\u{fffd}ff".as_bytes()];
    let hopeless = files(names.iter().map(file).collect());
    assert!(matches!(
        hopeless.encode(),
        Err(DocumentError::Spelling { .. })
    ));
}

#[test]
fn refuses_other_entries_in_a_list() {
    for (list, typeflag) in [("directories", 5), ("symlinks", 2)] {
        let text = |flag: &str| {
            format!(
                r#"{{"{list}":[{{"relativePath":"a","target":"t","metadata":{{"mode":0,"mtime":"2023-11-14T22:13:20Z"{flag}}}}}]}}"#
            )
        };
        assert!(parse(&text(&format!(r#","typeflag":{typeflag}"#))).is_ok());
        for flag in [
            "",
            r#","typeflag":0"#,
            r#","typeflag":1"#,
            r#","typeflag":"5""#,
        ] {
            assert!(parse(&text(flag)).is_err(), "{list} {flag}");
        }
    }
}

#[test]
fn refuses_paths_that_collide() {
    use DocumentError as E;
    let both = |document: &Document| {
        let written = document.encode().unwrap_err();
        let read = Document::parse(&unchecked(document)).unwrap_err();
        assert_eq!(written.to_string(), read.to_string());
        written
    };
    let empty = Document::default;
    let other = FileEntry {
        read_only: true,
        ..file("a")
    };
    assert!(matches!(
        both(&files(vec![file("a"), file("b"), other])),
        E::Duplicate { .. }
    ));
    // Alike, they are one where they are read, and never written.
    let alike = files(vec![file("a"), file("b"), file("a")]);
    assert!(matches!(alike.encode(), Err(E::Duplicate { .. })));
    let read = Document::parse(&unchecked(&alike)).unwrap();
    assert_eq!(read, files(vec![file("a"), file("b")]));
    for other in [
        Document {
            directories: vec![directory("a")],
            ..files(vec![file("a")])
        },
        Document {
            symlinks: vec![symlink("a", b"x")],
            ..files(vec![file("a")])
        },
        Document {
            symlinks: vec![symlink("a", b"x")],
            directories: vec![directory("a")],
            ..empty()
        },
        Document {
            symlinks: vec![symlink("a", b"x"), symlink("a", b"x")],
            ..empty()
        },
        Document {
            directories: vec![directory("a"), directory("a")],
            ..empty()
        },
        Document {
            whiteouts: vec![whiteout("a")],
            ..files(vec![file("a")])
        },
    ] {
        assert!(matches!(both(&other), E::Duplicate { .. }), "{other:?}");
    }
    for other in [
        files(vec![file("a/b"), file("a")]),
        files(vec![file("a"), file("a.b"), file("a/b/c/d"), file("a-b")]),
        Document {
            directories: vec![directory("a/d")],
            ..files(vec![file("a")])
        },
        Document {
            symlinks: vec![symlink("a", b"x")],
            ..files(vec![file("a/b")])
        },
        Document {
            symlinks: vec![symlink("a/b", b"x"), symlink("a", b"x")],
            ..empty()
        },
        Document {
            whiteouts: vec![whiteout("a")],
            ..files(vec![file("a/b")])
        },
        Document {
            directories: vec![directory("d"), directory("d/f/g")],
            ..files(vec![file("d/f")])
        },
    ] {
        assert!(matches!(both(&other), E::NotADirectory { .. }), "{other:?}");
    }
    let fine = Document {
        directories: vec![directory("d"), directory("d/e")],
        ..files(vec![
            file("a"),
            file("a.b"),
            file("ab/c"),
            file("d/e/f"),
            file("a-"),
        ])
    };
    assert_eq!(Document::parse(&fine.encode().unwrap()).unwrap(), fine);
}

#[test]
fn hardlinks_name_an_equal_file() {
    let fine = files(vec![link("a", "b"), file("b"), link("c", "b")]);
    assert_eq!(Document::parse(&fine.encode().unwrap()).unwrap(), fine);
    let other = |change: fn(&mut FileEntry)| {
        let mut linked = link("b", "a");
        change(&mut linked);
        files(vec![file("a"), linked])
    };
    for bad in [
        files(vec![link("a", "b")]),
        files(vec![link("a", "a")]),
        files(vec![link("a", "b"), link("b", "a")]),
        files(vec![file("a"), link("b", "a"), link("c", "b")]),
        Document {
            directories: vec![directory("d")],
            ..files(vec![link("a", "d")])
        },
        Document {
            symlinks: vec![symlink("s", b"a")],
            ..files(vec![link("b", "s")])
        },
        other(|file| file.size = 4),
        other(|file| file.read_only = true),
        other(|file| file.attributes.mode = 0),
        other(|file| file.attributes.mtime.nanoseconds = 1),
        other(|file| drop(file.attributes.xattrs.insert("user.a".into(), Vec::new()))),
        other(|file| {
            file.content = Content::V1 {
                digest: Digest::from_u64(1),
                checksum: None,
            }
        }),
        other(|file| {
            file.content = Content::V1 {
                digest: Digest::from_u64(0xabc),
                checksum: Some(Checksum::of(b"")),
            }
        }),
    ] {
        assert!(
            matches!(bad.encode(), Err(DocumentError::Hardlink { .. })),
            "{bad:?}"
        );
        let bytes = unchecked(&bad);
        assert!(
            matches!(Document::parse(&bytes), Err(DocumentError::Hardlink { .. })),
            "{bad:?}"
        );
    }
}

#[test]
fn symlink_targets() {
    let with = |target: &[u8]| Document {
        symlinks: vec![symlink("s", target)],
        ..Document::default()
    };
    for target in [&b"../x"[..], b"/etc", b"a//b/", b"\xff", &[b'x'; 4096]] {
        assert_eq!(
            Document::parse(&with(target).encode().unwrap()).unwrap(),
            with(target)
        );
    }
    for target in [&b""[..], b"a\0b", &[b'x'; 4097]] {
        assert!(matches!(
            with(target).encode(),
            Err(DocumentError::Target { .. })
        ));
        assert!(Document::parse(&unchecked(&with(target))).is_err());
    }
}

#[test]
fn writing_refuses_what_reading_would() {
    let with = |change: fn(&mut FileEntry)| {
        let mut entry = file("a");
        change(&mut entry);
        files(vec![entry]).encode()
    };
    assert!(matches!(
        with(|file| file.attributes.mode = 0o10_644),
        Err(DocumentError::Mode { .. })
    ));
    assert!(matches!(
        with(|file| file.size = 1 << 63),
        Err(DocumentError::Size { .. })
    ));
    assert!(matches!(
        with(|file| file.attributes.mtime.seconds = i64::MAX),
        Err(DocumentError::Mtime { .. })
    ));
    assert!(matches!(
        with(|file| file.attributes.mtime.nanoseconds = u32::MAX),
        Err(DocumentError::Mtime { .. })
    ));
    assert!(matches!(
        with(|file| drop(file.attributes.xattrs.insert(String::new(), vec![]))),
        Err(DocumentError::Xattr { .. })
    ));
}

#[test]
fn entries_are_bounded_across_lists() {
    let entry = |list: &str, flag: u8| {
        format!(
            r#""{list}":[{{"relativePath":"{list}","target":"t","metadata":{{"mode":0,"mtime":"2023-11-14T22:13:20Z","typeflag":{flag}}}}}]"#
        )
    };
    let lists = [
        entry("directories", 5),
        format!(r#""files":[{}]"#, json_file("a", "")),
        entry("symlinks", 2),
        entry("whiteouts", 3),
    ];
    let text = format!("{{{}}}", lists.join(","));
    assert!(super::read::read(text.as_bytes(), 4).is_ok(), "{text}");
    let over = super::read::read(text.as_bytes(), 3);
    assert!(matches!(over, Err(DocumentError::TooManyEntries)));
    // Refused at the limit: nobody reads on to find that the text is broken.
    let cut = text.trim_end_matches("]}");
    let over = super::read::read(cut.as_bytes(), 3);
    assert!(matches!(over, Err(DocumentError::TooManyEntries)));
}

#[test]
fn document_bytes_are_bounded() {
    let long = vec![b' '; MAX_DOCUMENT_BYTES as usize + 1];
    assert!(matches!(
        Document::parse(&long),
        Err(DocumentError::TooLarge { .. })
    ));
}

#[test]
fn deep_nesting_is_harmless() {
    let depth = 200_000;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}0{}", open.repeat(depth), close.repeat(depth));
        assert_eq!(
            parse(&format!(r#"{{"x":{deep}}}"#)).unwrap(),
            Document::default()
        );
        assert!(parse(&json_files(&[json_file("a", &format!(r#","x":{deep}"#))])).is_ok());
        for bad in [
            format!("[{deep}]"),
            format!(r#"{{"files":{deep}}}"#),
            json_files(&[json_file("a", &format!(r#","xattrs":{deep}"#))]),
            open.repeat(depth),
            format!(r#"{{"x":{}"#, open.repeat(depth)),
        ] {
            assert!(parse(&bad).is_err());
        }
    }
}

#[test]
fn hostile_depth_and_many_entries_stay_fast() {
    let started = Instant::now();
    let deep = "a/".repeat(2040);
    let document = files(
        (0..3_000)
            .map(|at| file(format!("{deep}{at:06}")))
            .collect(),
    );
    assert!(document.validate().is_ok());
    let wide = files(
        (0..20_000)
            .rev()
            .map(|at| link(&format!("d/{at}"), "d/0"))
            .map(|mut file| {
                file.hardlink_of = file.hardlink_of.filter(|target| *target != file.path);
                file
            })
            .collect(),
    );
    let bytes = wide.encode().unwrap();
    assert_eq!(Document::parse(&bytes).unwrap(), wide);
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn sorts_by_raw_bytes() {
    let mut document = files(
        ["b", "a/b", "a.b", "a", "\u{e9}", "B"]
            .iter()
            .map(file)
            .collect(),
    );
    document.sort();
    let order: Vec<_> = document
        .files
        .iter()
        .map(|file| file.path.to_string())
        .collect();
    assert_eq!(order, ["B", "a", "a.b", "a/b", "b", "\u{e9}"]);
}

pub(super) fn names() -> impl Strategy<Value = RelPath> {
    let name = prop_oneof![
        "[ab]{1,2}".prop_map(String::into_bytes),
        "\\PC{1,4}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 1..4),
        Just("<&>\u{2028}\"\\".as_bytes().to_vec()),
    ];
    proptest::collection::vec(name, 1..4).prop_filter_map("not a path", |parts| {
        RelPath::from_bytes(parts.join(&b'/')).ok()
    })
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let mtime = (-62_167_219_200_i64..=253_402_300_799, 0_u32..1_000_000_000);
    let xattrs = proptest::collection::btree_map(
        "[a-z.<]{1,6}",
        proptest::collection::vec(any::<u8>(), 0..5),
        0..3,
    );
    (0_u32..=0o7777, any::<u32>(), any::<u32>(), mtime, xattrs).prop_map(
        |(mode, uid, gid, (seconds, nanoseconds), xattrs)| Attributes {
            mode,
            uid,
            gid,
            mtime: Mtime {
                seconds,
                nanoseconds,
            },
            xattrs,
        },
    )
}

fn file_entries() -> impl Strategy<Value = FileEntry> {
    let content = (any::<u64>(), proptest::option::of(any::<[u8; 32]>()));
    (
        names(),
        content,
        any::<bool>(),
        0..=i64::MAX as u64,
        attributes(),
    )
        .prop_map(|(path, (digest, checksum), read_only, size, attributes)| {
            let content = Content::V1 {
                digest: Digest::from_u64(digest),
                checksum: checksum.map(Checksum::from_bytes),
            };
            FileEntry {
                path,
                content,
                read_only,
                size,
                attributes,
                hardlink_of: None,
            }
        })
}

fn documents() -> impl Strategy<Value = Document> {
    let directories =
        (names(), attributes()).prop_map(|(path, attributes)| DirectoryEntry { path, attributes });
    let whiteouts =
        (names(), attributes()).prop_map(|(path, attributes)| WhiteoutEntry { path, attributes });
    let target = proptest::collection::vec(1_u8.., 1..8);
    let symlinks =
        (names(), target, attributes()).prop_map(|(path, target, attributes)| SymlinkEntry {
            path,
            target,
            attributes,
        });
    (
        proptest::collection::vec(file_entries(), 0..5),
        proptest::collection::vec(directories, 0..4),
        proptest::collection::vec(symlinks, 0..3),
        proptest::collection::vec(whiteouts, 0..3),
        proptest::option::of(names()),
    )
        .prop_map(
            |(mut files, directories, symlinks, whiteouts, second_name)| {
                if let (Some(first), Some(path)) = (files.first().cloned(), second_name) {
                    files.push(FileEntry {
                        hardlink_of: Some(first.path.clone()),
                        path,
                        ..first
                    });
                }
                Document {
                    files,
                    directories,
                    symlinks,
                    whiteouts,
                }
            },
        )
}

/// The rule on paths said the slow way.
fn paths_are_consistent(document: &Document) -> bool {
    let leaves: Vec<_> = document
        .files
        .iter()
        .map(|e| &e.path)
        .chain(document.symlinks.iter().map(|e| &e.path))
        .chain(document.whiteouts.iter().map(|e| &e.path))
        .collect();
    let all: Vec<_> = leaves
        .iter()
        .copied()
        .chain(document.directories.iter().map(|e| &e.path))
        .collect();
    let unique = all.iter().collect::<std::collections::HashSet<_>>().len() == all.len();
    unique
        && leaves.iter().all(|leaf| {
            all.iter()
                .all(|path| path == leaf || !path.starts_with(leaf))
        })
}

// The walk refuses by this sum what no document can list, so it must not be more than a document has.
#[test]
fn what_an_entry_takes_is_known_before() {
    let mut document = files(vec![file("a"), file("<\u{1}>")]);
    document.directories.push(DirectoryEntry {
        path: path("d"),
        attributes: Attributes::default(),
    });
    document.symlinks.push(symlink("s", b"\xff"));
    document.whiteouts.push(whiteout("w"));
    let entries = document.files.iter().map(|entry| entry.encoded_length());
    let files: u64 = entries.map(|length| length.unwrap() + 1).sum();
    let others = document.directories[0].encoded_length().unwrap()
        + document.symlinks[0].encoded_length().unwrap()
        + document.whiteouts[0].encoded_length().unwrap();
    let around = r#"{"files":[],"directories":[],"symlinks":[],"whiteouts":[]}"#.len() as u64 - 1;
    assert_eq!(
        document.encode().unwrap().len() as u64,
        files + others + around
    );
}

// Long documents took their length in memory three times over. They are written and read as streams, which has to come to
// the same bytes and entries.
#[test]
fn long_documents_are_the_same_as_streams() {
    let number = SHORT as usize / 150;
    let long = files((0..number).map(|at| file(format!("f{at:06}"))).collect());
    let bytes = long.encode().unwrap();
    assert!(bytes.len() as u64 > SHORT, "{}", bytes.len());
    for (document, bytes) in [
        (long, bytes),
        (files(vec![file("a")]), unchecked(&files(vec![file("a")]))),
    ] {
        let length = bytes.len() as u64;
        assert_eq!(Document::read(&*bytes, length).unwrap(), document);
        assert!(Document::read(&bytes[..bytes.len() - 1], length).is_err());
        let encoded = document.into_encoded().unwrap();
        assert_eq!(
            (encoded.sha256(), encoded.length()),
            (Sha256::of(&bytes), length)
        );
        let mut written = Vec::new();
        encoded.write(&mut written).unwrap();
        assert!(written == bytes);
    }
}

proptest! {
    #[test]
    fn round_trips(document in documents()) {
        match document.encode() {
            Ok(bytes) => {
                prop_assert!(paths_are_consistent(&document));
                prop_assert!(!bytes.iter().any(|byte| matches!(byte, b'\n' | b'<' | b'>' | b'&')));
                prop_assert_eq!(Document::parse(&bytes).unwrap(), document);
            }
            Err(error) => {
                prop_assert!(!paths_are_consistent(&document), "{}", error);
                prop_assert!(Document::parse(&unchecked(&document)).is_err());
            }
        }
    }

    #[test]
    fn nothing_panics(mut bytes in documents().prop_map(|document| unchecked(&document)), at: usize, byte: u8) {
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(document) = Document::parse(&bytes) {
            prop_assert_eq!(Document::parse(&document.encode().unwrap()).unwrap(), document);
        }
        let _ = Document::parse(&bytes[..at]);
    }
}
