"""An agency that shares no line with Concord: Python, gRPC's C core, stubs from the protocol files, a profile folder.

    agency.py EXECUTABLE PROTO

Starts `EXECUTABLE demo`, acts as the agencies of Kazakhstan, Turkey and Korea, tells for each promise whether it was kept,
and stops the demo. Exits with 0 only if all were. `./test interop` runs it.
"""

import hashlib
import itertools
import sys
import tempfile
import uuid
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from checks import digest, equal, explained, holds, keep_all, promise, refused
from demo import Demo, Profile, Protocol

# About ten times what anything takes on a slow machine, so that only a fault uses it up.
CALL_TIMEOUT_SECONDS = 60
BODY_SIZE_MAX_BYTES = 4 * 1024 * 1024

AGREEMENT = "KAZ/disaster-warnings"
MEASURE = "environmental.3"
RECIPIENTS = ["IRN", "KOR", "TUR"]
TITLE = "Предупреждение о паводке на реке Сырдарья, ноябрь 2026 года"
CAVEATS = ["Только для служебного пользования"]
BODY = bytes(range(256)) + "Уровень воды: 4,2 м\n".encode()
REQUEST_ID = "interop-1"


class Story:
    """Three agencies, and what they learn on the way."""

    def __init__(self, demo: Demo, protocol: Protocol):
        self.demo = demo
        self.protocol = protocol
        self.sender = Agency(demo.agency("KAZ"), protocol)
        self.follower = Agency(demo.agency("TUR"), protocol)
        self.recipient = Agency(demo.agency("KOR"), protocol)

    def submit_request(self, **changes):
        """The exchange of this story, or one that differs from it."""
        lane = self.protocol.exchange.LANE_ROUTINE
        fields = dict(request_id=REQUEST_ID, agreement_id=AGREEMENT, measure=MEASURE, lane=lane, title=TITLE)
        fields |= dict(media_type="text/plain", language="ru", caveats=CAVEATS, body=BODY)
        return self.protocol.agency.SubmitRequest(**fields | changes)


class Agency:
    """One agency with its connection."""

    def __init__(self, profile: Profile, protocol: Protocol):
        self.profile = profile
        self.messages = protocol.agency
        self.channel = profile.channel()
        self.calls = protocol.agency_calls.AgencyServiceStub(self.channel)

    def submit(self, request):
        return self.calls.Submit(request, timeout=CALL_TIMEOUT_SECONDS)

    def track_until_delivered(self, exchange_id: str) -> list:
        """Everything that the sender is told, up to the end of the stream."""
        until = self.messages.TRACK_UNTIL_DELIVERED
        request = self.messages.TrackRequest(exchange_id=exchange_id, until=until)
        return list(self.calls.Track(request, timeout=CALL_TIMEOUT_SECONDS))

    def receive(self, **wishes) -> list:
        """Everything that waits."""
        return list(self.calls.Receive(self.messages.ReceiveRequest(**wishes), timeout=CALL_TIMEOUT_SECONDS))

    def follow(self):
        """A stream that stays open."""
        return self.calls.Receive(self.messages.ReceiveRequest(follow=True), timeout=CALL_TIMEOUT_SECONDS)

    def acknowledge(self, delivery):
        return self.calls.Acknowledge(
            self.messages.AcknowledgeRequest(cursor=delivery.cursor), timeout=CALL_TIMEOUT_SECONDS
        )


# The connection.


@promise("TLS 1.3 comes about, and the server is the one that the profile names, under the profile's anchor")
def names_itself(story):
    for agency in (story.sender, story.follower, story.recipient):
        equal(agency.profile.handshake(), ("TLSv1.3", [agency.profile.server]))


@promise("the standard health check says SERVING")
def is_healthy(story):
    stub = health_pb2_grpc.HealthStub(story.sender.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_TIMEOUT_SECONDS)
    equal(answer.status, health_pb2.HealthCheckResponse.SERVING)


