"""The webhook's certificate: a new one is served without a restart, and one that is none ends nothing.

A Secret with garbage in it must not end the operator: admission is the quicker answer, never the only guard. What was
served before is served on, and metric and log say so; without any, nobody is answered and the failure policy decides.
"""

import asyncio
import ssl
from datetime import datetime
from pathlib import Path

from cryptography.x509 import load_pem_x509_certificate

from stokehold.observability import logs, metrics

log = logs.get("admission")

LOOK_SECONDS = 10.0
"""The kubelet brings a new certificate without a signal."""


class Certificate:
    """What the files hold, as far as it could be served; `context` follows it."""

    def __init__(self, certificate: str, key: str) -> None:
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.served = asyncio.Event()
        self._certificate, self._key = Path(certificate), Path(key)
        self._seen: tuple[bytes, bytes] | None = None
        self._trouble = ""

    async def follow(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Serve what the files hold now, unless that is what was served already, or nothing that can be."""
        try:
            found = self._certificate.read_bytes(), self._key.read_bytes()
            if found == self._seen:
                return
            expires = expiry_of(found[0])
            # Into another context first: a certificate without its key would spoil the one that is served.
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self._certificate, self._key)
            self.context.load_cert_chain(self._certificate, self._key)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            self._tell(f"{error}")
            return
        self._seen = found
        metrics.WEBHOOK_CERTIFICATE_EXPIRY.set(expires.timestamp())
        self._tell("")
        self.served.set()
        log.info("serving the webhook's certificate", expires=expires.isoformat())

    def _tell(self, trouble: str) -> None:
        """Once for each trouble."""
        metrics.WEBHOOK_CERTIFICATE_REFUSED.set(bool(trouble))
        if trouble and trouble != self._trouble:
            still = "the one before it is served on" if self.served.is_set() else "admission answers nobody"
            log.warning("the webhook's certificate cannot be used", why=trouble, file=self._certificate, then=still)
        self._trouble = trouble


def expiry_of(certificate: bytes) -> datetime:
    """Until when the first certificate of a PEM file is valid; ValueError for what is none."""
    return load_pem_x509_certificate(certificate).not_valid_after_utc
