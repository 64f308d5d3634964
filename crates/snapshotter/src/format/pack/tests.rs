//! Packs there and back, every byte of one changed, and each refusal on its own.

use std::io::Write as _;

use proptest::prelude::*;

use super::*;

type Row = [u8; ROW_BYTES];

fn page(seed: u64) -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES];
    page[..8].copy_from_slice(&seed.to_le_bytes());
    page
}

fn pages(count: usize) -> Vec<u8> {
    (1..=count as u64).flat_map(page).collect()
}

/// A pack of these pages, cut into frames, and of this map.
fn pack(data: &[u8], map: &[u8], frame_pages: FramePages, compression: Compression) -> Vec<u8> {
    let mut encoder = FrameEncoder::new(compression).unwrap();
    let mut writer = Writer::new(Vec::new(), frame_pages).unwrap();
    for frame in data.chunks(frame_pages.bytes()) {
        let encoded = encoder.encode(frame.to_vec()).unwrap();
        writer.push_data(&encoded).unwrap();
    }
    let mut frames: MapFrames<'_, _> = writer.map(&mut encoder);
    frames.write_all(map).unwrap();
    let numbers = frames.finish().unwrap();
    let (bytes, layout) = writer.finish().unwrap();
    assert_eq!(layout.map_frames().len(), numbers.len());
    assert_eq!(layout.frames().len(), numbers.end as usize);
    assert_eq!(layout.length(), bytes.len() as u64);
    assert!(bytes.ends_with(&layout.tail()));
    bytes
}

fn footer(bytes: &[u8]) -> Result<Footer, PackError> {
    let last = bytes.last_chunk().ok_or(PackError::Lengths)?;
    Footer::parse(last, bytes.len() as u64)
}

fn layout(bytes: &[u8]) -> Result<Layout, PackError> {
    let footer = footer(bytes)?;
    let table = footer.table();
    Layout::parse(footer, &bytes[table.start as usize..table.end as usize])
}

/// All that a pack has, everything verified: its pages and its map.
fn read(bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>), PackError> {
    let layout = layout(bytes)?;
    Layout::check_start(bytes.first_chunk().ok_or(PackError::Lengths)?)?;
    let mut decoder = FrameDecoder::new()?;
    let mut all = |frames: &[Frame]| -> Result<Vec<u8>, PackError> {
        let mut all = Vec::new();
        for frame in frames {
            let range = frame.range();
            let stored = &bytes[range.start as usize..range.end as usize];
            all.extend_from_slice(decoder.decode(frame, stored)?);
        }
        Ok(all)
    };
    Ok((all(layout.data_frames())?, all(layout.map_frames())?))
}

/// A row of the table, for stored bytes of zeros.
fn row(stored: u32, length: u32, kind: u8, codec: u8) -> Row {
    let mut row = [0; ROW_BYTES];
    row[..4].copy_from_slice(&stored.to_le_bytes());
    row[4..8].copy_from_slice(&length.to_le_bytes());
    (row[8], row[9]) = (kind, codec);
    let stored = vec![0; stored.min(1 << 20) as usize];
    row[12..].copy_from_slice(blake3::hash(&stored).as_bytes());
    row
}

/// A pack of such rows with an id that is right, whatever is wrong with them; `frames` bytes of frames.
fn sealed(rows: &[Row], data_frames: u32, frames: usize) -> Vec<u8> {
    sealed_with(rows, frames, |start| {
        start[16..20].copy_from_slice(&data_frames.to_le_bytes());
    })
}

