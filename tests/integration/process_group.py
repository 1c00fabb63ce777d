"""Makes the calling process one rank of a gloo process group."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed


@contextmanager
def process_group(meeting: Path, rank: int, ranks: int) -> Iterator[None]:
    """Join a gloo group of `ranks` processes at the file `meeting`, and leave the group at the end.

    A process that ends without leaving the group can abort, because threads of gloo still run.
    """
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks
    )
    yield
    # A rank that leaves early would close connections that the other ranks still use.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
