"""Text that XML 1.0 can hold: it has no place for most control characters, not even escaped."""

from __future__ import annotations

import re

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(text: str) -> str:
    """`text` with a replacement character for each character that XML has no place for."""
    return _NO_XML.sub("\ufffd", text)
