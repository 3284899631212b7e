"""What the search may change in each network, one file each."""

if __name__ != "bitsearch.search_spaces":
    raise ImportError(
        f"found the bare folder {__name__!r}: install bitsearch and import bitsearch.search_spaces"
    )
