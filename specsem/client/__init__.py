"""A typed client of the service, synchronous and asynchronous. Needs the extra ``client``, and no torch.

::

    from specsem.client import Client

    with Client("https://specsem.example.org", key="specsem_...") as client:
        answer = client.score("clip.mp4")            # a specsem.result.ScoredFile, however long it takes
        job = client.submit("long.mp4")              # or later: a specsem.records.Job
        job = client.wait(job, on_progress=print)

What may pass is tried again, and sent so that trying again changes nothing: a job is made once however often
its request arrives, an upload goes on where it broke off. A leaf: nothing that scores or serves imports it.
"""

from specsem.client.clients import AsyncClient, Client
from specsem.client.errors import (
    JobFailed,
    NotGenuine,
    ProblemError,
    ServiceError,
    StillRunning,
    UnexpectedAnswer,
    Unreachable,
)
from specsem.client.webhooks import Message, OtherEvent, verify

__all__ = [
    "AsyncClient",
    "Client",
    "JobFailed",
    "Message",
    "NotGenuine",
    "OtherEvent",
    "ProblemError",
    "ServiceError",
    "StillRunning",
    "UnexpectedAnswer",
    "Unreachable",
    "verify",
]
