"""The one exception that input can cause: it says what was found, what was wanted, and the cure."""

from __future__ import annotations

import struct

#: what libraries raise on a damaged file; a lack of memory is no fault of the file
DAMAGED: tuple[type[Exception], ...] = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
)


class DataError(Exception):
    """An input that cannot be used.

    Parameters
    ----------
    problem : str
        What is wrong, in one sentence without a final full stop.
    file : str or None
        The file or folder, relative to the study where possible.
    field : str or None
        Column, header field, key or series the problem is in.
    found, wanted : str or None
        The value that was found and what would have been accepted.
    cure : str
        What the user can do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        cure: str,
        file: str | None = None,
        field: str | None = None,
        found: object = None,
        wanted: object = None,
    ) -> None:
        self.problem = problem
        self.file = None if file is None else str(file)
        self.field = field
        self.found = found
        self.wanted = wanted
        self.cure = cure
        super().__init__(str(self))

    def __str__(self) -> str:
        """All parts on one line, in a fixed order, so that a table cell can hold them."""
        parts = [self.problem]
        for label, value in (
            ("file", self.file),
            ("field", self.field),
            ("found", self.found),
            ("wanted", self.wanted),
        ):
            if value is not None:
                parts.append(f"{label}: {value}")
        parts.append(f"cure: {self.cure}")
        return "; ".join(parts)
