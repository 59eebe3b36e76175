"""What .ci/fuzz-http adds to schemathesis: a count of the requests, and names that the host knows.

Generated names and ids hit nothing, so most answers would be 404. Here half of them are replaced by those of functions
that are deployed and of messages that were accepted.
"""

import atexit
import collections
import json
import os
import random
import threading

import schemathesis

FUNCTIONS = ["counter", "pageview", "receipts", "transfer"]
# A request may wait for its answer; one that waits for a message due in an hour would do so for a minute.
LONGEST_WAIT = "wait=1"

chance = random.Random(int(os.environ["FUZZ_SEED"]))
lock = threading.Lock()
statuses = collections.Counter()
messages = collections.deque(maxlen=200)


@schemathesis.hook
def before_call(context, case, kwargs):
    parameters = case.path_parameters or {}
    with lock:
        # What is deleted or replaced is somebody else's function, or none would be left.
        spared = case.method.upper() in ("DELETE", "PUT")
        if "name" in parameters and not spared and chance.random() < 0.5:
            parameters["name"] = chance.choice(FUNCTIONS)
        if "id" in parameters and messages and chance.random() < 0.5:
            parameters["id"] = chance.choice(messages)
    for name in [name for name in case.headers or {} if name.lower() == "prefer"]:
        if "wait" in str(case.headers[name]).lower():
            case.headers[name] = LONGEST_WAIT


@schemathesis.hook
def after_call(context, case, response):
    with lock:
        statuses[response.status_code] += 1
        identity = response.headers.get("location") or response.headers.get("Location")
        if response.status_code == 202 and identity:
            messages.append(str(identity[0] if isinstance(identity, list) else identity).rsplit("/", 1)[-1])


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """What is generated is one line; it comes once, or a few times."""
    line = json.dumps(value) + "\n"
    with lock:
        return (line * chance.randrange(1, 4)).encode()


@atexit.register
def report():
    with open(os.environ["FUZZ_COUNTS"], "a") as counts:
        json.dump(statuses, counts)
        counts.write("\n")
