#!/usr/bin/env python3
"""A Manager that posts events with ids, and retries until the server has accepted them.

    python3 manager.py URL [TOKEN_FILE]

The server acknowledges an event once it is in the outbox of every subscribed session. After a
failure the Manager cannot know whether that happened, so it sends the same event again under the
same id: the server publishes an id once.
"""

import json
import random
import sys
import time
import urllib.error
import urllib.request
import uuid
from datetime import datetime, timezone

FIRST_PAUSE = 0.1  # seconds
MAX_PAUSE = 3.0
TIMEOUT = 30.0


class Refused(Exception):
    """The server will never accept these events; the message says why."""


class Updates:
    """Posts events to a web-update server, in their order."""

    def __init__(self, url, token=None, retry_for=60.0):
        self._url = url.rstrip("/") + "/api/events"
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._retry_for = retry_for

    def publish(self, *events):
        """Posts (type, payload) pairs, all or nothing, and returns once they are accepted."""
        body = json.dumps([{"type": kind, "id": str(uuid.uuid4()), "payload": payload} for kind, payload in events])
        deadline = time.monotonic() + self._retry_for
        pause = FIRST_PAUSE
        while True:
            request = urllib.request.Request(self._url, body.encode(), self._headers)
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                    return json.load(answer)["accepted"]
            except urllib.error.HTTPError as error:
                problem = f"{error.code} {error.read().decode(errors='replace')}"
                # Overloaded, shutting down, or a proxy without its server: worth another attempt.
                if error.code not in (408, 429, 502, 503, 504):
                    raise Refused(problem) from None
                pause = max(pause, min(float(error.headers.get("Retry-After") or 0), MAX_PAUSE))
            except (OSError, ValueError) as error:  # no connection, a broken one, or a broken answer
                problem = error
            if time.monotonic() + pause > deadline:
                raise TimeoutError(f"events were not accepted in {self._retry_for} s: {problem}")
            print(f"retrying: {problem}", file=sys.stderr)
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, MAX_PAUSE)


def now():
    return datetime.now(timezone.utc).isoformat()


def job_update(job, status, previous_status=None):
    update = {
        "id": job,
        "name": "shot_010 čekaj 🎬",
        "type": "simple-blender-render",
        "updated": now(),
        "status": status,
        "priority": 50,
        "refresh_tasks": False,
        "steps_completed": 10 if status == "completed" else 0,
        "steps_total": 10,
    }
    if previous_status:
        update["previous_status"] = previous_status
    return update


def main():
    url, *token_file = sys.argv[1:] or ["http://127.0.0.1:8082"]
    token = open(token_file[0], encoding="utf-8").read().strip() if token_file else None
    updates = Updates(url, token)
    job = str(uuid.uuid4())
    updates.publish(("farm-status", {"status": "active"}), ("new-job", job_update(job, "queued")))
    for before, status in [("queued", "active"), ("active", "completed")]:
        updates.publish(("job-update", job_update(job, status, before)))
    print(f"published {job}")


if __name__ == "__main__":
    main()
