"""The variables that Open WebUI is started with, and the only ones: nothing of the user's.

Its safe state does not depend on its database: ``ENABLE_PERSISTENT_CONFIG=False`` makes each start
obey these. Without ``ENABLE_SIGNUP=False`` sign-up would be open again after the first restart.
Source: ``open_webui/env.py`` and ``config.py`` of the pinned version.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from shoestring.stack.credentials import Credentials

INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
OFF = "False"
ON = "True"
SAFE = {
    "WEBUI_AUTH": ON,
    "ENABLE_SIGNUP": OFF,
    "ENABLE_OAUTH_SIGNUP": OFF,
    "DEFAULT_USER_ROLE": "pending",
    "ENABLE_PERSISTENT_CONFIG": OFF,
    "JWT_EXPIRES_IN": "1d",
    "WEBUI_SESSION_COOKIE_SAME_SITE": "strict",
    "WEBUI_AUTH_COOKIE_SAME_SITE": "strict",
    "FORWARDED_ALLOW_IPS": "127.0.0.1",
    # Code that a page could have the server run, or fetch.
    "ENABLE_CODE_EXECUTION": OFF,
    "ENABLE_CODE_INTERPRETER": OFF,
    "ENABLE_PIP_INSTALL_FRONTMATTER_REQUIREMENTS": OFF,
    "ENABLE_DIRECT_CONNECTIONS": OFF,
    "ENABLE_AUTOMATIONS": OFF,
}
QUIET = {
    # Requests to the model that nobody typed: they would stand in the queue of a measured one.
    "ENABLE_TITLE_GENERATION": OFF,
    "ENABLE_TAGS_GENERATION": OFF,
    "ENABLE_FOLLOW_UP_GENERATION": OFF,
    "ENABLE_AUTOCOMPLETE_GENERATION": OFF,
    "ENABLE_SEARCH_QUERY_GENERATION": OFF,
    "ENABLE_RETRIEVAL_QUERY_GENERATION": OFF,
    "ENABLE_EVALUATION_ARENA_MODELS": OFF,
    # The page would send its own tools with every question: a longer prefill than that of what was
    # typed, and an error from each model that knows no tools.
    "DEFAULT_MODEL_METADATA": '{"capabilities": {"builtin_tools": false}}',
}
OFFLINE = {
    # Nothing leaves the machine: see docs/privacy.md for how that is counted.
    "OFFLINE_MODE": ON,
    "HF_HUB_OFFLINE": "1",
    "ENABLE_VERSION_UPDATE_CHECK": OFF,
    "ENABLE_COMMUNITY_SHARING": OFF,
    "ENABLE_WEB_SEARCH": OFF,
    "ENABLE_OPENAI_API": OFF,
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "true",
    "SCARF_NO_ANALYTICS": "true",
    # What is not installed must not be looked for.
    "RAG_EMBEDDING_ENGINE": "ollama",
    "RAG_EMBEDDING_MODEL_AUTO_UPDATE": OFF,
    "RAG_RERANKING_MODEL_AUTO_UPDATE": OFF,
    "AUDIO_STT_ENGINE": "webapi",
}


def open_webui_environment(
    *,
    folder: Path,
    ollama_url: str,
    port: int,
    credentials: Credentials,
    origins: Sequence[str] = (),
) -> dict[str, str]:
    """Return every variable that the server gets.

    Args:
        folder: for its database and whatever else it writes; its home, too.
        ollama_url: of the only backend.
        port: on loopback.
        credentials: of the administrator, who is made at the first start.
        origins: pages beside our own that may speak to it, such as a notebook's frame.
    """
    own = [f"http://{host}:{port}" for host in ("127.0.0.1", "localhost")]
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {
        **inherited,
        **SAFE,
        **QUIET,
        **OFFLINE,
        "HOME": str(folder),
        "DATA_DIR": str(folder),
        "WEBUI_SECRET_KEY": credentials.secret_key,
        "WEBUI_ADMIN_EMAIL": credentials.user,
        "WEBUI_ADMIN_PASSWORD": credentials.password,
        "WEBUI_ADMIN_NAME": "admin",
        "CORS_ALLOW_ORIGIN": ";".join([*own, *origins]),
        "ENABLE_OLLAMA_API": ON,
        "OLLAMA_BASE_URL": ollama_url,
        "RAG_OLLAMA_BASE_URL": ollama_url,
        "DATABASE_POOL_SIZE": "8",
    }
