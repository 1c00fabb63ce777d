"""The object store: one prefix of an S3 bucket, and the S3 server of local runs.

object_store.py    ObjectStore: a Bucket that also transfers files and directories
multipart.py       transfers large files to and from a Bucket in parallel parts
bucket.py          Bucket: reads, writes, lists and deletes single objects, with retries
conditions.py      finds out whether a store obeys conditional writes
client.py          creates the boto3 client for a private server or for the user's own server
keys.py            shares the keys of a private server with all processes of its run
errors.py          defines the errors that the store raises
s3_errors.py       decides which S3 errors are retried, and translates S3's errors to StoreErrors
s3_handlers.py     defines boto3 event handlers that work around faults of botocore
foreign_replies.py refuses replies that no S3 server sends
seaweed.py         runs a private S3 server (SeaweedFS) for jobs on one machine
directory_lock.py  locks the private server's directory
seaweed_keeper.py  runs beside the private server, and stops it after its last user
"""

from awares_platform.store.object_store import ObjectStore

__all__ = ["ObjectStore"]
