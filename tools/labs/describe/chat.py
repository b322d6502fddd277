"""One question to any OpenAI-compatible chat endpoint: retried where waiting helps, its key in no message.

By hand: the openai client follows redirects, with the key; it does not try again where a reply is garbled; and without
a key, as local servers take it, it does not start.
"""
from __future__ import annotations

import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

from dassl.errors import UserError
from tools.labs import is_loopback

logger = logging.getLogger(__name__)

TRIES = 6
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0        # seconds; doubled after each failed try, or as the server asks
TIMEOUT = 120
KEY = "OPENAI_API_KEY"


class ChatError(RuntimeError):
    """No answer; the message says why, for the middle of a paragraph."""


@dataclass
class Chat:
    """A model behind an endpoint.

    Attributes:
        url: of the API ("https://api.openai.com/v1") or of its chat/completions. model: as the endpoint names it.
        temperature: of the sampling.
        tokens: prompt and completion tokens that the server has counted so far.
    """

    url: str
    model: str
    temperature: float = 1.0

    def __post_init__(self) -> None:
        self.tokens = [0, 0]
        address = urllib.parse.urlsplit(self.url)
        if address.scheme not in ("http", "https"):
            raise UserError(f"An endpoint begins with http:// or https://, got {self.url!r}.")
        if address.scheme == "http" and os.environ.get(KEY) and not is_loopback(address.hostname or ""):
            logger.warning("Warning: %s goes to %s without encryption: anyone on the way can read it. Name an "
                           "https:// endpoint, or unset the key if the server needs none.", KEY, address.hostname)
        if not self.url.rstrip("/").endswith("/chat/completions"):
            self.url = f"{self.url.rstrip('/')}/chat/completions"

    def ask(self, question: str) -> str:
        """The answer's text.

        Raises:
            ChatError: refused, or failed TRIES times.
        """
        wait = FIRST_WAIT
        for left in reversed(range(TRIES)):
            try:
                return self._ask_once(question)
            except urllib.error.HTTPError as error:
                reason, asked = _reason(error), error.headers.get("Retry-After", "")
                if error.code != 429 and error.code < 500:
                    raise ChatError(f"{self.url} refused: {reason}{_hint(error.code)}") from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason, asked = _without_key(f"{type(error).__name__}: {error}"), ""
            if left:
                time.sleep(min(float(asked) if asked.isdigit() else wait, LONGEST_WAIT))
                wait *= 2
        raise ChatError(f"{self.url} failed {TRIES} times, last with {reason}")

    def _ask_once(self, question: str) -> str:
        body = {"model": self.model, "temperature": self.temperature,
                "messages": [{"role": "user", "content": question}]}
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        with _OPENER.open(request, timeout=TIMEOUT) as reply:
            content = json.loads(reply.read())
        try:
            answer = content["choices"][0]["message"]["content"]
            usage = content.get("usage") or {}
            self.tokens[0] += int(usage.get("prompt_tokens") or 0)
            self.tokens[1] += int(usage.get("completion_tokens") or 0)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError("the reply is not that of a chat endpoint") from error
        if not isinstance(answer, str):
            raise ValueError("the reply holds no text")
        return answer


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args, **kwargs):
        return None                             # the key must not follow to another host


_OPENER = urllib.request.build_opener(_NoRedirect)


def _reason(error: urllib.error.HTTPError) -> str:
    with error:
        text = error.read(4000).decode(errors="replace")
    try:
        told = json.loads(text)["error"]
        text = told["message"] if isinstance(told, dict) else str(told)
    except (ValueError, KeyError, TypeError):
        pass
    return _without_key(f"{error.code} {error.reason}" + (f" ({' '.join(text.split())[:300]})" if text.strip() else ""))


def _hint(code: int) -> str:
    return f". Set {KEY} in the environment to a valid key" if code in (401, 403) else ""


def _without_key(text: str) -> str:
    key = os.environ.get(KEY)
    return text.replace(key, "***") if key else text
