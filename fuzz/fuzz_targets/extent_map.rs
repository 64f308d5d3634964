//! Bytes that decode are the one encoding of their map, and the map is valid.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snapshotter::fuzzing::words::extent::{ExtentMap, MAX_SIZE};

fn check(map: &ExtentMap) {
    assert!(map.size() <= MAX_SIZE);
    let mut end = 0;
    for extent in map.extents() {
        assert!(extent.len > 0 && extent.offset >= end);
        end = extent.offset + extent.len;
    }
    assert!(end <= map.size());
    let holes: u64 = map.holes().map(|hole| hole.len).sum();
    assert_eq!(holes + map.data_size(), map.size());
    assert_eq!(
        map.stream_size(),
        20 + 16 * map.extents().len() as u64 + map.data_size()
    );
    assert_eq!(
        ExtentMap::new(map.size(), map.extents().to_vec()).as_ref(),
        Ok(map)
    );
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(map) = ExtentMap::decode(bytes) {
        assert_eq!(map.encode(), bytes);
        check(&map);
    }
});
