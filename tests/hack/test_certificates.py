import ssl
import stat
import threading
from pathlib import Path
from socket import create_server, socket

import pytest
from hack.cluster.certificates import Authority, KeyPair, create_service_account_keys


def strict_context(purpose: ssl.Purpose, authority: Authority, own: KeyPair) -> ssl.SSLContext:
    """What Python 3.13 makes by default, on any version."""
    context = ssl.create_default_context(purpose, cafile=str(authority.files.certificate))
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_cert_chain(own.certificate, own.key)
    return context


def answer_once(listener: socket, context: ssl.SSLContext) -> None:
    connection, _ = listener.accept()
    try:
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.sendall(b"hello")
    except ssl.SSLError:
        connection.close()


def greet(server: ssl.SSLContext, client: ssl.SSLContext) -> bytes:
    """What a client reads over a connection that both sides have checked."""
    with create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_once, args=(listener, server))
        thread.start()
        try:
            with socket() as plain:
                plain.connect(listener.getsockname())
                with client.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
                    return secured.recv(5)
        finally:
            thread.join(5)


def test_certificates_pass_the_strict_check_on_both_sides(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path, "ca")
    server = strict_context(ssl.Purpose.CLIENT_AUTH, authority, authority.server(tmp_path, "serving"))
    server.verify_mode = ssl.CERT_REQUIRED
    client = strict_context(ssl.Purpose.SERVER_AUTH, authority, authority.client(tmp_path, "user"))

    assert greet(server, client) == b"hello"


def test_certificate_of_another_authority_is_refused(tmp_path: Path) -> None:
    authority, other = Authority.create(tmp_path, "ca"), Authority.create(tmp_path, "etcd-ca")
    server = strict_context(ssl.Purpose.CLIENT_AUTH, authority, authority.server(tmp_path, "serving"))
    client = strict_context(ssl.Purpose.SERVER_AUTH, other, other.client(tmp_path, "user"))

    with pytest.raises(ssl.SSLCertVerificationError):
        greet(server, client)


def test_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path, "ca")
    create_service_account_keys(tmp_path)
    authority.client(tmp_path, "system:kube-scheduler")

    keys = list(tmp_path.glob("*.key"))

    assert len(keys) == 3
    assert all(stat.S_IMODE(key.stat().st_mode) == 0o600 for key in keys)
