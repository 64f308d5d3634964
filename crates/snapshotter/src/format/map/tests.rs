//! Maps there and back however they are cut, against a map of single pages, and each refusal on its own.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SPACE: u64 = 1 << 20;

fn extent(start: u64, pages: u64, pack: u32, page: u64) -> Extent {
    Extent {
        start,
        pages,
        pack,
        page,
    }
}

fn map(extents: &[Extent]) -> Map {
    let mut map = Map::default();
    extents.iter().for_each(|extent| map.push(*extent).unwrap());
    map
}

fn encoded(map: &Map) -> Vec<u8> {
    let mut bytes = Vec::new();
    map.write(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, map.encoded_length());
    bytes
}

fn decode_pieces(bytes: &[u8], piece: usize, space: u64, packs: &[u64]) -> Result<Map, MapError> {
    let mut decoder = Decoder::new(bytes.len() as u64, space, packs);
    for piece in bytes.chunks(piece) {
        decoder.push(piece)?;
    }
    decoder.finish()
}

fn decode(bytes: &[u8], packs: &[u64]) -> Result<Map, MapError> {
    decode_pieces(bytes, usize::MAX, SPACE, packs)
}

/// A map's bytes of these columns.
fn columns(count: u32, columns: [&[u8]; 4]) -> Vec<u8> {
    let mut bytes = count.to_le_bytes().to_vec();
    for column in columns {
        bytes.extend((column.len() as u32).to_le_bytes());
        bytes.extend(column);
    }
    bytes
}

#[track_caller]
fn refused(bytes: &[u8], packs: &[u64], expected: &str) {
    let error = decode(bytes, packs).unwrap_err().to_string();
    assert!(error.contains(expected), "{expected}: {error}");
}

#[test]
fn the_bytes_are_these() {
    let mut all = map(&[
        extent(0, 1, 0, 7),
        extent(1, 2, 1, 0),
        extent(300, 3, 0, 8),
        extent(303, 200, 0, 2),
    ]);
    let bytes = columns(
        4,
        [
            &[0, 0, 0xa9, 2, 0],
            &[0, 1, 2, 0xc7, 1],
            &[0, 1, 0, 0],
            &[14, 0, 0, 17],
        ],
    );
    assert_eq!(encoded(&all), bytes);
    assert_eq!(decode(&bytes, &[202, 2]), Ok(all.clone()));
    // The example on the page.
    all.extents.pop();
    let gaps = [0, 0, 0xa9, 2];
    let bytes = columns(3, [&gaps, &[0, 1, 2], &[0, 1, 0], &[14, 0, 0]]);
    assert_eq!((encoded(&all), bytes.len()), (bytes.clone(), 33));
}

#[test]
fn neighbours_become_one_extent() {
    let mut all = map(&[extent(5, 2, 0, 9), extent(7, 3, 0, 11)]);
    assert_eq!(all, map(&[extent(5, 5, 0, 9)]));
    all.push(extent(10, 1, 0, 15)).unwrap();
    all.push(extent(11, 1, 1, 16)).unwrap();
    all.push(extent(13, 1, 1, 17)).unwrap();
    assert_eq!((all.len(), all.pages()), (4, 8));
}

#[test]
fn what_cannot_be_in_a_map_is_not_taken() {
    let mut all = map(&[extent(10, 2, 0, 0)]);
    let mut refused = |extent: Extent| {
        let before = all.clone();
        assert!(all.push(extent).is_err(), "{extent:?}");
        assert_eq!(all, before);
    };
    refused(extent(20, 0, 0, 0));
    refused(extent(11, 1, 0, 50));
    refused(extent(0, 1, 0, 50));
    refused(extent(MAX_PAGES, 1, 0, 0));
    refused(extent(MAX_PAGES - 1, 2, 0, 0));
    refused(extent(u64::MAX, 2, 0, 0));
    refused(extent(20, 1, 0, MAX_PACK_PAGES));
    refused(extent(20, 2, 0, MAX_PACK_PAGES - 1));
    refused(extent(20, u64::MAX, 0, 1));
    refused(extent(20, 1, MAX_MAP_PACKS, 0));
    let last = extent(MAX_PAGES - 1, 1, MAX_MAP_PACKS - 1, MAX_PACK_PAGES - 1);
    all.push(last).unwrap();
    assert_eq!(all.iter().last(), Some(last));
    all = map(&[extent(0, MAX_PACK_PAGES, 0, 0)]);
    assert_eq!(
        decode_pieces(&encoded(&all), 1, MAX_PAGES, &[MAX_PACK_PAGES]),
        Ok(all)
    );
}

