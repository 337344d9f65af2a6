"""A page as a tree, parsed as HTML is; whatever is not closed in order is an error."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"col", "img", "input", "link", "meta", "wbr"}


class Node:
    """An element with its attributes, its children, and the text of all that is in it."""

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name, self.attributes = name, attributes
        self.children: list[Node] = []
        self.parts: list[str] = []

    @property
    def text(self) -> str:
        """Its text, white space as written."""
        return "".join(self.parts)

    def all(self, name: str = "", **attributes: str) -> list[Node]:
        """Every element below it, with a name and attributes where given, in order."""
        found: list[Node] = []
        for child in self.children:
            named = name in ("", child.name)
            if named and attributes.items() <= child.attributes.items():
                found.append(child)
            found += child.all(name, **attributes)
        return found


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Node("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        assert len(node.attributes) == len(attrs), f"{tag} repeats an attribute"
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        for node in self.open:
            node.parts.append(data)


def parse(page: str) -> Node:
    """The page's elements."""
    parser = _Parser()
    parser.feed(page)
    parser.close()
    assert [node.name for node in parser.open] == [""], "an element was left open"
    return parser.open[0]
