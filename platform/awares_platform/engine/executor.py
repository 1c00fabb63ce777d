"""vLLM's executor for tensor-parallel engines, which ends with the process that started it.

    this project's process --starts--> engine process --starts--> one worker process per rank

Each process watches its parent. The workers start their watch in worker.py.
"""

from vllm.v1.executor.multiproc_executor import MultiprocExecutor

from awares_platform.engine.lifetime import end_with_parent


class WorkersExecutor(MultiprocExecutor):
    """Runs one worker process per rank, on this host.

    vLLM's own choice inside a Ray actor would be Ray's executor. That executor would wait for GPUs
    that the actor already has.
    """

    def _init_executor(self) -> None:
        end_with_parent()
        super()._init_executor()
