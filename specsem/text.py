"""Text that is shown to people."""

__all__ = ["plural", "visible"]


def plural(count: int, what: str) -> str:
    """``1 window``, ``2 windows``."""
    return f"{count} {what}" + ("" if count == 1 else "s")


def visible(text: str) -> str:
    """A name or a claim may hold anything: what would steer the terminal or the page that shows it (control
    characters, marks that turn the direction of writing) is written out, as ``\\u202e``."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
