"""Redis behind ``ports.shared``: throttles that count for all processes, and wake-up calls between them."""

from quill.adapters.redis.shared import RedisShared

__all__ = ["RedisShared"]
