"""Data sets in the object store: samples as parquet rows, and images by their hash."""
