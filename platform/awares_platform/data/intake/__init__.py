"""Imports a user's images and questions as a data set. `job.py` runs these steps:

    source ---- place.py ----> files, local or on S3
    files ----- records.py --> records: one dict for each row of the source
    record ---- columns.py --> which column holds what
    record ---- reading.py --> drafts with their images, or refusals with their reasons
    drafts ---- seen.py -----> without duplicates and without rows of the evaluation sets
    drafts ---- writing.py --> shards, packs of images and, finally, the manifests

A draft is a sample whose image is not stored yet. A killed import resumes after the last shard that
it has written.
"""
