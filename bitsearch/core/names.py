"""Names that come from data, made safe: for a path, an HTML id, an address."""

import hashlib
import re

LONGEST = 80


def safe_name(text: str) -> str:
    """Keep letters, digits, `_`, `-` and inner dots; what changes anything else carries a hash to stay distinct."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+|\.\.+|^\.+|^-+", "_", text)[:LONGEST] or "_"
    return safe if safe == text else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
