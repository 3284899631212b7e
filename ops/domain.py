"""Where the operators live: an ONNX domain and its version."""

DOMAIN = "com.bithep"
VERSION = 1
