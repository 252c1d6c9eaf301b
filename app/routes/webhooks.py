"""``/v1/webhooks``: who is told of what happens, and what became of it."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from app.routes._openapi import KEYED, json_body, operation_id, problems
from app.routes._requests import read_json
from app.schemas import (
    NewWebhook,
    Rotation,
    WebhookChange,
    delivery_of,
    sent_delivery_of,
    webhook_of,
    webhook_with_secret_of,
)
from app.services import Services, Tenant
from specsem.records import (
    Delivery,
    DeliveryList,
    DeliveryStatus,
    FeedbackEvent,
    JobEvent,
    Redelivered,
    SentDelivery,
    Webhook,
    WebhookList,
    WebhookWithSecret,
)

__all__ = ["messages", "router"]

router = APIRouter(prefix="/v1/webhooks", tags=["Webhooks"], dependencies=KEYED)

WebhookId = Annotated[str, Path(description="The id that its creation answered.")]
EventId = Annotated[str, Path(description="The event's id: the `webhook-id` of the message.")]

BODY = ("invalid_request", "limits_exceeded", "upload_timeout")
URL = ("url_invalid", "url_refused")
AGAIN = ("webhook_not_found", "webhook_disabled")


@router.post(
    "",
    status_code=201,
    summary="Register a webhook",
    responses=problems("too_many_webhooks", *URL, *BODY),
    openapi_extra=json_body(NewWebhook),
)
async def create(request: Request, parts: Services, tenant: Tenant) -> WebhookWithSecret:
    """An address that is told of events by POST, as Standard Webhooks has it. The answer holds the secret
    that its messages are signed with, this once.

    Only public https addresses are taken, unless the operator allows others; they are checked again at each
    message, and redirects are not followed.
    """
    asked = await read_json(request, NewWebhook, timeout_s=parts.settings.upload_idle_s)
    return webhook_with_secret_of(
        await parts.webhooks.create(tenant, asked.url, events=asked.events, description=asked.description)
    )


@router.get("", summary="List webhooks", responses=problems())
async def list_webhooks(parts: Services, tenant: Tenant) -> WebhookList:
    """The latest first, without their secrets."""
    return WebhookList(webhooks=[webhook_of(row) for row in await parts.webhooks.listed(tenant)])


@router.get("/{webhook_id}", summary="A webhook", responses=problems("webhook_not_found"))
async def get(webhook_id: WebhookId, parts: Services, tenant: Tenant) -> Webhook:
    """Without its secret."""
    return webhook_of(await parts.webhooks.find(tenant, webhook_id))


@router.patch(
    "/{webhook_id}",
    summary="Change a webhook",
    responses=problems("webhook_not_found", *URL, *BODY),
    openapi_extra=json_body(WebhookChange),
)
async def change(webhook_id: WebhookId, request: Request, parts: Services, tenant: Tenant) -> Webhook:
    """What isn't named stays. A disabled one is told nothing: what happens meanwhile is not kept for it."""
    asked = await read_json(request, WebhookChange, timeout_s=parts.settings.upload_idle_s)
    return webhook_of(await parts.webhooks.change(tenant, webhook_id, **asked.model_dump()))


@router.delete(
    "/{webhook_id}", status_code=204, summary="Remove a webhook", responses=problems("webhook_not_found")
)
async def delete(webhook_id: WebhookId, parts: Services, tenant: Tenant) -> None:
    """With all its deliveries, sent or not."""
    await parts.webhooks.remove(tenant, webhook_id)


@router.post(
    "/{webhook_id}/rotate",
    summary="Replace its secret",
    responses=problems("webhook_not_found", *BODY),
    openapi_extra=json_body(Rotation),
)
async def rotate(
    webhook_id: WebhookId, request: Request, parts: Services, tenant: Tenant
) -> WebhookWithSecret:
    """The answer holds the new secret, this once. For a while messages are signed with each of the two."""
    asked = await read_json(request, Rotation, timeout_s=parts.settings.upload_idle_s)
    return webhook_with_secret_of(await parts.webhooks.rotate(tenant, webhook_id, overlap_s=asked.overlap_s))


@router.post("/{webhook_id}/ping", status_code=202, summary="Try a webhook", responses=problems(*AGAIN))
async def ping(webhook_id: WebhookId, parts: Services, tenant: Tenant) -> Delivery:
    """Sends it a `webhook.ping`, whatever events it asked for. The delivery tells whether it arrived."""
    return delivery_of(await parts.webhooks.ping(tenant, webhook_id))


@router.get(
    "/{webhook_id}/deliveries",
    summary="What became of its events",
    responses=problems("webhook_not_found", "invalid_request"),
)
async def deliveries(
    webhook_id: WebhookId,
    parts: Services,
    tenant: Tenant,
    *,
    status: Annotated[
        list[DeliveryStatus] | None, Query(description="Only deliveries in one of these states.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Deliveries on a page.")] = 20,
    cursor: Annotated[int | None, Query(description="`next` of the page before.", ge=1, lt=2**31)] = None,
) -> DeliveryList:
    """The latest first. They are kept for a while after they arrived or were given up."""
    rows = await parts.webhooks.deliveries(
        tenant, webhook_id, statuses=status or (), before=cursor, limit=limit + 1
    )
    return DeliveryList(
        deliveries=[delivery_of(row) for row in rows[:limit]],
        next=rows[limit - 1].id if len(rows) > limit else None,
    )


@router.get(
    "/{webhook_id}/deliveries/{event_id}",
    summary="A delivery",
    responses=problems("webhook_not_found", "delivery_not_found"),
)
async def delivery(webhook_id: WebhookId, event_id: EventId, parts: Services, tenant: Tenant) -> SentDelivery:
    """With what is sent."""
    row = await parts.webhooks.delivery(tenant, webhook_id, event_id)
    return sent_delivery_of(row)


@router.post(
    "/{webhook_id}/deliveries/{event_id}/redeliver",
    status_code=202,
    summary="Send an event again",
    responses=problems("delivery_not_found", *AGAIN),
)
async def redeliver(webhook_id: WebhookId, event_id: EventId, parts: Services, tenant: Tenant) -> Redelivered:
    """Under its own id, whether it arrived before or not. Its retries begin anew."""
    return Redelivered(deliveries=await parts.webhooks.redeliver(tenant, webhook_id, event_id))


@router.post(
    "/{webhook_id}/redeliver",
    status_code=202,
    summary="Send every dead letter again",
    responses=problems(*AGAIN),
)
async def redeliver_dead(webhook_id: WebhookId, parts: Services, tenant: Tenant) -> Redelivered:
    """Each under its own id."""
    return Redelivered(deliveries=await parts.webhooks.redeliver(tenant, webhook_id))


messages = APIRouter(generate_unique_id_function=operation_id)
"""What receivers get, for the reference."""


@messages.post("job.done", summary="A job has its answer")
async def _job_done(body: JobEvent) -> None:
    """Also sent as `decision.review` and `decision.block`, where the policy decided that. Messages carry the
    headers `webhook-id`, `webhook-timestamp` and `webhook-signature` of Standard Webhooks."""


@messages.post("job.failed", summary="A job has failed")
async def _job_failed(body: JobEvent) -> None:
    """The file could not be scored; `error` says why."""


@messages.post("feedback.created", summary="Somebody said something of an answer")
async def _feedback_created(body: FeedbackEvent) -> None:
    """A user or an operator; a later opinion of the same key takes the place of the earlier one."""
