//! Documents of format v2 there and back, and each refusal on its own.

use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::format::document::MAX_DOCUMENT_BYTES;
use crate::format::document::tests::{json_file, names};
use crate::format::document::{DirectoryEntry, SymlinkEntry, WhiteoutEntry};
use crate::format::pack::{Compression, FrameEncoder, Writer};
use crate::words::entry::{Attributes, Mtime};
use crate::words::page::PAGE_BYTES;
use crate::words::relpath::RelPath;

fn path(bytes: impl AsRef<[u8]>) -> RelPath {
    RelPath::from_bytes(bytes.as_ref()).unwrap()
}

fn id(seed: u16) -> PackId {
    let [low, high] = seed.to_le_bytes();
    let mut bytes = [low; 32];
    bytes[0] ^= high;
    PackId::from_bytes(bytes)
}

fn file(name: impl AsRef<[u8]>, size: u64) -> PagedFile {
    PagedFile {
        path: path(name),
        content: Some(ContentId::from_bytes([7; 32])),
        read_only: false,
        size,
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

fn link(name: &str, target: &PagedFile) -> PagedFile {
    PagedFile {
        path: path(name),
        hardlink_of: Some(target.path.clone()),
        ..target.clone()
    }
}

fn packs(pages: &[u64]) -> Vec<PackEntry> {
    let packs = (0..).zip(pages);
    packs
        .map(|(seed, pages)| PackEntry {
            id: id(seed),
            pages: *pages,
        })
        .collect()
}

fn document(files: Vec<PagedFile>, pages: &[u64]) -> PagedDocument {
    PagedDocument {
        packs: packs(pages),
        map: (!pages.is_empty()).then_some(MapPlace {
            frame: 70,
            frames: 2,
        }),
        entries: Document {
            files,
            ..Document::default()
        },
    }
}

fn compressed(json: &[u8]) -> Vec<u8> {
    ::zstd::bulk::compress(json, 1).unwrap()
}

fn parse(json: &str) -> Result<PagedDocument, DocumentError> {
    PagedDocument::parse(&compressed(json.as_bytes()))
}

fn json(document: &PagedDocument) -> String {
    let bytes = document.encode().unwrap();
    let json = ::zstd::bulk::decompress(&bytes, 1 << 20).unwrap();
    String::from_utf8(json).unwrap()
}

#[test]
fn every_key_in_its_place() {
    let xattrs = [("user.a".to_owned(), b"\xff".to_vec())].into();
    let mut first = file(b"a\xff", 3);
    first.read_only = true;
    first.attributes.xattrs = xattrs;
    let second = link("b", &first);
    let mut third = file("c", 0);
    third.content = None;
    let mut all = document(vec![first, second, third], &[5, 6]);
    all.entries.directories.push(DirectoryEntry {
        path: path("d"),
        attributes: Attributes::default(),
    });
    let about = |size: u64| {
        format!(
            r#""metadata":{{"mode":420,"uid":0,"gid":0,"size":{size},"mtime":"2023-11-14T22:13:20Z","typeflag":0}}"#
        )
    };
    let content = format!(r#""content":"blake3:{}""#, "07".repeat(32));
    let xattrs = r#""xattrs":{"user.a":"/w=="}"#;
    let lossy = '\u{fffd}';
    let expected = [
        r#"{"format":2,"needs":[],"packs":["#.to_owned(),
        format!(r#"{{"id":"blake3:{}","pages":5}},"#, "00".repeat(32)),
        format!(r#"{{"id":"blake3:{}","pages":6}}],"#, "01".repeat(32)),
        r#""map":{"pack":0,"frame":70,"frames":2},"entries":["#.to_owned(),
        format!(
            r#"{{"relativePath":"a{lossy}","readOnly":true,{},{content},{xattrs},"relativePathBytes":"Yf8="}},"#,
            about(3)
        ),
        format!(
            r#"{{"relativePath":"b","readOnly":true,{},{content},"hardlinkOf":"a{lossy}","hardlinkOfBytes":"Yf8=",{xattrs}}},"#,
            about(3)
        ),
        format!(r#"{{"relativePath":"c","readOnly":false,{}}}],"#, about(0)),
        r#""directories":[{"relativePath":"d","metadata":{"mode":0,"uid":0,"gid":0,"size":0,"mtime":"1970-01-01T00:00:00Z","typeflag":5}}]}"#.to_owned(),
    ];
    assert_eq!(json(&all), expected.concat());
    assert_eq!(PagedDocument::parse(&all.encode().unwrap()).unwrap(), all);
    let empty = PagedDocument::default();
    assert_eq!(
        json(&empty),
        r#"{"format":2,"needs":[],"packs":[],"entries":[]}"#
    );
    assert_eq!(
        PagedDocument::parse(&empty.encode().unwrap()).unwrap(),
        empty
    );
}

#[test]
fn reads_any_order_and_unknown_and_missing_keys() {
    for text in [
        r#"{"format":2}"#,
        r#"{"entries":null,"needs":null,"packs":null,"map":null,"format":2}"#,
        r#"{"x":[{"y":1e999}],"format":2,"needs":[],"files":5}"#,
    ] {
        assert_eq!(parse(text).unwrap(), PagedDocument::default(), "{text}");
    }
    let v1_keys = json_file("a", r#","content":null,"checksum":9"#).replace("\"xxh3:abc\"", "[]");
    let found = parse(&format!(r#"{{"format":2,"entries":[{v1_keys}]}}"#)).unwrap();
    let mut expected = file("a", 3);
    expected.content = None;
    assert_eq!(found.entries.files, [expected]);
}

#[test]
fn what_is_needed_and_not_known_is_unsupported() {
    for (text, expected) in [
        (r#"{"format":3,"entries":5}"#, "format 3"),
        (r#"{"format":0}"#, "format 0"),
        (
            r#"{"format":2,"needs":["encryption"],"entries":5}"#,
            "\"encryption\"",
        ),
        (r#"{"format":2,"needs":[""]}"#, "\"\""),
    ] {
        match parse(text).unwrap_err() {
            DocumentError::Unsupported { what } => assert_eq!(what, expected),
            other => panic!("{text}: {other}"),
        }
    }
}

#[test]
fn refuses_malformed_text() {
    let content = format!(r#","content":"blake3:{}""#, "0".repeat(64));
    let good = format!(r#"{{"format":2,"entries":[{}]}}"#, json_file("a", &content));
    assert!(parse(&good).is_ok());
    for (from, to) in [
        ("\"format\":2,", ""),
        ("\"format\":2", "\"format\":\"2\""),
        ("\"format\":2", "\"format\":2.0"),
        ("\"format\":2", "\"format\":null"),
        ("\"format\":2", "\"format\":2,\"format\":2"),
        ("\"format\":2", "\"format\":2,\"needs\":[],\"needs\":[]"),
        ("\"format\":2", "\"format\":2,\"needs\":[5]"),
        ("\"format\":2", "\"format\":2,\"needs\":\"\""),
        ("\"format\":2", "\"format\":2,\"map\":null,\"map\":null"),
        ("\"format\":2", "\"format\":2,\"packs\":{}"),
        ("\"format\":2", "\"format\":2,\"packs\":[[]]"),
        (
            "\"format\":2",
            "\"format\":2,\"packs\":[{\"id\":\"blake3:0\",\"pages\":1}]",
        ),
        ("\"entries\":[", "\"entries\":[],\"entries\":["),
        ("blake3:0", "blake3:"),
        ("blake3:", "sha256:"),
        ("\"a\"", "\"../a\""),
        ("\"readOnly\":false", "\"readOnly\":0"),
        ("\"size\":3,", ""),
        ("\"typeflag\":0", "\"typeflag\":5"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from}");
        assert!(parse(&bad).is_err(), "{bad}");
    }
    for bad in ["", "null", "[]", "{\"format\":2}x", "{\"format\":2"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn entries_have_the_rules_of_format_v1() {
    let first = file("a", 3);
    let refused = |files: Vec<PagedFile>| {
        let all = document(files, &[]);
        assert!(all.encode().is_err(), "{all:?}");
        let mut bytes = Vec::new();
        all.write_json(&mut bytes).unwrap();
        assert!(PagedDocument::parse(&compressed(&bytes)).is_err());
    };
    refused(vec![file("a", 1), file("a", 1)]);
    refused(vec![file("a", 1), file("a/b", 1)]);
    refused(vec![link("b", &first)]);
    refused(vec![
        first.clone(),
        PagedFile {
            content: None,
            ..link("b", &first)
        },
    ]);
    refused(vec![
        first.clone(),
        PagedFile {
            size: 4,
            ..link("b", &first)
        },
    ]);
    refused(vec![file("a", 1 << 63)]);
}

#[test]
fn refuses_packs_and_maps_that_a_document_cannot_have() {
    let refused = |all: PagedDocument, expected: &str| {
        let error = all.validate().unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        let mut bytes = Vec::new();
        all.write_json(&mut bytes).unwrap();
        let read = PagedDocument::parse(&compressed(&bytes)).unwrap_err();
        assert_eq!(read.to_string(), error.to_string());
    };
    let with = |pages: &[u64]| document(Vec::new(), pages);
    assert!(
        with(&[0]).validate().is_ok(),
        "a pack that has the map alone"
    );
    assert!(with(&[0, 1, MAX_PACK_PAGES]).validate().is_ok());
    assert!(with(&[9; 255]).validate().is_ok());
    refused(with(&[9; 257]), "more than 256");
    refused(with(&[1, 0]), "no pages");
    refused(with(&[MAX_PACK_PAGES + 1]), "more pages than a pack");
    refused(with(&[1, MAX_PACK_PAGES + 1]), "more than a pack can have");
    refused(with(&[1, u64::MAX]), "more than a pack can have");
    refused(with(&[MAX_PACK_PAGES; 4]), "4 Mi frames");
    refused(
        PagedDocument {
            map: None,
            ..with(&[1])
        },
        "no map",
    );
    refused(
        PagedDocument {
            packs: vec![],
            ..with(&[1])
        },
        "no pack",
    );
    let mut twice = with(&[1, 1]);
    twice.packs[1].id = twice.packs[0].id;
    refused(twice, "named twice");
    let placed = |frame, frames| PagedDocument {
        map: Some(MapPlace { frame, frames }),
        ..with(&[1])
    };
    assert!(placed(MAX_FRAMES - 1, 1).validate().is_ok());
    refused(placed(1, 0), "no frames");
    refused(placed(MAX_FRAMES, 1), "behind the last frame");
    refused(placed(u32::MAX, u32::MAX), "behind the last frame");
    let elsewhere = json(&with(&[1, 1])).replace("\"pack\":0", "\"pack\":1");
    let error = parse(&elsewhere).unwrap_err().to_string();
    assert!(error.contains("first of them"), "{error}");
    let many =
        (0..300).map(|_| "{\"id\":\"blake3:{}\",\"pages\":1}".replace("{}", &"0".repeat(64)));
    let many: Vec<_> = many.collect();
    let error = parse(&format!(r#"{{"format":2,"packs":[{}]}}"#, many.join(","))).unwrap_err();
    assert!(error.to_string().contains("more than 256"), "{error}");
}

#[test]
fn files_have_their_places_in_the_page_space() {
    let first = file("a", 4097);
    let all = document(
        vec![first.clone(), link("b", &first), file("c", 0), file("d", 1)],
        &[1],
    );
    all.validate().unwrap();
    assert_eq!(all.page_space(), 3);
    let places: Vec<_> = all
        .places()
        .map(|(file, at)| (file.path.to_string(), at))
        .collect();
    assert_eq!(
        places,
        [
            ("a".to_owned(), 0..2),
            ("c".to_owned(), 2..2),
            ("d".to_owned(), 2..3)
        ]
    );
    let largest = crate::words::extent::MAX_SIZE;
    assert!(document(vec![file("a", largest)], &[]).validate().is_ok());
    let over = document(vec![file("a", largest), file("b", 1)], &[]);
    assert!(matches!(over.validate(), Err(DocumentError::PageSpace)));
    let many = (0..5000).map(|at| file(format!("{at}"), largest)).collect();
    let over = document(many, &[]);
    assert!(matches!(over.validate(), Err(DocumentError::PageSpace)));
    assert_eq!(
        document(
            vec![file("a", largest), link("b", &file("a", largest))],
            &[]
        )
        .page_space(),
        MAX_PAGES
    );
}

#[test]
fn refuses_what_is_not_one_frame_that_says_how_long_it_is() {
    let json = br#"{"format":2}"#;
    let good = compressed(json);
    assert!(PagedDocument::parse(&good).is_ok());
    for bad in [
        json.to_vec(),
        Vec::new(),
        good[..3].to_vec(),
        good[..good.len() - 1].to_vec(),
        [&good[..], &good[..]].concat(),
        [&good[..], b"\n"].concat(),
        [&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0][..], &good[..]].concat(),
        [&[0x28, 0xb5, 0x2f, 0xfd, 0, 0, 12 << 3 | 1, 0, 0][..], json].concat(),
    ] {
        assert!(
            matches!(PagedDocument::parse(&bad), Err(DocumentError::Zstd(_))),
            "{bad:x?}"
        );
    }
    let limit = (MAX_DOCUMENT_BYTES as u32 + 1).to_le_bytes();
    let over = [
        &[0x28, 0xb5, 0x2f, 0xfd, 0x80, 0x60][..],
        &limit,
        &[1, 0, 0],
    ]
    .concat();
    assert!(matches!(
        PagedDocument::parse(&over),
        Err(DocumentError::TooLarge { .. })
    ));
    let read = PagedDocument::read(&*good, MAX_DOCUMENT_BYTES + 1);
    assert!(matches!(read, Err(DocumentError::TooLarge { .. })));
}

#[test]
fn long_documents_are_read_as_streams() {
    let number = SHORT as usize / 150;
    let files = (0..number).map(|at| file(format!("f{at:06}"), 1)).collect();
    let all = document(files, &[7]);
    let bytes = all.encode().unwrap();
    assert!((bytes.len() as u64) < SHORT / 20, "{}", bytes.len());
    assert_eq!(PagedDocument::parse(&bytes).unwrap(), all);
    assert_eq!(
        PagedDocument::read(&*bytes, bytes.len() as u64).unwrap(),
        all
    );
    let padded = [&bytes[..], b"xyz"].concat();
    assert_eq!(
        PagedDocument::read(&*padded, bytes.len() as u64).unwrap(),
        all
    );
    assert!(PagedDocument::parse(&padded).is_err());
    for cut in [bytes.len() - 1, bytes.len() / 2, 20] {
        assert!(PagedDocument::parse(&bytes[..cut]).is_err(), "{cut}");
    }
}

#[test]
fn equal_snapshots_may_be_in_other_packs() {
    let told = document(vec![file("a", 1)], &[1]);
    let elsewhere = document(vec![file("a", 1)], &[4, 5]);
    assert!(told.is_equal_to(&elsewhere) && told.is_equal_to(&told));
    assert!(!told.is_equal_to(&document(vec![file("b", 1)], &[1])));
    let mut other = told.clone();
    other.entries.files[0].content = Some(ContentId::from_bytes([8; 32]));
    assert!(!told.is_equal_to(&other));
    // Nothing says that two contents without names are the same.
    let untold = |mut it: PagedDocument| {
        it.entries.files[0].content = None;
        it
    };
    let (a, b) = (untold(told.clone()), untold(elsewhere));
    assert!(a.is_equal_to(&a) && !a.is_equal_to(&b) && !a.is_equal_to(&told));
}

#[test]
fn the_packs_have_to_be_those_that_are_named() {
    let layout = |pages: usize, map: &[u8]| {
        let mut encoder = FrameEncoder::new(Compression::None).unwrap();
        let mut writer = Writer::new(Vec::new(), FramePages::Sixteen).unwrap();
        for frame in vec![1; pages * PAGE_BYTES].chunks(FramePages::Sixteen.bytes()) {
            writer
                .push_data(&encoder.encode(frame.to_vec()).unwrap())
                .unwrap();
        }
        let mut frames = writer.map(&mut encoder);
        frames.write_all(map).unwrap();
        frames.finish().unwrap();
        writer.finish().unwrap().1
    };
    let (first, second) = (layout(17, b"0123"), layout(3, b""));
    let named = |layout: &Layout| PackEntry {
        id: layout.id(),
        pages: layout.pages(),
    };
    let all = PagedDocument {
        packs: vec![named(&first), named(&second)],
        map: Some(MapPlace {
            frame: 2,
            frames: 1,
        }),
        entries: Document::default(),
    };
    let both = [first.clone(), second.clone()];
    assert_eq!(all.check_packs(&both).unwrap(), 4);
    assert!(all.check_packs(&[second, first.clone()]).is_err());
    assert!(all.check_packs(&both[..1]).is_err());
    let refused = |change: &dyn Fn(&mut PagedDocument)| {
        let mut other = all.clone();
        change(&mut other);
        assert!(other.check_packs(&both).is_err(), "{other:?}");
    };
    refused(&|it| it.packs[0].pages += 1);
    refused(&|it| it.packs[1].id = id(1));
    refused(&|it| {
        it.map = Some(MapPlace {
            frame: 1,
            frames: 1,
        })
    });
    refused(&|it| {
        it.map = Some(MapPlace {
            frame: 1,
            frames: 2,
        })
    });
    refused(&|it| {
        it.map = Some(MapPlace {
            frame: 2,
            frames: 2,
        })
    });
    refused(&|it| {
        it.map = Some(MapPlace {
            frame: 3,
            frames: 1,
        })
    });
    assert_eq!(
        PagedDocument::default().check_packs::<Layout>(&[]).unwrap(),
        0
    );
}

fn documents() -> impl Strategy<Value = PagedDocument> {
    let files = (
        names(),
        0..1_u64 << 40,
        any::<Option<[u8; 32]>>(),
        any::<bool>(),
    );
    let files = files.prop_map(|(path, size, content, read_only)| PagedFile {
        path,
        content: content.map(ContentId::from_bytes),
        read_only,
        ..file("x", size)
    });
    let packs = proptest::collection::vec(1_u64..1000, 0..5);
    let attributes = Attributes::default();
    let others = proptest::collection::vec(names(), 3).prop_map(move |paths| {
        let [directory, symlink, whiteout] = paths.try_into().unwrap();
        let attributes = attributes.clone();
        Document {
            files: Vec::new(),
            directories: vec![DirectoryEntry {
                path: directory,
                attributes: attributes.clone(),
            }],
            symlinks: vec![SymlinkEntry {
                path: symlink,
                target: b"t".to_vec(),
                attributes: attributes.clone(),
            }],
            whiteouts: vec![WhiteoutEntry {
                path: whiteout,
                attributes,
            }],
        }
    });
    (proptest::collection::vec(files, 0..5), packs, others).prop_map(|(files, packs, others)| {
        let mut all = document(Vec::new(), &packs);
        all.entries = Document { files, ..others };
        all
    })
}

proptest! {
    #[test]
    fn round_trips(all in documents()) {
        if all.entries.validate().is_err() {
            return Ok(());
        }
        prop_assert_eq!(PagedDocument::parse(&all.encode().unwrap()).unwrap(), all);
    }

    #[test]
    fn changed_documents_are_refused_or_are_documents(all in documents(), at: prop::sample::Index, byte: u8) {
        let mut bytes = Vec::new();
        all.write_json(&mut bytes).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(found) = PagedDocument::parse(&compressed(&bytes)) {
            prop_assert_eq!(PagedDocument::parse(&found.encode().unwrap()).unwrap(), found);
        }
        let mut frame = compressed(&bytes);
        let at = at % frame.len();
        frame[at] = byte;
        if let Ok(found) = PagedDocument::parse(&frame) {
            prop_assert_eq!(PagedDocument::parse(&found.encode().unwrap()).unwrap(), found);
        }
    }
}
