"""Tests that the IAM policies in manifests/ allow exactly the S3 calls that the code makes.

Each AWS manifest must also be valid input for the AWS command in its first line.
"""

import ast
import re
import time
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator

from awares_platform.weights.lease import lease
from awares_platform.weights.retention import request_anchor
from tests.unit.manifests.policy import PREFIX, actions, allows, statements

ROOT = Path(__file__).parents[3]
MANIFESTS, PLATFORM = ROOT / "manifests", ROOT / "platform/awares_platform"
READER, FOLLOWER, WRITER = (
    MANIFESTS / f"iampolicy.{name}.yaml" for name in ("reader", "follower", "writer")
)

ACTION = {
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "complete_multipart_upload": "s3:PutObject",
    "create_multipart_upload": "s3:PutObject",
    "delete_object": "s3:DeleteObject",
    "delete_objects": "s3:DeleteObject",
    "get_object": "s3:GetObject",
    "head_bucket": "s3:ListBucket",
    "head_object": "s3:GetObject",
    "list_objects_v2": "s3:ListBucket",
    "put_object": "s3:PutObject",
    "upload_part": "s3:PutObject",
}
"""Maps each S3 call to the permission that it needs.

The source is AWS's Service Authorization Reference for S3.
"""
READS = {
    "get_object",
    "get_range",
    "get_with_etag",
    "head",
    "exists",
    "list",
    "date",
    "check",
    "download_file",
    "download_directory",
}
"""The read-only methods of ObjectStore. The reader policy permits only their S3 calls."""


def calls(path: Path) -> set[str]:
    """Return the names of the methods that a module calls on a boto3 client."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Call):  # seaweed.py calls `_client(keys).head_bucket(...)`.
                owner = owner.func
            name = getattr(owner, "attr", getattr(owner, "id", None))
            if name in ("client", "_client") and node.func.attr not in ("stream", "meta"):
                found.add(node.func.attr)
    return found


def test_only_the_store_and_its_multipart_part_call_s3() -> None:
    """Check that only the store's modules call S3.

    The module seaweed.py calls only the private server that it starts.
    """
    callers = {path.name for path in PLATFORM.rglob("*.py") if calls(path) & ACTION.keys()}
    assert callers == {"bucket.py", "multipart.py", "seaweed.py"}


def test_the_writer_may_make_exactly_the_stores_calls() -> None:
    used = calls(PLATFORM / "store/bucket.py") | calls(PLATFORM / "store/multipart.py")
    assert used <= ACTION.keys(), "the store makes a new S3 call: add its permission to ACTION"
    assert actions(WRITER) == {ACTION[call] for call in used}


def test_the_reader_may_make_exactly_the_reading_calls() -> None:
    tree = ast.parse((PLATFORM / "store/bucket.py").read_text())
    store = next(
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Bucket"
    )
    reading = [
        node for node in store.body if isinstance(node, ast.FunctionDef) and node.name in READS
    ]
    used = {
        node.func.attr
        for method in reading
        for node in ast.walk(method)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ACTION
    }
    assert len(used) == 3
    assert actions(READER) == {ACTION[call] for call in used}


class Recorded:
    """A fake store that records the S3 action and the key of each write."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str]] = []

    def put(self, key: str, data: bytes) -> None:
        self.written.append(("s3:PutObject", f"{PREFIX}/{key}"))

    def delete(self, key: str) -> None:
        self.written.append(("s3:DeleteObject", f"{PREFIX}/{key}"))


