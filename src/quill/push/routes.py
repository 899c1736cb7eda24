"""Routes of one's own devices."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from quill.access.guards import AuthenticatorDep, SignedInReader, SignedInWriter
from quill.edge.inputs import refuse_unknown_query
from quill.edge.problems import answers
from quill.edge.routing import operation_id
from quill.edge.units import UnitDep
from quill.errors import NoSubscribers, TooManyRequests, Unprocessable
from quill.ports.push import PushSender
from quill.push import service as push
from quill.push.schemas import SendTestIn, SendTestOut, SubscribeIn, SubscriptionsOut, UnsubscribeIn, VapidKeyOut

router = APIRouter(
    generate_unique_id_function=operation_id,
    prefix="/api/push",
    tags=["push"],
    dependencies=[Depends(refuse_unknown_query)],
)


async def sender_of(request: Request) -> PushSender:
    """Return this process's way to devices."""
    sender: PushSender = request.app.state.push_sender
    return sender


SenderDep = Annotated[PushSender, Depends(sender_of)]


@router.post("/subscribe", responses=answers(TooManyRequests, Unprocessable))
async def subscribe(
    actor: SignedInWriter, unit: UnitDep, sender: SenderDep, authenticator: AuthenticatorDep, body: SubscribeIn
) -> SubscriptionsOut:
    """Bind a browser to the person signed in, so that new messages are announced there."""
    count = await push.subscribe(
        unit,
        actor,
        sender,
        authenticator.throttle,
        endpoint=body.endpoint,
        expires_at_milliseconds=body.expirationTime,
        p256dh=body.keys.p256dh,
        auth=body.keys.auth,
    )
    return SubscriptionsOut(ok=True, count=count)


@router.post("/unsubscribe")
async def unsubscribe(actor: SignedInWriter, unit: UnitDep, body: UnsubscribeIn) -> SubscriptionsOut:
    """Forget one of the caller's own devices; an unknown one changes nothing."""
    return SubscriptionsOut(ok=True, count=await push.unsubscribe(unit, actor, body.endpoint))


@router.get("/vapid-public-key")
async def vapid_public_key(actor: SignedInReader, sender: SenderDep) -> VapidKeyOut:
    """Return the key a browser subscribes with."""
    del actor
    return VapidKeyOut(public_key=sender.public_key)


@router.post("/send-test", responses=answers(NoSubscribers, TooManyRequests))
async def send_test(
    actor: SignedInWriter,
    unit: UnitDep,
    sender: SenderDep,
    authenticator: AuthenticatorDep,
    body: SendTestIn | None = None,
) -> SendTestOut:
    """Notify the caller's own devices, to see whether they can be reached."""
    del body
    result = await push.send_test(unit, actor, sender, authenticator.throttle)
    return SendTestOut(sent=result.is_sent, removed=result.removed)
