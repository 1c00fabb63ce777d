"""Imports a user's images and questions as a data set.

    source ---- place.py ----> files, local or on S3
    files ----- records.py --> records: one dict for each row of the source
    record ---- columns.py --> which column holds what
    record ---- reading.py --> drafts with their images, or refusals with their reasons
    drafts ---- seen.py -----> without duplicates and without rows of the evaluation sets
    drafts ---- writing.py --> shards, packs of images and, at last, the manifests

A draft is a sample whose image is not stored yet. `job.py` runs these steps. Several threads decode
the images, and one thread writes in the order of the source. After each shard, this thread stores
its position in the source, so that a killed import can resume there.
"""
