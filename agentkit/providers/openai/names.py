"""Whether two names mean the same model.

By itself only what names no other model is accepted: another letter case, the prefix of an
organisation that one of the names leaves out, and the date of a version.  Everything else, such as
`-0613`, `:free` or `-turbo`, may be other weights, and needs the user's word (`accepts`).
"""

from __future__ import annotations

import re

_DATE = re.compile(r"-20[0-9]{2}-?[01][0-9]-?[0-3][0-9]$")


def is_same_model(asked: str, answered: str) -> bool:
    """Return whether an answer's model is the one that was asked for.

    `gpt-x` is answered by `openai/GPT-X-2024-07-18`, but `theirs/llama` not by `others/llama`, and
    a dated version not by one without a date: it may be a newer one.
    """
    asked, answered = asked.lower(), answered.lower()
    if "/" not in asked or "/" not in answered:
        asked = asked.rpartition("/")[2]
        answered = answered.rpartition("/")[2]
    return answered == asked or _DATE.sub("", answered) == asked
