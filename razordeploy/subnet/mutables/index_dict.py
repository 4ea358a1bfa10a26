"""A dictionary of channel ranges."""

from __future__ import annotations

import bisect
from collections import UserDict
from typing import Any, TypeVar

from razordeploy.errors import ModelError

V = TypeVar("V")


class IndexDict(UserDict[tuple[int, int], V]):
    """Values by range ``(start, end)``; ranges are kept in order and may not overlap."""

    def __setitem__(self, key: tuple[int, int], value: V) -> None:
        """Insert or replace one range.

        Raises:
            ModelError: an empty or negative range, or one that overlaps another.
        """
        start, end = key
        if not 0 <= start < end:
            raise ModelError(f"expected a range (start, end) with 0 <= start < end, got {key}")
        if key not in self.data:
            for other in self.data:
                if start < other[1] and other[0] < end:
                    raise ModelError(f"channel range {key} overlaps {other}, which is taken already")
            keys = sorted(self.data)
            bisect.insort(keys, key)
            # A dict keeps the order of insertion, so the later ranges go in again.
            later = {k: self.data.pop(k) for k in keys[keys.index(key) + 1 :]}
            self.data[key] = value
            self.data.update(later)
        else:
            self.data[key] = value

    def __deepcopy__(self, memo: dict[int, Any]) -> IndexDict[V]:
        """A copy whose values are copied as well."""
        import copy

        new: IndexDict[V] = IndexDict()
        memo[id(self)] = new
        new.data.update({key: copy.deepcopy(value, memo) for key, value in self.data.items()})
        return new
