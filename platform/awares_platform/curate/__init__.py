"""The curate job: label when and where to crop."""