/// The same with a change of what the id is over.
fn sealed_with(rows: &[Row], frames: usize, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let table: Vec<u8> = rows.concat();
    let mut start = Vec::new();
    start.extend([1, 0, 0, 0]);
    start.extend(4096_u32.to_le_bytes());
    start.extend(16_u32.to_le_bytes());
    start.extend((rows.len() as u32).to_le_bytes());
    start.extend((rows.len() as u32).to_le_bytes());
    start.extend(0_u32.to_le_bytes());
    change(&mut start);
    let id = id_of(&start, &table);
    let table_at = MAGIC.len() + frames;
    let length = table_at + table.len() + FOOTER_BYTES;
    let mut bytes = [&MAGIC[..], &vec![0; frames], &table, &start].concat();
    bytes.extend((table_at as u64).to_le_bytes());
    bytes.extend((length as u64).to_le_bytes());
    bytes.extend(id.as_bytes());
    bytes.extend(MAGIC);
    bytes
}

const PAGE: u32 = PAGE_BYTES as u32;

#[test]
fn a_pack_has_its_one_layout() {
    let bytes = pack(&pages(18), b"map", FramePages::Sixteen, Compression::None);
    let found = layout(&bytes).unwrap();
    assert_eq!((found.pages(), found.frames().len()), (18, 3));
    let kinds: Vec<_> = found.frames().iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [Kind::Data, Kind::Data, Kind::Map]);
    assert_eq!(
        bytes.len(),
        8 + 18 * PAGE_BYTES + 3 + 3 * ROW_BYTES + FOOTER_BYTES
    );
    assert_eq!(read(&bytes).unwrap(), (pages(18), b"map".to_vec()));
    let text = found.id().to_string();
    assert!(text.starts_with("blake3:") && text.parse() == Ok(found.id()));
    // The same by hand.
    let rows =
        [(16 * PAGE, 0), (2 * PAGE, 0), (3, 1)].map(|(length, kind)| row(length, length, kind, 0));
    let by_hand = sealed(&rows, 2, 18 * PAGE_BYTES + 3);
    assert_eq!(layout(&by_hand).unwrap().frames().len(), 3);
    assert_eq!(by_hand.len(), bytes.len());
}

#[test]
fn packs_without_pages_or_without_a_map() {
    for compression in [Compression::None, Compression::Zstd(1)] {
        for (count, map) in [(0, &b""[..]), (0, b"m"), (1, b""), (5, b"")] {
            let bytes = pack(&pages(count), map, FramePages::Four, compression);
            assert_eq!(read(&bytes).unwrap(), (pages(count), map.to_vec()));
            assert_eq!(layout(&bytes).unwrap().pages(), count as u64);
        }
    }
}

#[test]
fn a_long_map_is_cut_into_frames() {
    let map: Vec<u8> = (0..2_500_000_u32)
        .map(|at| ((at * 31) >> 7) as u8)
        .collect();
    let bytes = pack(&pages(1), &map, FramePages::Sixteen, Compression::Zstd(1));
    let found = layout(&bytes).unwrap();
    let lengths: Vec<_> = found
        .map_frames()
        .iter()
        .map(|frame| frame.length)
        .collect();
    assert_eq!(lengths, [1 << 20, 1 << 20, 2_500_000 - (2 << 20)]);
    assert!(read(&bytes).unwrap().1 == map);
}

#[test]
fn refuses_footers_that_are_not_known() {
    let good = sealed(&[row(PAGE, PAGE, 0, 0)], 1, PAGE_BYTES);
    assert!(layout(&good).is_ok());
    let with = |at: usize, byte: u8| {
        sealed_with(&[row(PAGE, PAGE, 0, 0)], PAGE_BYTES, |start| {
            start[at] = byte
        })
    };
    for (at, byte, name) in [
        (0, 0, "version"),
        (0, 2, "version"),
        (1, 1, "version"),
        (2, 1, "flags"),
        (3, 128, "flags"),
        (5, 32, "pages of bytes"),
        (8, 0, "frames of pages"),
        (8, 1, "frames of pages"),
        (8, 8, "frames of pages"),
        (8, 32, "frames of pages"),
        (11, 1, "frames of pages"),
        (20, 1, "reserved bytes"),
        (23, 1, "reserved bytes"),
    ] {
        let error = layout(&with(at, byte)).unwrap_err();
        let field = match error {
            PackError::Unknown { field, .. } => field,
            other => panic!("{at} {byte}: {other}"),
        };
        assert_eq!(field, name);
    }
    let mut other = good.clone();
    *other.last_mut().unwrap() ^= 1;
    assert!(matches!(layout(&other), Err(PackError::Magic)));
    let mut other = good;
    other[0] ^= 1;
    assert!(
        layout(&other).is_ok(),
        "the last bytes say nothing of the first"
    );
    assert!(matches!(read(&other), Err(PackError::Magic)));
}