#[test]
fn refuses_numbers_that_are_not_in_their_shortest_form() {
    let one = |gap: &[u8]| columns(1, [gap, &[0], &[0], &[0]]);
    assert!(decode(&one(&[5]), &[1]).is_ok());
    refused(&one(&[0x85, 0]), &[1], "shortest form");
    refused(&one(&[0x80, 0x80, 0]), &[1], "shortest form");
    let mut long = [0x80; 10];
    long[9] = 2;
    refused(&one(&long), &[1], "more than 64 bits");
    long[9] = 0x80;
    refused(&one(&[&long[..], &[1]].concat()), &[1], "more than 64 bits");
    long[9] = 1;
    refused(&one(&long), &[1], "passes the page space");
    refused(&one(&[0x85]), &[1], "passes its column");
    refused(&one(&[5, 5]), &[1], "more numbers than extents");
}

#[test]
fn refuses_columns_of_wrong_lengths() {
    let good = columns(2, [&[1, 1], &[0, 0], &[0, 0], &[0, 0]]);
    assert!(decode(&good, &[2]).is_ok());
    for (at, byte) in [
        (4, 1),
        (4, 3),
        (4, 255),
        (10, 1),
        (10, 3),
        (16, 9),
        (22, 1),
        (22, 3),
        (7, 255),
    ] {
        let mut other = good.clone();
        other[at] = byte;
        refused(&other, &[2], "a length that it cannot have");
    }
    for length in 0..good.len() {
        assert!(decode(&good[..length], &[2]).is_err(), "{length}");
        let mut short = Decoder::new(good.len() as u64, SPACE, &[2]);
        short.push(&good[..length]).unwrap();
        assert!(short.finish().is_err(), "{length}");
    }
    assert!(decode(&[&good[..], &[0]].concat(), &[2]).is_err());
    let mut more = Decoder::new(good.len() as u64, SPACE, &[2]);
    more.push(&good).unwrap();
    assert!(more.push(&[0]).is_err());
}

// A count costs its maker four bytes.
#[test]
fn a_count_allocates_nothing_by_itself() {
    refused(&columns(0, [&[], &[], &[], &[]]), &[1], "no extents");
    let over = MAX_EXTENTS as u32 + 1;
    refused(&columns(over, [&[0], &[0], &[0], &[0]]), &[1], "16 Mi");
    let mut decoder = Decoder::new(28, SPACE, &[1]);
    let claimed = columns(MAX_EXTENTS as u32, [&[0], &[0], &[0], &[0]]);
    assert!(decoder.push(&claimed).is_err());
    assert_eq!(decoder.extents.capacity(), 0);
}

