//! A pack that reads is what it says, to the byte; whatever a pack with the right hashes says, nothing panics. Input is an
//! object whose hashes are made right first, because no mutation finds them: then it is the rest that is looked at.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snapshotter::fuzzing::format::pack::{
    Codec, FOOTER_BYTES, Footer, FrameDecoder, Kind, Layout, MAGIC, ROW_BYTES,
};

const CONTEXT: &str = "io.d7y.snapshotter 2026 pack v2";

fn u32_at(bytes: &[u8], at: usize) -> usize {
    let field = bytes[at..at + 4].try_into().expect("four bytes");
    u32::from_le_bytes(field) as usize
}

/// The object with the hashes of its frames, and its id, length and offset of the table; as far as it has room for a table.
fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let footer = bytes.len().checked_sub(FOOTER_BYTES)?;
    let rows = u32_at(&bytes, footer + 12);
    let table = footer.checked_sub(rows.checked_mul(ROW_BYTES)?)?;
    let mut at = MAGIC.len();
    for row in (table..footer).step_by(ROW_BYTES) {
        let end = at.checked_add(u32_at(&bytes, row))?;
        if let Some(stored) = bytes[..table].get(at..end) {
            let hash = blake3::hash(stored);
            bytes[row + 12..row + ROW_BYTES].copy_from_slice(hash.as_bytes());
        }
        at = end;
    }
    let length = bytes.len() as u64;
    bytes[footer + 24..footer + 32].copy_from_slice(&(table as u64).to_le_bytes());
    bytes[footer + 32..footer + 40].copy_from_slice(&length.to_le_bytes());
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&bytes[footer..footer + 24]);
    hasher.update(&bytes[table..footer]);
    let id = hasher.finalize();
    bytes[footer + 40..footer + 72].copy_from_slice(id.as_bytes());
    Some(bytes)
}

fn layout(bytes: &[u8]) -> Option<Layout> {
    let footer = Footer::parse(bytes.last_chunk()?, bytes.len() as u64).ok()?;
    let table = footer.table();
    Layout::parse(footer, &bytes[table.start as usize..table.end as usize]).ok()
}

fuzz_target!(|input: &[u8]| {
    assert!(layout(input).is_none_or(|layout| input.ends_with(&layout.tail())));
    let Some(bytes) = sealed(input) else { return };
    let Some(layout) = layout(&bytes) else { return };
    assert!(bytes.ends_with(&layout.tail()));
    assert_eq!(layout.length(), bytes.len() as u64);
    let all = layout.data_frames().len() + layout.map_frames().len();
    assert_eq!(layout.frames().len(), all);
    let mut decoder = FrameDecoder::new().expect("memory");
    let (mut at, mut length) = (MAGIC.len() as u64, 0);
    for frame in layout.frames() {
        assert_eq!(frame.range().start, at);
        at = frame.range().end;
        let stored = &bytes[frame.range().start as usize..at as usize];
        if frame.kind == Kind::Data {
            length += u64::from(frame.length);
        }
        match decoder.decode(frame, stored) {
            Ok(decoded) => assert_eq!(decoded.len(), frame.length as usize),
            Err(_) => assert_eq!(
                frame.codec,
                Codec::Zstd,
                "a raw frame has nothing to refuse"
            ),
        }
        assert!(decoder.decode(frame, &stored[1..]).is_err());
    }
    assert_eq!(at, bytes.len() as u64 - layout.tail().len() as u64);
    assert_eq!(layout.pages() * 4096, length);
});