#[test]
fn refuses_lengths_that_do_not_add_up() {
    let good = sealed(&[row(PAGE, PAGE, 0, 0)], 1, PAGE_BYTES);
    let last = good.last_chunk().unwrap();
    for length in [good.len() - 1, good.len() + 1, 0] {
        let footer = Footer::parse(last, length as u64);
        assert!(matches!(footer, Err(PackError::Lengths)), "{length}");
    }
    // Frames that are shorter or longer than what is before the table.
    for frames in [PAGE_BYTES - 1, PAGE_BYTES + 1, 0, 2 * PAGE_BYTES] {
        let bytes = sealed(&[row(PAGE, PAGE, 0, 0)], 1, frames);
        assert!(
            matches!(layout(&bytes), Err(PackError::Lengths)),
            "{frames}"
        );
    }
    // A table somewhere else: the offset is not under the id.
    let at = good.len() - FOOTER_BYTES + 24;
    for offset in [0_u64, 7, 8, PAGE.into(), u64::MAX, u64::MAX - 100] {
        let mut bytes = good.clone();
        bytes[at..at + 8].copy_from_slice(&offset.to_le_bytes());
        assert!(
            matches!(footer(&bytes), Err(PackError::Lengths)),
            "{offset}"
        );
    }
    // More data frames than frames.
    let bytes = sealed(&[row(PAGE, PAGE, 0, 0)], 2, PAGE_BYTES);
    assert!(matches!(footer(&bytes), Err(PackError::Lengths)));
    let footer = footer(&good).unwrap();
    assert_eq!(footer.id(), layout(&good).unwrap().id());
    let table = &good[footer.table().start as usize..];
    assert!(matches!(
        Layout::parse(footer, table),
        Err(PackError::Lengths)
    ));
}

#[test]
fn refuses_too_many_frames_before_the_table_is_read() {
    for count in [MAX_FRAMES + 1, u32::MAX] {
        let bytes = sealed_with(&[], 0, |start| {
            start[12..16].copy_from_slice(&count.to_le_bytes())
        });
        assert!(matches!(
            footer(&bytes),
            Err(PackError::TooManyFrames { .. })
        ));
    }
    let bytes = sealed_with(&[], 0, |start| {
        start[12..16].copy_from_slice(&MAX_FRAMES.to_le_bytes())
    });
    assert!(matches!(footer(&bytes), Err(PackError::Lengths)));
}

#[test]
fn refuses_a_table_that_the_id_is_not_of() {
    let good = sealed(&[row(PAGE, PAGE, 0, 0)], 1, PAGE_BYTES);
    let table = footer(&good).unwrap().table();
    for at in (table.start as usize..table.end as usize).chain(good.len() - 40..good.len() - 8) {
        let mut other = good.clone();
        other[at] ^= 1;
        assert!(matches!(layout(&other), Err(PackError::Id)), "{at}");
    }
}

