"""What a caller can meet."""


class BitsearchError(Exception):
    """Say what was found, what was expected and what to do; the command line prints it as one line."""


class ConfigurationError(BitsearchError):
    """A name, flag, assignment or setting that does not fit."""


class DataError(BitsearchError):
    """A data file that is missing, foreign, truncated or unphysical."""


class TrainingError(BitsearchError):
    """A training that cannot go on, for example because its loss became NaN."""


class ExportError(BitsearchError):
    """A network or file that cannot be turned into a servable ONNX model."""


class CheckpointError(BitsearchError):
    """A checkpoint whose keys or shapes do not fit the network."""
