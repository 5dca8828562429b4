"""What the root group of an HDF5 file says about its links, checked before HDF5 follows it.

With more than eight links a group keeps their names in a fractal heap and a B-tree of
version 2, and HDF5 trusts the sizes in their headers: headers that were made up, with
checksums that are right, were seen to end it with a division by zero, in memory that is
not its own, or in a damaged heap.  So those headers must say what HDF5 itself writes.
The layouts are those of the HDF5 File Format Specification, version 3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

Reader = Callable[[int, int], bytes]
"""(offset, length) -> bytes of the file, fewer at its end."""

_UNDEFINED = 2**64 - 1
_LINK_INFO = 0x02
_NODE_BYTES, _RECORD_BYTES, _NODE_OVERHEAD = 512, 11, 10

_TREE = struct.Struct("<4sBBIHHBBQHQ")
_TREE_CONSTANTS = (b"BTHD", 0, 5, _NODE_BYTES, _RECORD_BYTES, 0, 100, 40)
"""Signature, version, type (names of links), node and record size, depth, when nodes are split and merged."""

_HEAP = struct.Struct("<4sBHHBIQQ 6Q 4Q HQQHH QH")
_HEAP_CONSTANTS = (b"FRHP", 0, 7, 0, 2, 4096, 0, _UNDEFINED)
"""Signature, version, length of an id, of filters, flags, largest object, no huge objects and none ever."""
_HEAP_TABLE = (0, 0, 0, 0, 4, 512, 65536, 32, 1)
"""No huge or tiny objects; width, block sizes and rows of the table of blocks."""
_MOST_ROWS = 4


def check_root_group(read: Reader, root: int, n_bytes: int) -> None:
    """Refuse a root group whose links HDF5 would stumble over.

    Raises:
        ValueError: saying what is wrong.
    """
    head = read(root, 64)
    if not head.startswith(b"OHDR\x02"):
        raise ValueError("its root group has no object header of version 2")
    flags = head[5]
    at = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    length = int.from_bytes(head[at : at + width], "little")
    if length > n_bytes:
        raise ValueError("the object header of its root group is longer than the file")
    messages = read(root + at + width, length)
    prefix = 6 if flags & 0x04 else 4
    position, known = 0, False
    while position + prefix <= len(messages):
        kind, size = messages[position], int.from_bytes(messages[position + 1 : position + 3], "little")
        body = messages[position + prefix : position + prefix + size]
        if kind == _LINK_INFO:
            start = 10 if body[1:2] and body[1] & 1 else 2
            if known or len(body) < start + 16:
                raise ValueError("its root group does not say where its links are")
            known = True
            heap, tree = struct.unpack_from("<QQ", body, start)
            if (heap, tree) != (_UNDEFINED, _UNDEFINED):
                _check_dense_links(read, heap, tree, n_bytes)
        position += prefix + size
    if not known:
        raise ValueError("its root group does not say where its links are")


def _check_dense_links(read: Reader, heap: int, tree: int, n_bytes: int) -> None:
    raw_heap, raw_tree = (read(place, form.size) for place, form in ((heap, _HEAP), (tree, _TREE)))
    if len(raw_heap) < _HEAP.size or len(raw_tree) < _TREE.size:
        raise ValueError("the names of its links lie beyond its end")
    *constants, node, in_root, in_tree = _TREE.unpack(raw_tree)
    fits = in_root <= (_NODE_BYTES - _NODE_OVERHEAD) // _RECORD_BYTES and node + _NODE_BYTES <= n_bytes
    if tuple(constants) != _TREE_CONSTANTS or in_tree != in_root or not fits:
        raise ValueError("the tree of its links is not as HDF5 writes it")
    values = _HEAP.unpack(raw_heap)
    sizes, n_objects, table, (block, rows) = values[8:13], values[13], values[14:23], values[23:]
    sound = n_objects == in_root and block < n_bytes and rows <= _MOST_ROWS
    if values[:8] != _HEAP_CONSTANTS or table != _HEAP_TABLE or not sound:
        raise ValueError("the heap of its links is not as HDF5 writes it")
    free, manager, managed, allocated, iterator = sizes
    if max(free, managed, allocated, iterator) > n_bytes or (manager != _UNDEFINED and manager >= n_bytes):
        raise ValueError("the heap of its links is larger than the file")
