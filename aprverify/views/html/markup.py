"""HTML from untrusted text: every `str` is escaped, and only what was built here is markup.

Text that could pass for other text (control characters, directions, invisible letters, halves of a
surrogate pair) is shown by name, so that what a reviewer sees is what the run says.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterable

# Ranges rather than Unicode categories, which differ from one Python to the next.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\ufffe\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)
_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,:=!+%\[\]/@-]{0,300}")
_VOID = frozenset({"col", "img", "input", "link", "meta"})


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Content = str | Iterable["str | Markup"]
Attribute = str | int | float | bool | None


def visible(text: str) -> str:
    """`text` with each character that cannot be seen replaced by its name, as ``⟨U+202E⟩``."""
    return _UNSEEN.sub(_name, text)


def _name(found: re.Match[str]) -> str:
    point = ord(found.group())
    # Unicode has a picture of each of the oldest control characters.
    return chr(0x2400 + point) if point < 0x20 else f"⟨U+{point:04X}⟩"


def escape(text: str) -> Markup:
    """Text that no parser takes for markup, in an element or between an attribute's quotes."""
    return text if isinstance(text, Markup) else Markup(html.escape(visible(text)))


def join(parts: Iterable[str], separator: str = "") -> Markup:
    """All parts one after another, each escaped unless it is markup."""
    return Markup(escape(separator).join(escape(part) for part in parts))


def element(name: str, /, *content: Content, **attributes: Attribute) -> Markup:
    """An element. ``class_`` and ``data_value`` read class and data-value.

    An attribute that is None or False is left out; one that is True has no value.
    """
    opening = f"<{name}{''.join(_attribute(*item) for item in attributes.items())}>"
    if name in _VOID:
        return Markup(opening)
    inner = "".join(escape(c) if isinstance(c, str) else join(c) for c in content)
    return Markup(f"{opening}{inner}</{name}>")


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    spelled = name.rstrip("_").replace("_", "-")
    return f" {spelled}" if value is True else f' {spelled}="{escape(str(value))}"'


def asset(name: str, text: str) -> Markup:
    """A style or script element around text of this package.

    Raises:
        ValueError: the text would end its element too early.
    """
    if "</" in text or "<!--" in text:
        raise ValueError(f"the {name} holds '</' or '<!--', which would end or hide it")
    return Markup(f"<{name}>{text}</{name}>")


def anchor(name: str) -> str:
    """The fragment for an identifier: the identifier itself where it is plain, else its hash."""
    if _PLAIN_ID.fullmatch(name):
        return name
    return f"id-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
