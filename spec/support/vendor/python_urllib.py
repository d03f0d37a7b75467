"""Submits a prompt and waits for its image.

Usage: python3 python_urllib.py "a fox --ar 4:5"
"""
import json
import os
import sys
import time
import urllib.error
import urllib.request

KEY = os.environ["MIDJOURNEY_API_KEY"]
BASE = os.environ.get("MIDJOURNEY_API_BASE_URL", "https://api.midjourney-api.com")
HOOK_URL = os.environ.get("MIDJOURNEY_WEBHOOK_URL")
POLL_SECONDS = float(os.environ.get("POLL_MS", "5000")) / 1000


def call(endpoint, body):
    request = urllib.request.Request(
        f"{BASE}/midjourney/v1/{endpoint}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "API-KEY": KEY},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        answer = json.load(error)
    if answer["status"] != 0:
        sys.exit(f"{endpoint}: {answer['message']}")
    return answer["data"]


def main():
    body = {"prompt": " ".join(sys.argv[1:]) or "a fox in the snow --ar 4:5", "timeout": 600}
    if HOOK_URL:
        body["hookUrl"] = HOOK_URL
    task_id = call("submit-jobs", body)["taskId"]
    print("submitted", task_id, file=sys.stderr)
    while True:
        for task in call("job-status", {"taskIds": [task_id]}):
            if task["status"] == 1:
                print(task["image"])
                return
            if task["status"] == 2:
                sys.exit(f"failed: {task['failReason']}")
        time.sleep(POLL_SECONDS)


main()
