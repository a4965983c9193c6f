"""Media types: what a content type says, however it is written.

Owns their reading (RFC 9110, section 8.3.1): type and names of parameters in any case, parameters in any order, values
quoted or not. Must not know which serializer reads which.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TYPE = re.compile(rf"[ \t]*({_WORD}/{_WORD})[ \t]*(?=;|\Z)")
_PARAMETER = re.compile(rf";[ \t]*(?:({_WORD})=({_WORD}|\"(?:[^\"\\]|\\.)*\"))?[ \t]*(?=;|\Z)")
_UTF8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


class MediaType(NamedTuple):
    """A content type as it is meant."""

    name: str
    """``application/json``, in small letters."""
    parameters: Mapping[str, str]
    """Without the charset."""
    charset: str | None
    """In small letters; None where it is UTF-8, or not said."""

    @property
    def suffix(self) -> str:
        """``json`` of ``application/problem+json`` (RFC 6839); empty without one."""
        return self.name.rpartition("+")[2] if "+" in self.name else ""

    def is_read_as(self, other: "MediaType") -> bool:
        """Whether who reads ``other`` reads this: the same type, and everything that ``other`` names as well."""
        return (
            self.name == other.name
            and self.charset == other.charset
            and all(self.parameters.get(key) == value for key, value in other.parameters.items())
        )


@lru_cache(maxsize=256)
def parse_media_type(text: str) -> MediaType | None:
    """What a content type says; None for a text that is none."""
    found = _TYPE.match(text)
    if found is None:
        return None
    name, at = found[1].lower(), found.end()
    parameters: dict[str, str] = {}
    while at < len(text):
        found = _PARAMETER.match(text, at)
        if found is None:
            return None
        at = found.end()
        if found[1]:
            value = found[2]
            if value.startswith('"'):
                value = re.sub(r"\\(.)", r"\1", value[1:-1])
            parameters.setdefault(found[1].lower(), value)
    charset = parameters.pop("charset", "utf-8").lower()
    return MediaType(name, MappingProxyType(parameters), None if charset in _UTF8 else charset)
