"""How a promise is checked, and how its outcome is told. Knows nothing of exchanges."""

import hashlib
import traceback

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

PROMISES = []


def promise(text):
    """Adds a check to those that are run, in the order in which they stand here."""

    def add(check):
        PROMISES.append((text, check))
        return check

    return add


def keep_all(story) -> int:
    """Runs every check, also after one that failed; gives how many failed."""
    failed = 0
    for text, check in PROMISES:
        try:
            check(story)
            print(f"kept    {text}", flush=True)
        except Exception:
            failed += 1
            print(f"BROKEN  {text}\n{traceback.format_exc()}", flush=True)
    print(f"{len(PROMISES) - failed} passed, {failed} failed")
    return failed


def equal(actual, expected):
    holds(actual == expected, f"expected {shown(expected)}, got {shown(actual)}")


def holds(condition: bool, what: str):
    # Not `assert`, which python -O leaves out.
    if not condition:
        raise AssertionError(what)


def refused(call) -> grpc.RpcError:
    try:
        answer = call()
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"expected a refusal, got {shown(answer)}")


def explained(error: grpc.RpcError, code: grpc.StatusCode, reason: str):
    """The code, and the stable reason in the details that come with it."""
    equal(error.code(), code)
    status = rpc_status.from_call(error)
    holds(status is not None, f"the refusal has details: {error}")
    # Checks by itself that code and message in the details are those of the call.
    infos = [detail for detail in status.details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    equal(len(infos), 1)
    info = error_details_pb2.ErrorInfo()
    infos[0].Unpack(info)
    equal((info.domain, info.reason), ("concord", reason))


def digest(domain: bytes, content: bytes) -> bytes:
    return hashlib.sha256(domain + b"\0" + content).digest()


def shown(value) -> str:
    text = repr(value)
    return text if len(text) <= 400 else text[:400] + " …"
