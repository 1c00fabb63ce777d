"""Runs the workers of a tensor-parallel engine, and ends them when their parent process dies.

    this project's process --starts--> engine process --starts--> one worker process per rank

Each process watches its parent.
"""

from vllm.v1.executor.multiproc_executor import MultiprocExecutor

from awares_platform.engine.lifetime import end_with_parent


class WorkersExecutor(MultiprocExecutor):
    """Runs one worker process per rank, on this host.

    Inside a Ray actor, vLLM would by default choose Ray's executor. Ray's executor would wait for
    GPUs that the actor already holds.
    """

    def _init_executor(self) -> None:
        end_with_parent()
        super()._init_executor()
