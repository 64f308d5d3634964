//! A stream that comes from elsewhere, taken into a file: refused, or read back from the file as the same stream with
//! the same checksum.
#![no_main]

use std::fs::File;

use libfuzzer_sys::fuzz_target;
use snapshotter::fuzzing::travel::there_and_back;

/// Files larger than this are all hole, and say nothing more.
const LARGEST: u64 = 64 << 20;

fn empty_file() -> File {
    let path = format!("/dev/shm/snapshotter-fuzz-travel-{}", std::process::id());
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .expect("a file in memory");
    std::fs::remove_file(&path).expect("it was just made");
    file
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, stream)) = bytes.split_first() else {
        return;
    };
    let size = stream
        .get(4..12)
        .and_then(|size| size.try_into().ok())
        .map_or(0, u64::from_be_bytes);
    if size > LARGEST {
        return;
    }
    let piece = usize::from(*first) + 1;
    let pieces: Vec<&[u8]> = stream.chunks(piece).collect();
    let limit = stream.len() as u64;
    let taken = there_and_back(&empty_file(), size, limit, &pieces);
    if let Some((again, said, read)) = taken {
        assert!(again == stream, "the file has another stream");
        assert_eq!(said, read);
        let whole = there_and_back(&empty_file(), size, limit, &[stream]);
        assert_eq!(whole.map(|(_, said, _)| said), Some(said));
        assert!(there_and_back(&empty_file(), size + 1, limit, &pieces).is_none());
    }
});
