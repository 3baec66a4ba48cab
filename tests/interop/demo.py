"""What the agency needs before its first call: the demo's processes, stubs made from the protocol files, profile folders.

Knows nothing of what is promised, and nothing of Concord's own code: a profile folder and the protocol files are all.
"""

import importlib
import json
import signal
import socket
import ssl
import subprocess
import sys
import tomllib
from pathlib import Path

import grpc
import grpc_tools.protoc

# The demo gives each server 10 s to end; beyond this it hangs.
STOP_TIMEOUT_SECONDS = 60
# A consignment of the largest size and what goes around it. gRPC's own limit for what is received is 4 MiB, less than a body
# of the largest size with its header: a larger message ends its call with RESOURCE_EXHAUSTED.
MESSAGE_SIZE_MAX_BYTES = 5 * 1024 * 1024 + 64 * 1024


class Demo:
    """`concord demo` as a process: its story told, its hub and nodes up."""

    def __init__(self, executable: Path, folder: Path):
        self.folder = folder
        command = [executable, "demo", "--json", "--dir", folder]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def wait_until_ready(self):
        """Reads its events up to the outcome. It ends by itself where a step takes too long, and the pipe with it."""
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] == "outcome":
                if not event["held"]:
                    raise RuntimeError(f"the demo's story did not hold: {event['failed']}")
                return
        raise RuntimeError(f"the demo ended with {self.process.wait()} before it was ready")

    def stop(self) -> int:
        """As Ctrl-C does, but for this process alone; gives its exit code."""
        self.process.send_signal(signal.SIGINT)
        # Reading on, so that its last words find room in the pipe.
        self.process.communicate(timeout=STOP_TIMEOUT_SECONDS)
        return self.process.returncode

    def kill(self):
        """For a way out that was not meant; its hub and nodes end with it. Harmless after `stop`."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def agency(self, participant: str) -> "Profile":
        """The profile of the one agency of a participant."""
        (folder,) = (self.folder / f"node-{participant.lower()}" / "agencies").iterdir()
        return Profile(folder)


class Profile:
    """A profile folder: who one is, and the one server that one talks to."""

    def __init__(self, folder: Path):
        profile = tomllib.loads((folder / "profile.toml").read_text(encoding="utf-8"))
        addresses = json.loads((folder / profile["addresses_file"]).read_text(encoding="utf-8"))
        self.address = addresses["listen"]
        self.server = profile["server"]
        self.anchor = (folder / "server-anchor.pem").read_bytes()
        self.certificate_path = folder / "certificate.pem"
        self.key_path = folder / "key.pem"

    def channel(self) -> grpc.Channel:
        """Mutual TLS with this profile's certificate."""
        return self.channel_as(self)

    def channel_as(self, caller: "Profile | None") -> grpc.Channel:
        """To this profile's server with the certificate of another, or with none."""
        key = caller and caller.key_path.read_bytes()
        certificate = caller and caller.certificate_path.read_bytes()
        credentials = grpc.ssl_channel_credentials(self.anchor, key, certificate)
        options = [("grpc.max_receive_message_length", MESSAGE_SIZE_MAX_BYTES)]
        return grpc.secure_channel(self.address, credentials, options)

    def handshake(self) -> tuple[str, list[str]]:
        """The version of TLS that comes about, and the URI names in the certificate that the server shows."""
        context = ssl.create_default_context(cadata=self.anchor.decode("ascii"))
        context.load_cert_chain(self.certificate_path, self.key_path)
        host, port = self.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=STOP_TIMEOUT_SECONDS) as plain:
            with context.wrap_socket(plain, server_hostname=host) as secured:
                names = secured.getpeercert()["subjectAltName"]
                return secured.version(), [name for kind, name in names if kind == "URI"]

    def anchor_der(self) -> bytes:
        """The server's trust anchor, as fingerprints cover it."""
        return ssl.PEM_cert_to_DER_cert(self.anchor.decode("ascii"))


class Protocol:
    """The modules that grpc_tools makes from the protocol files, in a folder that is thrown away."""

    def __init__(self, sources: Path, folder: Path):
        files = sorted(str(file.relative_to(sources)) for file in sources.rglob("*.proto"))
        google = Path(grpc_tools.__file__).parent / "_proto"
        paths = [f"--proto_path={sources}", f"--proto_path={google}"]
        outputs = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
        if grpc_tools.protoc.main(["protoc", *paths, *outputs, *files]) != 0:
            raise RuntimeError(f"no stubs can be made from {sources}")
        sys.path.insert(0, str(folder))
        self.agency = importlib.import_module("concord.agency.v1.agency_service_pb2")
        self.agency_calls = importlib.import_module("concord.agency.v1.agency_service_pb2_grpc")
        self.agreement = importlib.import_module("concord.agreement.v1.agreement_pb2")
        self.agreement_service = importlib.import_module("concord.agreement.v1.agreement_service_pb2")
        self.agreement_calls = importlib.import_module("concord.agreement.v1.agreement_service_pb2_grpc")
        self.exchange = importlib.import_module("concord.exchange.v1.header_pb2")
