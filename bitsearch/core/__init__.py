"""Values that everything passes on: precisions, spaces, measurements, the run folder; no third party at all."""
