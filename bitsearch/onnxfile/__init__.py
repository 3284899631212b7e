"""Tools on ONNX files, whoever made them: read, inspect, convert, check and time. They know files, not networks."""