#[test]
fn refuses_extents_outside_the_page_space_and_their_packs() {
    let one = |gap: u8, pages: u8, page: u8| columns(1, [&[gap], &[pages], &[0], &[page]]);
    let within = |bytes: &[u8]| decode_pieces(bytes, 1, 10, &[4]);
    assert!(within(&one(6, 3, 0)).is_ok());
    let cases = [
        (one(10, 0, 0), "page space"),
        (one(7, 3, 0), "page space"),
        (one(0, 4, 0), "its pack"),
        (one(0, 0, 8), "its pack"),
        (one(0, 1, 6), "its pack"),
        // Before its first page.
        (one(0, 0, 1), "its pack"),
        (columns(1, [&[0], &[0], &[1], &[0]]), "not in the document"),
        (
            columns(1, [&[0], &[0xff, 0xff, 0xff, 0x7f], &[0], &[0]]),
            "more pages than a pack",
        ),
    ];
    for (bytes, expected) in cases {
        let error = within(&bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let far = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    for column in 0..4 {
        let mut all: [&[u8]; 4] = [&[0]; 4];
        all[column] = &far;
        assert!(within(&columns(1, all)).is_err(), "{column}");
    }
    assert!(decode(&one(0, 0, 0), &[]).is_err());
}

#[test]
fn refuses_extents_that_could_be_one() {
    let two =
        |gap: u8, pack: u8, page: u8| columns(2, [&[0, gap], &[0, 0], &[0, pack], &[0, page]]);
    refused(&two(0, 0, 0), &[9], "continues the one before");
    assert!(decode(&two(1, 0, 0), &[9]).is_ok());
    assert!(decode(&two(0, 0, 2), &[9]).is_ok());
    assert!(decode(&two(0, 1, 2), &[9, 9]).is_ok());
}

#[test]
fn packs_are_used_in_the_documents_order() {
    let uses = |packs: [u8; 3]| columns(3, [&[1, 1, 1], &[0, 0, 0], &packs, &[0, 0, 0]]);
    for packs in [[0, 1, 2], [1, 0, 2], [1, 2, 1], [1, 1, 2]] {
        assert!(decode(&uses(packs), &[9, 9, 9]).is_ok(), "{packs:?}");
    }
    refused(&uses([2, 1, 0]), &[9, 9, 9], "comes first in the document");
    refused(&uses([0, 2, 1]), &[9, 9, 9], "comes first in the document");
    assert_eq!(
        decode(&uses([0, 1, 0]), &[9, 9, 9]),
        Err(MapError::Unused { pack: 2 })
    );
    assert_eq!(
        decode(&uses([0, 0, 0]), &[9, 9]),
        Err(MapError::Unused { pack: 1 })
    );
}

#[test]
fn an_extent_is_sixteen_bytes() {
    let count = 300_000;
    let mut all = Map::default();
    for at in 0..count {
        all.push(extent(at * 3, 2, 0, at * 2 % 1000)).unwrap();
    }
    let bytes = encoded(&all);
    let found = decode_pieces(&bytes, 7, SPACE, &[2000]).unwrap();
    assert_eq!(
        found.extents.capacity() * size_of::<Packed>(),
        16 * count as usize
    );
    assert!(found == all);
}

// An extent around an empty range came out, with no pages.
#[test]
fn an_empty_range_has_no_extents() {
    let all = map(&[extent(5, 10, 0, 0)]);
    for at in [0, 5, 7, 15, 16] {
        assert_eq!(all.range(at..at).count(), 0, "{at}");
    }
    let backwards = Range { start: 9, end: 6 };
    assert_eq!(all.range(backwards).count(), 0);
}

#[test]
fn an_empty_map_is_not_written() {
    assert!(encoded(&Map::default()).is_empty() && Map::default().is_empty());
    assert_eq!(Map::default().at(0), None);
}

/// Extents that some map has, in document's order and with the pages of each pack.
fn maps() -> impl Strategy<Value = (Map, Vec<u64>)> {
    let one = (0_u64..4, 1_u64..5, 0_u32..4, 0_u64..40);
    proptest::collection::vec(one, 1..60).prop_map(|extents| {
        let mut all = Map::default();
        let mut end = 0;
        for (gap, pages, pack, page) in extents {
            all.push(extent(end + gap, pages, pack, page)).unwrap();
            end += gap + pages;
        }
        let (all, order) = all.in_order(2);
        (all, order.iter().map(|_| 44).collect())
    })
}

/// Each page of a map by itself.
fn pages(map: &Map) -> BTreeMap<u64, (u32, u64)> {
    let single = |it: Extent| (0..it.pages).map(move |at| (it.start + at, (it.pack, it.page + at)));
    map.iter().flat_map(single).collect()
}

proptest! {
    #[test]
    fn round_trips((map, packs) in maps(), piece in 1_usize..30) {
        let bytes = encoded(&map);
        prop_assert_eq!(decode_pieces(&bytes, piece, SPACE, &packs), Ok(map.clone()));
        let end = map.end();
        prop_assert!(decode_pieces(&bytes, piece, end, &packs).is_ok());
        prop_assert!(decode_pieces(&bytes, piece, end - 1, &packs).is_err());
    }

    #[test]
    fn what_is_accepted_has_no_other_bytes((map, packs) in maps(), at: prop::sample::Index, byte: u8) {
        let mut bytes = encoded(&map);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(found) = decode(&bytes, &packs) {
            prop_assert_eq!(encoded(&found), bytes);
        }
    }

    #[test]
    fn each_page_is_where_it_was_put((map, _) in maps(), from in 0_u64..60, length in 0_u64..60) {
        let single = pages(&map);
        prop_assert_eq!(single.len() as u64, map.pages());
        for page in 0..map.end() + 2 {
            prop_assert_eq!(map.at(page), single.get(&page).copied());
        }
        let mut found = Map::default();
        for extent in map.range(from..from + length) {
            found.push(extent).unwrap();
        }
        let expected: BTreeMap<_, _> = single.range(from..from + length).map(|(k, v)| (*k, *v)).collect();
        prop_assert_eq!(pages(&found), expected);
    }

    #[test]
    fn packs_come_in_order_whatever_they_were(packs in proptest::collection::vec(0_u32..6, 1..30), first in 0_u32..6) {
        let mut all = Map::default();
        for (at, pack) in (0..).zip(&packs) {
            all.push(extent(at * 2, 1, *pack, at)).unwrap();
        }
        let (ordered, order) = all.clone().in_order(first);
        prop_assert_eq!(order[0], first);
        let back = ordered.iter().map(|it| Extent { pack: order[it.pack as usize], ..it });
        prop_assert!(back.eq(all.iter()));
        let lengths = vec![30; order.len()];
        prop_assert_eq!(decode(&encoded(&ordered), &lengths), Ok(ordered));
    }
}
