"""Settings of TernaryLionEF to start with.

``TernaryLionEF(params, lr=1e-4, **presets.ONE_BYTE)`` stores one byte per coordinate,
``**presets.TWO_BYTES`` two; each tensor also has a step count and a scale. The tables call these
settings "one byte, fine" and "two bytes, lasting"; docs/results.md compares them with Lion.
"""

from typing import Any

TWO_BYTES: dict[str, Any] = {
    "spacing": 1.25,
    "gain": 16.0,
    "bound": 127,
    "least": 1,
    "error_bound": 64,
    "per_vote": 64,
    "leaky_error": True,
}
ONE_BYTE = TWO_BYTES | {"gain": 1, "bound": 7, "error_bound": 8, "per_vote": 10}
