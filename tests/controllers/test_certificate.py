"""Certificates that come, go and are none."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from hack.cluster.certificates import Authority, KeyPair

from stokehold.controllers.certificate import Certificate, expiry_of
from stokehold.observability import metrics


def shown(context: ssl.SSLContext) -> str | None:
    """The certificate that a client is shown; None when there is none to show."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = ssl.create_default_context()
    asking.check_hostname, asking.verify_mode = False, ssl.CERT_NONE
    client = asking.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (client, server, client):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLError:
        return None
    found = client.getpeercert(binary_form=True)
    assert found
    return ssl.DER_cert_to_PEM_cert(found)


def certificates(folder: Path, *names: str) -> list[KeyPair]:
    authority = Authority.create(folder, "ca")
    return [authority.server(folder, name) for name in names]


def test_what_is_no_certificate_is_told_and_the_one_before_it_is_served_until_a_good_one_comes(tmp_path: Path):
    old, new, served = certificates(tmp_path, "old", "new", "served")
    bad: list[tuple[bytes | None, bytes | None]] = [
        (b"garbage", old.key.read_bytes()),
        (new.certificate.read_bytes(), old.key.read_bytes()),  # the key of another
        (None, None),
        (b"", b""),
    ]

    def put(certificate: bytes | None, key: bytes | None) -> None:
        for path, content in ((served.certificate, certificate), (served.key, key)):
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)

    async def steps() -> None:
        followed = Certificate(str(served.certificate), str(served.key))
        put(*bad[0])
        followed.look()
        assert not followed.served.is_set()
        assert shown(followed.context) is None
        put(old.certificate.read_bytes(), old.key.read_bytes())
        followed.look()
        assert followed.served.is_set()
        for content in bad:
            put(*content)
            followed.look()
            assert shown(followed.context) == first_of(old)
            assert metrics.WEBHOOK_CERTIFICATE_REFUSED._value.get() == 1
        put(new.certificate.read_bytes(), new.key.read_bytes())
        followed.look()
        assert shown(followed.context) == first_of(new)
        assert metrics.WEBHOOK_CERTIFICATE_REFUSED._value.get() == 0

    asyncio.run(steps())


def first_of(pair: KeyPair) -> str:
    return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(pair.certificate.read_text()))


def test_expiry_is_read_from_a_certificate_and_from_nothing_else(tmp_path: Path):
    (pair,) = certificates(tmp_path, "one")
    text = pair.certificate.read_text()

    valid_until = x509.load_pem_x509_certificate(text.encode()).not_valid_after_utc
    assert expiry_of(f"bag attributes\n{text}{text}".encode()) == valid_until
    for wrong in ("", "garbage", pair.key.read_text(), text[:200], f"{ssl.PEM_HEADER}\nMA==\n{ssl.PEM_FOOTER}"):
        with pytest.raises(ValueError):  # noqa: PT011 - whatever the words
            expiry_of(wrong.encode())
