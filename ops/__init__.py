"""The operators of `com.bithep`: the compiled library, its numpy truth and its portable form."""

if __name__ != "bitsearch.ops":
    raise ImportError(f"found the bare folder {__name__!r}: install bitsearch and import bitsearch.ops")