@promise("standard reflection lists a node's services, and describes the methods of agencies as the protocol files do")
def reflects(story):
    # The same messages as v1alpha, the only version for which Python has stubs.
    call = story.sender.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    service = "concord.agency.v1.AgencyService"
    asked = [dict(list_services=""), dict(file_containing_symbol=service)]
    requests = [reflection_pb2.ServerReflectionRequest(**one) for one in asked]
    listed, described = call(iter(requests), timeout=CALL_TIMEOUT_SECONDS)

    services = {one.name for one in listed.list_services_response.service}
    holds({service, "grpc.health.v1.Health"} <= services, f"agencies and health are among {services}")
    holds("concord.exchange.v1.ExchangeService" not in services, "the hub's service is not among a node's")
    files = map(descriptor_pb2.FileDescriptorProto.FromString, described.file_descriptor_response.file_descriptor_proto)
    own = descriptor_pb2.FileDescriptorProto()
    story.protocol.agency.DESCRIPTOR.CopyToProto(own)
    (file,) = [file for file in files if file.name == own.name]
    # What a compiler may write or leave out, since it follows from the name.
    for message in file.message_type:
        for field in message.field:
            field.ClearField("json_name")
    equal((list(file.service), list(file.message_type)), (list(own.service), list(own.message_type)))


@promise("a call without a client certificate fails")
def needs_a_certificate(story):
    fails_to_connect(story, None)


@promise("a call with the certificate of another participant's agency fails")
def needs_its_own_certificate(story):
    fails_to_connect(story, story.recipient.profile)


def fails_to_connect(story, caller):
    with story.sender.profile.channel_as(caller) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        error = refused(lambda: stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_TIMEOUT_SECONDS))
        equal(error.code(), grpc.StatusCode.UNAVAILABLE)


