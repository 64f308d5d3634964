//! A stream that decodes re-encodes to the same bytes, whole or cut anywhere; a refused one is refused either way.
#![no_main]

use std::convert::Infallible;

use libfuzzer_sys::fuzz_target;
use snapshotter::fuzzing::format::spf::{Decoder, descriptor, header};
use snapshotter::fuzzing::words::extent::ExtentMap;

type Pieces = Vec<(u64, Vec<u8>)>;

fn decode(mut decoder: Decoder, pieces: &[&[u8]]) -> Option<(ExtentMap, Pieces)> {
    let mut data = Pieces::new();
    for piece in pieces {
        let mut sink = |offset: u64, bytes: &[u8]| {
            assert!(!bytes.is_empty());
            data.push((offset, bytes.to_vec()));
            Ok::<_, Infallible>(())
        };
        if decoder.push(piece, &mut sink).is_err() {
            assert!(decoder.finish().is_err());
            return None;
        }
    }
    Some((decoder.finish().ok()?, data))
}

fn encode(map: &ExtentMap, data: &Pieces) -> Vec<u8> {
    let mut data = data.iter();
    let mut stream = header(map.size(), map.extents().len() as u64).to_vec();
    for extent in map.extents() {
        stream.extend(descriptor(*extent));
        let mut at = extent.offset;
        while at < extent.end() {
            let (offset, bytes) = data.next().expect("each extent has its data");
            assert_eq!(*offset, at);
            at += bytes.len() as u64;
            stream.extend(bytes);
        }
        assert_eq!(at, extent.end());
    }
    assert!(data.next().is_none());
    stream
}

fuzz_target!(|stream: &[u8]| {
    let length = stream.len() as u64;
    let whole = decode(Decoder::new(None, Some(length)), &[stream]);
    // Any place will do, as long as it differs from input to input.
    let cut = stream.iter().map(|byte| usize::from(*byte)).sum::<usize>() % (stream.len() + 1);
    let (head, tail) = stream.split_at(cut);
    let halves = decode(Decoder::new(None, None), &[head, tail]);
    let bytewise = decode(
        Decoder::new(None, None),
        &stream.chunks(1).collect::<Vec<_>>(),
    );
    assert_eq!(whole.is_some(), halves.is_some());
    assert_eq!(whole.is_some(), bytewise.is_some());
    if let (Some((map, data)), Some((cut_map, cut_data))) = (whole, halves) {
        assert_eq!(map, cut_map);
        assert_eq!(map.stream_size(), length);
        assert_eq!(encode(&map, &data), stream);
        assert_eq!(encode(&map, &cut_data), stream);
        assert!(decode(Decoder::new(Some(map.size()), Some(length)), &[stream]).is_some());
        assert!(decode(Decoder::new(Some(map.size() ^ 1), None), &[stream]).is_none());
        assert!(decode(Decoder::new(None, Some(length - 1)), &[stream]).is_none());
    }
});
