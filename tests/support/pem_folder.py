"""A folder of PEM files as Kubernetes mounts a secret, for either side of TLS."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import trustme

from pathwatch.client import Credentials


class PemFolder:
    """cert.pem, key.pem and ca.pem: links into a version that one rename replaces."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._versions = 0
        for name in ("cert.pem", "key.pem", "ca.pem"):
            (folder / name).symlink_to(f"..data/{name}")

    def put(self, cert: bytes, key: bytes, ca: bytes) -> None:
        """Replace all three."""
        self._versions += 1
        version = self.folder / f"v{self._versions}"
        version.mkdir()
        for name, content in (("cert.pem", cert), ("key.pem", key), ("ca.pem", ca)):
            (version / name).write_bytes(content)
            (version / name).chmod(0o600)
        (self.folder / "..data_tmp").symlink_to(version.name)
        os.replace(self.folder / "..data_tmp", self.folder / "..data")

    def issue(
        self, signed_by: trustme.CA, trusts: trustme.CA, names: Sequence[str] = ("localhost", "127.0.0.1")
    ) -> None:
        """A new certificate for these names, and the authority of the others."""
        cert = signed_by.issue_cert(*names)
        chain = b"".join(blob.bytes() for blob in cert.cert_chain_pems)
        self.put(chain, cert.private_key_pem.bytes(), trusts.cert_pem.bytes())

    def credentials(self) -> Credentials:
        """Of a client that has the folder."""
        path = self.folder
        return Credentials(root_ca=path / "ca.pem", cert=path / "cert.pem", key=path / "key.pem")