@promise("a method for officers is denied to an agency: PERMISSION_DENIED, CALLER_NOT_ALLOWED")
def keeps_officers_methods(story):
    stub = story.protocol.agreement_calls.StatementServiceStub(story.sender.channel)
    request = story.protocol.agreement_service.PrepareRequest()
    error = refused(lambda: stub.Prepare(request, timeout=CALL_TIMEOUT_SECONDS))
    explained(error, grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED")


@promise("the agreement's digest and the fingerprint of the own anchor in it are what anyone can compute")
def agreement_is_checkable(story):
    stub = story.protocol.agreement_calls.AgreementServiceStub(story.sender.channel)
    request = story.protocol.agreement_service.GetAgreementRequest(id=AGREEMENT)
    agreement = stub.GetAgreement(request, timeout=CALL_TIMEOUT_SECONDS).agreement
    equal(agreement.reference.digest, digest(b"concord agreement v1", agreement.text))
    text = story.protocol.agreement.AgreementText.FromString(agreement.text)
    equal(text.SerializeToString(deterministic=True), agreement.text)
    anchors = {party.participant: party.anchor_fingerprint for party in text.parties}
    equal(sorted(anchors), sorted([*RECIPIENTS, "KAZ"]))
    equal(anchors["KAZ"], hashlib.sha256(story.sender.profile.anchor_der()).digest())
    story.reference = agreement.reference


# One exchange, from agency to agency.


@promise("nothing waits for an agency that acknowledged everything")
def nothing_waits(story):
    for agency in (story.follower, story.recipient):
        # The demo may have ended its own agencies between their last receipt and its acknowledgement.
        for delivery in agency.receive():
            agency.acknowledge(delivery)
        equal(agency.receive(), [])


@promise("Submit of a body with a Russian title is answered with exchange id and digest of the body")
def submits(story):
    # Open before anything is sent: it is given what comes while it waits.
    story.following = story.follower.follow()
    story.submitted = story.sender.submit(story.submit_request())
    equal(story.submitted.request_id, REQUEST_ID)
    equal(story.submitted.body_digest, hashlib.sha256(BODY).digest())
    equal((story.submitted.agreement_id, story.submitted.measure), (AGREEMENT, MEASURE))
    equal(len(story.submitted.exchange_id), 32)


@promise("Track tells until every recipient on the agreement has it, and then ends")
def tracks(story):
    messages = story.protocol.agency
    told = story.sender.track_until_delivered(story.submitted.exchange_id.hex())
    equal({one.exchange_id for one in told}, {story.submitted.exchange_id})
    # The node may tell states faster than anyone reads them, so that some are never seen; the order holds nevertheless.
    recorded = [one.HasField("recorded_at") for one in told]
    equal(recorded, sorted(recorded))
    last = told[-1]
    holds(last.queued_at.ToNanoseconds() > 0 and last.recorded_at.ToNanoseconds() > 0, "there are times of both receipts")
    equal(sorted(one.participant for one in last.recipients), RECIPIENTS)
    settled = (messages.TRACK_STATE_DELIVERED, messages.TRACK_STATE_TAKEN)
    holds(all(one.state in settled for one in last.recipients), f"each recipient has it: {last.recipients}")


@promise("a following Receive, open before, is given it, and may be cancelled")
def follows(story):
    delivery = next(story.following)
    equal((delivery.exchange_id, delivery.body), (story.submitted.exchange_id, BODY))
    story.following.cancel()
    error = refused(lambda: next(story.following))
    equal(error.code(), grpc.StatusCode.CANCELLED)


@promise("what was given and not acknowledged is given again")
def gives_again(story):
    for _ in range(2):
        equal([one.exchange_id for one in story.follower.receive()], [story.submitted.exchange_id])


@promise("Receive gives the recipient's agency exactly this exchange: body and digest byte for byte, title and caveats")
def receives(story):
    (story.delivery,) = story.recipient.receive()
    equal(story.delivery.exchange_id, story.submitted.exchange_id)
    equal(story.delivery.body, BODY)
    equal(story.delivery.body_digest, hashlib.sha256(story.delivery.body).digest())
    equal(story.delivery.description.title, TITLE)
    # The agreement's term about onward release stands before the agency's own.
    onward, *own = story.delivery.description.caveats
    holds(onward.startswith("Onward release: "), f"the first caveat is {onward}")
    equal(own, CAVEATS)
    holds(story.delivery.recorded_at.ToNanoseconds() > 0, "it tells when the hub recorded it")
    holds(story.delivery.delivered_at.ToNanoseconds() > 0, "it tells when it was delivered")


@promise("without bodies Receive gives the same, less the body")
def receives_without_bodies(story):
    (delivery,) = story.recipient.receive(without_bodies=True)
    equal(delivery.body, b"")
    same = ("exchange_id", "header", "description", "body_digest", "recorded_at", "delivered_at", "cursor")
    equal([getattr(delivery, field) for field in same], [getattr(story.delivery, field) for field in same])


@promise("the exchange id is the digest of the header's bytes")
def exchange_id_is_the_headers(story):
    equal(story.delivery.exchange_id, digest(b"concord header v1", story.delivery.header))


@promise("the header, parsed and serialised again by another protobuf, is the same bytes")
def header_is_canonical(story):
    header = story.protocol.exchange.Header.FromString(story.delivery.header)
    equal(header.SerializeToString(deterministic=True), story.delivery.header)
    story.header = header


@promise("the header says what was submitted, under the version of the agreement that the agency can read")
def header_says_what_was_submitted(story):
    header = story.header
    equal((header.origin, header.measure, header.language), ("KAZ", MEASURE, "ru"))
    equal(header.agreement, story.reference)
    equal(header.lane, story.protocol.exchange.LANE_ROUTINE)
    equal([(part.media_type, part.size_bytes) for part in header.parts], [("text/plain", len(BODY))])
    equal(header.HasField("narrowing"), False)
    equal(uuid.UUID(bytes=header.uuid).version, 7)


@promise("once acknowledged, also twice, it is given no more")
def acknowledges(story):
    for _ in range(2):
        story.recipient.acknowledge(story.delivery)
        equal(story.recipient.receive(), [])


@promise("a body of the largest size, for one recipient only, goes through whole, and nobody else is told")
def narrows(story):
    body = bytes(itertools.islice(itertools.cycle(range(251)), BODY_SIZE_MAX_BYTES))
    narrowing = story.protocol.exchange.Narrowing(participants=["KOR"])
    submitted = story.sender.submit(story.submit_request(request_id="interop-2", to=narrowing, body=body))
    last = story.sender.track_until_delivered(submitted.exchange_id.hex())[-1]
    equal([one.participant for one in last.recipients], ["KOR"])
    (delivery,) = story.recipient.receive()
    equal(delivery.exchange_id, digest(b"concord header v1", delivery.header))
    header = story.protocol.exchange.Header.FromString(delivery.header)
    equal(header.SerializeToString(deterministic=True), delivery.header)
    equal(list(header.narrowing.participants), ["KOR"])
    holds(delivery.body == body, "the body is the same")
    story.recipient.acknowledge(delivery)

    # Whoever has what came after it, and not it, was not sent it.
    after = story.sender.submit(story.submit_request(request_id="interop-3"))
    story.sender.track_until_delivered(after.exchange_id.hex())
    received = [one.exchange_id for one in story.follower.receive()]
    equal(received, [story.submitted.exchange_id, after.exchange_id])


# Repeats and refusals.


@promise("the same request id with the same content gets the first answer")
def repeats(story):
    equal(story.sender.submit(story.submit_request()), story.submitted)


@promise("the same request id with other content is refused: ALREADY_EXISTS, REQUEST_ID_CONFLICT")
def conflicts(story):
    for changes in (dict(body=BODY + b"."), dict(title=TITLE + "."), dict(caveats=[])):
        error = refused(lambda: story.sender.submit(story.submit_request(**changes)))
        explained(error, grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_CONFLICT")


@promise("a body over its limit is refused with its reason, not by a broken connection")
def limits(story):
    too_large = bytes(BODY_SIZE_MAX_BYTES + 1)
    error = refused(lambda: story.sender.submit(story.submit_request(request_id="interop-4", body=too_large)))
    explained(error, grpc.StatusCode.INVALID_ARGUMENT, "BODY_TOO_LARGE")


@promise("an agreement that one is not on is as unknown as one that there is not")
def does_not_hint(story):
    told = []
    for agreement_id in ("KOR/cybercrime", "KOR/no-such-agreement"):
        request = story.submit_request(request_id="interop-5", agreement_id=agreement_id)
        error = refused(lambda: story.follower.submit(request))
        explained(error, grpc.StatusCode.NOT_FOUND, "AGREEMENT_UNKNOWN")
        told.append(error.details().replace(agreement_id, "ID"))
    equal(told[0], told[1])


@promise("the demo ends with 0 on SIGINT, with a connection of an agency still open")
def stops(story):
    following = story.follower.follow()
    following.initial_metadata()
    equal(story.demo.stop(), 0)
    # What waits for it is still given; then it is told that the server ends.
    error = refused(lambda: list(following))
    equal(error.code(), grpc.StatusCode.UNAVAILABLE)


def main() -> int:
    executable, sources = (Path(argument).resolve() for argument in sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="concord-interop-", ignore_cleanup_errors=True) as folder:
        stubs, forum = Path(folder) / "stubs", Path(folder) / "demo"
        stubs.mkdir()
        protocol = Protocol(sources, stubs)
        demo = Demo(executable, forum)
        try:
            demo.wait_until_ready()
            return 1 if keep_all(Story(demo, protocol)) else 0
        finally:
            demo.kill()


if __name__ == "__main__":
    sys.exit(main())
