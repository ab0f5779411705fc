"""Files of tickets that are damaged, forged or no tickets: refused by name, always with the same kind of error."""

import hashlib
import json
import os
import struct

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import precode as pc

MASK = b"\x01\x00\x01\x01"
VALUES = struct.pack("<4f", 0.5, 0.0, -1.0, 2.0)
TENSORS = {"mask.w": ("BOOL", [2, 2], MASK), "start.w": ("F32", [2, 2], VALUES)}
ABOUT = {
    "method": "snip",
    "settings": {},
    "density": 0.75,
    "granularity": "weight",
    "scope": "global",
    "cost": {"gradients": 1.0},
    "versions": {"precode": "0.1.0"},
    "config": {"seed": 3},
}


def forge(tensors=TENSORS, kept=3, total=4, sizes=None, **about):
    """A file by the format's description, with a hash that is right whatever it holds."""
    tensors = dict(sorted(tensors.items()))
    names = [name.removeprefix("mask.") for name in tensors if name.startswith("mask.")]
    manifest = {
        "format": 1,
        "kind": "ticket",
        "about": ABOUT | about,
        "counts": {"kept": kept, "total": total},
        "tensors": {name: {"kept": kept, "total": total} for name in names},
        "sha256": "",
    }
    pieces = [json.dumps(manifest, separators=(",", ":")).encode()]
    for name, (dtype, shape, data) in tensors.items():
        pieces += [name.encode(), dtype.encode(), struct.pack(f"<{len(shape)}Q", *shape), data]
    digest = hashlib.sha256(b"".join(struct.pack("<Q", len(piece)) + piece for piece in pieces))
    manifest["sha256"] = digest.hexdigest()
    header, offset = {"__metadata__": {"precode": json.dumps(manifest, separators=(",", ":"))}}, 0
    # Tensors lie in the file as safetensors orders them: wide types first.
    width = {"BOOL": 1, "F16": 2, "F32": 4, "F64": 8}
    body = b""
    for name, (dtype, shape, data) in sorted(tensors.items(), key=lambda item: (-width[item[1][0]], item[0])):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
        body += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tickets")


def refused(folder, content):
    path = folder / "hostile.safetensors"
    path.write_bytes(content)
    with pytest.raises(pc.PrecodeFileError, match=r"hostile\.safetensors: ") as caught:
        pc.Ticket.load(path)
    return str(caught.value)


def test_a_file_made_by_the_description_is_read(folder):
    path = folder / "ticket.safetensors"
    path.write_bytes(forge())
    ticket = pc.Ticket.load(path)
    assert ticket.masks["w"].tolist() == [[True, False], [True, True]]
    assert ticket.start["w"].tolist() == [[0.5, 0.0], [-1.0, 2.0]]


EMPTY = {"mask.v": ("BOOL", [0], b""), "start.v": ("F32", [0], b"")}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([2**63, 0], "9223372036854775808"),
        ([0, 2**64 - 1], "18446744073709551615"),
        ([2**62, 0, 4], "4611686018427387904"),
        ([1] * 69 + [0], "70 axes"),
        ([1] * 65 + [0], "66 axes"),
    ],
)
def test_shapes_that_no_tensor_has_are_refused_by_name(folder, shape, message):
    tensors = TENSORS | {"start.v": ("F32", shape, b"")}
    assert message in refused(folder, forge(tensors))
    tensors |= {"mask.v": ("BOOL", shape, b"")}
    assert "start.v" in (text := refused(folder, forge(tensors))) or "mask.v" in text


def test_manifests_that_agree_with_tensors_that_are_no_ticket(folder):
    none = {"mask.w": ("BOOL", [4], bytes(4)), "start.w": ("F32", [4], bytes(16))}
    assert "keep no weight" in refused(folder, forge(none, kept=0))
    for density in (0, 1.5, -1, 1e300):
        assert "in (0, 1]" in refused(folder, forge(density=density))
    assert "granularity 'block'" in refused(folder, forge(granularity="block"))
    assert "the byte 2" in refused(folder, forge({**TENSORS, "mask.w": ("BOOL", [4], b"\x02\0\1\1")}))
    deep = []
    for _ in range(110):
        deep = [deep]
    assert "too deeply" in refused(folder, forge(settings={"deep": deep}))
    assert "belongs to no ticket" in refused(folder, forge(TENSORS | {"other": ("F32", [1], bytes(4))}))


def test_a_large_file_is_looked_at_before_it_is_read(folder):
    path = folder / "large.safetensors"
    for start in (b"", b"\xff" * 8, forge(), struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 99_999_999)):
        path.write_bytes(start)
        os.truncate(path, 2**42)  # a hole: takes no room on the disk, and would take 4 TiB of memory
        with pytest.raises(pc.PrecodeFileError, match=r"large\.safetensors: ") as caught:
            pc.Ticket.load(path)
        assert "memory" not in str(caught.value)
    path.unlink()


@given(st.binary(max_size=200))
@example(b"")
def test_random_bytes(folder, content):
    refused(folder, content)
    refused(folder, struct.pack("<Q", len(content)) + content)


@given(st.data())
def test_cut_and_lengthened(folder, data):
    good = forge()
    refused(folder, good[: data.draw(st.integers(0, len(good) - 1))])
    refused(folder, good + data.draw(st.binary(min_size=1, max_size=9)))