def wait_for(store: Any, action: str) -> None:
    """Wait until the last recorded write is `action`, but for at most 30 s."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and [name for name, _ in store.written][-1:] != [action]:
        time.sleep(0.01)


def test_a_follower_writes_its_leases_and_wishes_only() -> None:
    store: Any = Recorded()
    with lease(store, "a", {1}, beat_s=0.01):
        wait_for(store, "s3:PutObject")
    wait_for(store, "s3:DeleteObject")
    request_anchor(store, "a", 7)
    assert {action for action, _ in store.written} == {"s3:PutObject", "s3:DeleteObject"}
    for action, key in store.written:
        assert (
            allows(FOLLOWER, action, key)
            and allows(WRITER, action, key)
            and not allows(READER, action, key)
        ), (action, key)
    for key in (
        "runs/a/weights/HEAD",
        "runs/a/weights/v00000001/manifest.json",
        "runs/a/policies/awares/manifest.json",
    ):
        assert allows(FOLLOWER, "s3:GetObject", f"{PREFIX}/{key}")
        assert not allows(FOLLOWER, "s3:PutObject", f"{PREFIX}/{key}") and not allows(
            FOLLOWER, "s3:DeleteObject", f"{PREFIX}/{key}"
        )


@pytest.mark.parametrize("policy", [READER, FOLLOWER, WRITER])
def test_the_prefix_is_the_border(policy: Path) -> None:
    inside, outside = f"{PREFIX}/runs/a/HEAD", f"{PREFIX}-of-others/runs/a/HEAD"
    assert allows(policy, "s3:GetObject", inside) and not allows(policy, "s3:GetObject", outside)
    assert allows(policy, "s3:PutObject", inside) == (policy == WRITER)
    assert not allows(policy, "s3:PutObject", outside) and not allows(
        policy, "s3:DeleteObject", outside
    )
    for prefix, allowed in (
        (PREFIX, True),
        (f"{PREFIX}/runs/", True),
        ("", False),
        ("other/", False),
    ):
        assert allows(policy, "s3:ListBucket", None, {"s3:prefix": prefix}) == allowed, prefix
    assert allows(policy, "s3:ListBucket"), "ObjectStore.check sends no s3:prefix"
    assert not allows(policy, "s3:DeleteBucket") and not allows(policy, "s3:PutBucketPolicy")


def test_all_access_needs_tls() -> None:
    (statement,) = statements(MANIFESTS / "bucketpolicy.tls.yaml")
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == (
        "Deny",
        "*",
        "s3:*",
    )
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert statement["Resource"] == ["arn:aws:s3:::MY-BUCKET", "arn:aws:s3:::MY-BUCKET/*"]


@pytest.mark.parametrize(
    "name",
    [
        "bucketlifecycle.aws",
        "bucketpolicy.tls",
        "iampolicy.reader",
        "iampolicy.follower",
        "iampolicy.writer",
    ],
)
def test_the_command_in_the_first_line_accepts_the_file(name: str) -> None:
    """Check that the command's options and the file form a valid request for the AWS operation.

    The command reads the file through --cli-input-yaml.
    """
    path = MANIFESTS / f"{name}.yaml"
    first = path.read_text().replace("\\\n#", "").splitlines()[0]
    match = re.match(
        r"# aws (\w+) ([\w-]+) (.*?) *--cli-input-yaml file://manifests/([\w.-]+\.yaml)", first
    )
    assert match is not None, first
    service, command, options, file = match.groups()
    assert file == path.name
    operation = "".join(word.capitalize() for word in command.split("-"))
    model = (
        botocore.session.Session()
        .get_service_model(service.replace("s3api", "s3"))
        .operation_model(operation)
    )
    given = dict(zip(*[iter(options.split())] * 2, strict=True))
    flags = {
        "".join(word.capitalize() for word in flag.removeprefix("--").split("-")): value
        for flag, value in given.items()
    }
    report = ParamValidator().validate(
        {**flags, **yaml.safe_load(path.read_text())}, model.input_shape
    )
    assert not report.has_errors(), report.generate_report()


def test_lifecycle_rules_never_expire_objects_of_a_run() -> None:
    rules = yaml.safe_load((MANIFESTS / "bucketlifecycle.aws.yaml").read_text())[
        "LifecycleConfiguration"
    ]["Rules"]
    assert all(rule["Status"] == "Enabled" for rule in rules)
    assert not any(
        "Days" in rule.get("Expiration", {}) or "Date" in rule.get("Expiration", {})
        for rule in rules
    )
    assert any("AbortIncompleteMultipartUpload" in rule for rule in rules)
