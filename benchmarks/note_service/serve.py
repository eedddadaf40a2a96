# mypy: ignore-errors
# Its imports live in another environment.
"""The note's service as its text describes it: transformers on the CPU in fp32, behind FastAPI.

It runs in an environment of its own (``requirements.lock``) and imports nothing of ours. What the
note says is kept: ``device_map="cpu"`` and ``torch_dtype=torch.float32``, an ``HTTPBearer`` key,
slowapi's limit per address, Prometheus metrics, ``/generate``. The folder holds a model with the
published configuration and random weights (``make_model.py``). ``use_cache`` stays what the model
publishes, false, unless ``NOTE_USE_CACHE=1``.

``/health`` tells what the benchmark needs: seconds for the load, resident bytes before and after
it, bytes of all weights.

    NOTE_MODEL=FOLDER NOTE_KEY=... python serve.py PORT
"""

import os
import secrets
import sys
import time
from typing import Annotated

import psutil
import torch
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import Counter, Histogram, make_asgi_app
from pydantic import BaseModel, Field
from slowapi import Limiter
from slowapi.util import get_remote_address
from transformers import AutoModelForCausalLM, AutoTokenizer

PROCESS = psutil.Process()
IMPORTED_BYTES = PROCESS.memory_info().rss
BEGUN_S = time.monotonic()
FOLDER = os.environ["NOTE_MODEL"]
TOKENIZER = AutoTokenizer.from_pretrained(FOLDER)
MODEL = AutoModelForCausalLM.from_pretrained(FOLDER, device_map="cpu", torch_dtype=torch.float32)
MODEL.eval()
if os.environ.get("NOTE_USE_CACHE") == "1":
    MODEL.generation_config.use_cache = True
LOAD_S = time.monotonic() - BEGUN_S
LOADED_BYTES = PROCESS.memory_info().rss

KEY = os.environ["NOTE_KEY"]
LIMITER = Limiter(key_func=get_remote_address)
REQUESTS = Counter("llm_requests_total", "Requests", ["status"])
SECONDS = Histogram("llm_request_duration_seconds", "Time of a request")
app = FastAPI()
app.state.limiter = LIMITER
app.mount("/metrics", make_asgi_app())


class Wish(BaseModel):
    """What a client asks for."""

    prompt: str = Field(min_length=1, max_length=100_000)
    max_new_tokens: int = Field(ge=1, le=1024)


def check_key(given: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> None:
    """Refuse a wrong key."""
    if not secrets.compare_digest(given.credentials, KEY):
        raise HTTPException(401, "wrong key")


@app.get("/health")
def health() -> dict[str, object]:
    """Say that the model is loaded, and what that took."""
    weights = list(MODEL.parameters())
    return {
        "load_s": LOAD_S,
        "imported_rss_bytes": IMPORTED_BYTES,
        "loaded_rss_bytes": LOADED_BYTES,
        "parameters": sum(weight.numel() for weight in weights),
        "weights_bytes": sum(weight.numel() * weight.element_size() for weight in weights),
        "dtypes": sorted({str(weight.dtype) for weight in weights}),
        "use_cache": MODEL.generation_config.use_cache,
        "threads": torch.get_num_threads(),
    }


@app.post("/generate", dependencies=[Depends(check_key)])
@LIMITER.limit("600/minute")
def generate(request: Request, wish: Wish) -> dict[str, object]:  # noqa: ARG001 - slowapi reads it
    """Answer a prompt with exactly so many tokens, each the likeliest one."""
    begun_s = time.monotonic()
    inputs = TOKENIZER(wish.prompt, return_tensors="pt")
    prompt_tokens = inputs["input_ids"].shape[1]
    with torch.inference_mode():
        outputs = MODEL.generate(
            **inputs,
            max_new_tokens=wish.max_new_tokens,
            min_new_tokens=wish.max_new_tokens,
            do_sample=False,
        )
    answer = outputs[0][prompt_tokens:]
    seconds = time.monotonic() - begun_s
    SECONDS.observe(seconds)
    REQUESTS.labels("ok").inc()
    return {
        "text": TOKENIZER.decode(answer),
        "prompt_tokens": prompt_tokens,
        "tokens": len(answer),
        "inference_s": seconds,
    }


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
