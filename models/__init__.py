"""The networks, one file each."""

if __name__ != "bitsearch.models":
    raise ImportError(f"found the bare folder {__name__!r}: install bitsearch and import bitsearch.models")
