"""LitServe: batches on the API, one worker as there is one model, ZeroMQ between its processes."""

from typing import Any

import litserve
from fastapi import Request
from model import MODELS, asked


class Api(litserve.LitAPI):
    """The model."""

    def __init__(self, model: str, **options: Any) -> None:
        super().__init__(api_path="/v1/score", **options)
        self.name = model

    def setup(self, _device: str) -> None:
        self.model = MODELS[self.name]()

    def decode_request(self, request: Request) -> Any:  # LitServe reads this type; it is a form here
        return self.model.decode(request["file"].file.read())  # type: ignore[index]

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs  # LitServe would make an array of them

    def predict(self, clips: list[Any]) -> list[float]:
        return self.model.score(clips)

    def unbatch(self, output: list[float]) -> list[float]:
        return output

    def encode_response(self, output: float) -> dict[str, float]:
        return {"score": output}


def main() -> None:
    """Serve."""
    given = asked()
    api = Api(given.model, max_batch_size=given.batch, batch_timeout=given.wait_s)
    server = litserve.LitServer(
        api, accelerator="cpu", devices=1, workers_per_device=1, timeout=600, fast_queue=True
    )
    server.run(host="127.0.0.1", port=given.port, log_level="error", generate_client_file=False)


if __name__ == "__main__":
    main()
