#!/usr/bin/env python3
"""Reads snapshots of format v2 and makes their files: read.py VECTORS OUTPUT

Written from part two of docs/format.md and the specification of BLAKE3, looking at no other code, to see that the page says
enough. Beside Python it needs a decoder of zstd: the module compression.zstd or zstandard, or the command zstd.

VECTORS has index.json, and for each snapshot NAME in it NAME.manifest.json, NAME.document.json.zst and its packs as packs/HEX. The
files of NAME are made below OUTPUT/NAME and compared with what index.json says of them. Whiteouts and attributes are left out.
"""

import base64
import hashlib
import json
import os
import struct
import subprocess
import sys

# BLAKE3, sections 2.1 to 2.5 of its specification.

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
DERIVE_KEY_CONTEXT, DERIVE_KEY_MATERIAL = 32, 64
MASK = 0xFFFFFFFF
LANES = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)


def compress(chaining, words, counter, length, flags):
    v = [*chaining, *IV[:4], counter & MASK, counter >> 32, length, flags]
    for turn in range(7):
        for i, (a, b, c, d) in enumerate(LANES):
            va, vb, vc, vd = v[a], v[b], v[c], v[d]
            va = (va + vb + words[2 * i]) & MASK
            vd ^= va
            vd = (vd >> 16 | vd << 16) & MASK
            vc = (vc + vd) & MASK
            vb ^= vc
            vb = (vb >> 12 | vb << 20) & MASK
            va = (va + vb + words[2 * i + 1]) & MASK
            vd ^= va
            vd = (vd >> 8 | vd << 24) & MASK
            vc = (vc + vd) & MASK
            vb ^= vc
            vb = (vb >> 7 | vb << 25) & MASK
            v[a], v[b], v[c], v[d] = va, vb, vc, vd
        if turn < 6:
            words = [words[i] for i in PERMUTATION]
    return [v[i] ^ v[i + 8] for i in range(8)]


def chunk(key, data, counter, flags, root):
    blocks = [data[at : at + 64] for at in range(0, len(data), 64)] or [b""]
    chaining = key
    for number, block in enumerate(blocks):
        bits = flags | (CHUNK_START if number == 0 else 0)
        if number == len(blocks) - 1:
            bits |= CHUNK_END | root
        words = struct.unpack("<16I", block.ljust(64, b"\0"))
        chaining = compress(chaining, words, counter, len(block), bits)
    return chaining


def tree(key, data, first, flags, root):
    """The chaining value of a subtree whose first chunk has this number."""
    if len(data) <= 1024:
        return chunk(key, data, first, flags, root)
    chunks = (len(data) + 1023) // 1024
    left = 1 << (chunks - 1).bit_length() - 1
    words = tree(key, data[: left * 1024], first, flags, 0) + tree(key, data[left * 1024 :], first + left, flags, 0)
    return compress(key, words, 0, 64, flags | PARENT | root)


def blake3(data, key=IV, flags=0):
    return struct.pack("<8I", *tree(key, data, 0, flags, ROOT))


def derived(context, data):
    key = struct.unpack("<8I", blake3(context.encode(), IV, DERIVE_KEY_CONTEXT))
    return blake3(data, key, DERIVE_KEY_MATERIAL)


def check_blake3():
    """The first of the official vectors: input bytes count up to 250 and begin again."""
    data = bytes(at % 251 for at in range(2049))
    known = {
        0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        1: "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
        1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
        2049: "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030",
    }
    for length, expected in known.items():
        check(blake3(data[:length]).hex() == expected, "BLAKE3 is not right")


# zstd.


def decoder():
    try:
        from compression import zstd

        return zstd.decompress
    except ImportError:
        pass
    try:
        import zstandard

        return lambda data: zstandard.ZstdDecompressor().decompress(data)
    except ImportError:
        return lambda data: subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout


class Damaged(Exception):
    pass


def check(holds, what):
    if not holds:
        raise Damaged(what)


def check_frame(data):
    """One frame as the page wants it, by its headers. Its content size."""
    check(data[:4] == b"\x28\xb5\x2f\xfd", "no zstd frame")
    descriptor, at = data[4], 5
    check(descriptor & 8 == 0 and descriptor & 3 == 0, "reserved bit or dictionary")
    single = descriptor & 32 != 0
    window = 0
    if not single:
        base = 1 << 10 + (data[at] >> 3)
        window, at = base + base // 8 * (data[at] & 7), at + 1
    width = {0: 1 if single else 0, 1: 2, 2: 4, 3: 8}[descriptor >> 6]
    check(width > 0, "no content size")
    size = int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0)
    at += width
    check((size if single else window) <= 8 << 20, "window")
    last = 0
    while not last:
        header = int.from_bytes(data[at : at + 3], "little")
        last, kind, length = header & 1, header >> 1 & 3, header >> 3
        check(at + 3 <= len(data) and kind != 3, "block")
        at += 3 + (1 if kind == 1 else length)
    at += 4 if descriptor & 4 else 0
    check(at == len(data), "the frame is not all there is")
    return size


