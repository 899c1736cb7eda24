"""What crosses the wire about push subscriptions."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from quill.edge.inputs import Input

LATEST_TIME = 8.64e15
"""ECMA-262, section 21.4.1.1: the last millisecond a browser can name."""


class KeysIn(Input):
    """Keys a browser made for this subscription (Push API, ``PushSubscriptionJSON.keys``)."""

    p256dh: Annotated[str, Field(min_length=1, max_length=100, description="Public key on P-256, base64url.")]
    auth: Annotated[str, Field(min_length=1, max_length=50, description="Shared secret of 16 bytes, base64url.")]


class SubscribeIn(Input):
    """``PushSubscription.toJSON()`` as a browser gives it."""

    endpoint: Annotated[str, Field(min_length=1, max_length=2048, description="Address at a push service, https.")]
    expirationTime: Annotated[  # noqa: N815 - the Push API's word
        float | None, Field(strict=True, ge=0, le=LATEST_TIME, description="Milliseconds since 1970, or null.")
    ] = None
    keys: KeysIn


class UnsubscribeIn(Input):
    """The device to be forgotten."""

    endpoint: Annotated[str, Field(min_length=1, max_length=2048)]


class SendTestIn(Input):
    """Nothing needs to be said."""


class _Output(BaseModel):
    model_config = ConfigDict(frozen=True)


class SubscriptionsOut(_Output):
    """How many devices of the caller are told."""

    ok: bool
    count: int = Field(description="The caller's own devices.")


class VapidKeyOut(_Output):
    """The key that browsers subscribe with."""

    public_key: str = Field(description="`applicationServerKey`: an uncompressed P-256 point, unpadded base64url.")


class SendTestOut(_Output):
    """How the test went."""

    sent: bool = Field(description="Whether at least one device's push service took it.")
    removed: list[str] = Field(description="Endpoints of the caller that no longer exist and were forgotten.")
