# SPDX-License-Identifier: Apache-2.0
"""Signs bytes with an Ed25519 key of the user's, in a DSSE envelope as sigstore and in-toto write it.

DSSE 1.0 (github.com/secure-systems-lab/dsse) signs type and payload together, so that neither can be exchanged.
"""

import base64
import binascii
import hashlib
import json
from typing import Any, Protocol

from tuneyard.findings import Finding, InputError

PAYLOAD_TYPE = "application/vnd.in-toto+json"


class VerifyingKey(Protocol):
    """The part of a public key of `cryptography` that is used; the package is an extra."""

    def verify(self, signature: bytes, data: bytes, /) -> None:
        """Raise `InvalidSignature` unless this key signed the data."""

    def public_bytes(self, encoding: Any, form: Any, /) -> bytes:
        """The key in an encoding."""


class SigningKey(Protocol):
    """The same of a private key."""

    def sign(self, data: bytes, /) -> bytes:
        """The signature, 64 bytes."""

    def public_key(self) -> VerifyingKey:
        """Its public half."""


def refused(problem: str, file: str, hint: str | None = None) -> InputError:
    """The error of an attestation, or of a key, that can't be used."""
    return InputError([Finding("attestation", problem, file=file, hint=hint)])


def private_key(pem: bytes, password: bytes | None, file: str) -> SigningKey:
    """The key in a PEM file (PKCS 8); `password` opens an encrypted one.

    Raises:
        InputError: no such key, a wrong password, or the extra is not installed. The message has nothing of the key.
    """
    serialization, ed25519, unsupported = _library(file)
    try:
        key = serialization.load_pem_private_key(pem, password)
    except (ValueError, TypeError, unsupported) as error:
        problem = "is no private key in PEM, or its password is wrong or missing"
        raise refused(problem, file, "TUNEYARD_KEY_PASSWORD for an encrypted key") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise refused("is no Ed25519 key", file, "`openssl genpkey -algorithm ed25519`")
    found: SigningKey = key
    return found


def public_key(pem: bytes, file: str) -> VerifyingKey:
    """The public key in a PEM file.

    Raises:
        InputError: no such key, or the extra is not installed.
    """
    serialization, ed25519, unsupported = _library(file)
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, unsupported) as error:
        raise refused("is no public key in PEM", file, "`openssl pkey -in KEY -pubout`") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise refused("is no Ed25519 key", file, "`openssl pkey -in KEY -pubout`")
    found: VerifyingKey = key
    return found


def _library(file: str) -> tuple[Any, Any, type[Exception]]:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  an extra
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
    except ImportError as error:
        raise refused("cryptography is not installed", file, "the extra tuneyard[sign]") from error
    return serialization, ed25519, UnsupportedAlgorithm


def key_id(key: VerifyingKey) -> str:
    """SHA-256 of the public key in DER (SubjectPublicKeyInfo), in hexadecimal: a name for people, which proves nothing."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def signed_bytes(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """The bytes that a signature of DSSE covers (its pre-authentication encoding)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, key: SigningKey) -> str:
    """The envelope as JSON; Ed25519 gives the same signature for the same payload."""
    signature = key.sign(signed_bytes(payload))
    document = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key_id(key.public_key()), "sig": base64.b64encode(signature).decode()}],
    }
    return json.dumps(document, indent=1) + "\n"


def open_sealed(envelope: bytes, key: VerifyingKey, file: str) -> bytes:
    """The payload of an envelope that this key has signed; one good signature of several is enough.

    Raises:
        InputError: it is no envelope, was changed, or another key has signed it.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    try:
        document = json.loads(envelope)
        kind = document["payloadType"]
        payload = base64.b64decode(document["payload"], validate=True)
        signatures = [
            (str(each.get("keyid")), base64.b64decode(each["sig"], validate=True))
            for each in document["signatures"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise refused("is no DSSE envelope", file, "`tuneyard sign`") from error
    if kind != PAYLOAD_TYPE:
        raise refused(f"has a payload of type {kind!r} and not {PAYLOAD_TYPE!r}", file, "`tuneyard sign`")
    for _, signature in signatures:
        try:
            key.verify(signature, signed_bytes(payload))
        except InvalidSignature:
            continue
        return payload
    mine = key_id(key)
    if any(name == mine for name, _ in signatures):
        raise refused("was changed after this key signed it", file, "git checkout, or `tuneyard sign`")
    names = ", ".join(name[:16] if name.isalnum() else ascii(name[:16]) for name, _ in signatures) or "nobody"
    raise refused(f"is signed by {names} and not by this key, {mine[:16]}", file, "the key of who signed")