#[test]
fn refuses_rows_that_cannot_be() {
    let full = 16 * PAGE;
    let changed = |at: usize| {
        let mut row = row(PAGE, PAGE, 0, 0);
        row[at] = 1;
        row
    };
    let cases: [(&[Row], u32, &str); 19] = [
        (&[row(PAGE, PAGE, 2, 0)], 1, "kind"),
        (&[row(PAGE, PAGE, 0, 2)], 1, "codec"),
        (&[changed(10)], 1, "reserved"),
        (&[changed(11)], 1, "reserved"),
        (&[row(PAGE, 0, 0, 1)], 1, "empty"),
        (&[row(0, PAGE, 0, 1)], 1, "empty"),
        (&[row(0, 0, 1, 0)], 0, "empty"),
        (&[row(PAGE - 1, PAGE, 0, 0)], 1, "two lengths"),
        (&[row(PAGE + 1, PAGE, 0, 0)], 1, "two lengths"),
        (&[row(PAGE + 1, PAGE, 0, 1)], 1, "more than its length"),
        (&[row(PAGE - 1, PAGE - 1, 0, 0)], 1, "1 to F pages"),
        (&[row(1, 1, 0, 0)], 1, "1 to F pages"),
        (&[row(full + PAGE, full + PAGE, 0, 0)], 1, "1 to F pages"),
        (
            &[row(9, full - PAGE, 0, 1), row(9, PAGE, 0, 1)],
            2,
            "too few pages",
        ),
        (
            &[row(9, PAGE, 0, 1), row(9, full, 0, 1)],
            2,
            "too few pages",
        ),
        (
            &[row(9, full, 0, 1), row(9, PAGE, 0, 1)],
            1,
            "where map frames are",
        ),
        (&[row(9, 9, 1, 0), row(9, PAGE, 0, 1)], 1, "where pages are"),
        (&[row(9, 9, 1, 0)], 1, "where pages are"),
        (&[row(9, (1 << 20) + 1, 1, 1)], 0, "longer than a map frame"),
    ];
    for (rows, data_frames, expected) in cases {
        let frames = rows
            .iter()
            .map(|row| u32::from_le_bytes([row[0], row[1], row[2], row[3]]));
        let bytes = sealed(rows, data_frames, frames.sum::<u32>() as usize);
        let error = layout(&bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let fine = [
        row(9, full, 0, 1),
        row(9, PAGE, 0, 1),
        row(9, 1 << 20, 1, 1),
        row(1, 1, 1, 0),
    ];
    assert_eq!(layout(&sealed(&fine, 2, 28)).unwrap().pages(), 17);
}

#[test]
fn stored_bytes_are_verified_before_they_are_decoded() {
    let bytes = pack(&pages(16), b"", FramePages::Sixteen, Compression::Zstd(1));
    let frame = layout(&bytes).unwrap().frames()[0];
    let stored = &bytes[8..8 + frame.stored as usize];
    let mut decoder = FrameDecoder::new().unwrap();
    assert_eq!(decoder.decode(&frame, stored).unwrap(), pages(16));
    let mut other = stored.to_vec();
    other[0] ^= 1;
    for wrong in [&other[..], &stored[1..], &[], &[stored, b"x"].concat()] {
        assert!(matches!(
            decoder.decode(&frame, wrong),
            Err(PackError::Damaged)
        ));
    }
    // What is hashed right and is no frame that is allowed: two of them, one behind the other.
    let half = ::zstd::bulk::compress(&pages(8), 1).unwrap();
    let twice = [&half[..], &half[..]].concat();
    let claimed = Frame {
        stored: twice.len() as u32,
        checksum: blake3::hash(&twice).into(),
        ..frame
    };
    assert!(matches!(
        decoder.decode(&claimed, &twice),
        Err(PackError::Zstd(_))
    ));
}

#[test]
fn frames_that_do_not_get_shorter_are_stored_as_they_are() {
    let random: Vec<u8> = (0..PAGE)
        .flat_map(|at| blake3::hash(&at.to_le_bytes()).as_bytes()[..1].to_vec())
        .collect();
    let mut encoder = FrameEncoder::new(Compression::Zstd(1)).unwrap();
    assert_eq!(encoder.encode(random.clone()).unwrap().codec, Codec::Raw);
    let short = encoder.encode(pages(1)).unwrap();
    assert!(short.codec == Codec::Zstd && short.stored() < 100);
    let bytes = pack(
        &random,
        &random[..1],
        FramePages::Sixteen,
        Compression::Zstd(1),
    );
    assert_eq!(read(&bytes).unwrap().0, random);
}

#[test]
fn a_writer_refuses_what_a_reader_would() {
    let mut encoder = FrameEncoder::new(Compression::None).unwrap();
    let mut encoded = |length: usize| -> Encoded { encoder.encode(vec![1; length]).unwrap() };
    let mut writer = Writer::new(Vec::new(), FramePages::Four).unwrap();
    for length in [0, 1, PAGE_BYTES - 1, 5 * PAGE_BYTES] {
        assert!(writer.push_data(&encoded(length)).is_err(), "{length}");
    }
    for length in [0, MAX_MAP_FRAME_BYTES + 1] {
        assert!(writer.push_map(&encoded(length)).is_err(), "{length}");
    }
    writer.push_data(&encoded(4 * PAGE_BYTES)).unwrap();
    writer.push_data(&encoded(PAGE_BYTES)).unwrap();
    assert!(
        writer.push_data(&encoded(PAGE_BYTES)).is_err(),
        "the last was there"
    );
    writer.push_map(&encoded(1)).unwrap();
    assert!(writer.push_data(&encoded(4 * PAGE_BYTES)).is_err());
    let (bytes, _) = writer.finish().unwrap();
    assert_eq!(layout(&bytes).unwrap().pages(), 5);
}

fn packs() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, FramePages, Compression)> {
    let data = proptest::collection::vec(0_u64..50, 0..40);
    let map = proptest::collection::vec(any::<u8>(), 0..200);
    let frame_pages = prop_oneof![Just(FramePages::Four), Just(FramePages::Sixteen)];
    let compression = prop_oneof![Just(Compression::None), Just(Compression::Zstd(1))];
    (data, map, frame_pages, compression).prop_map(|(seeds, map, pages, how)| {
        (seeds.into_iter().flat_map(page).collect(), map, pages, how)
    })
}

proptest! {
    #[test]
    fn round_trips((data, map, frame_pages, compression) in packs()) {
        let bytes = pack(&data, &map, frame_pages, compression);
        prop_assert_eq!(read(&bytes).unwrap(), (data, map));
    }

    #[test]
    fn no_byte_can_be_changed_cut_off_or_added(
        (data, map, frame_pages, compression) in packs(),
        at: prop::sample::Index,
        change in 1_u8..,
    ) {
        let bytes = pack(&data, &map, frame_pages, compression);
        let at = at.index(bytes.len());
        let mut other = bytes.clone();
        other[at] ^= change;
        prop_assert!(read(&other).is_err(), "{}", at);
        prop_assert!(read(&bytes[..at]).is_err());
        prop_assert!(read(&bytes[at..]).is_err() || at == 0);
        prop_assert!(read(&[&bytes[..], &bytes[at..]].concat()).is_err() || at == bytes.len());
    }

    #[test]
    fn whatever_is_under_the_id_reads_or_is_refused(
        rows in proptest::collection::vec((0_u32..70_000, 0_u32..70_000, 0_u8..3, 0_u8..3), 0..6),
        data_frames in 0_u32..7,
        start in proptest::collection::vec((0_usize..24, any::<u8>()), 0..2),
    ) {
        let rows: Vec<_> = rows.into_iter().map(|(stored, length, kind, codec)| row(stored, length, kind, codec)).collect();
        let frames = rows.iter().map(|row| u32::from_le_bytes([row[0], row[1], row[2], row[3]]) as usize);
        let bytes = sealed_with(&rows, frames.sum(), |named| {
            named[16..20].copy_from_slice(&data_frames.to_le_bytes());
            start.iter().for_each(|(at, byte)| named[*at] = *byte);
        });
        if let Ok(found) = layout(&bytes) {
            prop_assert!(bytes.ends_with(&found.tail()));
            prop_assert_eq!(found.length(), bytes.len() as u64);
            let _ = read(&bytes);
        }
    }
}
