"""What every script needs: a namespace of its own, steps that say how they went, and waiting."""

import os
import sys
import time
import traceback

from kubernetes import client, config
from kubernetes.client.rest import ApiException

#: A web server and small commands, which the test has loaded into every node.
IMAGE = os.environ.get("ORLOP_TEST_IMAGE", "orlop.dev/e2e-tool:v1")
LIMIT_SECONDS = 60


def eventually(condition, limit=LIMIT_SECONDS):
    """Waits until `condition` holds."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)


def refused(status, call, *arguments, **named):
    """The answer's text of a call that must be refused with `status`."""
    try:
        call(*arguments, **named)
    except ApiException as error:
        assert error.status == status, f"{error.status} and not {status}: {error.body}"
        return str(error.body or error.reason)
    raise AssertionError(f"not refused with {status}")


class Steps:
    """Functions that run one after the other in the namespace `namespace`."""

    def __init__(self, name):
        config.load_kube_config()
        self.namespace = f"python-{name}-{os.getpid()}"
        self.steps = []
        self.failed = 0

    def step(self, function):
        self.steps.append(function)
        return function

    def run(self, together=False, finally_=lambda: None):
        """Runs all, those that work `together` up to the first failure, then `finally_`.

        The process ends with 1 when one has failed.
        """
        core = client.CoreV1Api()
        core.create_namespace({"metadata": {"name": self.namespace}})
        only = sys.argv[1:]
        for step in self.steps:
            if only and step.__name__ not in only:
                continue
            try:
                step()
                print(f"ok   {step.__name__}", flush=True)
            except Exception:
                self.failed += 1
                print(f"FAIL {step.__name__}\n{traceback.format_exc()}", flush=True)
                if together:
                    break
        finally_()
        core.delete_namespace(self.namespace)
        # Threads of a client may still be waiting.
        os._exit(1 if self.failed else 0)
