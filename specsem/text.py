"""Text of others, shown to people."""

__all__ = ["visible"]


def visible(text: str) -> str:
    """A name or a claim may hold anything: what would steer the terminal or the page that shows it (control
    characters, marks that turn the direction of writing) is written out, as ``\\u202e``."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
