"""Text from outside, made safe: names that come from data, addresses that hold secrets."""

import hashlib
import re

LONGEST = 80


def safe_name(text: str) -> str:
    """Keep letters, digits, `_`, `-` and inner dots; what changes anything else carries a hash to stay distinct."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+|\.\.+|^\.+|^-+", "_", text)[:LONGEST] or "_"
    return safe if safe == text else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def printable(text: str) -> str:
    """Show a space for every kind of space, a `?` for what cannot be printed: names found in files may hold any."""
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in text)


def masked(text: str) -> str:
    """Hide passwords in addresses, `user:secret@host` and `?password=secret` alike."""
    text = re.sub(r"(\w[\w+.-]*://[^\s/:@?#]*):\S*@", r"\1:***@", text)
    return re.sub(r"(?i)([?&;][^=&;\s]*(?:pass|pwd|secret|token|key)[^=&;\s]*=)[^&;\s'\"]*", r"\1***", text)
