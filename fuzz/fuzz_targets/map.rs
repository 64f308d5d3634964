//! Bytes that decode are the one encoding of their map, however they are cut; and the map is within the page space and packs.
//! The first bytes say how many packs there are and how large those and the page space.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snapshotter::fuzzing::format::map::{Decoder, Map, MapError};

fn decode(bytes: &[u8], piece: usize, space: u64, packs: &[u64]) -> Result<Map, MapError> {
    let mut decoder = Decoder::new(bytes.len() as u64, space, packs);
    bytes
        .chunks(piece)
        .try_for_each(|piece| decoder.push(piece))?;
    decoder.finish()
}

fn check(map: &Map, space: u64, packs: &[u64]) {
    let mut again = Map::default();
    let (mut end, mut pages) = (0, 0);
    for extent in map.iter() {
        assert!(extent.pages > 0 && extent.start >= end && extent.end() <= space);
        assert!(extent.page + extent.pages <= packs[extent.pack as usize]);
        assert_eq!(map.at(extent.start), Some((extent.pack, extent.page)));
        let last = (extent.pack, extent.page + extent.pages - 1);
        assert_eq!(map.at(extent.end() - 1), Some(last));
        if extent.start > end {
            assert_eq!(map.at(end), None);
        }
        assert_eq!(
            map.range(extent.start..extent.end()).collect::<Vec<_>>(),
            [extent]
        );
        again.push(extent).expect("it was in a map");
        end = extent.end();
        pages += extent.pages;
    }
    assert_eq!(map.at(end), None);
    assert_eq!(map.pages(), pages);
    assert!(again == *map, "no extents could be one");
    assert_eq!(map.range(0..u64::MAX).count(), map.len());
    let (ordered, order) = map.clone().in_order(0);
    assert!(ordered == *map && order.iter().copied().eq(0..packs.len() as u32));
}

fuzz_target!(|input: &[u8]| {
    let Some((&[count, pages, low, high], bytes)) = input.split_first_chunk() else {
        return;
    };
    let packs = vec![u64::from(pages) << (count >> 4); usize::from(count & 15)];
    let space = u64::from(u16::from_le_bytes([low, high]));
    let whole = decode(bytes, bytes.len().max(1), space, &packs);
    let cut = decode(bytes, 1 + usize::from(high & 7), space, &packs);
    assert_eq!(whole, cut);
    let Ok(map) = whole else { return };
    let mut encoded = Vec::new();
    map.write(&mut encoded).expect("a vector takes all");
    assert_eq!(encoded, bytes);
    assert_eq!(map.encoded_length(), bytes.len() as u64);
    check(&map, space, &packs);
});
