"""Routes that clients of the resumable protocol tus use."""

from fastapi.routing import APIRoute
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Match
from starlette.types import Message, Receive, Scope, Send

from app.problems import Problem, ProblemResponse
from app.resumable import VERSION

__all__ = ["TusOnlyRoute", "TusRoute"]


class TusRoute(APIRoute):
    """Whoever speaks tus is answered in tus, errors included; in a version that isn't ours, refused."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        version = Headers(scope=scope).get("tus-resumable")
        if scope["method"] == "OPTIONS":
            version = VERSION  # the protocol has it ignored there
        elif version is None and scope["method"] != "PATCH":
            await super().handle(scope, receive, send)
            return

        async def tus_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Tus-Resumable"] = VERSION
            await send(message)

        if version == VERSION:
            await super().handle(scope, receive, tus_send)
            return
        problem = Problem(
            "unsupported_tus_version",
            f"Send `Tus-Resumable: {VERSION}`: no other version is spoken here.",
            headers={"Tus-Version": VERSION},
        )
        await ProblemResponse(problem)(scope, receive, tus_send)


class TusOnlyRoute(TusRoute):
    """There only for requests that speak tus."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and "tus-resumable" in Headers(scope=scope):
            return super().matches(scope)
        return Match.NONE, {}