@given(st.lists(st.tuples(st.integers(0, len(forge()) - 1), st.integers(1, 255)), min_size=1, max_size=3))
def test_flipped_bits(folder, flips):
    good, altered = forge(), bytearray(forge())
    for place, bits in flips:
        altered[place] ^= bits
    path = folder / "hostile.safetensors"
    path.write_bytes(altered)
    try:
        read = pc.Ticket.load(path)
    except pc.PrecodeFileError as error:
        message = str(error)
    else:  # white space of the header, which says nothing
        path.write_bytes(good)
        assert read == pc.Ticket.load(path)
        return
    assert "hostile.safetensors" in message


numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4)
shapes = st.lists(st.sampled_from([0, 1, 2, 3, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]), max_size=5)


@given(shapes, shapes, st.dictionaries(st.text(max_size=3), numbers, max_size=3))
def test_forged_with_a_right_hash(folder, mask, start, settings):
    """The hash is right, so that all that stands between a forger and torch are the checks."""
    tensors = TENSORS | {"mask.v": ("BOOL", mask, b""), "start.v": ("F32", start, b"")}
    path = folder / "hostile.safetensors"
    path.write_bytes(forge(tensors, settings=settings))
    with pytest.raises(pc.PrecodeFileError, match="hostile"):  # what the mask of v keeps is counted wrong, at least
        pc.Ticket.load(path)


# What saving refuses


def ticket(**about):
    return pc.Ticket({"w": torch.tensor([True])}, {"w": torch.ones(1)}, **{"method": "m", "density": 1.0} | about)


@pytest.mark.parametrize("name", ["settings", "config"])
def test_numbers_that_a_file_would_change_are_refused_by_name(name, folder):
    for number in (2**64, -(2**63) - 1, 10**30):
        with pytest.raises(pc.PrecodeValueError, match=rf"{name}\['a'\]\[1\] = {number}: .* give it as a string"):
            ticket(**{name: {"a": [0, number]}})
    for number in (2**64 - 1, -(2**63), 2**53 + 1, 0.1 + 0.2, -0.0, 5e-324):
        made = ticket(**{name: {"a": number}})
        made.save(folder / "number")
        read = getattr(pc.Ticket.load(folder / "number"), name)["a"]
        assert (type(read), repr(read)) == (type(number), repr(number))


def test_what_a_file_would_not_give_back_is_refused_by_name():
    deep = []
    for _ in range(120):
        deep = [deep]
    for kind, message, about in [
        (pc.PrecodeTypeError, "two names are the same as text", {"config": {1: "a", "1": "b"}}),
        (pc.PrecodeValueError, r"config\['a'\] is no text", {"config": {"a": "\ud800"}}),
        (pc.PrecodeValueError, r"the name '\\ud800' in settings", {"settings": {"\ud800": 1}}),
        (pc.PrecodeValueError, "method .* is no text", {"method": "\udfff"}),
        (pc.PrecodeValueError, "nested too deeply", {"config": {"a": deep}}),
        (pc.PrecodeTypeError, r"cost\['epochs'\] must be a number, not str", {"cost": {"epochs": "2"}}),
        (pc.PrecodeTypeError, r"cost\['epochs'\] must be a number, not bool", {"cost": {"epochs": True}}),
        (pc.PrecodeTypeError, r"versions\['torch'\] must be a string, not int", {"versions": {"torch": 2}}),
    ]:
        with pytest.raises(kind, match=message):
            ticket(**about)
    with pytest.raises(pc.PrecodeValueError, match=r"the name '\\ud800' in masks"):
        pc.Ticket({"\ud800": torch.tensor([True])}, {"\ud800": torch.ones(1)}, method="m", density=1.0)
    wide = torch.ones([1] * 65)
    with pytest.raises(pc.PrecodeShapeError, match=r"masks\['w'\] has 65 axes"):
        pc.Ticket({"w": wide.bool()}, {"w": wide}, "m", 1.0)


@given(
    st.dictionaries(
        st.text(),
        st.recursive(st.none() | st.booleans() | numbers, lambda inner: st.lists(inner, max_size=3), max_leaves=5),
        max_size=4,
    )
)
def test_settings_come_back_or_are_refused(folder, settings):
    try:
        made = ticket(settings=settings)
    except (pc.PrecodeValueError, pc.PrecodeTypeError):
        return
    made.save(folder / "settings")
    read = pc.Ticket.load(folder / "settings").settings
    assert json.dumps(read, sort_keys=True) == json.dumps(made.settings, sort_keys=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_only_files_are_replaced(tmp_path):
    mask = torch.tensor([True, False])
    ticket = pc.Ticket({"w": mask}, {"w": torch.tensor([1.0, 0.0])}, method="by hand", density=0.5)
    pipe, private = tmp_path / "pipe", tmp_path / "private"
    os.mkfifo(pipe)
    for place in (pipe, tmp_path, os.devnull):
        with pytest.raises(pc.PrecodeFileError, match="it is no regular file"):
            ticket.save(place)
    assert pipe.is_fifo()
    private.touch(0o600)
    ticket.save(private)
    assert private.stat().st_mode & 0o777 == 0o600
    assert pc.Ticket.load(private) == ticket


@pytest.mark.parametrize("wrong", [None, 3, 1.5])
def test_what_is_no_path_is_refused(wrong, tmp_path):
    mask = torch.tensor([True, False])
    ticket = pc.Ticket({"w": mask}, {"w": torch.tensor([1.0, 0.0])}, method="by hand", density=0.5)
    for call in (ticket.save, pc.Ticket.load, ticket.save_pretrained, pc.Ticket.from_pretrained):
        with pytest.raises(pc.PrecodeTypeError, match=r"(path|folder) must be a string or a path, not"):
            call(wrong)
    ticket.save(os.fsencode(tmp_path / "bytes"))
    assert pc.Ticket.load(os.fsencode(tmp_path / "bytes")) == ticket
