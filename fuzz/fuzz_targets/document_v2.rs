//! What parses is consistent and writes; what was written parses to the same. Input that begins as a zstd frame is the document;
//! any other is its JSON, and is put into a frame of raw blocks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snapshotter::fuzzing::format::document::paged::PagedDocument;
use snapshotter::fuzzing::words::page::MAX_PAGES;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Says that the length has four bytes and the window is the content.
const SINGLE_SEGMENT: u8 = 0xa0;
const MAX_BLOCK: usize = 128 << 10;

fn frame(json: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.push(SINGLE_SEGMENT);
    bytes.extend((json.len() as u32).to_le_bytes());
    let mut blocks = json.chunks(MAX_BLOCK).peekable();
    if blocks.peek().is_none() {
        bytes.extend([1, 0, 0]);
    }
    while let Some(block) = blocks.next() {
        let is_last = u32::from(blocks.peek().is_none());
        let header = (block.len() as u32) << 3 | is_last;
        bytes.extend(&header.to_le_bytes()[..3]);
        bytes.extend(block);
    }
    bytes
}

fuzz_target!(|input: &[u8]| {
    let bytes = if input.starts_with(&MAGIC) {
        input.to_vec()
    } else {
        frame(input)
    };
    let Ok(mut document) = PagedDocument::parse(&bytes) else {
        return;
    };
    assert!(document.page_space() <= MAX_PAGES);
    assert_eq!(document.map.is_some(), !document.packs.is_empty());
    let ends: Vec<_> = document.places().map(|(_, at)| at.end).collect();
    assert!(ends.is_sorted() && ends.last().is_none_or(|end| *end == document.page_space()));
    let written = document.encode().expect("what parses can be written");
    let again = PagedDocument::parse(&written).expect("what was written parses");
    assert_eq!(again, document);
    assert_eq!(again.encode().expect("it was written before"), written);
    assert!(again.is_equal_to(&document));
    document.entries.sort();
    document.encode().expect("order doesn't matter");
});
