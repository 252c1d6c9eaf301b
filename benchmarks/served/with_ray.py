"""Ray Serve: one replica behind its proxy, ``serve.batch``, no access log."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import ray
from model import MODELS, ROOM, asked
from ray import serve
from starlette.requests import Request


def main() -> None:
    """Serve."""
    given = asked()

    @serve.deployment(num_replicas=1, max_ongoing_requests=ROOM, ray_actor_options={"num_cpus": 1})
    class Api:
        def __init__(self) -> None:
            self.model = MODELS[given.model]()

        @serve.batch(max_batch_size=given.batch, batch_wait_timeout_s=given.wait_s)
        async def score(self, clips: list[Any]) -> list[float]:
            return await asyncio.to_thread(self.model.score, clips)

        async def __call__(self, request: Request) -> dict[str, float]:
            content = await (await request.form())["file"].read()
            if self.model.slow_decode:
                clip = await asyncio.to_thread(self.model.decode, content)
            else:
                clip = self.model.decode(content)
            return {"score": await self.score(clip)}

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}},
        _temp_dir=str(given.folder),
    )
    quiet = {"enable_access_log": False}
    serve.start(http_options={"host": "127.0.0.1", "port": given.port}, logging_config=quiet)
    serve.run(Api.bind(), route_prefix="/v1/score", logging_config=quiet)
    threading.Event().wait()


if __name__ == "__main__":
    main()