def unzstd(data, length):
    check(check_frame(data) == length, "content size")
    content = DECODE(data)
    check(len(content) == length, "content")
    return content


# Packs.

MAGIC = b"SNAPPACK"
PAGE = 4096


class Pack:
    def __init__(self, data):
        check(data[:8] == MAGIC and data[-8:] == MAGIC, "magic")
        footer = data[-80:]
        version, flags, page, per_frame, count, data_count, zero, table_at, length = struct.unpack("<HHIIIIIQQ", footer[:40])
        check((version, flags, page, zero) == (1, 0, PAGE, 0) and per_frame in (4, 16), "footer")
        check(data_count <= count <= 1 << 20, "number of frames")
        check(length == len(data) == table_at + 44 * count + 80, "length")
        table = data[table_at:-80]
        self.id = "blake3:" + derived("io.d7y.snapshotter 2026 pack v2", footer[:24] + table).hex()
        check(self.id == "blake3:" + footer[40:72].hex(), "pack id")
        self.data, self.per_frame, self.data_count, self.frames, self.known = data, per_frame, data_count, [], {}
        at = 8
        for number in range(count):
            stored, length, kind, codec, zero, digest = struct.unpack("<IIBBH32s", table[44 * number :][:44])
            check(kind == (0 if number < data_count else 1) and codec in (0, 1) and zero == 0, "row")
            check(0 < stored <= length and (codec == 1 or stored == length), "lengths")
            if kind == 0:
                full = per_frame * PAGE
                check(length % PAGE == 0 and length <= full and (length == full or number == data_count - 1), "data frame")
            else:
                check(length <= 1 << 20, "map frame")
            self.frames.append((at, stored, length, codec, digest))
            at += stored
        check(at == table_at, "frames")
        self.pages = sum(frame[2] for frame in self.frames[:data_count]) // PAGE

    def frame(self, number):
        if number not in self.known:
            at, stored, length, codec, digest = self.frames[number]
            content = self.data[at : at + stored]
            check(blake3(content) == digest, "a frame is damaged")
            self.known[number] = unzstd(content, length) if codec == 1 else content
        return self.known[number]

    def page(self, page):
        start = page % self.per_frame * PAGE
        return self.frame(page // self.per_frame)[start : start + PAGE]


# The map.


def read_map(data, space, packs):
    """Its extents: (first page, length, pack, first page in the pack)."""
    (count,) = struct.unpack_from("<I", data)
    check(0 < count <= 16 << 20, "number of extents")
    at, columns = 4, []
    for _ in range(4):
        (length,) = struct.unpack_from("<I", data, at)
        columns.append(read_numbers(data[at + 4 : at + 4 + length], count))
        check(at + 4 + length <= len(data), "column")
        at += 4 + length
    check(at == len(data), "bytes left over")
    extents, end, ends, seen = [], 0, [0] * len(packs), 0
    for gap, less_one, pack, zig_zag in zip(*columns):
        start, length = end + gap, less_one + 1
        end = start + length
        check(end <= space and pack < len(packs), "extent")
        check(pack <= seen + 1, "order of packs")
        seen = max(seen, pack)
        first = ends[pack] + (zig_zag >> 1 if zig_zag & 1 == 0 else -(zig_zag + 1 >> 1))
        ends[pack] = first + length
        check(first >= 0 and ends[pack] <= packs[pack].pages, "extent in pack")
        if extents:
            before = extents[-1]
            joined = before[0] + before[1] == start and before[2] == pack and before[3] + before[1] == first
            check(not joined, "extents that are one")
        extents.append((start, length, pack, first))
    check(seen == len(packs) - 1, "a pack that is not used")
    return extents


def read_numbers(data, count):
    numbers, number, shift = [], 0, 0
    for byte in data:
        check(byte != 0 or shift == 0, "not the shortest form")
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte & 0x80 == 0:
            check(number < 1 << 64, "64 bits")
            numbers.append(number)
            number, shift = 0, 0
    check(shift == 0 and len(numbers) == count, "numbers of a column")
    return numbers


# Documents.


def name(entry, key):
    """A path as bytes."""
    text = entry.get(key + "Bytes")
    return base64.b64decode(text, validate=True) if text is not None else entry[key].encode()


def place_of(out, path):
    parts = path.split(b"/")
    check(all(part not in (b"", b".", b"..") and b"\0" not in part for part in parts), "path")
    place = os.path.join(os.fsencode(out), *parts)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    return place


def content_id(size, pages):
    folded = [struct.pack("<Q", size)]
    for index, page in pages:
        if page.count(0) != PAGE:
            folded.append(struct.pack("<Q", index) + page_digest(page))
    return "blake3:" + derived("io.d7y.snapshotter 2026 content v2", b"".join(folded)).hex()


DIGESTS = {}


def page_digest(page):
    if page not in DIGESTS:
        DIGESTS[page] = blake3(page)
    return DIGESTS[page]


def read(directory, read_name):
    with open(os.path.join(directory, read_name), "rb") as file:
        return file.read()


def restore(vectors, snapshot, out):
    manifest_bytes = read(vectors, snapshot["name"] + ".manifest.json")
    check("sha256:" + hashlib.sha256(manifest_bytes).hexdigest() == snapshot["manifest_sha256"], "manifest")
    manifest = json.loads(manifest_bytes)
    kind = "application/vnd.cncf.dragonfly.snapshotter."
    check(manifest["artifactType"] == kind + "manifest.v2+json", "artifact type")
    check(manifest["config"]["mediaType"] == kind + "config.v2+json+zstd", "config type")
    compressed = read(vectors, snapshot["name"] + ".document.json.zst")
    check("sha256:" + hashlib.sha256(compressed).hexdigest() == manifest["config"]["digest"], "document")
    document = json.loads(unzstd(compressed, check_frame(compressed)))
    check(document["format"] == 2 and not document.get("needs"), "unsupported")

    packs = []
    layers = [layer for layer in manifest["layers"] if layer["mediaType"] == kind + "content.v2.pack"]
    check(len(layers) == len(document["packs"]) == len({pack["id"] for pack in document["packs"]}) <= 256, "packs")
    for named, layer in zip(document["packs"], layers):
        data = read(vectors, os.path.join("packs", named["id"].removeprefix("blake3:")))
        check("sha256:" + hashlib.sha256(data).hexdigest() == layer["digest"] and len(data) == layer["size"], "layer")
        check(layer["annotations"]["io.d7y.snapshotter.pack"] == named["id"], "layer's annotation")
        pack = Pack(data)
        check((pack.id, pack.pages) == (named["id"], named["pages"]), "pack")
        packs.append(pack)

    files = document.get("entries") or []
    own = [entry for entry in files if "hardlinkOf" not in entry]
    pages = [-(-entry["metadata"]["size"] // PAGE) for entry in own]
    extents, place = [], document.get("map")
    check((place is None) == (not packs), "map")
    if place:
        check(place["pack"] == 0 and place["frames"] > 0 and place["frame"] >= packs[0].data_count, "place of the map")
        numbers = range(place["frame"], place["frame"] + place["frames"])
        extents = read_map(b"".join(packs[0].frame(number) for number in numbers), sum(pages), packs)
    mapped = {start + at: (pack, page + at) for start, length, pack, page in extents for at in range(length)}

    for entry in document.get("directories") or []:
        os.makedirs(place_of(out, name(entry, "relativePath")), exist_ok=True)
    first = 0
    for entry, count in zip(own, pages):
        write_file(place_of(out, name(entry, "relativePath")), entry, first, count, mapped, packs)
        first += count
    for entry in files:
        if "hardlinkOf" in entry:
            os.link(place_of(out, name(entry, "hardlinkOf")), place_of(out, name(entry, "relativePath")))
    for entry in document.get("symlinks") or []:
        os.symlink(name(entry, "target"), place_of(out, name(entry, "relativePath")))
    compare(snapshot, files, out)


def write_file(place, entry, first, count, mapped, packs):
    size, found = entry["metadata"]["size"], []
    with open(place, "xb") as file:
        file.truncate(size)
        for index in range(count):
            if first + index in mapped:
                pack, page = mapped[first + index]
                content = packs[pack].page(page)
                inside = min(PAGE, size - index * PAGE)
                check(content[inside:].count(0) == PAGE - inside, "bytes behind the end of a file")
                file.seek(index * PAGE)
                file.write(content[:inside])
                found.append((index, content))
    if "content" in entry:
        check(content_id(size, found) == entry["content"], "content id")


def compare(snapshot, files, out):
    check(len(files) == len(snapshot["files"]), "number of files")
    for entry, expected in zip(files, snapshot["files"]):
        path = name(entry, "relativePath")
        with open(place_of(out, path), "rb") as file:
            content = file.read()
        check(path.hex() == expected["path"] and len(content) == expected["size"], "file")
        check(hashlib.sha256(content).hexdigest() == expected["sha256"], "bytes of a file")
        check(entry.get("content", expected["content"]) == expected["content"], "content id in the index")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    vectors, out = sys.argv[1:]
    check_blake3()
    for snapshot in json.loads(read(vectors, "index.json"))["snapshots"]:
        place = os.path.join(out, snapshot["name"])
        os.makedirs(place)
        restore(vectors, snapshot, place)
        print(snapshot["name"], len(snapshot["files"]), "files")


DECODE = decoder()

if __name__ == "__main__":
    main()
